"""Signing keeps to the map of sender_login: nobody gets our signature under another's name."""

from __future__ import annotations

import pytest

from elemta.testing import envelope, judge, message, policy
from elemta_milter.keyring.making import make
from elemta_milter.keyring.ring import Ring

POLICY = """
host: mx.test
checks: {{sender_login: {{map: {{file: {directory}/senders.txt}}}}}}
sign: [{{domain: example.org, keys: [{{selector: e, file: {directory}/e.pem}}]}}]
"""


@pytest.fixture
def rules(tmp_path):
    make(Ring(tmp_path, "example.org"), "ed25519", 0, selector="e")
    (tmp_path / "senders.txt").write_text("anna anna@example.org\n")
    return policy(POLICY.format(directory=tmp_path))


@pytest.mark.parametrize(
    ("sender", "author", "signed", "reason"),
    [
        ("anna@example.org", "anna@example.org", "pass", "signed by example.org/e"),
        ("anna@example.org", "boss@example.org", "none", "anna may not use boss@example.org"),
        ("boss@example.org", "anna@example.org", "none", "anna may not use boss@example.org"),
    ],
)
def test_only_what_the_login_may_use_is_signed(rules, sender, author, signed, reason):
    mail = message(envelope(sender=sender, login="anna"), [("From", author)])
    [found] = [each for each in judge(rules, mail).findings if each.check == "sign"]
    assert (found.result, found.reason) == (signed, reason)

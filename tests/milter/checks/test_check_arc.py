"""The arc check: a chain that holds, and whom of it we trust."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from elemta.facts import BytesBody, Message
from elemta.findings import Result
from elemta.testing import FakeResolver, envelope, run
from elemta_milter.checks.arc import Arc, ArcOptions
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.sealing import MESSAGE_NAME, RESULTS_NAME, SEAL_NAME, seal
from harness.signatures import BODY, HEADERS, NOW, body_hash, rsa_key

LIST, HOME = rsa_key("lists.example.com", "arc"), rsa_key("home.example", "arc")
SEEN = (
    "lists.example.com; spf=pass smtp.mailfrom=a@b.test; iprev=pass; "
    "dkim=fail header.d=b.test; dkim=pass; dkim=none; dmarc=pass"
)


def look(headers, body=BODY, **options):
    resolver = FakeResolver({key.record_name: [("TXT", key.record)] for key in (LIST, HOME)})
    message = Message(envelope(), tuple(headers), BytesBody(body))
    return run(Arc, message, resolver=resolver, clock=lambda: NOW, **options)


def sealed(headers, key, results=SEEN):
    made = seal(HeaderFields(headers), key, look(headers).detail, results=results, body_hash=body_hash(BODY), now=NOW)
    new = ((SEAL_NAME, made.seal), (MESSAGE_NAME, made.message_signature), (RESULTS_NAME, made.results))
    return (*new, *headers)


def test_no_chain():
    found = look(HEADERS)
    assert (found.result, found.fields["trusted"], found.reason) == (Result.NONE, False, "no ARC set")
    assert [(each.method, each.result, each.properties) for each in found.authres] == [("arc", "none", ())]


def test_a_chain_that_holds_tells_who_sealed_and_what_the_first_one_saw():
    found = look(sealed(sealed(HEADERS, LIST), HOME, "home.example; dmarc=fail"))
    assert found.result is Result.PASS
    assert found.fields == {
        "trusted": False,
        "sealer": "home.example",
        "sealers": ("lists.example.com", "home.example"),
        "length": 2,
        "oldest_pass": 0,
        "spf": "pass",
        "dkim": "pass",
        "dmarc": "pass",
    }
    assert found.reason == "2 sets, sealed by lists.example.com, then home.example"
    (evidence,) = found.authres
    assert evidence.reason == ""
    assert evidence.properties == (
        ("smtp.remote-ip", "192.0.2.1"),
        ("header.oldest-pass", "0"),
        ("arc.chain", "lists.example.com:home.example"),
    )


@pytest.mark.parametrize(
    ("results", "spf"),
    [
        ("spf=fail smtp.mailfrom=a@bank.example; spf=pass smtp.helo=mx.evil.example", "fail"),
        ("spf=pass smtp.helo=mx.evil.example; spf=softfail smtp.mailfrom=a@bank.example", "softfail"),
        ("spf=fail smtp.helo=mx.example; spf=pass smtp.mailfrom=a@b.example smtp.helo=mx.example", "pass"),
        ("spf=pass smtp.helo=mx.example", "pass"),  # of a bounce
        ("spf=fail; spf=pass", "pass"),
    ],
)
def test_spf_of_the_helo_name_does_not_hide_that_of_the_sender(results, spf):
    assert look(sealed(HEADERS, LIST, f"lists.example.com; {results}")).fields["spf"] == spf


def test_of_a_long_chain_the_first_sealers_are_told():
    headers = HEADERS
    for _ in range(7):
        headers = sealed(headers, LIST)
    found = look(headers)
    assert found.result is Result.PASS
    assert found.reason == "7 sets, sealed by " + ", then ".join(["lists.example.com"] * 5) + " and 2 more"
    assert look(sealed(HEADERS, LIST)).reason == "1 set, sealed by lists.example.com"


@pytest.mark.parametrize(
    ("trusted", "whole"),
    [
        ((), False),
        (("lists.example.com",), False),  # home.example is the newest, and could have invented all below
        (("home.example",), False),
        (("home.example", "Lists.Example.COM"), True),
    ],
)
def test_trust_is_for_the_whole_chain(trusted, whole):
    chain = sealed(sealed(HEADERS, LIST), HOME)
    assert look(chain, trusted_sealers=trusted).fields["trusted"] is whole


def test_a_broken_chain_is_never_trusted():
    found = look(sealed(HEADERS, LIST), b"another body\r\n", trusted_sealers=("lists.example.com",))
    assert found.result is Result.FAIL
    assert found.fields["trusted"] is False
    assert found.reason == found.authres[0].reason == "message signature 1: body hash did not verify"


def test_of_a_chain_that_cannot_be_read_no_sealer_is_told():
    found = look(((SEAL_NAME, b" i=1; cv=none"), *HEADERS))
    assert (found.result, found.fields) == (Result.FAIL, {"trusted": False})
    assert found.authres[0].properties == (("smtp.remote-ip", "192.0.2.1"),)


def test_a_mail_that_was_cut_proves_nothing():
    cut = Message(envelope(), sealed(HEADERS, LIST), BytesBody(BODY), "4,000 header fields")
    found = run(Arc, cut, resolver=FakeResolver({}), trusted_sealers=("lists.example.com",))
    assert (found.result, found.reason) == (Result.NEUTRAL, "not evaluated: more than 4,000 header fields")


def test_trouble_with_the_name_system_is_trouble():
    message = Message(envelope(), sealed(HEADERS, LIST), BytesBody(BODY))
    broken = FakeResolver({LIST.record_name: [("TXT", "SERVFAIL")]})
    found = run(Arc, message, resolver=broken, clock=lambda: NOW, trusted_sealers=("lists.example.com",))
    assert (found.result, found.trouble, found.fields["trusted"]) == (Result.TEMPERROR, True, False)


def test_a_trusted_sealer_must_be_a_domain():
    with pytest.raises(ValidationError, match="is no domain"):
        ArcOptions(trusted_sealers=("not a domain",))

"""Received-SPF: by choice, above the mail, and nothing a stranger writes gets out of its quotes."""

from __future__ import annotations

import re
from email import message_from_string
from email import policy as email_policy

import pytest

from elemta.checks.spf import Spf
from elemta.spf.received import received_spf
from elemta.testing import FakeResolver, envelope, judge, message, policy, run

ZONE = {"sender.test": [("TXT", "v=spf1 ip4:192.0.2.1 -all")], "bad.test": [("TXT", "v=spf1 nonsense")]}

# RFC 7208 section 9.1
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
QUOTED = r'"(?:[^"\\]|\\.)*"'
FIELD = re.compile(rf"(?:\w+) \([^()\\]*\) (?:[a-z-]+=(?:{ATOM}|{QUOTED})(?:; )?)+")


def field(sender="a@sender.test", address="192.0.2.1", **more):
    found = run(Spf, envelope(address, sender, **more), resolver=FakeResolver(ZONE), received_spf=True)
    ((name, value),) = found.header
    assert name == "Received-SPF"
    return value


def test_it_tells_who_sent_what_from_where():
    assert field() == (
        "pass (mx.receiver.test: 192.0.2.1 is authorized by sender.test [matched ip4:192.0.2.1])"
        ' client-ip=192.0.2.1; envelope-from="a@sender.test"; helo=client.test;'
        ' receiver=mx.receiver.test; identity=mailfrom; mechanism="ip4:192.0.2.1"'
    )


def test_it_is_not_there_unless_asked_for():
    assert run(Spf, envelope("192.0.2.1", "a@sender.test"), resolver=FakeResolver(ZONE)).header == ()


@pytest.mark.parametrize(
    ("sender", "helo"),
    [
        ('"x; result=pass"@sender.test', "client.test"),
        ('a"; receiver="evil@sender.test', 'h") x'),
        ("a\\@sender.test", "[192.0.2.1]"),
        ("", "client.test"),
        ("a\r\nX-Evil: 1@sender.test", "a b\x00c"),
        ("ä@sender.test", "x" * 2000),
        ("a@bad.test", "client.test"),
    ],
)
def test_nothing_a_stranger_writes_ends_its_value(sender, helo):
    value = field(sender, helo=helo)
    assert FIELD.fullmatch(value), value
    assert not re.search(r"[\x00-\x1f]", value)
    assert len(value) < 2000


@pytest.mark.parametrize("word", ["=?utf-8?b?YTsgYj1j?=", "?utf-8?q?a;_b=3Dc?=", "=?utf-8?q?=22;_b=3Dc)?="])
def test_nothing_ends_its_value_for_programs_that_decode_encoded_words(word):
    value = received_spf("fail", f"no {word}", [("envelope-from", f"{word}@a.test"), ("helo", word)])
    assert message_from_string(f"A: {value}\n\n", policy=email_policy.default)["A"] == value


@pytest.mark.parametrize("many", range(200, 240))
def test_no_fold_parts_a_quote_from_its_backslash(many):
    from elemta_milter.lawful import field_value  # noqa: PLC0415

    sender = '"' + "\U0001f4e7" * many + '"' * 40 + '; result=pass"@sender.test'
    value = received_spf("fail", "mx.test: no", [("envelope-from", sender), ("identity", "mailfrom")])
    assert FIELD.fullmatch(field_value("Received-SPF", value).replace("\n\t", " "))


def test_an_ipv6_address_is_quoted():
    assert 'client-ip="2001:db8::1"' in field(address="2001:db8::1")


def test_why_nobody_knows_is_told():
    assert "permerror" in field("a@bad.test")
    assert "problem=" in field("a@bad.test")


def test_the_value_is_the_same_whatever_is_missing():
    assert received_spf("none", "", [("client-ip", "192.0.2.1"), ("helo", "")]) == "none client-ip=192.0.2.1"


def test_it_stands_above_the_mail_below_authentication_results():
    from elemta_milter.planning import plan  # noqa: PLC0415

    mail = message(envelope("192.0.2.1", "a@sender.test"))
    decision = judge(
        policy("host: mx.test.example\nchecks: {spf: {received_spf: true}}"), mail, resolver=FakeResolver(ZONE)
    )
    names = [(edit.index, edit.name) for edit in plan(decision, mail, "mx.test.example")]
    assert names == [(0, "Received-SPF"), (0, "Authentication-Results")]

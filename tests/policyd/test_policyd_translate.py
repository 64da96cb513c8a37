"""Translation: attributes of every Postfix since 2.1 to facts, decisions to access(5) actions."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from elemta.decision import Decision
from elemta.facts import Client, Envelope
from elemta.verdict import Action, ActionKind, Disposition, Verdict
from elemta_policyd.translate import MAX_TEXT, action, envelope

EVERYTHING = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "helo_name": "mx.sender.test",
    "queue_id": "4ABCDEF",
    "sender": "a@sender.test",
    "recipient": "b@receiver.test",
    "recipient_count": "0",
    "client_address": "192.0.2.10",
    "client_name": "mx.sender.test",
    "reverse_client_name": "ptr.sender.test",
    "instance": "1f2.5e0.0",
    "sasl_method": "PLAIN",
    "sasl_username": "user@receiver.test",
    "sasl_sender": "",
    "size": "12345",
    "ccert_subject": "Jane+20Doe+2C+20m+C3+BCnchen",
    "ccert_issuer": "CA",
    "ccert_fingerprint": "AA",
    "encryption_protocol": "TLSv1.3",
    "encryption_cipher": "TLS_AES_256_GCM_SHA384",
    "encryption_keysize": "256",
    "etrn_domain": "",
    "stress": "yes",
    "client_port": "40123",
    "policy_context": "submission",
    "server_address": "192.0.2.1",
    "tls_sni": "mx.receiver.test",
}


def test_every_attribute():
    assert envelope(EVERYTHING) == Envelope(
        client=Client(
            address=ip_address("192.0.2.10"),
            name="mx.sender.test",
            reverse_name="ptr.sender.test",
            port=40123,
            helo="mx.sender.test",
            login="user@receiver.test",
            login_method="PLAIN",
            tls="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            cipher_bits=256,
            certificate="Jane Doe, münchen",
        ),
        sender="a@sender.test",
        recipients=("b@receiver.test",),
        recipient_count=0,
        size=12345,
        queue_id="4ABCDEF",
        instance="1f2.5e0.0",
    )


def test_no_attribute():
    assert envelope({}) == Envelope()


@pytest.mark.parametrize(
    ("name", "value", "fact", "expected"),
    [
        ("client_address", "unknown", "address", None),
        ("client_address", "", "address", None),
        ("client_address", "192.0.2.300", "address", None),
        ("client_address", "2001:db8::1", "address", ip_address("2001:db8::1")),
        ("client_address", "::ffff:192.0.2.1", "address", ip_address("192.0.2.1")),
        ("client_name", "unknown", "name", ""),
        ("reverse_client_name", "unknown", "reverse_name", ""),
        ("client_port", "unknown", "port", 0),
        ("client_port", "-1", "port", 0),
        ("client_port", "٣", "port", 0),
        ("encryption_keysize", "9" * 5000, "cipher_bits", 0),
        ("helo_name", "[192.0.2.1]", "helo", "[192.0.2.1]"),
        ("sasl_username", "jörg", "login", "jörg"),
        ("ccert_subject", "CN+3Dx", "certificate", "CN=x"),
        ("ccert_subject", "a+ZZb+", "certificate", "a+ZZb+"),
        ("ccert_subject", "j+F6rg", "certificate", "j\udcf6rg"),
    ],
)
def test_client_facts(name, value, fact, expected):
    assert getattr(envelope({name: value}).client, fact) == expected


@pytest.mark.parametrize(
    ("name", "value", "fact", "expected"),
    [
        ("sender", "", "sender", ""),
        ("sender", "j\udcf6rg@sender.test", "sender", "j\udcf6rg@sender.test"),
        ("sender", "a@b@sender.test", "sender", '"a@b"@sender.test'),
        ("sender", "a%sender.test", "sender", "a@sender.test"),  # as Postfix sends it on
        ("recipient", "", "recipients", ()),
        ("recipient", "postmaster", "recipients", ("postmaster",)),
        ("recipient_count", "3", "recipient_count", 3),
        ("size", "0", "size", 0),
        ("size", "12 34", "size", 0),
    ],
)
def test_envelope_facts(name, value, fact, expected):
    assert getattr(envelope({name: value}), fact) == expected


def decided(disposition, reply="", rule="rule-1", actions=()):
    verdict = Verdict(disposition, rule, reply, (), tuple(actions))
    return Decision("ABCDE12345", 0.0, "recipient", "inbound", Envelope(), {}, (), verdict)


def header(name, value):
    return Action(ActionKind.ADD_HEADER, name, value)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (decided(Disposition.ACCEPT), "DUNNO"),
        (decided(Disposition.ACCEPT, "250 2.1.5 fine"), "DUNNO"),
        (decided(Disposition.DEFER, "450 4.7.1 Greylisted, try again"), "450 4.7.1 Greylisted, try again"),
        (decided(Disposition.DEFER, "421 4.3.2 Go away"), "421 4.3.2 Go away"),
        (decided(Disposition.DEFER, ""), "450 4.7.1 Try again later"),
        (decided(Disposition.DEFER, "550 5.7.1 no"), "450 4.7.1 Try again later"),
        (decided(Disposition.DEFER, "PREPEND X: y"), "450 4.7.1 Try again later"),
        (decided(Disposition.REJECT, "553 5.7.1 No"), "553 5.7.1 No"),
        (decided(Disposition.REJECT, "OK"), "550 5.7.1 Refused by policy"),
        (decided(Disposition.REJECT, "450 4.7.1 later"), "550 5.7.1 Refused by policy"),
        (decided(Disposition.QUARANTINE), "HOLD held by rule rule-1, reference ABCDE12345"),
        (decided(Disposition.DISCARD), "DISCARD discarded by rule rule-1, reference ABCDE12345"),
        (decided(Disposition.REJECT, "550 " + "x" * 5000), "550 " + "x" * (MAX_TEXT - 4)),
        (decided(Disposition.ACCEPT, actions=[header("X-Spam", "YES")]), "PREPEND X-Spam: YES"),
        (decided(Disposition.ACCEPT, actions=[header("X-A", "1"), header("X-B", "2")]), "PREPEND X-A: 1"),
        (decided(Disposition.ACCEPT, actions=[header("X A", "1"), header("X-B", "2")]), "PREPEND X-B: 2"),
        (decided(Disposition.ACCEPT, actions=[header("", "1"), header("X:", "2"), header("Ü", "3")]), "DUNNO"),
        (decided(Disposition.ACCEPT, actions=[Action(ActionKind.LABEL, value="seen")]), "DUNNO"),
        (decided(Disposition.DEFER, "450 4.7.1 x", actions=[header("X-A", "1")]), "450 4.7.1 x"),
    ],
)
def test_actions(decision, expected):
    assert action(decision, may_prepend=True) == expected


def test_a_message_that_has_its_header_gets_no_other():
    assert action(decided(Disposition.ACCEPT, actions=[header("X-A", "1")]), may_prepend=False) == "DUNNO"


@pytest.mark.parametrize("disposition", list(Disposition))
@pytest.mark.parametrize("reply", ["", "OK", "RELAY", "450 a", "550 b", "PERMIT"])
def test_never_ok(disposition, reply):
    assert action(decided(disposition, reply), may_prepend=True).partition(" ")[0] not in {"OK", "RELAY", "PERMIT"}

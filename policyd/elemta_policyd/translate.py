"""Translation: which facts does a policy request state, and which access(5) action says what was decided?

Takes the attributes of a request, gives an `Envelope`; takes a `Decision`, gives one action.  Judges nothing and
keeps nothing.  What Postfix does not know ("unknown", "", odd numbers) is absent in the facts, never guessed.

Postfix SMTPD_POLICY_README ("Protocol description") for the attributes, access(5) for the actions:

    accept      DUNNO, never OK: OK would skip the restrictions that the administrator wrote after ours;
                PREPEND Name: value where a rule adds a header.  Postfix takes one action an answer, so it is the
                first header asked for, once a message; more headers are the milter's work
    quarantine  HOLD text          discard    DISCARD text
    defer       450 4.7.1 text     reject     550 5.7.1 text      (the rule's reply)
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Mapping
from itertools import repeat

from elemta.addresses import returned_to, written
from elemta.decision import Decision
from elemta.facts import Client, Envelope, parse_ip
from elemta.verdict import Disposition, on_top

DUNNO = "DUNNO"
MAX_TEXT = 480  # characters of an action: an SMTP reply line has 512 octets (RFC 5321 section 4.5.3.1.5)

_REPLY = {
    Disposition.DEFER: (re.compile(r"4\d\d "), "450 4.7.1 Try again later"),
    Disposition.REJECT: (re.compile(r"5\d\d "), "550 5.7.1 Refused by policy"),
}
_STATED = (
    "client_address", "client_name", "reverse_client_name", "client_port", "helo_name", "sasl_username",
    "sasl_method", "encryption_protocol", "encryption_cipher", "encryption_keysize", "ccert_subject",
    "sender", "recipient", "recipient_count", "size", "queue_id", "instance",
)  # fmt: skip
_ABSENT = repeat("")
_UNKNOWN = "unknown"
_XTEXT = re.compile(rb"\+([0-9A-Fa-f]{2})")  # RFC 3461 section 4


def envelope(attributes: Mapping[str, str]) -> Envelope:
    """The facts that a request states."""
    (
        address, name, reverse_name, port, helo, login, method, tls, cipher, bits, certificate,
        sender, recipient, count, size, queue_id, instance,
    ) = map(attributes.get, _STATED, _ABSENT)  # fmt: skip
    client_port, key_bits, so_far, octets = _numbers(port, bits, count, size)
    client = Client(
        parse_ip(address),
        "" if name == _UNKNOWN else name,
        "" if reverse_name == _UNKNOWN else reverse_name,
        client_port,
        helo,
        login,
        method,
        tls,
        cipher,
        key_bits,
        _from_xtext(certificate) if "+" in certificate else certificate,
    )
    to = (written(recipient),) if recipient else ()
    return Envelope(client, returned_to(written(sender)), to, so_far, octets, False, queue_id, instance)


def action(decision: Decision, *, may_prepend: bool) -> str:
    """The access(5) action for a decision; `may_prepend` is False once this message has its header."""
    verdict = decision.verdict
    match verdict.disposition:
        case Disposition.ACCEPT:
            field = on_top(verdict.actions) if may_prepend else ""
            return f"PREPEND {field}" if field else DUNNO
        case Disposition.QUARANTINE:
            return _bounded(f"HOLD held by rule {verdict.rule}, reference {decision.id}")
        case Disposition.DISCARD:
            return _bounded(f"DISCARD discarded by rule {verdict.rule}, reference {decision.id}")
        case refusal:
            form, fallback = _REPLY[refusal]
            return _bounded(verdict.reply if form.match(verdict.reply) else fallback)


def _bounded(text: str) -> str:
    return text[:MAX_TEXT]


def _numbers(port: str, bits: str, count: str, size: str) -> tuple[int, int, int, int]:
    """Counts and sizes; 0 for what is none (Postfix: "" or "unknown")."""
    together = port + bits + count + size
    if together.isdigit() and together.isascii() and len(together) < 19:  # as a rule: one look at all of them
        return int(port or 0), int(bits or 0), int(count or 0), int(size or 0)
    return _number(port), _number(bits), _number(count), _number(size)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _from_xtext(text: str) -> str:
    """Certificate names come in xtext (since Postfix 2.2.11), in UTF-8 below it."""
    octets = text.encode("utf-8", "surrogateescape")
    return _XTEXT.sub(lambda found: unhexlify(found[1]), octets).decode("utf-8", "surrogateescape")

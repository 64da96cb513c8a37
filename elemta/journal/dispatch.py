"""Dispatch: what of a decision goes to the process that writes the journal, and in which form?

Takes a decision, gives it in a few microseconds as octets (msgpack) that hold all the journal keeps and nothing else:
the message's body must not stay in memory until it is written.  Rows are made of them there (`entry.row`), where no
mail waits.  What is long is cut here, so that what waits is bounded too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from elemta.decision import Decision
from elemta.facts import Message
from elemta.findings import Finding
from elemta.printable import storable

LONGEST_FIELD = 300  # characters kept of Message-ID and From
WHOLE = 8000  # octets of what was seen that are kept as they are; of more:
LONGEST_VALUE = 1000  # characters kept of a fact or a reason
MOST_VALUES = 100  # kept of a fact that has several, of rules, of actions
LARGEST = (1 << 63) - 1  # SQLite's integers

_Seen = tuple[list[tuple[Any, ...]], Mapping[str, Any], list[tuple[Any, ...]]]  # findings, values, actions


def dispatch(decision: Decision) -> bytes:
    """What `opened` reads: the decision for the journal.

    Raises:
        ValueError, TypeError, OverflowError: a finding holds what cannot be written down.
    """
    verdict, facts = decision.verdict, decision.facts
    if isinstance(facts, Message):
        envelope, message_id, header_from = facts.envelope, *_fields(facts)
    else:
        envelope, message_id, header_from = facts, "", ""
    client, actions = envelope.client, verdict.actions
    seen: _Seen = (
        [_told(finding) for finding in decision.findings],
        decision.values,
        [(each.kind, each.name, each.value, each.seconds, each.rule, each.nth) for each in actions] if actions else [],
    )
    told = (
        decision.id, decision.at, decision.stage, envelope.queue_id, envelope.instance, decision.klass,
        verdict.disposition, verdict.rule, verdict.reply, client.address_text, client.name, client.helo, client.login,
        envelope.sender, envelope.recipients, min(facts.size, LARGEST), message_id, header_from, decision.seconds,
        decision.policy, decision.trace, decision.shadow, decision.timings, verdict.findings,
    )  # fmt: skip
    try:
        return _packed(told, seen)
    except UnicodeEncodeError:  # a surrogate, from an octet that was no UTF-8
        return _packed(_storable(told), _storable(seen))


def opened(octets: bytes) -> tuple[list[Any], list[Any]]:
    """The columns, and [findings, values, actions], that `dispatch` packed."""
    told, seen = _decode(octets)
    return told, _decode(seen)


def reference(octets: bytes) -> str:
    """The id of the decision that `dispatch` packed, also of one whose findings cannot be read."""
    return str(_decode(octets)[0][0])


def _packed(told: object, seen: object) -> bytes:
    octets = _encode(seen)
    if len(octets) > WHOLE:
        octets = _encode(_cut(_decode(octets)))
    return _encode((told, octets))


def _told(finding: Finding) -> tuple[Any, ...]:
    return finding.check, finding.result, finding.reason, finding.fields, finding.trouble, finding.authres


def _hook(value: object) -> object:
    """What msgpack has for a value that it does not know."""
    return dict(value) if isinstance(value, Mapping) else str(value)  # an IP address


_encode = msgspec.msgpack.Encoder(enc_hook=_hook).encode
_decode = msgspec.msgpack.Decoder().decode


def _cut(told: Any) -> Any:  # noqa: ANN401 - whatever msgpack has
    """The same, with the beginning only of long texts and long lists."""
    if isinstance(told, str):
        return told[:LONGEST_VALUE]
    if isinstance(told, dict):
        return {name: _cut(value) for name, value in told.items()}
    return [_cut(each) for each in told[:MOST_VALUES]] if isinstance(told, (list, tuple)) else told


def _storable(told: object) -> Any:  # noqa: ANN401 - whatever msgpack has
    """The same without surrogates."""
    plain = msgspec.to_builtins(told, builtin_types=(bytes,), enc_hook=_hook)
    if isinstance(plain, str):
        return storable(plain)
    if isinstance(plain, dict):
        return {_storable(name): _storable(value) for name, value in plain.items()}
    return [_storable(each) for each in plain] if isinstance(plain, (list, tuple)) else plain


def _fields(message: Message) -> tuple[str, str]:
    """The first Message-ID and the first From."""
    ids, authors = message.header("message-id"), message.header("from")
    return _field(ids[0]) if ids else "", _field(authors[0]) if authors else ""


def _field(value: bytes) -> str:
    """A header field's value on one line, unfolded (RFC 5322 section 2.2.3)."""
    text = value[: 4 * LONGEST_FIELD].decode("utf-8", "backslashreplace").replace("\r", "").replace("\n", "")
    return text.strip()[:LONGEST_FIELD]

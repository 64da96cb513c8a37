"""Telling: how does a held mail look on a terminal, and in JSON?

What strangers wrote (addresses, subject) is shown with its control characters escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from elemta.addresses.encoded_words import decode_words
from elemta.printable import clean
from elemta.quarantine.holding import Held

ELSE = "held by somebody else"
LONGEST_SUBJECT = 1000  # characters
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def told(held: Held, subject: str, now: float, *, width: int, zone: tzinfo | None = None) -> str:
    """A few lines about `held`: what and since when, why, from whom to whom."""
    return "".join(f"{_cut(clean(line), width)}\n" for line in _lines(held, subject, now, zone))


def data(held: Held, subject: str, now: float) -> Mapping[str, Any]:
    """The same for JSON."""
    mail, entry = held.mail, held.decision
    return {
        "queue_id": mail.queue_id,
        "held_by": "elemta" if entry else "other",
        "id": entry.id if entry else None,
        "class": entry.klass if entry else None,
        "rule": entry.rule if entry else None,
        "reason": held.reason,
        "arrived": _iso(mail.arrived),
        "age": round(now - mail.arrived),
        "expires": None if held.expires is None else _iso(held.expires),
        "size": mail.size,
        "sender": mail.sender,
        "recipients": mail.recipients,
        "subject": subject,
    }


def subject_of(header: bytes) -> str:
    """The first Subject of a header as a mail program shows it, "" for none."""
    value: list[bytes] = []
    for line in header.split(b"\n"):
        if value and line[:1] not in {b" ", b"\t"}:
            break
        if value:
            value.append(line)
        elif line[:8].lower() == b"subject:":
            value.append(line[8:])
    text = b"".join(value).decode("utf-8", "backslashreplace").strip()  # unfolded: RFC 5322 section 2.2.3
    return decode_words(text[:LONGEST_SUBJECT])


def _lines(held: Held, subject: str, now: float, zone: tzinfo | None) -> Iterator[str]:
    mail, entry = held.mail, held.decision
    age = f"{_when(mail.arrived, zone)} ({_span(now - mail.arrived)} ago)"
    start = f"{mail.queue_id}  {age}  {mail.size:,} octets"
    if entry is None or held.expires is None:
        yield f"{start}  {ELSE}"
    else:
        over = held.expires - now
        yield f"{start}  class {entry.klass}  " + (f"{_span(over)} left" if over > 0 else "its time is over")
        yield f"    rule {entry.rule}, reference {entry.id}" + (f": {held.reason}" if held.reason else "")
    more = f" and {len(mail.recipients) - 1} more" if len(mail.recipients) > 1 else ""
    yield f"    from {mail.sender or '<>'} to {mail.recipients[0] if mail.recipients else 'nobody'}{more}"
    if subject:
        yield f"    {subject}"


def _span(seconds: float) -> str:
    """An age in its largest unit."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds / size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _when(at: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(at, zone).astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _cut(words: str, size: int) -> str:
    return words if len(words) <= size else words[: size - 2] + ".."

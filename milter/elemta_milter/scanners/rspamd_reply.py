"""Rspamd's reply: what did it say of a mail, and which changes does it ask for?

A pure function from an HTTP status and octets to a `Reply`.  Strict where the judgement hangs on it: whatever is no
complete JSON object with an action and a score is no answer (`ServerError`), never "no action".  Lenient where it does
not: a change that cannot be read is left out and told in `problems`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from elemta.servers import Declined, ServerError

OF_THIS_MAIL = (400, 413, 414, 422, 431)
"""HTTP statuses that find fault with this question; others, such as 403, any mail would get."""
SHOWN = 200
"""Characters of an error reply that are told."""
CHANGES = 200
"""Changes taken from one reply."""
SYMBOLS = 1000
"""Symbols taken from one reply."""
SPAM_HEADER = "X-Spam"
"""What Rspamd calls the field for spam where the reply gives a value alone."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One rule of Rspamd that matched."""

    name: str
    score: float
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What Rspamd's modules ask for (`milter` in its reply), as they wrote it: names and values may be unlawful.

    Attributes:
        remove_headers: (name, which): 0 all, from 1 on from the top, -1 the last; numbers as in the mail as it came.
        add_headers: (name, value).
        spam_headers: (name, value) that replace all fields of that name, if the action is "add header".
        add_recipients, remove_recipients: addresses.
        sender: the new envelope sender; None: no change.
        instead: "discard" or "quarantine" in place of the action "reject"; "" for none.
        no_action: nothing shall come of the action.
    """

    remove_headers: tuple[tuple[str, int], ...] = ()
    add_headers: tuple[tuple[str, str], ...] = ()
    spam_headers: tuple[tuple[str, str], ...] = ()
    add_recipients: tuple[str, ...] = ()
    remove_recipients: tuple[str, ...] = ()
    sender: str | None = None
    instead: str = ""
    no_action: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What Rspamd said.

    Attributes:
        action: "no action", "greylist", "add header", "rewrite subject", "soft reject", "reject" or one of its
            administrator's own.
        score: the sum of the symbols' scores; None when it gave none.
        required: the score for "reject"; None when there is none.
        skipped: it did not look, or stopped looking.
        symbols: the heaviest first, whether good or bad.
        groups: (name, score) of groups of symbols.
        message: what it would tell the client; "" for nothing.
        subject: the new Subject of the action "rewrite subject"; "" for none.
        signed: it made DKIM signatures.
        changes: see `Changes`.
        problems: what could not be read.
    """

    action: str
    score: float | None
    required: float | None = None
    skipped: bool = False
    symbols: tuple[Symbol, ...] = ()
    groups: tuple[tuple[str, float], ...] = ()
    message: str = ""
    subject: str = ""
    signed: bool = False
    changes: Changes = Changes()
    problems: tuple[str, ...] = ()


class _Scored(msgspec.Struct):
    score: float | None = 0.0
    options: list[str] | None = None


class _Answer(msgspec.Struct):
    """The reply as it must be; Lua writes an empty table as a list."""

    action: str
    score: float | None
    required_score: float | None = None
    is_skipped: bool = False
    symbols: dict[str, _Scored] | list[None] = msgspec.field(default_factory=dict)
    groups: dict[str, _Scored] | list[None] = msgspec.field(default_factory=dict)
    messages: Any = None
    subject: Any = None
    milter: Any = None
    signature: Any = msgspec.field(default=None, name="dkim-signature")


_decoder = msgspec.json.Decoder(_Answer)


def parse(status: int, body: bytes) -> Reply:
    """Read a reply.

    Raises:
        Declined: it will not look at this mail.
        ServerError: it is no clear answer; the text says what came instead.
    """
    if status != 200:
        said = body[:SHOWN].decode("utf-8", "replace").strip()
        text = f"HTTP status {status}" + (f": {said!r}" if said else "")
        raise Declined(text) if status in OF_THIS_MAIL else ServerError(text)
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ServerError(f"garbage instead of an answer: {error}: {body[:SHOWN]!r}") from None
    if not answer.action:
        raise ServerError("garbage instead of an answer: its action is empty")
    problems: list[str] = []
    symbols = [Symbol(name, each.score or 0.0, tuple(each.options or ())) for name, each in _table(answer.symbols)]
    message = answer.messages.get("smtp_message") if isinstance(answer.messages, dict) else None
    return Reply(
        action=answer.action,
        score=answer.score,
        required=answer.required_score,
        skipped=answer.is_skipped,
        symbols=tuple(sorted(symbols, key=lambda each: -abs(each.score))[:SYMBOLS]),
        groups=tuple((name, each.score or 0.0) for name, each in _table(answer.groups))[:SYMBOLS],
        message=message if isinstance(message, str) else "",
        subject=answer.subject if isinstance(answer.subject, str) else "",
        signed=bool(answer.signature),
        changes=_changes(answer.milter, problems),
        problems=tuple(problems),
    )


def _decode(body: bytes) -> _Answer:
    """Decode; octets that are no UTF-8 are a stranger's, quoted from his mail, and must not cost the answer."""
    try:
        return _decoder.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError):  # the one up to msgspec 0.22, the other since
        return _decoder.decode(body.decode("utf-8", "replace"))


def _table(told: dict[str, _Scored] | list[None]) -> Iterator[tuple[str, _Scored]]:
    return iter(told.items()) if isinstance(told, dict) else iter(())


def _changes(told: object, problems: list[str]) -> Changes:
    """Read the block `milter`."""
    if not told:
        return Changes()
    if not isinstance(told, dict):
        problems.append("milter is no object")
        return Changes()
    count = sum(len(each) if isinstance(each, (dict, list)) else 1 for each in told.values())
    if count > CHANGES:
        problems.append(f"{count} changes are asked for, {CHANGES} are taken")
    sender, instead = told.get("change_from"), told.get("reject")
    if sender is not None and not isinstance(sender, str):
        problems.append("change_from is no text")
    return Changes(
        remove_headers=tuple(_numbers(_object(told, "remove_headers", problems), problems))[:CHANGES],
        add_headers=tuple(_values(_object(told, "add_headers", problems), problems))[:CHANGES],
        spam_headers=tuple(_spam(told.get("spam_header"), problems))[:CHANGES],
        add_recipients=tuple(_texts(told, "add_rcpt", problems))[:CHANGES],
        remove_recipients=tuple(_texts(told, "del_rcpt", problems))[:CHANGES],
        sender=sender if isinstance(sender, str) else None,
        instead=instead if instead in ("discard", "quarantine") else "",
        no_action=told.get("no_action") is True,
    )


def _object(told: Mapping[str, object], key: str, problems: list[str]) -> Mapping[str, object]:
    found = told.get(key)
    if found and not isinstance(found, dict):
        problems.append(f"{key} is no object")
    return found if isinstance(found, dict) else {}


def _numbers(told: Mapping[str, object], problems: list[str]) -> Iterator[tuple[str, int]]:
    """Read `{"X-Spam": 0}` or `{"X-Spam": [1, -1]}`."""
    for name, which in told.items():
        for number in which if isinstance(which, list) else [which]:
            if isinstance(number, int) and not isinstance(number, bool):
                yield name, number
            else:
                problems.append(f"remove_headers: {name!r} has no number")


def _values(told: Mapping[str, object], problems: list[str]) -> Iterator[tuple[str, str]]:
    """Read `{"X-A": "v"}`, `{"X-A": {"value": "v", "order": 1}}` or a list of either; fields go below the others."""
    for name, given in told.items():
        for each in given if isinstance(given, list) else [given]:
            value = each.get("value") if isinstance(each, dict) else each
            if isinstance(value, str):
                yield name, value
            else:
                problems.append(f"add_headers: the value of {name!r} is no text")


def _spam(told: object, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Read `"Yes"` or `{"Deliver-To": "Junk"}`."""
    if isinstance(told, str):
        yield SPAM_HEADER, told
    elif isinstance(told, dict):
        yield from _values(told, problems)
    elif told is not None:
        problems.append("spam_header is no text")


def _texts(told: Mapping[str, object], key: str, problems: list[str]) -> Iterator[str]:
    found = told.get(key)
    if found and not isinstance(found, list):
        problems.append(f"{key} is no list")
        return
    for each in found if isinstance(found, list) else ():
        if isinstance(each, str):
            yield each
        else:
            problems.append(f"{key}: {each!r} is no text"[:SHOWN])

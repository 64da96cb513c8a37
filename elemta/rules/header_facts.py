"""Header facts: what do the fields of a message's header say, in a form for rules?

Each takes the whole message and gives one fact of the catalogue, made when a rule first asks for it.  Text is decoded
as mail programs show it (RFC 2047), on one line; addresses are read as From is.  Never raises on what a sender wrote.

RFC 5322 section 3.6; RFC 2919 (List-Id).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from elemta.addresses import Mailbox, a_label, authors, bare
from elemta.addresses.encoded_words import decode_words, on_one_line
from elemta.charsets import undeclared
from elemta.facts import Message

LONGEST = 10_000  # characters of one value that is decoded

_IN_ANGLES = re.compile(r"<([^<>]*)>")


def field(message: Message, name: str) -> tuple[str, ...]:
    """Every value of the field, unfolded, undecoded."""
    return tuple(b" ".join(value.split()).decode("utf-8", "replace") for value in message.header(name))


def shown(message: Message, name: str) -> tuple[str, ...]:
    """Every value of the field as people see it."""
    return tuple(_shown(value) for value in message.header(name))


def header_from(message: Message) -> tuple[str, ...]:
    """The addresses in From."""
    return _addresses(message.authors.mailboxes)


def header_from_domain(message: Message) -> tuple[str, ...]:
    """Their domains, each once."""
    return _domains(message.authors.mailboxes)


def from_name(message: Message) -> tuple[str, ...]:
    """The names shown in From."""
    return tuple(box.display for box in message.authors.mailboxes if box.display)


def reply_to(message: Message) -> tuple[str, ...]:
    """The addresses in Reply-To."""
    return _addresses(_reply_to(message))


def reply_to_domain(message: Message) -> tuple[str, ...]:
    """Their domains, each once."""
    return _domains(_reply_to(message))


def reply_to_differs(message: Message) -> bool:
    """Whether answers go to a domain that is not one of From."""
    return bool(set(reply_to_domain(message)) - set(header_from_domain(message)))


def list_id(message: Message) -> str | None:
    """The identifier in List-Id, lower case (RFC 2919 section 3); without angle brackets all of it."""
    for value in field(message, "list-id"):
        found = _IN_ANGLES.findall(value)
        return (found[-1] if found else value).strip().lower() or None
    return None


def mailer(message: Message) -> str | None:
    """The program that wrote the message, by its own word."""
    return next(iter((*shown(message, "x-mailer"), *shown(message, "user-agent"))), None) or None


def message_id(message: Message) -> str | None:
    """Message-ID, with its angle brackets."""
    return next(iter(field(message, "message-id")), None) or None


def _shown(value: bytes) -> str:
    return on_one_line(decode_words(undeclared(value[:LONGEST])))


def _reply_to(message: Message) -> Sequence[Mailbox]:
    return authors(message.header("reply-to")).mailboxes


def _addresses(mailboxes: Sequence[Mailbox]) -> tuple[str, ...]:
    return tuple(f"{bare(box.local)}@{box.domain}" for box in mailboxes)


def _domains(mailboxes: Sequence[Mailbox]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(a_label(box.domain) or box.domain.lower() for box in mailboxes if box.domain))

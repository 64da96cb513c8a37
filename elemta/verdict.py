"""Verdicts: what shall happen to this mail, which rule said so, and what does the client hear?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

LONGEST_ON_TOP = 900  # characters of a field added at RCPT TO: below the 998 of RFC 5322 section 2.1.1

_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 2.2: printable ASCII without the colon


class Disposition(StrEnum):
    """What happens to the mail; in the order of their strength, weakest first."""

    ACCEPT = "accept"
    QUARANTINE = "quarantine"  # accepted into Postfix's hold queue
    DISCARD = "discard"  # accepted and thrown away
    DEFER = "defer"  # 4xx: come again
    REJECT = "reject"  # 5xx


KEPT = frozenset({Disposition.ACCEPT, Disposition.QUARANTINE})
"""The mail goes on, so it is edited, signed and sealed."""
REFUSED = frozenset({Disposition.DEFER, Disposition.REJECT})
"""The client is told that it was not taken."""


class ActionKind(StrEnum):
    """What a rule may ask for besides the disposition; each is also the key in the YAML."""

    ADD_HEADER = "add_header"
    SET_HEADER = "set_header"
    REMOVE_HEADER = "remove_header"
    ADD_RECIPIENT = "add_recipient"
    REMOVE_RECIPIENT = "remove_recipient"
    CHANGE_SENDER = "change_sender"
    REPLACE_BODY = "replace_body"
    TAG_SUBJECT = "tag_subject"
    BANNER = "banner"
    REPLACE_ATTACHMENTS = "replace_attachments"
    LABEL = "label"
    ADD_TO_SET = "add_to_set"


class Action(Struct, frozen=True):
    """One thing asked for, templates already filled in.

    Attributes:
        kind: see `ActionKind`.
        name: the header's name, the set's name, the banner's position, which attachments; "" where the kind has none.
        value: the header's value, the address, the label, the set's entry, the body, the tag, the banner's text, the
            notice in an attachment's place (a template: {name} is the attachment's).
        seconds: the time to live of a set's entry; 0 for ever.
        rule: the id of the rule that asked.
        nth: of `remove_header`: which field of that name, as the mail came: from 1 on from the top, -1 the last; 0 all.
        options: (key, value) of what else the kind is told: of `banner` its html; of `replace_attachments` each
            extension, type and name that it looks for.
    """

    kind: ActionKind
    name: str = ""
    value: str = ""
    seconds: float = 0.0
    rule: str = ""
    nth: int = 0
    options: tuple[tuple[str, str], ...] = ()


class Verdict(Struct, frozen=True):
    """The judgement.

    Attributes:
        disposition: see `Disposition`.
        rule: the id of the deciding rule; "" when none matched; "trouble:CHECK" when a check that could
            not answer decided.
        reply: the SMTP reply "550 5.7.1 text" of a defer or reject, one line, filled in; else "".
        findings: the names of the checks whose facts the deciding rule asked for.
        actions: what non-final rules and the final one asked for, in order.
    """

    disposition: Disposition = Disposition.ACCEPT
    rule: str = ""
    reply: str = ""
    findings: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()


def on_top(actions: Iterable[Action]) -> str:
    """The one field, "Name: value", that can be put on top of a mail at RCPT TO: the first asked for; "" for none.

    Policy service and rehearsal share it.  Octets that are no printable ASCII become "?" (Postfix takes no others).
    """
    for action in actions:
        if action.kind is ActionKind.ADD_HEADER and _FIELD_NAME.fullmatch(action.name):
            field = f"{action.name}: {action.value}"[:LONGEST_ON_TOP]
            return "".join(char if " " <= char <= "~" else "?" for char in field)
    return ""

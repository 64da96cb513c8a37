"""Findings: what did a check see?  Never a decision; rules judge by them.

A `Finding` is one check's answer about one mail: a result word of RFC 8601 section 2.7, a reason for
people, and typed fields that rules may use as `check.field`.  `AuthResult` is the same evidence in the
form in which it stands in an Authentication-Results header.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from msgspec import Struct, field

from elemta.verdict import Action

Value = str | int | float | bool | None | IPv4Address | IPv6Address | tuple[str, ...]
"""What a fact may hold. Durations are seconds, sizes are octets, a tuple holds every one of several values."""

NO_FIELDS: Mapping[str, Value] = MappingProxyType({})


class Result(StrEnum):
    """The result words of RFC 8601 section 2.7 (their meaning is each method's own)."""

    NONE = "none"
    PASS = "pass"  # noqa: S105 - a result word
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    POLICY = "policy"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class AuthResult(Struct, frozen=True, array_like=True):  # as which the journal keeps it
    """One `resinfo` of Authentication-Results (RFC 8601 section 2.2), unescaped.

    Attributes:
        method: "spf".
        result: "pass".
        reason: free text for people, "" for none.
        properties: pairs such as ("smtp.mailfrom", "a@b.test"), in the order to print.
    """

    method: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()


class Finding(Struct, frozen=True):
    """What one check saw of one mail.

    Attributes:
        check: the check's name.
        result: the result word; `none` also when the check had nothing to look at.
        reason: for the administrator: journal, log, `explain`. Never sent to the client by itself.
        fields: the facts `check.NAME`; a field that is not there is absent, not empty.
        authres: the same evidence for Authentication-Results; () for a check that adds none.
        trouble: the check could not answer (time-out, crash, refused connection). What that means is
            the policy's word, by check and class.
        warning: what the administrator should mend, "" for nothing; the engine logs it now and then.
        detail: all that was seen, in the check's own type, for other parts of the same package (sealing goes on from
            what `arc` found); neither kept in the journal nor judged by.
        header: (name, value) of fields that hold the same evidence in a form of their own, such as Received-SPF.
        edits: changes that the check proposes for the mail if it is kept; made where its option `edits` says so.
    """

    check: str
    result: Result
    reason: str = ""
    fields: Mapping[str, Value] = field(default_factory=lambda: NO_FIELDS)
    authres: tuple[AuthResult, ...] = ()
    trouble: bool = False
    warning: str = ""
    detail: object = None
    header: tuple[tuple[str, str], ...] = ()
    edits: tuple[Action, ...] = ()

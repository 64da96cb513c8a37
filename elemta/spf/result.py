"""SPF results: what does check_host() say, and within which bounds?

The result words are those of RFC 7208 section 2.6, as plain strings: callers give them their own meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

NONE = "none"  # RFC 7208 section 2.6.1: no domain to ask about, or no record
NEUTRAL = "neutral"  # 2.6.2
PASS = "pass"  # 2.6.3  # noqa: S105 -- a result word, not a password
FAIL = "fail"  # 2.6.4
SOFTFAIL = "softfail"  # 2.6.5
TEMPERROR = "temperror"  # 2.6.6: the DNS did not answer
PERMERROR = "permerror"  # 2.6.7: the domain's records cannot be understood


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one evaluation; the defaults are those of RFC 7208.

    Attributes:
        terms: include, a, mx, ptr, exists, redirect and first %{p} that are evaluated; more is a permerror (4.6.4).
        voids: terms whose question has no answer (NXDOMAIN, or no record of the type) and that therefore do not
            match; more is a permerror (4.6.4).  A term counts once: an mx over hosts without IPv6 is one.
        mx: address look-ups for one mx; one more is a permerror (4.6.4).
        ptr: names of a client that are looked at; further ones are ignored (4.6.4, 5.5).
        record: octets of a record; a longer one is a permerror (3.4 wants it to fit 512 octets).
        explanation: characters of an expanded explanation; a longer one is cut (6.2 leaves the bound to us).
        patience: seconds to wait for the explanation, whose absence changes nothing (6.2).
        identity: characters of a local part, and of a domain that is none, that macros see (RFC 5321 section
            4.5.3.1 allows 64 and 255); what is beyond on the left is cut, as section 7.3 cuts names.
        labels: labels that the domain must have; fewer is none (4.3: "not a multi-label domain name").
    """

    terms: int = 10
    voids: int = 2
    mx: int = 10
    ptr: int = 10
    record: int = 8192
    explanation: int = 400
    patience: float = 2.0
    identity: int = 512
    labels: int = 2


DEFAULT_LIMITS = Limits()


class SpfResult(Struct, frozen=True):
    """What check_host() found.

    Attributes:
        result: none, neutral, pass, fail, softfail, temperror or permerror.
        domain: the domain evaluated, as A-labels; as given where it is no domain name.
        mechanism: the term of the domain's record that matched, as published ("-all"); after a redirect, of the
            record it led to; "" when none matched.
        reason: for people.
        explanation: what the domain wants to tell the sender of a refused mail (printable characters only); ""
            unless the result is fail and it was asked for.  It is the word of a stranger.
        terms: evaluated terms that count against `Limits.terms`.
        voids: terms that count against `Limits.voids`.
    """

    result: str
    domain: str
    mechanism: str = ""
    reason: str = ""
    explanation: str = ""
    terms: int = 0
    voids: int = 0

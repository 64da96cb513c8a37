"""SPF macros: which text does "%{ir}.%{v}._spf.%{d2}" stand for?

`domain_spec` and `macro_string` parse once, strictly; `target_name` and `explanation` expand a parsed text for one
client and sender.  Parsing and expanding are linear in their input, and what they build is bounded.  Nothing here
asks the DNS: the validated name behind %{p} is brought along.

RFC 7208 section 7 (macros), section 7.1 (grammar), RFC 8616 section 4 (internationalized senders).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

from msgspec import Struct

MAX_NAME = 253  # characters of a name; RFC 7208 section 7.3, RFC 1035 section 2.3.4
MAX_MACROS = 64  # macros in one text: a name has no room for more

_LITERAL = re.compile(r"[!-$&-~]*")  # RFC 7208 section 7.1: macro-literal
_LITERAL_OR_SPACE = re.compile(r"[ -$&-~]*")  # RFC 7208 section 6.2: explain-string
_EXPAND = re.compile(r"%\{([slodiphcrtvSLODIPHCRTV])([0-9]*)([rR]?)([-.+,/_=]*)\}")  # RFC 7208 section 7.1
_FIXED = {"%%": "%", "%_": " ", "%-": "%20"}  # RFC 7208 section 7.1
_EXPLANATION_ONLY = frozenset("crt")  # RFC 7208 section 7.2
_TOPLABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")  # RFC 7208 section 7.1, with not isdigit()
_WIRE_NAME = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*")  # RFC 1035 section 2.3.4
_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_CONTROL = re.compile(r"[^ -~]")


class MacroError(ValueError):
    """The text is not a macro-string or domain-spec; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Expand:
    """One "%{...}"."""

    letter: str  # lower case
    escape: bool  # the letter was upper case
    keep: int  # right-hand parts to keep; 0 keeps all
    reverse: bool
    delimiters: str  # "" stands for "."


@dataclass(frozen=True, slots=True)
class MacroString:
    """A parsed text.

    Attributes:
        parts: literal texts and expansions in their order.
        name: the expansion as a domain name where it needs no facts ("" for a name that cannot exist), else None.
        asks_ptr: %{p} is in it.
    """

    parts: tuple[str | Expand, ...]
    name: str | None
    asks_ptr: bool


class Facts(Struct, frozen=True):
    """What macros speak of, but for <domain> and %{p}, which change on the way (RFC 7208 section 7.2)."""

    ip: IPv4Address | IPv6Address
    local: str
    sender_domain: str
    helo: str
    receiver: str
    now: int


def macro_string(text: str, *, explanation: bool = False) -> MacroString:
    """Parse a macro-string, or with `explanation` an explain-string.

    Raises:
        MacroError: it is not one.
    """
    literal = _LITERAL_OR_SPACE if explanation else _LITERAL
    parts: list[str | Expand] = []
    position, end = 0, len(text)
    while position < end:
        found = text.find("%", position)
        stop = end if found < 0 else found
        if not literal.fullmatch(text, position, stop):
            raise MacroError("a character that may not stand there")
        parts.append(text[position:stop])
        position = stop
        if position < end:
            part, position = _macro_expand(text, position)
            parts.append(part)
        if len(parts) > 2 * MAX_MACROS:
            raise MacroError(f"more than {MAX_MACROS} macros")
    expands = [part for part in parts if isinstance(part, Expand)]
    name = None if expands else _as_name("".join(map(str, parts)))
    return MacroString(tuple(filter(None, parts)), name, any(part.letter == "p" for part in expands))


def domain_spec(text: str) -> MacroString:
    """Parse a domain-spec: a macro-string that ends in a macro or in a top label (RFC 7208 section 7.1).

    Raises:
        MacroError: it is not one.
    """
    if not text:
        raise MacroError("a domain is missing")
    spec = macro_string(text)
    if any(isinstance(part, Expand) and part.letter in _EXPLANATION_ONLY for part in spec.parts):
        raise MacroError("%{c}, %{r} and %{t} belong in explanations only")  # RFC 7208 section 7.2
    tail = text[_end_of_last_macro(text) :]
    if tail:  # domain-end = ( "." toplabel [ "." ] ) / macro-expand
        before, dot, top = tail.removesuffix(".").rpartition(".")
        if not dot or not _TOPLABEL.fullmatch(top) or top.isdigit():
            if _ADDRESS.fullmatch(f"{before}.{top}"):
                raise MacroError(f'"{text}" is an address: write ip4:{text}')
            raise MacroError(f'"{shown(text)}" does not end in a top-level domain')
    return spec


def target_name(spec: MacroString, facts: Facts, domain: str, validated: str = "unknown") -> str:
    """Expand a domain-spec to the name to ask for; "" where no such name can exist (RFC 7208 section 4.8).

    Args:
        spec: from `domain_spec`.
        facts: about client and sender.
        domain: the <domain> of the record that holds the spec.
        validated: the name for %{p}.
    """
    if spec.name is not None:
        return spec.name
    if matches_nothing(spec, facts):
        return ""
    return _as_name(_expanded(spec, facts, domain, validated))


def matches_nothing(spec: MacroString, facts: Facts) -> bool:
    """Tell whether %{s} or %{l} stands for a local part beyond ASCII: such terms match nothing (RFC 8616 section 4)."""
    return not facts.local.isascii() and any(isinstance(part, Expand) and part.letter in "sl" for part in spec.parts)


def explanation(spec: MacroString, facts: Facts, domain: str, validated: str, limit: int) -> str:
    """Expand an explain-string to at most `limit` printable characters (RFC 7208 section 6.2)."""
    return shown(_expanded(spec, facts, domain, validated), limit)


def shown(text: str, limit: int = 60) -> str:
    """Make a stranger's text fit to be read in a log: at most `limit` printable ASCII characters."""
    return _CONTROL.sub("?", text[:limit])


def _macro_expand(text: str, position: int) -> tuple[str | Expand, int]:
    """Parse the macro-expand at `position`, a "%"; give it and the position after it."""
    fixed = _FIXED.get(text[position : position + 2])
    if fixed is not None:
        return fixed, position + 2
    match = _EXPAND.match(text, position)
    if match is None:
        raise MacroError(f'"{shown(text[position : position + 12])}" is no macro')
    letter, digits, reverse, delimiters = match.groups()
    significant = digits.lstrip("0")
    if digits and not significant:
        raise MacroError(f'"{shown(match[0])}" keeps no part')  # RFC 7208 section 7.3: nonzero
    keep = int(significant or 0) if len(significant) < 5 else 9999  # RFC 7208 section 7.3: 128 at least
    return Expand(letter.lower(), letter.isupper(), keep, bool(reverse), delimiters), match.end()


def _end_of_last_macro(text: str) -> int:
    """Give the position after the last macro-expand of a valid macro-string; 0 where there is none."""
    position = 0
    while (found := text.find("%", position)) >= 0:
        position = _macro_expand(text, found)[1]
    return position


def _expanded(spec: MacroString, facts: Facts, domain: str, validated: str) -> str:
    return "".join(part if isinstance(part, str) else _value(part, facts, domain, validated) for part in spec.parts)


def _value(part: Expand, facts: Facts, domain: str, validated: str) -> str:
    """Expand one macro (RFC 7208 sections 7.2 and 7.3)."""
    value = _LETTERS[part.letter](facts, domain, validated)
    if part.keep or part.reverse or part.delimiters:
        first = part.delimiters[:1] or "."
        for other in part.delimiters[1:]:
            value = value.replace(other, first)
        parts = value.split(first)
        if part.reverse:
            parts.reverse()
        value = ".".join(parts[-part.keep :])
    return quote(value, safe="", errors="replace") if part.escape else value  # RFC 3986 section 2.3: unreserved


def _as_name(text: str) -> str:
    """Give the name without its trailing dot, cut to 253 characters at a label; "" where it cannot exist."""
    name = text.removesuffix(".")
    if len(name) > MAX_NAME:  # RFC 7208 section 7.3: drop labels from the left
        name = name[name.find(".", len(name) - MAX_NAME - 1) + 1 :]  # without a dot there, a label is too long
    return name if name.isascii() and _WIRE_NAME.fullmatch(name) else ""


def _dotted(facts: Facts) -> str:
    """Give the client's address for %{i} (RFC 7208 section 7.3: IPv6 as nibbles)."""
    return str(facts.ip) if facts.ip.version == 4 else ".".join(f"{int(facts.ip):032X}")


_LETTERS: dict[str, Callable[[Facts, str, str], str]] = {  # RFC 7208 section 7.2
    "s": lambda facts, _domain, _validated: f"{facts.local}@{facts.sender_domain}",
    "l": lambda facts, _domain, _validated: facts.local,
    "o": lambda facts, _domain, _validated: facts.sender_domain,
    "d": lambda _facts, domain, _validated: domain,
    "i": lambda facts, _domain, _validated: _dotted(facts),
    "p": lambda _facts, _domain, validated: validated,
    "v": lambda facts, _domain, _validated: "in-addr" if facts.ip.version == 4 else "ip6",
    "h": lambda facts, _domain, _validated: facts.helo,
    "c": lambda facts, _domain, _validated: str(facts.ip),
    "r": lambda facts, _domain, _validated: facts.receiver or "unknown",  # RFC 7208 section 7.3
    "t": lambda facts, _domain, _validated: str(facts.now),
}

"""SPF records: what does "v=spf1 ip4:192.0.2.0/24 include:_spf.example.net -all" say?

`is_spf` tells a record among a domain's TXT records; `parse` reads one, whole and strictly: an error in any term is
an error of the record, wherever the evaluation would have ended (RFC 7208 section 4.6).  Addresses become integers
here, once: what is parsed is kept for records of ordinary size.  Never asks the DNS.

RFC 7208 sections 4.5, 4.6, 5, 6 and 12 (collected grammar).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from socket import AF_INET, AF_INET6, AddressFamily, inet_pton

from elemta.spf.macro import MacroError, MacroString, domain_spec, macro_string, shown
from elemta.spf.result import FAIL, NEUTRAL, PASS, SOFTFAIL

TEXT = 255  # characters of a term that are kept to show; what is beyond is cut
MOST_TERMS = 1000  # in a record: 512 octets, which a record should fit, have room for half of that
CACHED_RECORDS = 1024
CACHED_OCTETS = 1024  # of one record; a parsed record takes some twenty times that

_QUALIFIERS = {"+": PASS, "-": FAIL, "~": SOFTFAIL, "?": NEUTRAL}  # RFC 7208 section 4.6.2
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=")  # RFC 7208 section 4.6.1: name
_MECHANISM = re.compile(r"([+?~-]?)([^:/=]*)")
_MASKS = {bits: [(1 << bits) - (1 << (bits - length)) for length in range(bits + 1)] for bits in (32, 128)}
_NOT_ONE_NETWORK = -1  # no address has this integer
_HINTS = {"ip": "ip4", "ipv4": "ip4", "ipv6": "ip6", "prt": "ptr", "all.": "all"}


class RecordError(ValueError):
    """The record breaks the grammar; the message says where and how, for people."""


@dataclass(frozen=True, slots=True)
class Term:
    """A mechanism with its qualifier, as clients of one address family meet it.

    A term matches by itself where `address & mask == network`, an equation that no address fulfils for the
    mechanisms that ask the DNS; `all` is the network of length 0.

    Attributes:
        name: the mechanism, lower case: "ip4".
        result: what a match means: pass, fail, softfail or neutral.
        text: as published, for people, 255 characters at most: "-ip4:192.0.2.0/24".
        network: the network's address, or -1.
        mask: the network's mask; for a and mx the one to apply to the addresses found.
        spec: the domain-spec; None for the domain of the record itself.
        asks: the mechanism asks the DNS.
    """

    name: str
    result: str
    text: str
    network: int = _NOT_ONE_NETWORK
    mask: int = 0
    spec: MacroString | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A parsed record.

    Attributes:
        terms4: the mechanisms that can match an IPv4 client, in order.
        terms6: the same for an IPv6 client.
        redirect: the domain-spec of redirect=, if any.
        exp: the domain-spec of exp=, if any.
        error: what is wrong with the record, for people; "" for a good one.  A bad one has no terms.
    """

    terms4: tuple[Term, ...] = ()
    terms6: tuple[Term, ...] = ()
    redirect: MacroString | None = None
    exp: MacroString | None = None
    error: str = ""


def is_spf(octets: bytes) -> bool:
    """Tell whether a TXT record begins with the version section and nothing more (RFC 7208 section 4.5)."""
    return octets[:6].lower() == b"v=spf1" and octets[6:7] in {b"", b" "}


def parse(octets: bytes) -> Record:
    """Parse a record for which `is_spf` holds.  Never raises: what is wrong stands in `Record.error`."""
    return _parse_cached(octets) if len(octets) <= CACHED_OCTETS else _parse(octets)


def _parse(octets: bytes) -> Record:
    try:
        text = octets.decode("ascii")  # RFC 7208 section 3.1
    except UnicodeDecodeError:
        return Record(error="a character that is not ASCII")
    terms = list(filter(None, text[6:].split(" ")))  # RFC 7208 section 4.6.1: 1*SP
    if len(terms) > MOST_TERMS:
        return Record(error=f"more than {MOST_TERMS} terms")
    terms4: list[Term] = []
    terms6: list[Term] = []
    modifiers: dict[str, MacroString] = {}
    parsed = 0
    try:
        for term in terms:
            if modifier := _MODIFIER.match(term):
                _modifier(modifier[1].lower(), term[modifier.end() :], modifiers)
            else:
                for_v4, for_v6 = _directive(term)
                terms4 += for_v4
                terms6 += for_v6
            parsed += 1
    except (RecordError, MacroError) as error:
        return Record(error=f"term {parsed + 1}: {error}")
    return Record(tuple(terms4), tuple(terms6), modifiers.get("redirect"), modifiers.get("exp"))


_parse_cached = lru_cache(maxsize=CACHED_RECORDS)(_parse)


def _modifier(name: str, value: str, modifiers: dict[str, MacroString]) -> None:
    if name not in {"redirect", "exp"}:
        macro_string(value)  # RFC 7208 section 6: unknown modifiers are ignored, but their syntax counts
    elif name in modifiers:
        raise RecordError(f"a second {name}=")  # RFC 7208 section 6
    else:
        modifiers[name] = domain_spec(value)  # RFC 7208 sections 6.1 and 6.2


Pair = tuple[tuple[Term, ...], tuple[Term, ...]]


def _directive(text: str) -> Pair:
    """Parse one mechanism; give it as IPv4 clients and as IPv6 clients meet it."""
    match = _MECHANISM.match(text)
    assert match is not None  # noqa: S101 -- every part of the expression may be empty
    result = _QUALIFIERS[match[1] or "+"]  # RFC 7208 section 4.6.2: "+" is the default
    name = match[2].lower()
    read = _READERS.get(name)
    if read is None:
        hint = f' (did you mean "{_HINTS[name]}"?)' if name in _HINTS else ""
        raise RecordError(f'unknown mechanism "{shown(match[2])}"{hint}')
    return read(name, result, shown(text, TEXT), text[match.end() :])


def _all(name: str, result: str, text: str, rest: str) -> Pair:
    if rest:  # RFC 7208 section 5.1
        raise RecordError(f'"{shown(text)}": all takes no argument')
    both = (Term(name, result, text, network=0),)
    return both, both


def _ip4(name: str, result: str, text: str, rest: str) -> Pair:
    network, mask = _network(text, rest, AF_INET, 32)
    return (Term(name, result, text, network, mask),), ()


def _ip6(name: str, result: str, text: str, rest: str) -> Pair:
    network, mask = _network(text, rest, AF_INET6, 128)
    return (), (Term(name, result, text, network, mask),)


def _network(text: str, rest: str, family: AddressFamily, bits: int) -> tuple[int, int]:
    """Parse ":" address [ "/" length ] (RFC 7208 section 5.6)."""
    address, slash, length = rest[1:].partition("/")
    if rest[:1] != ":":
        raise RecordError(f'"{shown(text)}" lacks an address')
    try:
        network = int.from_bytes(inet_pton(family, address))  # several times as fast as ipaddress, and as strict
    except (OSError, ValueError):  # ValueError: a NUL
        raise RecordError(f'"{shown(address)}" is no IPv{4 if bits == 32 else 6} address') from None
    mask = _mask(length if slash else None, bits, text)
    return network & mask, mask


def _mask(length: str | None, bits: int, text: str) -> int:
    """Give the mask of a prefix length, the whole address where there is none (RFC 7208 section 5.6)."""
    if length is None:
        return _MASKS[bits][bits]
    plain = length.isdigit() and len(length) <= 3 and (length == "0" or length[0] != "0")
    if not plain or int(length) > bits:
        raise RecordError(f'"{shown(text)}": the length after "/" is not a number up to {bits}')
    return _MASKS[bits][int(length)]


def _a_or_mx(name: str, result: str, text: str, rest: str) -> Pair:
    """Parse [ ":" domain-spec ] [ dual-cidr-length ] (RFC 7208 sections 5.3 and 5.4)."""
    domain, length4, length6 = _split_dual_cidr(rest)
    spec = _optional_domain(text, domain)
    mask4, mask6 = _mask(length4, 32, text), _mask(length6, 128, text)
    return (
        (Term(name, result, text, mask=mask4, spec=spec, asks=True),),
        (Term(name, result, text, mask=mask6, spec=spec, asks=True),),
    )


def _split_dual_cidr(rest: str) -> tuple[str, str | None, str | None]:
    """Cut [ "/" digits ] [ "//" digits ] off the end; what is left of it must be a domain-spec, or nothing."""
    length4 = length6 = None
    head, slash, digits = rest.rpartition("/")
    if slash and head.endswith("/") and digits.isdigit():
        rest, length6 = head[:-1], digits
        head, slash, digits = rest.rpartition("/")
    if slash and digits.isdigit():
        rest, length4 = head, digits
    return rest, length4, length6


def _ptr(name: str, result: str, text: str, rest: str) -> Pair:
    both = (Term(name, result, text, spec=_optional_domain(text, rest), asks=True),)  # RFC 7208 section 5.5
    return both, both


def _include_or_exists(name: str, result: str, text: str, rest: str) -> Pair:
    if rest[:1] != ":":  # RFC 7208 sections 5.2 and 5.7
        raise RecordError(f'"{shown(text)}" lacks a domain')
    both = (Term(name, result, text, spec=domain_spec(rest[1:]), asks=True),)
    return both, both


def _optional_domain(text: str, rest: str) -> MacroString | None:
    if not rest:
        return None
    if rest[0] != ":":
        raise RecordError(f'"{shown(text)}": a domain follows ":"')
    return domain_spec(rest[1:])


_READERS: dict[str, Callable[[str, str, str, str], Pair]] = {
    "all": _all,
    "ip4": _ip4,
    "ip6": _ip6,
    "a": _a_or_mx,
    "mx": _a_or_mx,
    "ptr": _ptr,
    "include": _include_or_exists,
    "exists": _include_or_exists,
}

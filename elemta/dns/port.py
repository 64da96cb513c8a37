"""The resolver port: what does the name system say, and for how long may we believe it?

The `Resolver` port is all that checks and kernels see: `await resolver.query(name, rdtype)` gives an
`Answer` (records, or a lawful "there is none") or raises `DnsError` (nobody could say).  Records are
typed by kind, so no caller ever parses presentation text:

    A, AAAA      ipaddress.IPv4Address / IPv6Address
    TXT, SPF     bytes: the character strings of one record joined without a space (RFC 7208 section 3.3)
    MX           (preference, host), host without the trailing dot; "" for a null MX (RFC 7505)
    PTR, CNAME, NS   str without the trailing dot
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from msgspec import Struct

Record = IPv4Address | IPv6Address | bytes | str | tuple[int, str]


class Status(StrEnum):
    """What a lawful answer says."""

    OK = "ok"  # at least one record of the asked type
    NODATA = "nodata"  # the name exists, with no record of the type
    NXDOMAIN = "nxdomain"  # the name does not exist (also: a name that cannot exist on the wire)


class Answer(Struct, frozen=True):
    """A lawful answer.

    Attributes:
        status: ok, nodata or nxdomain; `records` is empty unless ok.
        records: typed by kind, see the module's docstring; in the order of the answer.
        ttl: seconds for which the answer may be kept (the lowest of the chain; RFC 2308 for negatives).
    """

    status: Status
    records: tuple[Record, ...] = ()
    ttl: int = 0


class DnsError(Exception):
    """Nobody could say: time-out, SERVFAIL, REFUSED, garbage, or the mail's DNS budget is spent.

    Attributes:
        name: the name asked.
        rdtype: the type asked, "TXT".
        reason: for people, "name server 192.0.2.53: no answer within 2 s".
    """

    def __init__(self, name: str, rdtype: str, reason: str) -> None:
        super().__init__(f"{rdtype} {name}: {reason}")
        self.name = name
        self.rdtype = rdtype
        self.reason = reason


class Resolver(Protocol):
    """The port: asks one question."""

    async def query(self, name: str, rdtype: str) -> Answer:
        """Answer `name` (A-labels, or UTF-8 text; with or without a trailing dot; any case) / `rdtype`.

        Raises:
            DnsError: nobody could say.
        """
        ...


DEADLINE: ContextVar[float] = ContextVar("dns_deadline", default=float("inf"))
"""When the DNS budget of the mail in hand is spent, on time.monotonic(); set by the engine, one mail a task."""

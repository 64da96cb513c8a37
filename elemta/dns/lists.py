"""DNS lists: does this list name this address or domain, and can it be believed?

Shared by all checks that ask such lists.  A list that cannot be believed is told as such and counts for nothing: one
that lists 127.0.0.1 or INVALID (it lists everything), answers outside 127.0.0.0/8 (a parked domain), or answers with
127.0.0.1 or in 127.255.255.0/24 (asked through a public resolver, or too often).

RFC 5782 sections 2 and 5.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from math import fsum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic import Field as Setting

from elemta.addresses import a_label
from elemta.config.problems import quoted
from elemta.dns.port import Answer, DnsError, Resolver

LISTED = IPv4Network("127.0.0.0/8")  # RFC 5782 section 2.1
ERRORS = IPv4Network("127.255.255.0/24")
REFUSED = IPv4Address("127.0.0.1")  # what some lists answer to whom they do not serve, others never
TRUST_FOR = 300.0  # seconds that a test entry is believed: a list that ends may list everybody from one moment on

TEST_ADDRESS = "1.0.0.127"
TEST_DOMAIN = "invalid"


def _reply(text: object) -> str:
    try:
        network = IPv4Network(str(text))
    except ValueError:
        network = ERRORS
    if network.subnet_of(ERRORS) or not network.overlaps(LISTED):  # such are never believed
        raise ValueError(f"{quoted(text)} is no reply of a list; write one such as 127.0.0.2 or 127.0.1.0/24")
    return str(text)


def _zone(text: str) -> str:
    name = a_label(text)
    if name is None:
        raise ValueError(f"{quoted(text)} is no domain of a list; write one such as zen.dnsbl.example")
    return name


Reply = Annotated[str, BeforeValidator(_reply)]


class ListOptions(BaseModel):
    """What the configuration says of one list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: Annotated[str, AfterValidator(_zone)] = Setting(
        description="the list's domain", examples=["zen.dnsbl.example"]
    )
    weight: float = Setting(1.0, description="what a listing adds to the score; negative for a list of the good")
    replies: dict[Reply, float] = Setting(
        default_factory=dict, description="weights by reply address or network; others then count 0"
    )

    def weight_of(self, answer: Answer) -> float:
        """The weight of the heaviest reply."""
        if not self.replies:
            return self.weight
        weights = [
            weight
            for reply, weight in self.replies.items()
            if any(isinstance(record, IPv4Address) and record in IPv4Network(reply) for record in answer.records)
        ]
        return max(weights, key=abs, default=0.0)


@dataclass(frozen=True, slots=True)
class Said:
    """What one list said of one address or domain.

    Attributes:
        zone: the list.
        weight: what the listing adds; 0 where there is none.
        replies: its reply addresses; () for "not listed".
        error: why it did not answer, "" when it did.
        disbelief: why its answer does not count, "" when it does.
        about: what was asked about, as people write it.
    """

    zone: str
    weight: float = 0.0
    replies: tuple[str, ...] = ()
    error: str = ""
    disbelief: str = ""
    about: str = ""

    @property
    def lists(self) -> bool:
        """It lists it, and is believed."""
        return bool(self.replies) and not self.disbelief


class DnsLists:
    """The lists that one check asks; remembers which of them list everything."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._tested: dict[tuple[str, str], tuple[float, bool]] = {}

    async def ask(self, of: ListOptions, label: str, test: str, about: str = "") -> Said:
        """Ask one list for `label`; `test` is the entry that it must not have, if it takes labels of that kind."""
        try:
            answer = await self._resolver.query(f"{label}.{of.zone}", "A")
            if not answer.records:
                return Said(of.zone, about=about)
            disbelief = _disbelief(answer, of.replies) or await self._lists_everything(of.zone, test)
        except DnsError as error:
            return Said(of.zone, error=error.reason, about=about)
        replies = tuple(str(record) for record in answer.records)
        return Said(of.zone, of.weight_of(answer), replies, disbelief=disbelief, about=about)

    async def _lists_everything(self, zone: str, test: str) -> str:
        """RFC 5782 section 5: 127.0.0.1 and the name INVALID must not be listed."""
        until, everything = self._tested.get((zone, test), (0.0, False))
        if until < time.monotonic():
            everything = bool((await self._resolver.query(f"{test}.{zone}", "A")).records)
            self._tested[zone, test] = (time.monotonic() + TRUST_FOR, everything)
        return "it lists everything, even its test entry that must never be listed" if everything else ""


def reversed_address(address: IPv4Address | IPv6Address) -> str:
    """The label of an address: its octets, or nibbles, in reverse (RFC 5782 sections 2.1 and 2.4)."""
    return address.reverse_pointer.rpartition(".")[0].rpartition(".")[0]


def total(weights: Iterable[float]) -> float:
    """The sum of weights as people add them: 0.7, 0.2 and 0.1 make 1."""
    return round(fsum(weights), 9)


def nobody_answered(said: Sequence[Said]) -> str:
    """Why no list could be asked, if none could; "" when any answered, believed or not."""
    return said[0].error if said and all(each.error for each in said) else ""


def warning(said: Sequence[Said]) -> str:
    """What the administrator should mend: each list that is not believed, and why."""
    return "; ".join(dict.fromkeys(f"{each.zone} is ignored: {each.disbelief}" for each in said if each.disbelief))


def _disbelief(answer: Answer, named: Container[str]) -> str:
    """Why this reply is no listing; "" when it is one. `named`: the replies that the policy expects."""
    for record in answer.records:
        if not isinstance(record, IPv4Address) or record not in LISTED:
            return f"it answers {record!s}, which is no reply of a list"
        if record in ERRORS or (record == REFUSED and str(REFUSED) not in named):
            return f"it answers {record}: asked through a public resolver, or too often"
    return ""

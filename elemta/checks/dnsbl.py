"""dnsbl: is the client, the sender's domain or the HELO name on DNS lists?

Each list adds its weight, or the weight of the reply code it gave; from `threshold` on the result is `fail`.  A list
that cannot be believed is ignored, with a warning: one that lists 127.0.0.1 (it lists everything; RFC 5782 section 5),
answers outside 127.0.0.0/8 (a parked domain), or answers with an error code in 127.255.255.0/24 (asked through a
public resolver, or too often).  Trouble is only when no list could be asked.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic import Field as Setting

from elemta.addresses import a_label
from elemta.check import Check, Field, Options, Seen, Trouble
from elemta.dns import Answer, DnsError
from elemta.facts import Envelope
from elemta.findings import Finding, Result

LISTED = IPv4Network("127.0.0.0/8")  # RFC 5782 section 2.1
ERRORS = IPv4Network("127.255.255.0/24")
TRUST_FOR = 3600.0  # seconds that a list's test entry is believed


def _reply(text: object) -> str:
    IPv4Network(str(text))
    return str(text)


Reply = Annotated[str, BeforeValidator(_reply)]


class DnsList(BaseModel):
    """One list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: str = Setting(description="the list's domain", examples=["zen.dnsbl.example"])
    of: Literal["client", "sender", "helo"] = Setting("client", description="what is looked up: address or domain")
    weight: float = Setting(1.0, description="what a listing adds to the score; negative for a list of the good")
    replies: dict[Reply, float] = Setting(
        default_factory=dict, description="weights by reply address or network; others then count 0"
    )


class DnsblOptions(Options):
    """Options of `dnsbl`."""

    lists: tuple[DnsList, ...] = Setting((), description="the lists that are asked, side by side")
    threshold: float = Setting(1.0, description="the score from which the result is fail")


@dataclass(frozen=True, slots=True)
class _Said:
    """What one list said: a weight, or why it is not counted."""

    zone: str
    weight: float = 0.0
    replies: tuple[str, ...] = ()
    error: str = ""
    disbelief: str = ""


class Dnsbl(Check[Envelope]):
    """Is the client, the sender's domain or the HELO name on DNS lists?

    RFC 5782.
    """

    name = "dnsbl"
    fields: ClassVar = {
        "score": Field(float, "the sum of the weights"),
        "lists": Field(tuple, "the zones that list it"),
        "replies": Field(tuple, "their reply addresses"),
        "ignored": Field(tuple, "lists that could not be believed or did not answer"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.TEMPERROR)
    trouble: ClassVar[Trouble] = "accept"
    Options = DnsblOptions

    async def open(self) -> None:
        """No list has been tested yet."""
        self._tested: dict[str, tuple[float, bool]] = {}

    async def run(self, facts: Envelope, seen: Seen) -> Finding:
        """Ask all lists side by side."""
        asked = [(each, label) for each in self.options.lists if (label := _label(each, facts))]
        if not asked:
            return self.finding(Result.NONE, "nothing to look up")
        said = await asyncio.gather(*(self._ask(each, label) for each, label in asked))
        failed = [each for each in said if each.error or each.disbelief]
        if len(failed) == len(said) and not any(each.disbelief for each in said):
            return Finding(self.name, Result.TEMPERROR, said[0].error, trouble=True)
        listing = [each for each in said if each.replies and not each.disbelief]
        score = sum(each.weight for each in listing)
        fields = {
            "score": score,
            "lists": tuple(each.zone for each in listing),
            "replies": tuple(reply for each in listing for reply in each.replies),
            "ignored": tuple(each.zone for each in failed),
        }
        words = [f"{each.zone} says {' '.join(each.replies)} (weight {each.weight:g})" for each in listing]
        words += [f"{each.zone} ignored: {each.error or each.disbelief}" for each in failed]
        result = Result.FAIL if listing and score >= self.options.threshold else Result.PASS
        warning = "; ".join(f"{each.zone} is ignored: {each.disbelief}" for each in said if each.disbelief)
        return Finding(self.name, result, "; ".join(words) or "on no list", fields, warning=warning)

    async def _ask(self, each: DnsList, label: str) -> _Said:
        try:
            answer = await self.tools.resolver.query(f"{label}.{each.zone}", "A")
            if not answer.records:
                return _Said(each.zone)
            disbelief = _disbelief(answer) or await self._lists_everything(each)
        except DnsError as error:
            return _Said(each.zone, error=error.reason)
        replies = tuple(str(record) for record in answer.records)
        return _Said(each.zone, _weight(each, answer), replies, disbelief=disbelief)

    async def _lists_everything(self, each: DnsList) -> str:
        """RFC 5782 section 5: 127.0.0.1 and the name INVALID must not be listed."""
        until, everything = self._tested.get(each.zone, (0.0, False))
        if until < time.monotonic():
            label = "1.0.0.127" if each.of == "client" else "invalid"
            everything = bool((await self.tools.resolver.query(f"{label}.{each.zone}", "A")).records)
            self._tested[each.zone] = (time.monotonic() + TRUST_FOR, everything)
        return "it lists everything, even its test entry that must never be listed" if everything else ""


def _label(each: DnsList, facts: Envelope) -> str:
    """What is asked for below the zone; "" when there is nothing."""
    if each.of == "client":
        address = facts.client.address
        # RFC 5782 sections 2.1 and 2.4: the octets, or nibbles, in reverse
        return "" if address is None else address.reverse_pointer.rpartition(".")[0].rpartition(".")[0]
    domain = facts.sender_parts[1] if each.of == "sender" else facts.client.helo
    return a_label(domain) or ""


def _disbelief(answer: Answer) -> str:
    """Why this reply is no listing; "" when it is one."""
    for record in answer.records:
        if not isinstance(record, IPv4Address) or record not in LISTED:
            return f"it answers {record!s}, which is no reply of a list"
        if record in ERRORS:
            return f"it answers {record}: asked through a public resolver, or too often"
    return ""


def _weight(each: DnsList, answer: Answer) -> float:
    """The weight of the heaviest reply."""
    if not each.replies:
        return each.weight
    weights = [
        weight
        for reply, weight in each.replies.items()
        if any(isinstance(record, IPv4Address) and record in IPv4Network(reply) for record in answer.records)
    ]
    return max(weights, key=abs, default=0.0)

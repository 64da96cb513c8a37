"""dnsbl: is the client, the sender's domain or the HELO name on DNS lists?

Each list adds its weight, or the weight of the reply code it gave; from `threshold` on the result is `fail`.  A list
that cannot be believed is ignored, with a warning (see `elemta.dns.lists`).  Trouble is only when none could be asked.

RFC 5782 section 2.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

from pydantic import Field as Setting

from elemta.addresses import a_label
from elemta.check import Check, Field, Options, Seen, Trouble
from elemta.dns.lists import (
    TEST_ADDRESS,
    TEST_DOMAIN,
    DnsLists,
    ListOptions,
    nobody_answered,
    reversed_address,
    total,
    warning,
)
from elemta.facts import Envelope
from elemta.findings import Finding, Result, Value


class DnsList(ListOptions):
    """One list."""

    of: Literal["client", "sender", "helo"] = Setting("client", description="what is looked up: address or domain")


class DnsblOptions(Options):
    """Options of `dnsbl`."""

    lists: tuple[DnsList, ...] = Setting((), description="the lists that are asked, side by side")
    threshold: float = Setting(1.0, description="the score from which the result is fail")


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
        self._lists = DnsLists(self.tools.resolver)

    async def run(self, facts: Envelope, seen: Seen) -> Finding:
        """Ask all lists side by side."""
        asked = [(each, label) for each in self.options.lists if (label := _label(each, facts))]
        if not asked:
            return self.finding(Result.NONE, "nothing to look up")
        said = await asyncio.gather(
            *(
                self._lists.ask(each, label, TEST_ADDRESS if each.of == "client" else TEST_DOMAIN)
                for each, label in asked
            )
        )
        if error := nobody_answered(said):
            return Finding(self.name, Result.TEMPERROR, error, trouble=True)
        failed = [each for each in said if each.error or each.disbelief]
        listing = [each for each in said if each.lists]
        score = total(each.weight for each in listing)
        fields: dict[str, Value] = {
            "score": score,
            "lists": tuple(each.zone for each in listing),
            "replies": tuple(reply for each in listing for reply in each.replies),
            "ignored": tuple(each.zone for each in failed),
        }
        words = [f"{each.zone} says {' '.join(each.replies)} (weight {each.weight:g})" for each in listing]
        words += [f"{each.zone} ignored: {each.error or each.disbelief}" for each in failed]
        result = Result.FAIL if listing and score >= self.options.threshold else Result.PASS
        return Finding(self.name, result, "; ".join(words) or "on no list", fields, warning=warning(said))


def _label(each: DnsList, facts: Envelope) -> str:
    """What is asked for below the zone; "" when there is nothing."""
    if each.of == "client":
        address = facts.client.address
        return "" if address is None else reversed_address(address)
    domain = facts.sender_parts[1] if each.of == "sender" else facts.client.helo
    name = a_label(domain) or ""
    return "" if name.rpartition(".")[2].isdigit() else name  # an address is no domain

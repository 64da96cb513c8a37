"""uribl: are the domains that links lead to on DNS lists?

Takes the links that `content` found, which must be enabled too; reports a score like `dnsbl`: each list adds the weight
of its heaviest listing once, from `threshold` on the result is `fail`.  A list that cannot be believed is ignored, with
a warning (see `elemta.dns.lists`).  Trouble is only when nobody answered.  Asks a bounded number of questions.

RFC 5782 sections 2 and 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from typing import ClassVar, Literal

from pydantic import Field as Setting
from pydantic import field_validator

from elemta.addresses import a_label, is_within
from elemta.check import Check, Field, Options, Seen, Trouble
from elemta.dns.lists import (
    TEST_ADDRESS,
    TEST_DOMAIN,
    DnsLists,
    ListOptions,
    Said,
    nobody_answered,
    reversed_address,
    total,
    warning,
)
from elemta.facts import Message
from elemta.findings import Finding, Result, Value

SHOWN = 5  # listings told of in the reason


class UriList(ListOptions):
    """One list."""

    names: Literal["domain", "host"] = Setting(
        "domain", description="what it takes: registered domains, or whole host names"
    )
    addresses: bool = Setting(False, description="it takes IP addresses too, reversed")


class UriblOptions(Options):
    """Options of `uribl`."""

    lists: tuple[UriList, ...] = Setting((), description="the lists that are asked, side by side")
    threshold: float = Setting(1.0, description="the score from which the result is fail")
    most: int = Setting(
        30, ge=1, le=200, description="hosts that are asked about; those of the first links in the mail"
    )
    ignore: tuple[str, ...] = Setting((), description="domains never asked about, nor what is below them")

    @field_validator("ignore")
    @classmethod
    def _as_a_labels(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if a_label(name) is None:
                raise ValueError(f'"{name}" is no domain')
        return tuple(a_label(name) or "" for name in names)


class Uribl(Check[Message]):
    """Are the domains that links lead to on DNS lists?

    RFC 5782.
    """

    name = "uribl"
    after = ("content",)
    fields: ClassVar = {
        "score": Field(float, "the sum of the weights"),
        "lists": Field(tuple, "the zones that list any"),
        "domains": Field(tuple, "the domains, hosts and addresses that are listed"),
        "replies": Field(tuple, "the reply addresses"),
        "ignored": Field(tuple, "lists that could not be believed or did not answer"),
        "unasked": Field(int, "hosts over `most` that were not asked about"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.TEMPERROR)
    trouble: ClassVar[Trouble] = "accept"
    needs_body = False  # `content` does
    Options = UriblOptions

    async def open(self) -> None:
        """No list has been tested yet."""
        self._lists = DnsLists(self.tools.resolver)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Ask all lists about all hosts side by side."""
        content = seen.get("content")
        if content is None:
            return Finding(self.name, Result.NONE, "nothing to look up", warning="uribl needs the check content")
        if content.trouble:
            return Finding(self.name, Result.TEMPERROR, "the links could not be read: content", trouble=True)
        hosts, addresses = _texts(content.fields.get("url_hosts")), _texts(content.fields.get("url_addresses"))
        hosts = [host for host in hosts if not self._ignored(host)]
        domains = _texts(content.fields.get("url_domains"))
        domains = [domain for domain in domains if any(is_within(host, domain) for host in hosts)]
        asked = [
            question for each in self.options.lists for question in self._questions(each, hosts, domains, addresses)
        ]
        if not asked:
            return self.finding(Result.NONE, "nothing to look up")
        said = await asyncio.gather(*(self._lists.ask(*question) for question in asked))
        if error := nobody_answered(said):
            return Finding(self.name, Result.TEMPERROR, error, trouble=True)
        return self._told(said, max(0, len(domains) + len(addresses) - self.options.most))

    def _ignored(self, host: str) -> bool:
        return any(is_within(host, name) for name in self.options.ignore)

    def _questions(
        self, each: UriList, hosts: list[str], domains: list[str], addresses: list[str]
    ) -> Iterator[tuple[UriList, str, str, str]]:
        """What one list is asked: itself, the label, its test entry, and what the label means."""
        for name in (hosts if each.names == "host" else domains)[: self.options.most]:
            yield each, name, TEST_DOMAIN, name
        if each.addresses:
            for address in addresses[: self.options.most]:
                yield each, reversed_address(ip_address(address)), TEST_ADDRESS, address

    def _told(self, said: list[Said], unasked: int) -> Finding:
        listing = [each for each in said if each.lists]
        heaviest: dict[str, Said] = {}
        for each in listing:
            if abs(each.weight) > abs(heaviest.setdefault(each.zone, each).weight):
                heaviest[each.zone] = each
        score = total(each.weight for each in heaviest.values())
        failed = {each.zone: each.error or each.disbelief for each in said if each.error or each.disbelief}
        fields: dict[str, Value] = {
            "score": score,
            "lists": tuple(heaviest),
            "domains": tuple(dict.fromkeys(each.about for each in listing)),
            "replies": tuple(dict.fromkeys(reply for each in listing for reply in each.replies)),
            "ignored": tuple(failed),
            "unasked": unasked,
        }
        words = [
            f"{each.zone} says {' '.join(each.replies)} of {each.about} (weight {each.weight:g})"
            for each in listing[:SHOWN]
        ]
        words += [f"{zone} ignored: {why}" for zone, why in failed.items()]
        result = Result.FAIL if listing and score >= self.options.threshold else Result.PASS
        return Finding(self.name, result, "; ".join(words) or "on no list", fields, warning=warning(said))


def _texts(value: Value) -> list[str]:
    return list(value) if isinstance(value, tuple) else []

"""DMARC discovery: which record applies to an author domain, and what is its organizational domain?

Takes a domain and the DNS (through the `Resolver` port); gives the record, where it was found and the policy that
applies.  Never judges a message.  Two ways of finding the organizational domain: the tree walk of RFC 9989
section 4.10 (at most eight questions), or a suffix list given as a function (RFC 7489 section 3.2).

RFC 9989 sections 4.10 (tree walk), 4.10.1 (policy discovery), 4.10.2 (organizational domain).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from elemta.dns import DnsError, Resolver, Status
from elemta_milter.mailauth.dmarc_record import Policy, Record, parse_record

MAX_LABELS = 8  # RFC 9989 section 4.10: no walk asks more often than this

OrgDomain = Callable[[str], str | None]
"""Gives the organizational domain of a domain by a suffix list; None for a public suffix."""


class Discovery(Struct, frozen=True):
    """What was found for an author domain.

    Attributes:
        domain: the author domain asked about.
        org_domain: its organizational domain; "" where it was not needed or could not be found out.
        record: the record that applies, None for none.
        policy_domain: where that record stands; "" for none.
        policy: the policy published for this author domain; None without a usable record.
        testing: the record says t=y.
        reason: for people, why there is no record.
        trouble: for people, why nobody can say; "" otherwise.  With a record: whether its `np` applies is not known.
    """

    domain: str
    org_domain: str = ""
    record: Record | None = None
    policy_domain: str = ""
    policy: Policy | None = None
    testing: bool = False
    reason: str = ""
    trouble: str = ""


class _Answer(Struct, frozen=True):
    """What stands at _dmarc.DOMAIN."""

    record: Record | None
    reason: str
    proves_existence: bool


class Walker(Struct):
    """Asks for DMARC records, each name once: make one for each message.

    Attributes:
        resolver: the DNS.
        org_domain: the suffix list; None for the tree walk.
    """

    resolver: Resolver
    org_domain: OrgDomain | None = None
    _answers: dict[str, _Answer] = field(default_factory=dict)

    async def at(self, domain: str) -> _Answer:
        """Ask for the record at one domain.

        Raises:
            DnsError: nobody could say.
        """
        answer = self._answers.get(domain)
        if answer is None:
            answer = self._answers[domain] = await self._ask(domain)
        return answer

    async def _ask(self, domain: str) -> _Answer:
        answer = await self.resolver.query(f"_dmarc.{domain}", "TXT")
        readings = [parse_record(txt) for txt in answer.records if isinstance(txt, bytes)]
        records = [(record, reason) for record, reason in readings if record is not None]
        exists = answer.status is not Status.NXDOMAIN
        if len(records) > 1:  # RFC 9989 section 4.10 step 2: all are discarded
            return _Answer(None, f"{len(records)} DMARC records at {domain}", exists)
        if not records:
            return _Answer(None, f"no DMARC record at {domain}", exists)
        record, reason = records[0]
        return _Answer(record, f"{reason}: {domain}" if reason else "", exists)

    async def walk(self, domain: str) -> list[tuple[str, Record]]:
        """Walk up the tree; give the records found, from the longest name to the shortest.

        Raises:
            DnsError: a question on the way could not be answered.
        """
        found: list[tuple[str, Record]] = []
        for name in path(domain):
            record = (await self.at(name)).record
            if record is not None:
                found.append((name, record))
                if record.psd in {"y", "n"}:  # RFC 9989 section 4.10 steps 2 and 6
                    break
        return found

    async def organizational(self, domain: str) -> str:
        """Find the organizational domain of `domain`.

        Raises:
            DnsError: nobody could say.
        """
        if self.org_domain is not None:
            return self.org_domain(domain) or domain
        return organizational(domain, await self.walk(domain))


def path(domain: str) -> list[str]:
    """Give the names whose _dmarc records a tree walk from `domain` asks for (RFC 9989 section 4.10 steps 3 to 7)."""
    labels = domain.split(".")
    parents = labels[1:] if len(labels) < MAX_LABELS else labels[-(MAX_LABELS - 1) :]
    return [domain, *(".".join(parents[start:]) for start in range(len(parents)))]


def organizational(domain: str, found: list[tuple[str, Record]]) -> str:
    """Choose the organizational domain by the records of a walk, which ends at psd= (RFC 9989 section 4.10.2)."""
    if not found:
        return domain
    name, record = found[-1]
    return _one_label_below(name, domain) if record.psd == "y" and name != domain else name


def _one_label_below(suffix: str, domain: str) -> str:
    label = domain[: -len(suffix) - 1].rpartition(".")[2]
    return f"{label}.{suffix}"


async def discover(walker: Walker, domain: str) -> Discovery:
    """Find the record that applies to an author domain, as A-labels (RFC 9989 section 4.10.1); never raises."""
    try:
        own = await walker.at(domain)
        if own.record is not None:
            return _found(domain, "", domain, own.record, own.reason)
        records = await _above(walker, domain)
        org_domain = await walker.organizational(domain)
        place = next(iter(records), "")
        if not place:
            return Discovery(domain, org_domain, reason=own.reason)
        reason = (await walker.at(place)).reason
        found = _found(domain, org_domain, place, records[place], reason)
    except DnsError as error:
        return Discovery(domain, trouble=str(error))
    try:
        if not await _exists(walker, domain, records[place], own):
            return replace(found, policy=records[place].policy_for(subdomain=True, exists=False))
    except DnsError as error:
        return replace(found, trouble=str(error))  # mail that passes needs no policy
    return found


async def _above(walker: Walker, domain: str) -> dict[str, Record]:
    """Give the records that may apply to a domain that has none of its own, the nearest first."""
    if walker.org_domain is None:
        found = await walker.walk(domain)
        org_domain = organizational(domain, found)
        return {name: record for name, record in found if name == org_domain or record.psd == "y"}
    org_domain = walker.org_domain(domain) or domain  # RFC 7489 section 6.6.3 step 3
    record = (await walker.at(org_domain)).record
    return {} if record is None else {org_domain: record}


async def _exists(walker: Walker, domain: str, record: Record, own: _Answer) -> bool:
    """Tell whether the author domain exists (RFC 9989 section 3.2.13), asking only where it matters."""
    if own.proves_existence or record.p is None or record.np in {None, record.policy_for(subdomain=True)}:
        return True
    return (await walker.resolver.query(domain, "A")).status is not Status.NXDOMAIN


def _found(domain: str, org_domain: str, place: str, record: Record, reason: str) -> Discovery:
    if record.p is None:
        return Discovery(domain, org_domain, reason=reason)
    policy = record.policy_for(subdomain=place != domain)
    return Discovery(domain, org_domain, record, place, policy, record.testing)

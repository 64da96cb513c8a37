"""DMARC: does the domain in From stand behind this message, and what does its owner ask for if not?

Takes the authors of a message, the results of SPF and DKIM, and the DNS (through the `Resolver` port); gives pass,
fail, none, permerror or temperror with the domain owner's policy.  Never decides what happens to the message.  A
From that is ambiguous or names several domains never passes: it fails where one of the domains would.

RFC 9989 sections 4.4 (alignment), 4.10 (discovery), 5.3 (what a receiver does), 11.5 (several authors).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from elemta.addresses import Authors, a_label, is_within
from elemta.at_once import on_loop
from elemta.dns import DnsError, Resolver
from elemta.findings import Result
from elemta_milter.mailauth.dmarc_discovery import Discovery, OrgDomain, Walker, discover
from elemta_milter.mailauth.dmarc_record import Policy, Record

MAX_AUTHOR_DOMAINS = 5  # RFC 9989 section 11.5: each costs a discovery


class SpfInput(Struct, frozen=True):
    """What SPF said of the MAIL FROM identity (of postmaster@HELO for the null sender, RFC 7208 section 2.4).

    Attributes:
        result: "pass", "fail", ...
        domain: the domain checked.
    """

    result: str = "none"
    domain: str = ""


class Judgement(Struct, frozen=True):
    """Which author domain DMARC is about.

    Attributes:
        domain: it, as A-labels; "" when there is not exactly one beyond doubt.
        candidates: every domain that some reading of From finds.
        reason: for people, why there is not exactly one.
    """

    domain: str
    candidates: tuple[str, ...]
    reason: str = ""


class DmarcResult(Struct, frozen=True):
    """What DMARC says of a message.

    Attributes:
        result: pass, fail, none, permerror or temperror.
        reason: for people.
        domain: the author domain.
        org_domain: its organizational domain; "" where it was not found out.
        policy_domain: where the record stands.
        policy: published for this author domain (p, sp or np); None without a record.
        disposition: what the owner asks for this message: the policy after t=y; none unless it fails.
        testing: the record says t=y.
        spf_aligned: SPF passed for an aligned domain.
        dkim_aligned: a DKIM signature passed for an aligned domain.
        aligned: the domains that passed and are aligned, SPF's first.
        record: the record with its tags (adkim, aspf, rua, ruf, text, ...); None without one.
    """

    result: Result
    reason: str
    domain: str
    org_domain: str = ""
    policy_domain: str = ""
    policy: Policy | None = None
    disposition: Policy = Policy.NONE
    testing: bool = False
    spf_aligned: bool = False
    dkim_aligned: bool = False
    aligned: tuple[str, ...] = ()
    record: Record | None = None


def judge_authors(authors: Authors) -> Judgement:
    """Choose the author domain (RFC 9989 section 5.3.1), or say why there is none."""
    candidates = tuple(domain for domain in authors.domains if a_label(domain))
    if authors.trouble:
        return Judgement("", candidates, authors.trouble)
    if len(authors.domains) > 1:
        return Judgement("", candidates, f"From names {len(authors.domains)} domains")
    if candidates:
        return Judgement(candidates[0], candidates)
    return Judgement("", (), "From has an address literal" if authors.domains else "From names no author")


async def evaluate(
    resolver: Resolver,
    authors: Authors,
    spf: SpfInput,
    dkim: Sequence[tuple[str, str]],
    org_domain: OrgDomain | None = None,
) -> DmarcResult:
    """Evaluate a message by the authors of its From fields; never raises.

    Args:
        resolver: the DNS.
        authors: who wrote it.
        spf: the MAIL FROM identity's result.
        dkim: (result, d=) of each signature.
        org_domain: gives organizational domains by a suffix list (RFC 7489); None for the tree walk of RFC 9989.
    """
    judgement = judge_authors(authors)
    walker = Walker(resolver, org_domain)
    if judgement.domain:
        return await _evaluate(walker, judgement.domain, spf, dkim)
    domains = judgement.candidates[:MAX_AUTHOR_DOMAINS]
    if on_loop():  # side by side: one that keeps silent must not use up the time of the others
        results = await asyncio.gather(*(_evaluate(walker, domain, spf, dkim) for domain in domains))
    else:
        results = [await _evaluate(walker, domain, spf, dkim) for domain in domains]
    return _strictest(judgement, results)


def _strictest(judgement: Judgement, results: list[DmarcResult]) -> DmarcResult:
    """RFC 9989 section 11.5: the most strict policy among the checks that fail, if all were made.  There is no pass."""
    failed = [result for result in results if result.result is Result.FAIL]
    worst = max(failed, key=lambda result: (result.disposition.strictness, result.policy != "none"), default=None)
    if worst is None or worst.disposition is Policy.NONE:  # then those that gave no answer might ask for something
        worst = next((result for result in results if result.result is Result.TEMPERROR), worst)
        if worst is None or len(results) < len(judgement.candidates):
            domain = judgement.candidates[0] if judgement.candidates else ""
            return DmarcResult(Result.PERMERROR, judgement.reason, domain)
    return replace(worst, reason=f"{judgement.reason}; {worst.domain}: {worst.reason}")


async def _evaluate(walker: Walker, domain: str, spf: SpfInput, dkim: Sequence[tuple[str, str]]) -> DmarcResult:
    """Evaluate it for one author domain."""
    found = await discover(walker, domain)
    if found.record is None or found.policy is None:  # RFC 9989 section 5.3.6: with trouble neither pass nor fail
        result, reason = (Result.TEMPERROR, found.trouble) if found.trouble else (Result.NONE, found.reason)
        return DmarcResult(result, reason, domain, found.org_domain)
    alignment = _Alignment(walker, found)
    spf_aligned = await alignment.of(_domains([(spf.result, spf.domain)], Result.PASS), found.record.aspf)
    dkim_aligned = await alignment.of(_domains(dkim, Result.PASS), found.record.adkim)
    aligned = tuple(dict.fromkeys(spf_aligned + dkim_aligned))
    judged = DmarcResult(
        Result.PASS,
        f"aligned: {', '.join(aligned)[:200]}",
        domain,
        await alignment.for_display(domain in aligned),
        policy_domain=found.policy_domain,
        policy=found.policy,
        testing=found.testing,
        record=found.record,
        spf_aligned=bool(spf_aligned),
        dkim_aligned=bool(dkim_aligned),
        aligned=aligned,
    )
    if aligned:
        return judged
    # RFC 9989 section 5.3.6: what could not be looked up might have passed; then the message does not fail either
    open_spf = await alignment.of(_domains([(spf.result, spf.domain)], Result.TEMPERROR), found.record.aspf)
    open_dkim = await alignment.of(_domains(dkim, Result.TEMPERROR), found.record.adkim)
    trouble = alignment.trouble or found.trouble
    if trouble or open_spf or open_dkim:
        words = [f"SPF of {name}" for name in open_spf] + [f"DKIM of {name}" for name in open_dkim]
        reason = trouble or f"could not be checked: {', '.join(words)[:200]}"
        return replace(judged, result=Result.TEMPERROR, reason=reason)
    disposition = found.policy.below if found.testing else found.policy  # RFC 9989 section 4.7, t
    return replace(judged, result=Result.FAIL, reason="nothing that passed is aligned", disposition=disposition)


def _domains(results: Sequence[tuple[str, str]], wanted: Result) -> tuple[str, ...]:
    names = (a_label(domain) for result, domain in results if result == wanted)
    return tuple(dict.fromkeys(name for name in names if name))


class _Alignment:
    """Compares domains that passed with the author domain; walks the tree only where the answer depends on it."""

    def __init__(self, walker: Walker, found: Discovery) -> None:
        self.walker = walker
        self.domain = found.domain
        self.org_domain = found.org_domain
        self.trouble = ""

    async def of(self, domains: Sequence[str], mode: str) -> tuple[str, ...]:
        """Give those of `domains` that are aligned, "s" strictly or "r" relaxed (RFC 9989 section 4.10.2)."""
        return tuple(
            [domain for domain in domains if domain == self.domain or (mode == "r" and await self._same(domain))]
        )

    async def _same(self, domain: str) -> bool:
        if domain.rpartition(".")[2] != self.domain.rpartition(".")[2]:
            return False  # not even the last label is common
        try:
            self.org_domain = self.org_domain or await self.walker.organizational(self.domain)
            if not is_within(domain, self.org_domain):
                return False  # its organizational domain is itself or above it
            return await self.walker.organizational(domain) == self.org_domain
        except DnsError as error:
            self.trouble = self.trouble or str(error)
            return False

    async def for_display(self, same: bool) -> str:
        """Give the organizational domain: the common domain where author and identifier are one, else by a walk."""
        if not self.org_domain and not same:
            try:
                self.org_domain = await self.walker.organizational(self.domain)
            except DnsError:
                return ""  # not needed for the result
        return self.org_domain or self.domain

"""DMARC: does the domain in From stand behind this message, and what does its owner ask for if not?

Takes what `spf` and `dkim` found, and asks for the domain's policy.  Authors of several domains, none, and a From that
can be read in two ways never pass.  Never decides: `dmarc.policy` is the owner's wish, what becomes of it is
a rule's part.

RFC 9989 (tree walk) or, with `discovery: suffix-list`, the organizational domains of RFC 7489; RFC 8601 section 2.7.
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from pydantic import Field as Setting

from elemta.check import Check, Field, Options, Seen, Trouble
from elemta.facts import Message
from elemta.findings import AuthResult, Finding, Result, Value
from elemta_milter.mailauth.dkim import SignatureResult
from elemta_milter.mailauth.dmarc import DmarcResult, SpfInput, evaluate
from elemta_milter.mailauth.dmarc_discovery import OrgDomain
from elemta_milter.mailauth.dmarc_record import Policy

_POLICIES = tuple(policy.value for policy in Policy)
_MODE = {"r": "relaxed", "s": "strict"}


class DmarcOptions(Options):
    """Options of `dmarc`."""

    discovery: Literal["tree-walk", "suffix-list"] = Setting(
        "tree-walk", description="how organizational domains are found: RFC 9989, or the public suffix list of RFC 7489"
    )


class Dmarc(Check[Message]):
    """Does the domain in From stand behind this message, and what does its owner ask for if not?

    RFC 9989.
    """

    name = "dmarc"
    after = ("spf", "dkim")
    fields: ClassVar = {
        "policy": Field(str, "what the owner asks for this domain's mail that fails", words=_POLICIES),
        "disposition": Field(
            str, "what he asks for this very message: none unless it fails; one milder with t=y", words=_POLICIES
        ),
        "domain": Field(str, "the domain in From that was judged, as A-labels", domain=True),
        "org_domain": Field(str, "its organizational domain", domain=True),
        "policy_domain": Field(str, "where the record stands", domain=True),
        "record": Field(str, "the record as published; a stranger's words"),
        "testing": Field(bool, "the owner is testing (t=y)"),
        "spf_aligned": Field(bool, "SPF passed for an aligned domain"),
        "dkim_aligned": Field(bool, "a DKIM signature passed for an aligned domain"),
        "aligned": Field(tuple, "the domains that passed and are aligned", domain=True),
        "spf_mode": Field(str, "how SPF's domain must be aligned", words=tuple(_MODE.values())),
        "dkim_mode": Field(str, "how DKIM's domain must be aligned", words=tuple(_MODE.values())),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.TEMPERROR, Result.PERMERROR)
    trouble: ClassVar[Trouble] = "accept"
    needs_body = False
    only_dns = True
    Options = DmarcOptions

    _org_domain: OrgDomain | None = None

    async def open(self) -> None:
        """Load the suffix list where it is wanted."""
        if self.options.discovery == "suffix-list":
            from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - half a megabyte that others do not need

            self._org_domain = PublicSuffixList().privatesuffix

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Evaluate; `detail` is the `DmarcResult`."""
        spf, dkim = _spf(facts, seen.get("spf")), _dkim(facts, seen.get("dkim"))
        found = await evaluate(self.tools.resolver, facts.authors, spf, dkim, self._org_domain)
        missing = [name for name in self.after if name not in seen]
        return self._told(found, f"checks without {' and '.join(missing)}: authentic mail fails" if missing else "")

    def _told(self, found: DmarcResult, warning: str) -> Finding:
        fields: dict[str, Value] = {
            "domain": found.domain or None,
            "org_domain": found.org_domain or None,
            "disposition": found.disposition.value,
            "spf_aligned": found.spf_aligned,
            "dkim_aligned": found.dkim_aligned,
        }
        if found.record is not None and found.policy is not None:
            fields |= {
                "policy": found.policy.value,
                "policy_domain": found.policy_domain,
                "record": found.record.text,
                "testing": found.testing,
                "aligned": found.aligned,
                "spf_mode": _MODE[found.record.aspf],
                "dkim_mode": _MODE[found.record.adkim],
            }
        return Finding(
            self.name,
            found.result,
            found.reason,
            fields,
            (_evidence(found),),
            trouble=found.result is Result.TEMPERROR,
            warning=warning,
            detail=found,
        )


def _spf(facts: Message, spf: Finding | None) -> SpfInput:
    if spf is None:
        return SpfInput()
    domain = str(spf.fields.get("domain") or "")
    if spf.trouble and not domain:  # the whole check gave no answer: it might have passed (RFC 9989 section 5.3.6)
        domain = facts.envelope.sender_parts[1] or facts.envelope.client.helo
    return SpfInput(spf.result, domain)


def _dkim(facts: Message, dkim: Finding | None) -> list[tuple[str, str]]:
    """Give result and domain of each signature; if nobody could look at them, one of the author might have passed."""
    if dkim is not None and dkim.detail is None and dkim.trouble and facts.header("dkim-signature"):
        return [(Result.TEMPERROR, domain) for domain in facts.authors.domains]
    signatures = cast("tuple[SignatureResult, ...]", (dkim.detail if dkim else None) or ())
    return [(each.result, each.domain) for each in signatures]


def _evidence(found: DmarcResult) -> AuthResult:
    """Give the `resinfo` (RFC 9989 section 9.1)."""
    properties = []
    if found.domain:
        properties.append(("header.from", found.domain))
    if found.policy is not None:
        evaluated = found.policy.below if found.testing else found.policy  # "after policy options have been processed"
        properties.append(("policy.dmarc", evaluated.value))
    reason = "" if found.result is Result.PASS else found.reason
    return AuthResult("dmarc", found.result, reason, tuple(properties))

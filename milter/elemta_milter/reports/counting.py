"""Counting: which row of which report does this decision add to?

Takes one entry of the journal; gives the policy that was published and the row, or None for mail that is no matter of a
report: not yet decided (a deferred mail comes again), sent by our own users, about reports themselves, of domains that
ask for none.  Never writes, and holds no state.

RFC 9990 sections 3.1.1 (what stands in a row), 3.1.3 (which signatures first) and 3.1.6 (reasons of an override).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from elemta.addresses import a_label, is_near, split
from elemta.findings import AuthResult, Finding, Result
from elemta.journal import Entry
from elemta.journal.dispatch import LONGEST_VALUE
from elemta.verdict import ActionKind, Disposition
from elemta_milter.mailauth.dmarc_record import Policy, Record, parse_record
from elemta_milter.reports.return_path import ReturnPath

SIGNATURES = 100  # RFC 9990 section 3.1.3
LONGEST_NAMES = 1000  # characters of their domains and selectors in a row, which a stranger chooses
LONGEST_NAME = 253  # RFC 1035 section 2.3.4

HAPPENED: Mapping[Disposition, Policy] = {
    Disposition.ACCEPT: Policy.NONE,
    Disposition.QUARANTINE: Policy.QUARANTINE,
    Disposition.DISCARD: Policy.REJECT,
    Disposition.REJECT: Policy.REJECT,
}
REASONS = ("mailing_list", "trusted_forwarder")
"""Labels of rules that are also reasons why a policy was not applied."""

_NOT_IN_XML = re.compile("[^\x21-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Terms:
    """What is counted.

    Attributes:
        method: how policies are found, "treewalk" or "psl" (RFC 9990, discovery_method).
        own: the domain that sends the reports; nothing is reported about it, nor above or below it.
        silent: addresses, lower case: mail to nobody else is about reports and is not counted.
        return_path: likewise.
        classes: of these classes of mail; None: all mail without a login.
        envelope_to: also count by the recipients' domain.
    """

    method: str
    own: str
    silent: frozenset[str]
    return_path: ReturnPath
    classes: frozenset[str] | None = None
    envelope_to: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """A policy as it was seen.

    Attributes:
        domain: where the record stands, the policy domain.
        record: its text.
        method: how it was found.
    """

    domain: str
    record: str
    method: str

    def read(self) -> Record | None:
        """The record with its tags; None when it is none."""
        return _read(self.record)


@dataclass(frozen=True, slots=True)
class Row:
    """What is the same for all mails of one `record` element; the order of its fields is that of its written form.

    Attributes:
        source: the client's IP address.
        disposition: "none", "pass", "quarantine" or "reject" (RFC 9990 section 3.1.1.8).
        dkim: an aligned signature passed.
        spf: SPF passed for an aligned domain.
        reasons: (type, comment) of each override.
        header_from: the domain in From.
        envelope_from: the domain of MAIL FROM, "" for the null sender.
        envelope_to: the domain of all recipients, "" where it is not told.
        signatures: (domain, selector, result) of each signature, those that say most first.
        spf_domain: the domain that SPF asked, "" where SPF was not asked.
        spf_result: its result.
    """

    source: str
    disposition: str
    dkim: bool
    spf: bool
    reasons: tuple[tuple[str, str], ...] = ()
    header_from: str = ""
    envelope_from: str = ""
    envelope_to: str = ""
    signatures: tuple[tuple[str, str, str], ...] = ()
    spf_domain: str = ""
    spf_result: str = ""


def published(entry: Entry, terms: Terms) -> Published | None:
    """The policy that a report would be about; None for mail that no report is about."""
    if entry.disposition is Disposition.DEFER or not entry.client or _is_about_reports(entry, terms):
        return None
    if (entry.klass not in terms.classes) if terms.classes is not None else entry.login:
        return None
    fields = _findings(entry)["dmarc"].fields if "dmarc" in _findings(entry) else {}
    domain, record = str(fields.get("policy_domain") or ""), str(fields.get("record") or "")
    if not domain or is_near(domain, terms.own):
        return None
    if len(record) >= LONGEST_VALUE:  # as the journal may have cut it, so for every mail, in whole words
        record = record[:LONGEST_VALUE]
        record = record[: max(record.rfind(","), record.rfind(";"))]
    return Published(domain, record, terms.method)


def row(entry: Entry, terms: Terms) -> Row:
    """The row that a mail adds to; `published` has said that it does."""
    findings = _findings(entry)
    dmarc = findings["dmarc"]
    header_from = _name(dmarc.fields.get("domain"))
    disposition, reasons = _applied(entry, dmarc, findings.get("arc"))
    spf = findings.get("spf")
    spf_domain = _name(spf.fields.get("domain")) if spf is not None else ""
    return Row(
        source=entry.client,
        disposition=disposition,
        dkim=bool(dmarc.fields.get("dkim_aligned")),
        spf=bool(dmarc.fields.get("spf_aligned")),
        reasons=reasons,
        header_from=header_from,
        envelope_from=_domain_of(entry.sender),
        envelope_to=_common_domain(entry.recipients) if terms.envelope_to else "",
        signatures=_signatures(findings.get("dkim"), header_from, dmarc.fields.get("aligned")),
        spf_domain=spf_domain,
        spf_result=spf.result.value if spf is not None and spf_domain else "",
    )


def _findings(entry: Entry) -> dict[str, Finding]:
    return {finding.check: finding for finding in entry.findings}


def _is_about_reports(entry: Entry, terms: Terms) -> bool:
    """Reports of others, and bounces of ours: counting them would make two servers report for ever.

    Nobody else gets these.  Who copies a forgery to such an address, or takes one for his MAIL FROM, shall not hide it.
    """
    return bool(entry.recipients) and all(
        each.lower() in terms.silent or terms.return_path.token(each) is not None for each in entry.recipients
    )


def _applied(entry: Entry, dmarc: Finding, arc: Finding | None) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What DMARC did to the mail, and why that is not what was published."""
    policy = Policy(str(dmarc.fields["policy"]))
    if dmarc.result is Result.PASS:
        return "none" if policy is Policy.NONE else "pass", ()
    asked = Policy(str(dmarc.fields["disposition"]))
    applied = HAPPENED[entry.disposition]
    by_dmarc = entry.rule == "trouble:dmarc" if entry.rule.startswith("trouble:") else "dmarc" in entry.behind
    if not by_dmarc:  # what else happened to it is no matter of the domain's owner
        applied = min(asked, applied, key=lambda each: each.strictness)
    if applied is policy:
        return applied.value, ()
    return applied.value, (_reason(entry, dmarc, arc, asked, applied),)


def _reason(entry: Entry, dmarc: Finding, arc: Finding | None, asked: Policy, applied: Policy) -> tuple[str, str]:
    """Type and comment (RFC 9990 section 3.1.6); never which filter or rule it was."""
    if dmarc.result is Result.TEMPERROR:
        return "other", "the DNS gave no answer"
    if applied is asked and dmarc.fields.get("testing"):
        return "policy_test_mode", ""
    if applied.strictness < asked.strictness:
        labels = {each.value for each in entry.actions if each.kind is ActionKind.LABEL}
        for word in REASONS:
            if word in labels:
                return word, ""
        if arc is not None and arc.result is Result.PASS and arc.fields.get("trusted"):
            return "trusted_forwarder", "arc=pass"
    return "local_policy", ""


def _signatures(dkim: Finding | None, header_from: str, aligned: object) -> tuple[tuple[str, str, str], ...]:
    """Domain, selector and result of each, in the order of RFC 9990 section 3.1.3."""
    same = aligned if isinstance(aligned, tuple) else ()

    def rank(signature: tuple[str, str, str]) -> int:
        domain, _, result = signature
        return 3 if result != Result.PASS else 0 if domain == header_from else 1 if domain in same else 2

    told = (_signature(each) for each in (dkim.authres if dkim is not None else ()))
    whole = dict.fromkeys(each for each in told if each[0] and each[1])
    ranked = sorted(whole, key=rank)[:SIGNATURES]
    lengths = accumulate(len(domain) + len(selector) for domain, selector, _ in ranked)
    return tuple(each for each, length in zip(ranked, lengths, strict=True) if length <= LONGEST_NAMES)


def _signature(evidence: AuthResult) -> tuple[str, str, str]:
    told = dict(evidence.properties)
    return _name(told.get("header.d")), _name(told.get("header.s")), evidence.result


def _domain_of(address: str) -> str:
    domain = split(address)[1]
    return _name(a_label(domain) or domain)


def _common_domain(recipients: tuple[str, ...]) -> str:
    domains = {_domain_of(recipient) for recipient in recipients}
    return domains.pop() if len(domains) == 1 else ""


def _name(value: object) -> str:
    """A stranger's name of a host as XML can hold it."""
    return _NOT_IN_XML.sub("?", str(value or "")[:LONGEST_NAME]).lower()


@lru_cache(maxsize=4096)
def _read(record: str) -> Record | None:
    return parse_record(record.encode())[0]

"""Mail to report about: decisions with what spf, dkim and dmarc found, a journal of them, an office that reports."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from msgspec import structs

from elemta.config.model import Settings
from elemta.facts import Client
from elemta.findings import AuthResult, Finding, Result
from elemta.journal.entry import of_decision
from elemta.testing import FakeResolver
from elemta.verdict import Disposition
from elemta_milter.reports.counting import Terms
from elemta_milter.reports.office import open_office, read_journal
from elemta_milter.reports.return_path import ReturnPath
from elemta_milter.reports.sending import close_windows, send
from harness.decisions import decision
from harness.journal import JournalWriter

DAY = 1_700_006_400  # 2023-11-15T00:00:00Z, a Wednesday
MORNING = DAY + 86_400 + 7200  # of the next day, when reports have left
RECORD = "v=DMARC1; p=reject; sp=quarantine; rua=mailto:agg@sender.test; ruf=mailto:fail@sender.test"
TERMS = Terms("treewalk", "receiver.test", frozenset({"inbox@receiver.test"}), ReturnPath("dmarc@receiver.test"))
SIGNATURES = (("sender.test", "s1", "pass"),)


def mail(**changes: Any):
    """A decision about a mail of sender.test; `changes` of the words below, or fields of the decision by name."""
    told = {
        "result": "pass", "policy": "reject", "asked": None, "domain": "sender.test", "policy_domain": "sender.test",
        "record": RECORD, "testing": False, "dkim": True, "spf": True, "signatures": SIGNATURES, "spf_result": "pass",
        "spf_domain": "sender.test", "disposition": Disposition.ACCEPT, "behind": (), "labels": (),
        "client": "192.0.2.7", "login": "", "arc": None,
    }  # fmt: skip
    told |= {name: changes.pop(name) for name in told if name in changes}
    asked = told["asked"] or ("none" if told["result"] != "fail" else told["policy"])
    fields = {
        "domain": told["domain"], "disposition": asked, "dkim_aligned": told["dkim"], "spf_aligned": told["spf"],
        "policy": told["policy"], "policy_domain": told["policy_domain"], "record": told["record"],
        "testing": told["testing"], "aligned": (told["domain"],) if told["dkim"] or told["spf"] else (),
    }  # fmt: skip
    if told["record"] is None:
        fields = {"domain": told["domain"], "disposition": "none"}
    evidence = tuple(
        AuthResult("dkim", result, properties=(("header.d", domain), ("header.s", selector), ("header.b", "abcd")))
        for domain, selector, result in told["signatures"]
    )
    findings = [
        Finding("spf", Result(told["spf_result"]), fields={"domain": told["spf_domain"], "identity": "mailfrom"}),
        Finding("dkim", Result.PASS if told["dkim"] else Result.FAIL, authres=evidence),
        Finding("dmarc", Result(told["result"]), fields=fields),
    ]
    if told["arc"] is not None:
        findings.append(Finding("arc", Result.PASS, fields={"trusted": told["arc"]}))
    address = ip_address(told["client"]) if told["client"] else None
    client = Client(address, name="mail.sender.test", helo="mail.sender.test", login=told["login"])
    given = {"at": DAY + 10_000.0, "disposition": told["disposition"], "reply": "", "rule": "", "findings": findings}
    made = decision(**{**given, "client": client, "actions": (), **changes})
    verdict = structs.replace(made.verdict, findings=told["behind"], actions=_labels(told["labels"]))
    return structs.replace(made, verdict=verdict)


def _labels(words):
    from elemta.verdict import Action, ActionKind  # noqa: PLC0415

    return tuple(Action(ActionKind.LABEL, value=word, rule="list") for word in words)


def entry(**changes: Any):
    """The same as the journal tells it."""
    return of_decision(mail(**changes), {})


def keep(path, *decisions) -> None:
    """Put decisions into the journal at `path`."""
    writer = JournalWriter(str(path), lambda text: None)
    writer.open()
    for each in decisions:
        writer.decided(each)
    assert writer.close() == 0


def settings(directory, **more: Any) -> Settings:
    """Settings with reports; `more` are keys of that section, or whole sections."""
    sections = {name: more.pop(name) for name in ("sign", "checks", "classes", "dns") if name in more}
    return Settings.model_validate(
        {
            "host": "mx.receiver.test",
            "user": "root",
            "journal": {"path": f"{directory}/journal.db"},
            "checks": {"spf": None, "dkim": None, "dmarc": None},
            "reports": {"from": "dmarc@receiver.test", "organization": "Receiver", **more},
            **sections,
        }
    )


class Postbox:
    """A submission that takes what it is given, or answers as `answers` (by address) says."""

    def __init__(self, **answers: tuple[str, str]) -> None:
        self.answers = answers
        self.sent: list[tuple[str, str, bytes]] = []

    def send(self, sender: str, recipient: str, data: bytes) -> tuple[str, str]:
        state, words = self.answers.get(recipient.partition("@")[0], ("sent", "250 2.0.0 Ok"))
        if state == "sent":
            self.sent.append((sender, recipient, data))
        return state, words


@asynccontextmanager
async def office(of: Settings, postbox: Postbox, zone: Any = None):
    """An office over `postbox` and a zone in memory."""
    async with open_office(of, of.reports, FakeResolver(ZONE | (zone or {}))) as opened:
        yield replace(opened, submission=postbox)


ZONE = {
    "_dmarc.sender.test": [("TXT", RECORD)],
    "_dmarc.receiver.test": [("TXT", "v=DMARC1; p=reject; rua=mailto:inbox@receiver.test")],
}


def run(of, now=MORNING, postbox=None, zone=None, **more):
    """One run as the keeper does it; what was told and the postbox."""
    postbox = postbox if postbox is not None else Postbox()

    async def once():
        async with office(of, postbox, zone) as opened:
            await read_journal(opened, of, of.reports, now)
            close_windows(opened, now)
            told = await send(opened, now, **more)
            opened.ledger.forget(now)
            return told

    return asyncio.run(once()), postbox


def states(told):
    return [(one.address, one.state) for one in told]


def read_by_parsedmarc(report: bytes) -> dict[str, Any]:
    """What parsedmarc makes of a report: gzip, XML or a whole mail. It never asks the network."""
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        import parsedmarc  # noqa: PLC0415

        if report.startswith(b"\x1f\x8b"):
            report = gzip.decompress(report)
        if report.startswith(b"<?xml"):
            return parsedmarc.parse_aggregate_report_xml(report.decode(), offline=True, always_use_local_files=True)
        read = parsedmarc.parse_report_email(report, offline=True, always_use_local_files=True)
        return read["report"] | {"report_type": read["report_type"]}

"""Explaining: goldens of what an administrator reads, and the facts behind every line of them.

tests/cases/explain/NAME.txt is what is printed for the decision NAME below. After a change that is meant:
ELEMTA_GOLDEN=write pytest tests/elemta/test_explain.py, and read the difference.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC
from ipaddress import ip_address
from pathlib import Path

import pytest

from elemta import explain
from elemta.decision import MATCHED
from elemta.facts import Client, Envelope
from elemta.findings import Finding, Result
from elemta.journal.entry import of_decision
from elemta.verdict import Action, ActionKind, Disposition
from harness.decisions import decision

CASES = Path(__file__).parents[1] / "cases" / "explain"
AT = 1_795_459_211.5  # 2026-11-23 18:40:11.5 UTC
EVIL = "\x1b[2Jevil\r\nDecided: accept\u202e\x07"
RULES = {
    "host": "mx.test",
    "rules": {
        "recipient": [
            {
                "id": "partner",
                "when": ["sender.domain is in partners", "spf is pass"],
                "then": "accept",
                "mode": "enforce",
                "facts": ["sender.domain", "spf"],
            },
            {
                "id": "greylist",
                "when": ["class is inbound", "greylist is fail"],
                "then": "defer",
                "mode": "enforce",
                "facts": ["greylist"],
            },
        ],
        "message": [
            {"id": "virus", "when": ["clamav is fail"], "then": "reject", "mode": "enforce", "facts": ["clamav"]},
            {
                "id": "executable",
                "when": ["in the 25 % of messages", "attachments.extension is any of exe, js"],
                "then": "quarantine",
                "mode": "shadow",
                "facts": ["attachments.extension"],
            },
            {"id": "outgoing", "when": ["class is submission"], "then": "accept", "mode": "enforce", "facts": []},
            {
                "id": "listed",
                "when": ["dnsbl.weight >= 5", "unless dkim is pass and header_from.domain is in partners"],
                "then": "reject",
                "mode": "enforce",
                "facts": ["dnsbl.weight", "dkim", "header_from.domain"],
            },
            {"id": "tag", "when": ["spf is softfail"], "then": "", "mode": "enforce", "facts": ["spf"]},
            {
                "id": "spoofed",
                "when": ["header_from.domain is in local_domains", "not (dmarc is pass)"],
                "then": "reject",
                "mode": "enforce",
                "facts": ["header_from.domain", "dmarc"],
            },
            {
                "id": "spam",
                "when": ["rspamd.score >= 15"],
                "then": "reject",
                "mode": "enforce",
                "facts": ["rspamd.score"],
            },
        ],
    },
}
VALUES = {
    "clamav": "pass",
    "attachments.extension": ("pdf", "zip"),
    "dnsbl.weight": 7,
    "dkim": "pass",
    "spf": "softfail",
    "header_from.domain": "here.test",
    "dmarc": "fail",
    "client.address": ip_address("192.0.2.7"),
}
FINDINGS = (
    Finding("spf", Result.SOFTFAIL, "~all matched", {"domain": "sender.test", "helo": None, "explanation": ""}),
    Finding(
        "dmarc", Result.FAIL, "no aligned identifier passed", {"policy": "reject", "domains": ("a.test", "b.test")}
    ),
    Finding("clamav", Result.PASS, "clean"),
)


def case(**changes):
    given = {
        "id": "7K2M9QX1RD", "at": AT, "values": VALUES, "findings": FINDINGS, "shadow": (), "rule": "spoofed",
        "trace": [0, 1, 0, 1, MATCHED, MATCHED], "timings": {"spf": 0.0031, "dmarc": 0.0102, "clamav": 0.25},
        "reply": "550 5.7.1 Mail from here.test must authenticate. Reference 7K2M9QX1RD",
    }  # fmt: skip
    return of_decision(decision(**{**given, **changes}), RULES)


ENTRIES = {
    "rejected": case(actions=(Action(ActionKind.ADD_HEADER, "X-Spam-Flag", "YES", 0.0, "tag"),)),
    "accepted": case(
        rule="",
        reply="",
        disposition=Disposition.ACCEPT,
        actions=(),
        trace=[0, MATCHED, 0, 0, 0, 0, 0],
        shadow=("executable",),
        values={**VALUES, "dnsbl.weight": None, "header_from.domain": ""},
    ),
    "trouble": case(
        rule="trouble:clamav",
        disposition=Disposition.DEFER,
        reply="451 4.3.0 A policy check could not be made",
        findings=(Finding("clamav", Result.TEMPERROR, "no answer within 10 s", trouble=True),),
        trace=[0] * 7,
        actions=(),
        timings={"clamav": 10.0},
        seconds=10.01,
        values={"clamav": "temperror"},
    ),
    "recipient": case(
        stage="recipient",
        facts=Envelope(Client(ip_address("2001:db8::7"), helo="[2001:db8::7]"), "", ("bob@here.test",)),
        rule="greylist",
        disposition=Disposition.DEFER,
        reply="450 4.7.1 Greylisted, try again in 5m",
        actions=(),
        values={"sender.domain": "", "spf": "none", "greylist": "fail"},
        trace=[0, MATCHED],
        findings=(Finding("greylist", Result.FAIL, "attempt 1", {"wait": 300.0, "known": False}),),
        timings=None,
        seconds=0.0004,
    ),
    "submission": case(
        klass="submission",
        rule="outgoing",
        disposition=Disposition.ACCEPT,
        reply="",
        trace=[0, 0, MATCHED],
        actions=(),
        client=Client(ip_address("198.51.100.4"), name="laptop.here.test", login="carol"),
        queue_id="",
        recipients=tuple(f"colleague{number}@partner.test" for number in range(12)),
        findings=(),
        timings={},
    ),
    "hostile": case(
        client=Client(ip_address("192.0.2.66"), name=EVIL, helo=EVIL),
        sender=EVIL,
        recipients=(EVIL,),
        queue_id=EVIL,
        headers=((b"From", EVIL.encode()), (b"Message-ID", b"\x1b]0;x\x07")),
        reply=EVIL,
        values={**VALUES, "dmarc": EVIL},
        findings=(Finding("spf", Result.FAIL, EVIL, {"domain": EVIL, "several": (EVIL, EVIL)}),),
        trace=[0, 1, 0, 1, 0, 1],
        actions=(
            Action(ActionKind.SET_HEADER, "Subject", EVIL, 0.0, "tag"),
            Action(ActionKind.LABEL, "", EVIL, 0.0, "t"),
        ),
        rule="",
        disposition=Disposition.ACCEPT,
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_story_reads_as_it_should(name):
    told = explain.story(ENTRIES[name], width=100, zone=UTC)
    golden = CASES / f"{name}.txt"
    if os.environ.get("ELEMTA_GOLDEN") == "write":
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8")


def test_every_golden_has_its_decision():
    assert {path.stem for path in CASES.glob("*.txt")} == {*ENTRIES, "table"}


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("name", ENTRIES)
def test_no_line_is_wider_than_the_terminal_or_holds_what_a_stranger_wrote_for_it(name, width):
    for line in explain.story(ENTRIES[name], width=width, zone=UTC).splitlines():
        assert line.isprintable()
        assert len(line) <= max(width, 100)
        if width >= 80 and " " in line.strip():
            assert len(line) <= width


def test_each_rule_says_the_first_condition_that_did_not_hold_and_what_was_seen():
    read = {rule.id: rule for rule in explain.rules_read(ENTRIES["rejected"])}
    assert list(read) == ["virus", "executable", "outgoing", "listed", "tag", "spoofed"]
    assert (read["virus"].condition, dict(read["virus"].seen)) == ("clamav is fail", {"clamav": "pass"})
    assert dict(read["executable"].seen) == {"attachments.extension": ("pdf", "zip")}
    assert dict(read["outgoing"].seen) == {"class": "inbound"}
    assert dict(read["listed"].seen) == {"dkim": "pass", "header_from.domain": "here.test"}
    assert read["tag"].matched
    assert not read["tag"].decided
    assert read["spoofed"].decided


def test_a_policy_that_the_journal_does_not_hold_is_said():
    entry = of_decision(decision(), {})
    assert entry.rules is None
    assert "does not hold the rules of policy cafe00" in explain.story(entry)
    assert explain.rules_read(entry) == []


def test_a_stage_without_rules_is_said():
    entry = of_decision(decision(rule="", trace=()), {"rules": {"message": []}})
    assert "there are none for this stage" in explain.story(entry)
    assert "no rule decided: accepted" in explain.story(replace(entry, rule=""))
    troubled = replace(entry, rule="trouble:clamav", disposition=Disposition.DEFER)
    assert "clamav could not answer, and its setting `trouble` decided: deferred" in explain.story(troubled)
    assert "accepted" not in explain.story(troubled)


def test_data_is_json_and_says_the_same():
    told = json.loads(json.dumps(explain.data(ENTRIES["rejected"])))
    assert told["disposition"] == "reject"
    assert told["at"] == "2026-11-23T18:40:11.500+00:00"
    assert told["client"] == {
        "address": "192.0.2.7", "name": "mail.sender.test", "helo": "mail.sender.test", "login": "",
    }  # fmt: skip
    assert told["findings"][0]["check"] == "spf"
    assert told["rules"][0] == {
        "id": "virus", "mode": "enforce", "then": "reject", "matched": False, "decided": False,
        "condition": "clamav is fail", "seen": {"clamav": "pass"},
    }  # fmt: skip
    assert told["rules"][-1] == {"id": "spoofed", "mode": "enforce", "then": "reject", "matched": True, "decided": True}
    assert told["rules_not_read"] == 1
    assert told["check_milliseconds"]["clamav"] == 250.0


def test_the_table_fits_and_lines_up():
    told = explain.table(list(ENTRIES.values()), width=100, zone=UTC)
    golden = CASES / "table.txt"
    if os.environ.get("ELEMTA_GOLDEN") == "write":
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8")
    assert all(len(line) <= 100 and line.isprintable() for line in told.splitlines())


def test_colours_change_nothing_but_colours():
    for told in (explain.story, lambda entry, **more: explain.table([entry], **more)):
        plain, coloured = told(ENTRIES["rejected"]), told(ENTRIES["rejected"], colour=True)
        assert "\x1b[31m" in coloured or "\x1b[1;31m" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain

"""Which rules were read for this mail, and why did each match or not?

Puts the words of the policy, as the journal holds them, beside the trace of the judgement and the facts it saw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elemta.decision import MATCHED
from elemta.findings import Finding, Value
from elemta.journal import Entry

_FACT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class ReadRule:
    """One rule as it was read.

    Attributes:
        id: its name.
        mode: "enforce" or "shadow".
        then: what it decides, "" when it is not final.
        matched: all its conditions held.
        condition: the first that did not hold, "" when all did.
        seen: the facts that this condition asks for, and their values.
        decided: its verdict is the mail's.
    """

    id: str
    mode: str
    then: str
    matched: bool
    condition: str
    seen: Mapping[str, Value]
    decided: bool


def rules_read(entry: Entry) -> list[ReadRule]:
    """The rules that were read, in order; [] when the journal does not know their words."""
    found = []
    for rule, place in zip(entry.rules or (), entry.trace, strict=False):
        matched = place == MATCHED
        condition = "" if matched else _condition(rule, place)
        seen = {name: _seen(entry, name) for name in _facts(rule, condition, entry)}
        decided = rule["id"] == entry.rule
        found.append(ReadRule(rule["id"], rule["mode"], rule["then"], matched, condition, seen, decided))
    return found


def data(entry: Entry) -> dict[str, Any]:
    """The whole story as plain data for JSON."""
    return {
        "id": entry.id,
        "at": _time(entry.at),
        "stage": entry.stage, "class": entry.klass, "queue_id": entry.queue_id, "instance": entry.instance,
        "disposition": entry.disposition, "rule": entry.rule, "reply": entry.reply,
        "client": {"address": entry.client, "name": entry.client_name, "helo": entry.helo, "login": entry.login},
        "sender": entry.sender, "recipients": entry.recipients, "size": entry.size,
        "header_from": entry.header_from, "message_id": entry.message_id,
        "findings": [_finding_data(finding) for finding in entry.findings],
        "facts": dict(entry.values),
        "rules": [
            {"id": rule.id, "mode": rule.mode, "then": rule.then, "matched": rule.matched, "decided": rule.decided}
            | ({} if rule.matched else {"condition": rule.condition, "seen": dict(rule.seen)})
            for rule in rules_read(entry)
        ],
        "rules_not_read": max(0, len(entry.rules or ()) - len(entry.trace)),
        "shadow": entry.shadow,
        "actions": [
            {"action": each.kind, "name": each.name, "value": each.value, "rule": each.rule} for each in entry.actions
        ],
        "milliseconds": round(entry.seconds * 1000, 3),
        "check_milliseconds": {name: round(seconds * 1000, 3) for name, seconds in entry.timings.items()},
        "policy": entry.policy,
        "acts": [{"at": _time(act.at), "deed": act.deed, "who": act.who} for act in entry.acts],
    }  # fmt: skip


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _condition(rule: Mapping[str, Any], place: int) -> str:
    texts = rule["when"]
    return str(texts[place]) if place < len(texts) else "a condition that the journal does not hold"


def _facts(rule: Mapping[str, Any], condition: str, entry: Entry) -> list[str]:
    """The facts that a condition's words name, in order."""
    known = {*rule.get("facts", ()), *entry.values, "class"}
    return list(dict.fromkeys(word for word in _FACT.findall(condition) if word in known))


def _seen(entry: Entry, name: str) -> Value:
    return entry.klass if name == "class" else entry.values.get(name)


def _finding_data(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "result": finding.result,
        "reason": finding.reason,
        "trouble": finding.trouble,
        "fields": dict(finding.fields),
    }

"""Journal entries: how does a decision become a row of the journal, and the row an entry again?

`row` makes the columns of what `dispatch` took from a decision, where the journal is written; `entry` reads a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from elemta.decision import Decision
from elemta.findings import AuthResult, Finding, Result, Value
from elemta.journal.acts import Act
from elemta.journal.dispatch import dispatch, opened
from elemta.verdict import Action, ActionKind, Disposition

COLUMNS = (
    "id", "at", "stage", "queue_id", "instance", "class", "disposition", "rule", "reply", "client", "client_name",
    "helo", "login", "sender", "recipients", "size", "message_id", "header_from", "seconds", "policy", "detail",
)  # fmt: skip
_RECIPIENTS = COLUMNS.index("recipients")
_TYPES = tuple((float, int) if name in ("at", "size", "seconds") else str for name in COLUMNS)
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What `entry` raises for a row that nobody wrote so."""
_LAST = 253401955200.0  # 9999-12-28, days before the end of Python's calendar

Row = tuple[str | float | int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision as the journal tells it.

    Attributes:
        id: the reference id.
        at: seconds since 1970.
        stage: "recipient" or "message".
        queue_id: Postfix's queue id, "" before there was one.
        instance: the policy protocol's message instance, "" in the milter.
        klass: the class of the mail.
        disposition: what happened to it.
        rule: the deciding rule, see `Verdict.rule`.
        reply: the SMTP reply, "" for none.
        client: the client's address, "" for none.
        client_name: its verified name.
        helo: its HELO name.
        login: the SASL login, "" for none.
        sender: MAIL FROM, "" for the null sender.
        recipients: RCPT TO.
        size: octets.
        message_id: the first Message-ID field, at most 300 characters.
        header_from: the first From field, at most 300 characters.
        seconds: how long the judgement took.
        policy: the fingerprint of the policy.
        findings: of every check; without `detail` and `header`.
        values: the facts that rules asked for.
        trace: see `Decision.trace`.
        shadow: ids of the shadow rules that matched.
        timings: seconds by check.
        actions: what was asked for besides the verdict.
        behind: names of the checks whose facts the deciding rule asked for.
        rules: the rules of this stage as they were, in order: id, when (texts), then, mode; None when the journal
            does not know that policy.
        acts: what was done with the mail later, in order.
    """

    id: str
    at: float
    stage: str
    queue_id: str
    instance: str
    klass: str
    disposition: Disposition
    rule: str
    reply: str
    client: str
    client_name: str
    helo: str
    login: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    message_id: str
    header_from: str
    seconds: float
    policy: str
    findings: tuple[Finding, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    trace: tuple[int, ...] = ()
    shadow: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    behind: tuple[str, ...] = ()
    rules: tuple[Mapping[str, Any], ...] | None = None
    acts: tuple[Act, ...] = ()


def row(dispatched: bytes) -> Row:
    """The columns of `decisions`, in the order of COLUMNS.

    Raises:
        ValueError, TypeError: a finding holds what cannot be written down.
    """
    told, (findings, values, actions) = opened(dispatched)
    *plain, trace, shadow, timings, behind = told
    plain[_RECIPIENTS] = _json(plain[_RECIPIENTS])
    detail = {
        "findings": [_described(finding) for finding in findings],
        "values": values,
        "trace": trace,
        "shadow": shadow,
        "timings": {name: round(seconds * 1e6) for name, seconds in (timings or {}).items()},  # short: whole us
        "actions": actions,
        "behind": behind,
    }
    return (*plain, _json(detail))


def of_decision(decision: Decision, document: Mapping[str, Any]) -> Entry:
    """The entry that `decision` will be in the journal; `document` is `Policy.describe()`."""
    return entry(row(dispatch(decision)), json.dumps(document))


def entry(columns: Sequence[Any], document: str | None = None) -> Entry:
    """The entry that a row tells; `document` is its policy's.

    Raises:
        UNREADABLE: nobody wrote such a row.
    """
    for name, value, types in zip(COLUMNS, columns, _TYPES, strict=False):
        if not isinstance(value, types):  # SQLite keeps in any column whatever a damaged page says
            raise TypeError(f"{name} is {type(value).__name__}")
    *plain, detail = columns
    told: dict[str, Any] = dict(zip(COLUMNS, plain, strict=False))
    more = json.loads(detail)
    told["klass"] = told.pop("class")
    told["disposition"] = Disposition(told["disposition"])
    told["recipients"] = tuple(json.loads(told["recipients"]))
    if not (0 <= told["at"] < _LAST and all(isinstance(each, str) for each in told["recipients"])):
        raise ValueError("its time or its recipients are none")
    rules = json.loads(document).get("rules", {}).get(told["stage"]) if document else None
    return Entry(
        **told,
        findings=tuple(_finding(each) for each in more["findings"]),
        values={name: _value(value) for name, value in more["values"].items()},
        trace=tuple(more["trace"]),
        shadow=tuple(more["shadow"]),
        timings={name: micro / 1e6 for name, micro in more["timings"].items()},
        actions=tuple(Action(ActionKind(kind), *rest) for kind, *rest in more["actions"]),
        behind=tuple(more["behind"]),
        rules=None if rules is None else tuple(rules),
    )


def _described(finding: Sequence[Any]) -> dict[str, Any]:
    """A finding as it stands in `detail`: what there is of it."""
    check, result, reason, fields, trouble, authres = finding
    told: dict[str, Any] = {"check": check, "result": result}
    if reason:
        told["reason"] = reason
    if fields:
        told["fields"] = fields
    if trouble:
        told["trouble"] = True
    if authres:
        told["authres"] = authres
    return told


def _finding(told: Mapping[str, Any]) -> Finding:
    fields = {name: _value(value) for name, value in told.get("fields", {}).items()}
    evidence = tuple(
        AuthResult(method, result, "".join(reason), tuple((name, value) for name, value in properties))
        for method, result, *reason, properties in told.get("authres", ())  # the first journals kept no reason
    )
    trouble = told.get("trouble", False)
    return Finding(told["check"], Result(told["result"]), told.get("reason", ""), fields, evidence, trouble=trouble)


def _value(value: Any) -> Value:  # noqa: ANN401 - as JSON gives it
    return tuple(value) if isinstance(value, list) else value


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

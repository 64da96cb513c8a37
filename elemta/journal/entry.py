"""Journal entries: how does a decision become a row of the journal, and the row an entry again?

`row` takes from a decision what the journal keeps and lets go of the message: its body must not stay in memory until
the next write.  `entry` reads a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from elemta.decision import Decision
from elemta.facts import Message
from elemta.findings import AuthResult, Finding, Result, Value
from elemta.journal.acts import Act
from elemta.printable import storable
from elemta.verdict import Action, ActionKind, Disposition

LONGEST_FIELD = 300  # characters kept of Message-ID and From
WHOLE = 8000  # characters of a detail that is kept as it is; of a longer one:
LONGEST_VALUE = 1000  # characters kept of a fact or a reason
MOST_VALUES = 100  # kept of a fact that has several, of rules, of actions
LARGEST = (1 << 63) - 1  # SQLite's integers
COLUMNS = (
    "id", "at", "stage", "queue_id", "instance", "class", "disposition", "rule", "reply", "client", "client_name",
    "helo", "login", "sender", "recipients", "size", "message_id", "header_from", "seconds", "policy", "detail",
)  # fmt: skip

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


def row(decision: Decision) -> Row:
    """The columns of `decisions`, in the order of COLUMNS; of the mail neither the body nor the other header fields.

    Raises:
        ValueError, TypeError: a finding holds what cannot be written down.
    """
    envelope, verdict = decision.envelope, decision.verdict
    client = envelope.client
    message_id, header_from = _fields(decision.facts) if isinstance(decision.facts, Message) else ("", "")
    return (
        decision.id, decision.at, decision.stage, storable(envelope.queue_id), storable(envelope.instance),
        decision.klass, verdict.disposition.value, verdict.rule, storable(verdict.reply),
        str(client.address) if client.address is not None else "", storable(client.name),
        storable(client.helo), storable(client.login), storable(envelope.sender),
        _json([storable(recipient) for recipient in envelope.recipients]), min(envelope.size, LARGEST),
        message_id, header_from, decision.seconds, decision.policy, _detail(decision),
    )  # fmt: skip


def of_decision(decision: Decision, document: Mapping[str, Any]) -> Entry:
    """The entry that `decision` will be in the journal; `document` is `Policy.describe()`."""
    return entry(row(decision), json.dumps(document))


def entry(columns: Sequence[Any], document: str | None = None) -> Entry:
    """The entry that a row tells; `document` is its policy's."""
    *plain, detail = columns
    told: dict[str, Any] = dict(zip(COLUMNS, plain, strict=False))
    more = json.loads(detail)
    told["klass"] = told.pop("class")
    told["disposition"] = Disposition(told["disposition"])
    told["recipients"] = tuple(json.loads(told["recipients"]))
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


def _detail(decision: Decision) -> str:
    """All that is not a column, as JSON; where it is long, cut. Times in microseconds: whole numbers are short."""
    verdict, timings = decision.verdict, decision.timings
    told = {
        "findings": [_told(finding) for finding in decision.findings],
        "values": decision.values,
        "trace": decision.trace,
        "shadow": decision.shadow,
        "timings": {name: round(seconds * 1e6) for name, seconds in timings.items()} if timings else {},
        "actions": [(each.kind, each.name, each.value, each.seconds, each.rule, each.nth) for each in verdict.actions],
        "behind": verdict.findings,
    }
    text = _json(told)
    if len(text) > WHOLE:
        long = ("findings", "values", "actions")  # what strangers have a say in
        text = _json({name: _cut(value) if name in long else value for name, value in _plain(told).items()})
    return text


def _told(finding: Finding) -> dict[str, Any]:
    told: dict[str, Any] = {"check": finding.check, "result": finding.result}
    if finding.reason:
        told["reason"] = finding.reason
    if finding.fields:
        told["fields"] = finding.fields if type(finding.fields) is dict else dict(finding.fields)
    if finding.trouble:
        told["trouble"] = True
    if finding.authres:
        told["authres"] = finding.authres
    return told


def _cut(told: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """The same, with the beginning only of long texts and long lists."""
    if isinstance(told, str):
        return told[:LONGEST_VALUE]
    if isinstance(told, dict):
        return {name: _cut(value) for name, value in told.items()}
    return [_cut(each) for each in told[:MOST_VALUES]] if isinstance(told, (list, tuple)) else told


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
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()  # str: of an IP address
    except UnicodeEncodeError:  # a surrogate, from an octet that was no UTF-8: msgspec refuses, json escapes
        return json.dumps(_plain(value), separators=(",", ":"))


def _plain(value: object) -> Any:  # noqa: ANN401 - what JSON has
    return msgspec.to_builtins(value, enc_hook=str)


def _fields(message: Message) -> tuple[str, str]:
    """The first Message-ID and the first From."""
    ids, authors = message.header("message-id"), message.header("from")
    return _field(ids[0]) if ids else "", _field(authors[0]) if authors else ""


def _field(value: bytes) -> str:
    """A header field's value on one line, unfolded (RFC 5322 section 2.2.3)."""
    text = value[: 4 * LONGEST_FIELD].decode("utf-8", "backslashreplace").replace("\r", "").replace("\n", "")
    return text.strip()[:LONGEST_FIELD]

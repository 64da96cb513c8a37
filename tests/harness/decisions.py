"""Decisions to observe: a whole one with a few words, for tests of the journal, the log and the metrics."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

from elemta.decision import MATCHED, Decision, new_id
from elemta.facts import BytesBody, Client, Envelope, Message
from elemta.findings import Finding, Result
from elemta.verdict import Action, ActionKind, Disposition, Verdict

POLICY = {
    "host": "mx.test",
    "rules": {
        "recipient": [{"id": "greylist", "when": ["greylist: fail"], "then": "defer", "mode": "enforce"}],
        "message": [
            {"id": "virus", "when": ["clamav: fail"], "then": "reject", "mode": "enforce"},
            {"id": "executable", "when": ["subject: {glob: *.exe}"], "then": "quarantine", "mode": "shadow"},
            {"id": "spoofed", "when": ["class is inbound", "spf: fail"], "then": "reject", "mode": "enforce"},
        ],
    },
}


def envelope(**changes: Any) -> Envelope:
    client = Client(ip_address("192.0.2.7"), name="mail.sender.test", helo="mail.sender.test")
    given = {"sender": "alice@sender.test", "recipients": ("bob@here.test",), "size": 5700, "queue_id": "4F3A1B2C3D"}
    return Envelope(client=changes.pop("client", client), **{**given, **changes})


def decision(**changes: Any) -> Decision:
    """A message refused for SPF; `changes` are fields of Decision, Envelope or Verdict by name."""
    of_envelope = {name: changes.pop(name) for name in Envelope.__struct_fields__ if name in changes}
    in_verdict = (name for name in Verdict.__struct_fields__ if name != "findings")
    of_verdict = {name: changes.pop(name) for name in in_verdict if name in changes}
    headers = changes.pop("headers", ((b"From", b" Alice <alice@sender.test>"), (b"Message-ID", b" <1@sender.test>")))
    facts = Message(envelope(**of_envelope), headers, BytesBody(b"Hello\r\n"))
    verdict = Verdict(**{
        "disposition": Disposition.REJECT, "rule": "spoofed", "reply": "550 5.7.1 Not allowed", "findings": ("spf",),
        "actions": (Action(ActionKind.ADD_HEADER, "X-Seen", "yes", 0.0, "tag"),), **of_verdict,
    })  # fmt: skip
    given: dict[str, Any] = {
        "id": new_id(), "at": time.time(), "stage": "message", "klass": "inbound", "facts": facts,
        "values": {"clamav": "pass", "spf": "fail", "subject": "hi", "client.address": ip_address("192.0.2.7")},
        "findings": (
            Finding("spf", Result.FAIL, "-all matched", {"domain": "sender.test", "ips": ("192.0.2.1", "192.0.2.2")}),
            Finding("clamav", Result.TEMPERROR, "refused", trouble=True),
        ),
        "verdict": verdict, "trace": [0, MATCHED, MATCHED], "shadow": ("executable",),
        "timings": {"spf": 0.0031, "clamav": 0.25}, "seconds": 0.2712, "policy": "cafe00",
    }  # fmt: skip
    return Decision(**{**given, **changes})

"""Decisions: what was seen, judged and why, as one value that observers keep and print but cannot change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Literal, Protocol

from msgspec import Struct

from elemta.facts import Envelope, Message
from elemta.findings import Finding, Value
from elemta.verdict import Verdict

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to misread over the telephone

_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)

StageName = Literal["recipient", "message"]
MATCHED = -1
"""In `Decision.trace`: the rule matched."""


class Decision(Struct, frozen=True):
    """One judgement of one mail (or of one recipient of it, in the policy service).

    Attributes:
        id: the reference id: in the SMTP reply, the log and the journal.
        at: seconds since 1970.
        stage: which rules were read.
        klass: the class of the mail.
        facts: the mail; `envelope` is its envelope at either stage.
        values: the facts that rules asked for, by name, as they were judged.
        findings: of every check that is enabled for this stage.
        verdict: what shall happen.
        trace: one number for each rule read, in order: MATCHED, or the index of the first condition that
            did not hold (`Ruleset.conditions` gives its text).
        shadow: ids of the shadow rules that matched, in order.
        timings: seconds by check.
        seconds: from the start of the judgement to its end, waiting for the mail not counted.
        policy: the fingerprint of the policy that judged.
    """

    id: str
    at: float
    stage: StageName
    klass: str
    facts: Envelope | Message
    values: Mapping[str, Value]
    findings: Sequence[Finding]
    verdict: Verdict
    trace: Sequence[int] = ()
    shadow: tuple[str, ...] = ()
    timings: Mapping[str, float] | None = None
    seconds: float = 0.0
    policy: str = ""

    @property
    def envelope(self) -> Envelope:
        """The mail's envelope."""
        return self.facts.envelope if isinstance(self.facts, Message) else self.facts


class Observer(Protocol):
    """Is told of each decision, on any thread; has no way to change it. Must not block: the mail waits meanwhile."""

    def decided(self, decision: Decision) -> None:
        """Take note."""
        ...


def new_id() -> str:
    """A reference id: ten characters, 50 random bits, easy to read out. A name, not a secret."""
    number = getrandbits(50)  # seeded anew in every worker: the standard library sees to it at the fork
    pairs = _PAIRS
    return (
        pairs[number >> 40] + pairs[number >> 30 & 1023] + pairs[number >> 20 & 1023] + pairs[number >> 10 & 1023]
        + pairs[number & 1023]
    )  # fmt: skip

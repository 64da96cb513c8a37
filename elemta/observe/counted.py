"""Counted: what do decisions add to the metrics between two hand-overs?

Plain dictionaries, since this is on the hot path.  Decisions come from any thread, so whoever counts holds a lock.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from dataclasses import dataclass, field

from elemta.decision import Decision
from elemta.printable import LONGEST, storable
from elemta.verdict import ActionKind

Labels = tuple[str, ...]


def _several() -> defaultdict[str, list[float]]:
    return defaultdict(list)


@dataclass(slots=True)
class Counted:
    """Sums by label, and times by label in seconds.

    Attributes:
        in_a_row: by check, how often in a row it could not answer; goes on over hand-overs.
        found: by "check=result".
    """

    in_a_row: Tally[str]
    decisions: Tally[Labels] = field(default_factory=Tally)
    found: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    troubled: Tally[str] = field(default_factory=Tally)
    shadowed: Tally[str] = field(default_factory=Tally)
    labelled: Tally[str] = field(default_factory=Tally)
    decision_seconds: defaultdict[str, list[float]] = field(default_factory=_several)
    check_seconds: defaultdict[str, list[float]] = field(default_factory=_several)

    def add(self, decision: Decision) -> None:
        """Count one; one or two microseconds."""
        verdict = decision.verdict
        self.decisions[decision.stage, decision.klass, verdict.disposition, verdict.rule] += 1
        self.decision_seconds[decision.stage].append(decision.seconds)
        found, in_a_row, timings = self.found, self.in_a_row, decision.timings or {}
        for finding in decision.findings:
            check = finding.check
            found[check + "=" + finding.result] += 1  # a text costs half of what a tuple with an enum does
            if finding.trouble:
                self.troubled[check] += 1
                in_a_row[check] += 1
            elif in_a_row and check in in_a_row and check in timings:  # else: not made for its class
                del in_a_row[check]
        for check, seconds in timings.items():
            self.check_seconds[check].append(seconds)
        for rule in decision.shadow:
            self.shadowed[rule] += 1
        for action in verdict.actions:
            if action.kind is ActionKind.LABEL:
                self.labelled[storable(action.value)[:LONGEST]] += 1  # a stranger's octets may be in it

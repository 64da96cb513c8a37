"""Plans: which checks are enabled, which of them wait for others, and what does it mean that one could not answer?

Made from the settings when the policy is compiled, before any check is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elemta.check import Check, Options, Stage
from elemta.plugins import Plugin
from elemta.rules.ruleset import Ruleset, sources
from elemta.verdict import Disposition


@dataclass(frozen=True)
class CheckPlan:
    """An enabled check, before it is made.

    Attributes:
        name: its name.
        kind: its class.
        options: its checked options.
        stage: how early it can run.
        after: enabled checks whose findings it wants.
        classes: the mail classes it runs for; None for all.
        trouble: what it means that it could not answer, by class; "" holds for classes not named.
        plugin: where it comes from, None for a built-in check.
    """

    name: str
    kind: type[Check[Any]]
    options: Options
    stage: Stage
    after: tuple[str, ...]
    classes: frozenset[str] | None
    trouble: Mapping[str, Disposition]
    plugin: Plugin | None = None

    @property
    def edits(self) -> bool:
        """Whether the changes are made that the check itself proposes."""
        return self.options.edits

    def meaning_of_trouble(self, klass: str) -> Disposition:
        """What it means for a mail of class `klass` that this check could not answer."""
        return self.trouble.get(klass) or self.trouble[""]


def needed(plans: Sequence[CheckPlan], names: Iterable[str]) -> frozenset[str]:
    """These checks, and those that they wait for; `plans` stand in the order in which they can run."""
    found = set(names)
    for plan in reversed(plans):
        if plan.name in found:
            found.update(plan.after)
    return frozenset(found)


def weighing(plans: Sequence[CheckPlan], rules: Ruleset) -> tuple[CheckPlan, ...]:
    """Those whose trouble weighs in at RCPT TO: none that runs because shadow rules alone ask for it."""
    asked, enforced = (needed(plans, names) for names in (rules.sources, sources(rules.asked(len(rules.rules)))))
    return tuple(plan for plan in plans if plan.name in enforced or plan.name not in asked)

"""Rules: what shall happen to a mail of which this was seen?

`Ruleset.decide` is a pure function from facts to a judgement.  Rules are read from top to bottom; the first final
match wins; non-final matches collect their actions on the way; no match means accept.  A shadow rule is judged and
recorded, and changes nothing.  `elemta.rules.compiler` makes rules of what the YAML says.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from msgspec import Struct, field

from elemta.decision import MATCHED
from elemta.findings import Value
from elemta.rules.templates import Template
from elemta.rules.view import View
from elemta.verdict import Action, Disposition


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready to be read.

    Attributes:
        id: its name.
        tests: what must hold, in order; the same places as `texts`.
        texts: each test in words.
        facts: the facts it asks for.
        final: it has a `then`.
        disposition: what a final rule decides.
        reply: the reply's template, None where nothing is replied.
        actions: functions that make the actions asked for.
        shadow: recorded without effect.
    """

    id: str
    tests: tuple[Callable[[View], bool], ...]
    texts: tuple[str, ...]
    facts: tuple[str, ...]
    final: bool
    disposition: Disposition
    reply: Template | None
    actions: tuple[Callable[[Mapping[str, Value]], Action], ...]
    shadow: bool


class Judgement(Struct):
    """What the rules say of one mail.

    Attributes:
        rule: the deciding rule, None when none matched.
        actions: what was asked for, in order.
        trace: see `Decision.trace`.
        shadow: ids of shadow rules that matched.
    """

    rule: Rule | None = None
    actions: list[Action] = field(default_factory=list)
    trace: list[int] = field(default_factory=list)
    shadow: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ruleset:
    """The rules of one stage, in order.

    Attributes:
        for_good: mail may be refused or thrown away for good by them; else it shall come again.
    """

    rules: tuple[Rule, ...] = ()
    for_good: bool = True

    def decide(self, view: View, reference: str, begun: Judgement | None = None) -> Judgement:
        """Read the rules. Pure: nothing but `view` is looked at, nothing but `view` and `begun` remember.

        Args:
            view: the mail's facts and findings.
            reference: the decision's id, for `{id}` in actions.
            begun: what was read until a check was wanted; it is gone on with, and given.

        Raises:
            Wanted: a rule asks for a check that has to wait; wait for it and decide again.
        """
        judgement = Judgement() if begun is None else begun
        trace = judgement.trace
        if judgement.rule is not None:
            return judgement
        for rule in self.rules[len(trace) :]:
            for index, test in enumerate(rule.tests):
                if not test(view):
                    trace.append(index)
                    break
            else:
                if rule.actions and not rule.shadow:
                    values = filling(view, reference)  # may want a check, as tests may: until here nothing is noted
                    judgement.actions += [make(values) for make in rule.actions]
                trace.append(MATCHED)
                if rule.shadow:
                    judgement.shadow.append(rule.id)
                elif rule.final:
                    judgement.rule = rule
                    break
        return judgement

    def without(self, unknown: Collection[str]) -> Ruleset:
        """The same rules in the same places; those that ask for one of the `unknown` facts never match."""
        never = (lambda _view: False,)
        return Ruleset(
            tuple(replace(rule, tests=never) if set(rule.facts) & set(unknown) else rule for rule in self.rules)
        )

    def for_now(self) -> Ruleset:
        """The same rules; what would be refused or thrown away for good shall come again."""
        return replace(self, for_good=False)

    def asked(self, read: int) -> frozenset[str]:
        """The facts that the first `read` enforced rules ask for."""
        return frozenset(name for rule in self.rules[:read] if not rule.shadow for name in rule.facts)

    @property
    def sources(self) -> frozenset[str]:
        """Who gives the facts that any rule asks for: names of checks, and of parts of the mail."""
        return frozenset(sources(self.facts))

    @property
    def facts(self) -> frozenset[str]:
        """The facts that any rule asks for, shadow rules included."""
        return frozenset(name for rule in self.rules for name in rule.facts)


def sources(facts: Iterable[str]) -> tuple[str, ...]:
    """Where facts come from, in their order: "spf" of "spf.domain"."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in facts))


def filling(view: View, reference: str) -> Mapping[str, Value]:
    """What templates are filled from: the view's facts, and `{id}`."""
    return ChainMap({"id": reference}, view)

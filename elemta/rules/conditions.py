"""Conditions: what does `when:` ask, and does it hold for this mail?

    spf: pass                                  equal (text without case; addresses and networks by containment)
    spf: [pass, neutral]                       any of these
    client.address: {in: internal_nets}        in a named set, or in a list
    client.address: {cidr: 10.0.0.0/8}         in a network; ::ffff:10.0.0.0/104 is the same
    client.name: {glob: "*.dyn.*"}             * and ?, the whole text, without case; [ab] is a or b, [[] is [
    subject: {regex: "(?i)invoice"}            RE2: linear time, found anywhere
    rspamd.score: {ge: 5, lt: 15}              eq ne lt le gt ge; several operators must all hold
    login: {exists: true}                      there is one
    dmarc: {not: pass}                         the opposite of anything above
    sender.domain: {fact: header_from.domain}  equal to another fact; also under eq ne lt le gt ge
    all: [{…}, {…}]   any: [{…}, {…}]   not: {…}

A fact with several values satisfies a condition when any of them does (so `not` means: none does).  A fact
that is absent satisfies nothing but `exists: false` and `not`.

Mail addresses are compared in one form: without a source route, quotes that the local part does not need, and a final
dot, the domain as A-labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from elemta.check import Stage
from elemta.config.problems import Path, Problem
from elemta.rules.catalogue import Catalogue
from elemta.rules.condition import Condition, joined, negated
from elemta.rules.operators import OPERATORS, Reader
from elemta.rules.sets import NamedSet
from elemta.rules.view import Fact

__all__ = ["OPERATORS", "Condition", "Conditions"]


class Conditions:
    """Turns the `when:` of the YAML into conditions, and collects every mistake in them.

    Attributes:
        problems: what was wrong so far, with places.
    """

    def __init__(self, facts: Catalogue, sets: Mapping[str, NamedSet], latest: Stage) -> None:
        """`latest`: facts known later than this are an error (classes, rules at RCPT TO)."""
        self.facts = facts
        self.sets = sets
        self.latest = latest
        self.problems: list[Problem] = []

    def read(self, when: Mapping[str, Any], path: Path) -> tuple[Condition, ...]:
        """The conditions of one `when:` mapping; those with mistakes are left out and reported."""
        return tuple(self._each(when, path))

    def _each(self, when: Mapping[str, Any], path: Path) -> Iterator[Condition]:
        for key, spec in when.items():
            here = (*path, key)
            if key in ("all", "any", "not"):
                combined = self._combine(key, spec, here)
                if combined is not None:
                    yield combined
                continue
            try:
                fact = self.facts.find(key)
            except KeyError as error:
                self.problems.append(Problem(here, str(error.args[0]), "key"))
                continue
            if misplaced := self.misplaced(fact):
                self.problems.append(Problem(here, misplaced, "key"))
                continue
            reader = Reader(self, fact, here)
            try:
                condition = reader.condition(spec)
            except ValueError as error:
                reader.problems.append(Problem(reader.at, str(error)))
            else:
                yield condition
            self.problems += reader.problems

    def misplaced(self, fact: Fact) -> str:
        """Why `fact` cannot be used where these conditions are judged; "" when it can."""
        if self.latest is Stage.MESSAGE and fact.at_rcpt:
            return f'"{fact.name}" is judged at RCPT TO only; move the rule to rules.recipient'
        if fact.stage <= self.latest:
            return ""
        return f'fact "{fact.name}" is known only when the message is complete; use it in rules.message'

    def _combine(self, key: str, spec: object, path: Path) -> Condition | None:
        if key == "not":
            if not isinstance(spec, dict) or not spec:
                self.problems.append(Problem(path, "takes a mapping of conditions, such as {spf: pass}"))
                return None
            inner = self.read(spec, path)
            return negated(joined(inner, "and"))
        if not isinstance(spec, list) or not all(isinstance(item, dict) and item for item in spec) or not spec:
            self.problems.append(
                Problem(path, "takes a list of mappings, such as [{spf: pass}, {login: {exists: true}}]")
            )
            return None
        groups = [joined(self.read(item, (*path, index)), "and") for index, item in enumerate(spec)]
        return joined(tuple(groups), "or" if key == "any" else "and")

"""Reach: which rules and classes can never be reached, since one above holds whenever they would?

Compares what is asked, not the mail: one that asks less, or for a network around theirs, hides those below.  What
cannot be compared (other facts, operators, sets) hides nothing, so that no rule is called unreachable that is not.
A rule whose own `unless` holds whenever its `when` does is told, too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from elemta.config.problems import Path, Problem
from elemta.config.rule_model import RuleModel
from elemta.config.types import network
from elemta.rules.actions import words_of
from elemta.rules.view import Fact

_Value = str | IPv4Network | IPv6Network


def unreachable_rules(models: Sequence[RuleModel], path: Path, facts: Iterable[Fact]) -> list[Problem]:
    """Rules that can never match: an earlier final rule does whenever they would, or their own `unless` excepts all."""
    problems = []
    finals, of_ip = _Earlier(), _of_ip(facts)
    for index, model in enumerate(models):
        if model.mode == "off":
            continue
        unless = json.dumps(model.unless, sort_keys=True) if model.unless else ""
        classes = frozenset(words_of(model.class_ or ()))
        rule = _Reach(index, model.id, _asked(model.when, of_ip), classes, unless)
        earlier = finals.hiding(rule)
        if model.unless and _Reach(index, model.id, _asked(model.unless, of_ip)).hides(rule):
            text = f'rule "{model.id}" never matches: what `unless` asks holds whenever what `when` asks does'
            problems.append(Problem((*path, index, "unless"), text, "key"))
        elif earlier:
            text = f'rule "{model.id}" is never reached: rule "{earlier.id}" above matches whenever it would'
            problems.append(Problem((*path, index), text))
        elif model.then and model.mode == "enforce" and model.percent >= 100:
            finals.add(rule)  # what a hidden one hides, the one that hides it hides too
    return problems


def unreachable_classes(classes: Mapping[str, Mapping[str, Any]], facts: Iterable[Fact]) -> list[Problem]:
    """Classes that no mail is of: the conditions of an earlier one hold whenever theirs would."""
    problems = []
    above, of_ip = _Earlier(), _of_ip(facts)
    for index, (name, when) in enumerate(classes.items()):
        klass = _Reach(index, name, _asked(when, of_ip))
        earlier = above.hiding(klass)
        if earlier:
            text = f'class "{name}" is never chosen: class "{earlier.id}" above holds whenever it would; move it up'
            problems.append(Problem(("classes", name), text, "key"))
        else:
            above.add(klass)
    return problems


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which mail a rule or a class is for, as far as this can be compared: by fact, the values that it asks for."""

    index: int
    id: str
    asked: Mapping[str, frozenset[_Value]]
    classes: frozenset[str] = frozenset()
    unless: str = ""

    def hides(self, later: _Reach) -> bool:
        """Whether this one holds whenever `later` would."""
        return (
            self.unless in ("", later.unless)
            and (not self.classes or (bool(later.classes) and later.classes <= self.classes))
            and all(fact in later.asked and _cover(values, later.asked[fact]) for fact, values in self.asked.items())
        )


class _Earlier:
    """Those that stand above, found by a fact and a value: thousands of rules are compared fast."""

    def __init__(self) -> None:
        self._found: defaultdict[tuple[str, _Value], list[_Reach]] = defaultdict(list)

    def add(self, one: _Reach) -> None:
        """File it under every value of the fact where this costs least: of few values, for which few others ask."""
        fact = min(one.asked, key=lambda fact: self._filed(fact, one.asked[fact]), default="")
        for value in one.asked.get(fact, ("",)):
            self._found[fact, value].append(one)

    def _filed(self, fact: str, values: frozenset[_Value]) -> int:
        return sum(1 + len(self._found.get((fact, value), ())) for value in values)

    def hiding(self, later: _Reach) -> _Reach | None:
        """The first that hides `later`."""
        values = ((fact, wide) for fact, asked in later.asked.items() for each in asked for wide in _wider(each))
        found = (one for key in (("", ""), *values) for one in self._found.get(key, ()) if one.hides(later))
        return min(found, key=lambda one: one.index, default=None)


def _of_ip(facts: Iterable[Fact]) -> frozenset[str]:
    """The facts of which a network holds several values; for others 10.0.0.0/8 is a text."""
    return frozenset(fact.name for fact in facts if fact.kind == "ip")


def _asked(when: Mapping[str, Any], of_ip: frozenset[str]) -> Mapping[str, frozenset[_Value]]:
    return {fact: _values(value, _network if fact in of_ip else str.lower) for fact, value in when.items()}


def _values(asked: object, plain: Callable[[str], _Value]) -> frozenset[_Value]:
    """What a condition asks: any of several values, or one thing that is equal to nothing but itself."""
    if isinstance(asked, dict) and asked.keys() == {"cidr"}:
        asked = asked["cidr"]
    several = asked if isinstance(asked, list) and asked else [asked]
    if any(isinstance(each, (dict, list)) for each in several):
        return frozenset((json.dumps(asked, sort_keys=True),))
    return frozenset(plain(str(each)) for each in several)


def _cover(values: frozenset[_Value], asked: frozenset[_Value]) -> bool:
    """Whether one of `values` holds whenever one of those `asked` for does."""
    return asked <= values or all(not values.isdisjoint(_wider(value)) for value in asked)


def _network(value: str) -> _Value:
    """A network, be it one address."""
    try:
        return network(value)
    except ValueError:
        return value.lower()  # a mistake, which is told elsewhere


def _wider(value: _Value) -> tuple[_Value, ...]:
    """What holds whenever `value` does: itself, and for a network those around it."""
    if isinstance(value, str):
        return (value,)
    return tuple(value.supernet(new_prefix=length) for length in range(value.prefixlen, -1, -1))

"""One condition: does it hold for this mail, and how does it read?

A condition is a test of a `View` with its words and the facts it asks for; conditions are lifted from predicates of one
value, joined and negated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elemta.rules.view import Fact, View

Test = Callable[[View], bool]
Predicate = Callable[[Any], bool]  # of one value that is there


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, ready to be tested.

    Attributes:
        test: does it hold for this view?
        text: for people: "spf is pass".
        facts: the names it asks for.
    """

    test: Test
    text: str
    facts: tuple[str, ...]


def lifted(fact: Fact, predicate: Predicate) -> Test:
    """Test the fact's one value, or any of its several."""
    name = fact.name

    def test_one(view: View) -> bool:
        value = view[name]
        return value is not None and predicate(value)

    def test_any(view: View) -> bool:
        values = view[name]
        if values is None:
            return False
        # A loop, not a generator: a mail may be tested by thousands. A test's `given:` may hold one value.
        for value in values if type(values) is tuple else (values,):  # noqa: SIM110
            if predicate(value):
                return True
        return False

    return test_any if fact.many else test_one


def joined(parts: tuple[Condition, ...], word: str) -> Condition:
    """All (`and`) or any (`or`) of `parts` as one condition."""
    if len(parts) == 1:
        return parts[0]
    tests = tuple(part.test for part in parts)
    text = f" {word} ".join(part.text for part in parts)
    names = tuple(dict.fromkeys(name for part in parts for name in part.facts))
    if word == "and":
        return Condition(lambda view: all(test(view) for test in tests), f"({text})", names)
    return Condition(lambda view: any(test(view) for test in tests), f"({text})", names)


def negated(condition: Condition) -> Condition:
    """The opposite of `condition`."""
    test = condition.test
    text = condition.text if condition.text.startswith("(") else f"({condition.text})"  # joined ones have theirs
    return Condition(lambda view: not test(view), f"not {text}", condition.facts)

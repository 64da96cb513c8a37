"""Operators: what may be asked of one fact, and what is wrong with this question?

`Reader` turns what stands beside a fact in `when:` (a value, a list, a mapping of operators) into a condition, checking
that the fact's kind allows it.  The operators are listed in `conditions`.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from elemta.check import Stage
from elemta.config.problems import WITHOUT_QUOTES, Path, Problem, quoted
from elemta.findings import Value
from elemta.rules.catalogue import Catalogue
from elemta.rules.condition import Condition, Predicate, joined, lifted, negated
from elemta.rules.operands import MEANT, entry, labelled, member, network_of, number_of, several, text_of, word_of
from elemta.rules.patterns import first_of, glob, search
from elemta.rules.sets import NamedSet, members
from elemta.rules.view import Fact, View

T = TypeVar("T")

OPERATORS = ("in", "not", "cidr", "glob", "regex", "eq", "ne", "lt", "le", "gt", "ge", "exists", "fact", "any", "all")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
_NO_TEXT = frozenset({"ip", "number", "bool"})  # kinds of facts that are compared as what they are
_SIGN = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥"}


class Scope(Protocol):
    """What can be asked where these conditions are judged.

    Attributes:
        facts: every fact there is.
        sets: the named sets.
        latest: facts known later than this cannot be asked.
    """

    facts: Catalogue
    sets: Mapping[str, NamedSet]
    latest: Stage

    def misplaced(self, fact: Fact) -> str:
        """Why `fact` cannot be used here; "" when it can."""
        ...


class Reader:
    """Reads what is asked of one fact. `at` follows the place, for errors; `problems` are those of single entries."""

    def __init__(self, owner: Scope, fact: Fact, path: Path) -> None:
        self.owner = owner
        self.fact = fact
        self.at = path
        self.problems: list[Problem] = []

    def condition(self, spec: object) -> Condition:
        """What `spec` asks.

        Raises:
            ValueError: it cannot be asked; `at` is the place. Of lists, `problems` tells every wrong entry instead.
        """
        if isinstance(spec, dict):
            return self._operators(spec)
        if isinstance(spec, list):
            return self._any_of(spec)
        predicate = self._equal(spec)
        return Condition(lifted(self.fact, predicate), f"{self.fact.name} is {word_of(spec)}", (self.fact.name,))

    def _any_of(self, specs: list[object]) -> Condition:
        deeper = any(isinstance(spec, (dict, list)) for spec in several(specs))
        if not deeper and self.fact.kind not in _NO_TEXT:
            words = frozenset(self._each(specs, lambda spec: text_of(self.fact, spec)))
            text = f"{self.fact.name} is any of {', '.join(map(word_of, specs))}"
            return Condition(lifted(self.fact, lambda value: value.lower() in words), text, (self.fact.name,))
        return joined(tuple(self._each(specs, self.condition)), "or")

    def _each(self, operand: object, read: Callable[[Any], T]) -> list[T]:
        """What `read` makes of one operand, or of each in a list."""
        if not isinstance(operand, list):
            return [read(operand)]
        made, outer = [], self.at
        for index, one in enumerate(several(operand)):
            self.at = (*outer, index)
            try:
                made.append(read(one))
            except ValueError as error:
                self.problems.append(Problem(self.at, str(error)))
        self.at = outer
        return made

    def _operators(self, spec: Mapping[str, Any]) -> Condition:
        if not spec:
            raise ValueError("an empty mapping asks nothing; write a value or an operator such as {in: NAME}")
        return joined(tuple(self._operator(key, value) for key, value in spec.items()), "and")

    def _operator(self, key: str, operand: Any) -> Condition:  # noqa: ANN401 - anything may stand in YAML
        name, outer = self.fact.name, self.at
        if key not in OPERATORS:
            near = [MEANT[key]] if key in MEANT else difflib.get_close_matches(str(key), OPERATORS, 1)
            raise ValueError(
                f'unknown operator "{key}"; '
                + (f'did you mean "{near[0]}"?' if near else f"there are {', '.join(OPERATORS)}")
            )
        self.at = (*outer, key)
        if key == "not":
            condition = negated(self.condition(operand))
        elif key in ("any", "all"):
            if not isinstance(operand, list) or not operand:
                raise ValueError('takes a list, such as [{glob: "a*"}, {glob: "*b"}]')
            condition = joined(tuple(self._each(operand, self.condition)), "or" if key == "any" else "and")
        elif key == "exists":
            condition = self._exists(operand)
        elif key == "fact":
            condition = self._fact(operator.eq, "is", operand)
        elif key in ("eq", "ne") or key in _COMPARE:
            condition = self._compare(key, operand)
        else:
            predicate, text = {"in": self._in, "cidr": self._cidr, "glob": self._looks, "regex": self._regex}[key](
                operand
            )
            condition = Condition(lifted(self.fact, predicate), f"{name} {text}", (name,))
        self.at = outer
        return condition

    # ── operators ────────────────────────────────────────────────────────────────────────────────────────

    def _in(self, operand: object) -> tuple[Predicate, str]:
        if isinstance(operand, list):
            text = f"is in {', '.join(map(word_of, operand))}"
            if self.fact.words or self.fact.kind in ("number", "bool"):
                return first_of(self._each(operand, self._equal)), text
            read = network_of if self.fact.kind == "ip" else partial(member, self.fact)
            return members(self._each(operand, read)).__contains__, text
        if not isinstance(operand, str):
            hint = "; write {fact: NAME} without `in`" if isinstance(operand, dict) and "fact" in operand else ""
            raise ValueError(f"takes the name of a set, or a list; found {word_of(operand)}{hint}")
        named = self.owner.sets.get(operand)
        if named is None:
            near = difflib.get_close_matches(operand, self.owner.sets, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"define it under sets, or write a list: [{operand}]"
            raise ValueError(f'there is no set "{operand}"; {hint}')
        return lambda value: value in named.members, f"is in {operand}"

    def _cidr(self, operand: object) -> tuple[Predicate, str]:
        if self.fact.kind != "ip":
            raise ValueError(f"{self.fact.name} is no IP address; cidr is for IP addresses")
        wanted = members(self._each(operand, network_of))
        return wanted.__contains__, f"is in {', '.join(map(str, several(operand)))}"

    def _looks(self, operand: object) -> tuple[Predicate, str]:
        patterns = several(operand)
        looks = first_of(
            self._each(operand, lambda each: self._may(glob(labelled(self.fact, entry(each).lower())), each))
        )
        return lambda value: looks(str(value).lower()), f"looks like {' or '.join(map(word_of, patterns))}"

    def _regex(self, operand: object) -> tuple[Predicate, str]:
        patterns = several(operand)
        found = first_of(self._each(operand, self._expression))
        return lambda value: found(str(value)), f"matches {' or '.join(f'/{pattern}/' for pattern in patterns)}"

    def _expression(self, operand: object) -> Callable[[str], bool]:
        pattern = entry(operand)
        if self.fact.kind == "domain" and not pattern.isascii():
            raise ValueError(f"{self.fact.name} is compared as A-labels; write xn--… instead of letters beyond ASCII")
        return self._may(search(pattern), pattern)

    def _may(self, matches: Callable[[str], bool], pattern: object) -> Callable[[str], bool]:
        """`matches`, if the fact can ever be so."""
        name, words = self.fact.name, self.fact.words
        if self.fact.kind == "bool":
            raise ValueError(f"{name} is true or false; write {name}: true, or {name}: false")
        if words and not any(matches(str(word)) for word in words):
            raise ValueError(f'{name} is never like "{pattern}"; it can be {", ".join(words)}')
        return matches

    def _exists(self, operand: object) -> Condition:
        if not isinstance(operand, bool):
            raise ValueError(f"exists takes true or false, not {_text(operand)}")
        name, is_result = self.fact.name, self.fact.kind == "result"

        def there(view: View) -> bool:
            value = view[name]
            return value not in (None, "", ()) and not (is_result and value == "none")

        found = Condition(there, f"{name} exists", (name,))
        return found if operand else Condition(lambda view: not there(view), f"{name} does not exist", (name,))

    def _compare(self, key: str, operand: Any) -> Condition:  # noqa: ANN401
        if isinstance(operand, dict):
            if set(operand) != {"fact"}:
                raise ValueError("compare with a value, or with {fact: NAME}")
            compare = _COMPARE.get(key, operator.eq)
            condition = self._fact(compare, {"eq": "is", "ne": "is"}.get(key, _SIGN.get(key, "")), operand["fact"])
            return negated(condition) if key == "ne" else condition
        name = self.fact.name
        if key in ("eq", "ne"):
            condition = Condition(lifted(self.fact, self._equal(operand)), f"{name} is {word_of(operand)}", (name,))
            return negated(condition) if key == "ne" else condition
        if self.fact.kind != "number":
            raise ValueError(f"{name} is {_a(self.fact.kind)}; {key} compares numbers")
        bound, compare = number_of(self.fact, operand), _COMPARE[key]
        return Condition(
            lifted(self.fact, lambda value: compare(value, bound)), f"{name} {_SIGN[key]} {operand}", (name,)
        )

    def _fact(self, compare: Callable[[Any, Any], bool], word: str, operand: object) -> Condition:
        if not isinstance(operand, str):
            raise ValueError(f"takes the name of a fact; found {word_of(operand)}")
        try:
            other = self.owner.facts.find(operand)
        except KeyError as error:
            raise ValueError(str(error.args[0])) from None
        if misplaced := self.owner.misplaced(other):
            raise ValueError(misplaced)
        if self.fact.kind != other.kind and _NO_TEXT & {self.fact.kind, other.kind}:
            kinds = f"{self.fact.name} is {_a(self.fact.kind)} and {other.name} is {_a(other.kind)}"
            raise ValueError(f"{kinds}: they cannot be compared")
        if compare is not operator.eq and self.fact.kind != "number":
            raise ValueError(f"{self.fact.name} is {_a(self.fact.kind)}; only numbers are less or greater")
        left, right = self.fact.name, other.name
        if (self.fact.kind, other.kind) in (("address", "domain"), ("domain", "address")):
            whole = left if self.fact.kind == "address" else right
            raise ValueError(f"{whole} is a mail address, which no domain is equal to; compare {whole}.domain")

        def test(view: View) -> bool:
            ours, theirs = _all(view[left]), _all(view[right])
            return any(compare(a, b) for a in ours for b in theirs)

        return Condition(test, f"{left} {word} {right}", (left, right))

    # ── values ───────────────────────────────────────────────────────────────────────────────────────────

    def _equal(self, operand: object) -> Predicate:
        kind = self.fact.kind
        if kind == "ip":
            return members([network_of(operand)]).__contains__
        if kind == "number":
            number = number_of(self.fact, operand)
            return lambda value: bool(value == number)
        if kind == "bool":
            if not isinstance(operand, bool):
                raise ValueError(f"{self.fact.name} is true or false, not {_text(operand)}")
            return lambda value: value is operand
        word = text_of(self.fact, operand)
        return lambda value: bool(value.lower() == word)


def _all(value: Value) -> tuple[Any, ...]:
    """The values of a fact, texts without case."""
    if value is None:
        return ()
    values = value if isinstance(value, tuple) else (value,)
    return tuple(item.lower() if isinstance(item, str) else item for item in values)


def _text(operand: object) -> str:
    """What stands there in the place of true or false."""
    if not isinstance(operand, str):
        return word_of(operand)
    hint = f"; write {operand}{WITHOUT_QUOTES}" if operand in ("true", "false") else ""
    return f"the text {quoted(operand)}{hint}"


def _a(kind: str) -> str:
    return {"ip": "an IP address", "address": "a mail address", "bool": "true or false", "result": "a result word"}.get(
        kind, f"a {kind}"
    )

"""Conditions: what does `when:` ask, and does it hold for this mail?

    spf: pass                                  equal (text without case; addresses and networks by containment)
    spf: [pass, neutral]                       any of these
    client.address: {in: internal_nets}        in a named set, or in a list
    client.address: {cidr: 10.0.0.0/8}         in a network
    client.name: {glob: "*.dyn.*"}             * and ?, the whole text, without case
    subject: {regex: "(?i)invoice"}            RE2: linear time, found anywhere
    rspamd.score: {ge: 5, lt: 15}              eq ne lt le gt ge; several operators must all hold
    login: {exists: true}                      there is one
    dmarc: {not: pass}                         the opposite of anything above
    sender.domain: {fact: header_from.domain}  equal to another fact; also under eq ne lt le gt ge
    all: [{…}, {…}]   any: [{…}, {…}]   not: {…}

A fact with several values satisfies a condition when any of them does (so `not` means: none does).  A fact
that is absent satisfies nothing but `exists: false` and `not`.
"""

from __future__ import annotations

import difflib
import fnmatch
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import re2

from elemta.addresses import a_label
from elemta.check import Stage
from elemta.config.problems import Path, Problem
from elemta.config.types import duration, size
from elemta.findings import Value
from elemta.rules.catalogue import Catalogue, Fact, View
from elemta.rules.sets import Members, NamedSet, members

Test = Callable[[View], bool]
Predicate = Callable[[Any], bool]  # of one value that is there

OPERATORS = ("in", "not", "cidr", "glob", "regex", "eq", "ne", "lt", "le", "gt", "ge", "exists", "fact", "any", "all")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip


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
            if fact.stage > self.latest:
                self.problems.append(Problem(here, self.too_early(fact), "key"))
                continue
            reader = _Reader(self, fact, here)
            try:
                yield reader.condition(spec)
            except ValueError as error:
                self.problems.append(Problem(reader.at, str(error), "value"))

    def too_early(self, fact: Fact) -> str:
        """Why `fact` cannot be used where these conditions are judged."""
        if self.latest is Stage.ENVELOPE:
            return f'fact "{fact.name}" is known only when the message is complete; use it in rules.message'
        return f'fact "{fact.name}" is not known yet when this is judged'

    def _combine(self, key: str, spec: object, path: Path) -> Condition | None:
        if key == "not":
            if not isinstance(spec, dict):
                self.problems.append(Problem(path, "takes a mapping of conditions, such as {spf: pass}"))
                return None
            inner = self.read(spec, path)
            return _negated(_joined(inner, "and"))
        if not isinstance(spec, list) or not all(isinstance(item, dict) for item in spec) or not spec:
            self.problems.append(
                Problem(path, "takes a list of mappings, such as [{spf: pass}, {login: {exists: true}}]")
            )
            return None
        groups = [_joined(self.read(item, (*path, index)), "and") for index, item in enumerate(spec)]
        return _joined(tuple(groups), "or" if key == "any" else "and")


class _Reader:
    """Reads what is asked of one fact. `at` follows the place, for errors."""

    def __init__(self, owner: Conditions, fact: Fact, path: Path) -> None:
        self.owner = owner
        self.fact = fact
        self.at = path

    def condition(self, spec: object) -> Condition:
        if isinstance(spec, dict):
            return self._operators(spec)
        if isinstance(spec, list):
            return self._any_of(spec)
        predicate = self._equal(spec)
        return Condition(_lifted(self.fact, predicate), f"{self.fact.name} is {_word(spec)}", (self.fact.name,))

    def _any_of(self, specs: list[object]) -> Condition:
        if not specs:
            raise ValueError("an empty list matches nothing; write at least one value")
        if not any(isinstance(spec, (dict, list)) for spec in specs) and self.fact.kind not in ("ip", "number", "bool"):
            words = frozenset(self._text(spec) for spec in specs)
            text = f"{self.fact.name} is any of {', '.join(map(_word, specs))}"
            return Condition(_lifted(self.fact, lambda value: value.lower() in words), text, (self.fact.name,))
        return _joined(tuple(self._below(index, spec) for index, spec in enumerate(specs)), "or")

    def _below(self, key: str | int, spec: object) -> Condition:
        outer, self.at = self.at, (*self.at, key)
        condition = self.condition(spec)
        self.at = outer
        return condition

    def _operators(self, spec: Mapping[str, Any]) -> Condition:
        if not spec:
            raise ValueError("an empty mapping asks nothing; write a value or an operator such as {in: NAME}")
        return _joined(tuple(self._operator(key, value) for key, value in spec.items()), "and")

    def _operator(self, key: str, operand: Any) -> Condition:  # noqa: ANN401 - anything may stand in YAML
        name, outer = self.fact.name, self.at
        if key not in OPERATORS:
            near = difflib.get_close_matches(str(key), OPERATORS, 1)
            raise ValueError(
                f'unknown operator "{key}"; '
                + (f'did you mean "{near[0]}"?' if near else f"there are {', '.join(OPERATORS)}")
            )
        self.at = (*outer, key)
        if key == "not":
            condition = _negated(self.condition(operand))
        elif key in ("any", "all"):
            if not isinstance(operand, list) or not operand:
                raise ValueError('takes a list, such as [{glob: "a*"}, {glob: "*b"}]')
            condition = _joined(
                tuple(self._below(i, item) for i, item in enumerate(operand)), "or" if key == "any" else "and"
            )
        elif key == "exists":
            condition = self._exists(operand)
        elif key == "fact":
            condition = self._fact(operator.eq, "is", operand)
        elif key in ("eq", "ne") or key in _COMPARE:
            condition = self._compare(key, operand)
        else:
            predicate, text = {"in": self._in, "cidr": self._cidr, "glob": self._glob, "regex": self._regex}[key](
                operand
            )
            condition = Condition(_lifted(self.fact, predicate), f"{name} {text}", (name,))
        self.at = outer
        return condition

    # ── operators ────────────────────────────────────────────────────────────────────────────────────────

    def _in(self, operand: object) -> tuple[Predicate, str]:
        if isinstance(operand, list):
            wanted = members(str(item) for item in operand)
            return wanted.__contains__, f"is in {', '.join(map(_word, operand))}"
        named = self.owner.sets.get(str(operand))
        if named is None:
            near = difflib.get_close_matches(str(operand), self.owner.sets, 1)
            hint = f'did you mean "{near[0]}"?' if near else "define it under sets, or write a list"
            raise ValueError(f'there is no set "{operand}"; {hint}')
        return lambda value: value in named.members, f"is in {operand}"

    def _cidr(self, operand: object) -> tuple[Predicate, str]:
        if self.fact.kind != "ip":
            raise ValueError(f"{self.fact.name} is no IP address; cidr is for IP addresses")
        entries = operand if isinstance(operand, list) else [operand]
        wanted = _networks(entries)
        return wanted.__contains__, f"is in {', '.join(map(str, entries))}"

    def _glob(self, operand: object) -> tuple[Predicate, str]:
        patterns = operand if isinstance(operand, list) else [operand]
        looks = _first_of([_glob(str(pattern).lower()) for pattern in patterns])
        return lambda value: looks(str(value).lower()), f"looks like {' or '.join(map(_word, patterns))}"

    def _regex(self, operand: object) -> tuple[Predicate, str]:
        patterns = operand if isinstance(operand, list) else [operand]
        found = _first_of([_search(str(pattern)) for pattern in patterns])
        return lambda value: found(str(value)), f"matches {' or '.join(f'/{pattern}/' for pattern in patterns)}"

    def _exists(self, operand: object) -> Condition:
        if not isinstance(operand, bool):
            raise ValueError("exists takes true or false")
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
            return _negated(condition) if key == "ne" else condition
        name = self.fact.name
        if key in ("eq", "ne"):
            condition = Condition(_lifted(self.fact, self._equal(operand)), f"{name} is {_word(operand)}", (name,))
            return _negated(condition) if key == "ne" else condition
        if self.fact.kind != "number":
            raise ValueError(f"{name} is {_a(self.fact.kind)}; {key} compares numbers")
        bound, compare = self._number(operand), _COMPARE[key]
        return Condition(
            _lifted(self.fact, lambda value: compare(value, bound)), f"{name} {_SIGN[key]} {operand}", (name,)
        )

    def _fact(self, compare: Callable[[Any, Any], bool], word: str, operand: object) -> Condition:
        try:
            other = self.owner.facts.find(str(operand))
        except KeyError as error:
            raise ValueError(str(error.args[0])) from None
        if other.stage > self.owner.latest:
            raise ValueError(self.owner.too_early(other))
        if (self.fact.kind == "number") != (other.kind == "number"):
            kinds = f"{self.fact.name} is {_a(self.fact.kind)} and {other.name} is {_a(other.kind)}"
            raise ValueError(f"{kinds}: they cannot be compared")
        left, right = self.fact.name, other.name

        def test(view: View) -> bool:
            ours, theirs = _all(view[left]), _all(view[right])
            return any(compare(a, b) for a in ours for b in theirs)

        return Condition(test, f"{left} {word} {right}", (left, right))

    # ── operands ─────────────────────────────────────────────────────────────────────────────────────────

    def _equal(self, operand: object) -> Predicate:
        kind = self.fact.kind
        if kind == "ip":
            return _networks([operand]).__contains__
        if kind == "number":
            number = self._number(operand)
            return lambda value: bool(value == number)
        if kind == "bool":
            if not isinstance(operand, bool):
                raise ValueError(f"{self.fact.name} is true or false, not {_word(operand)}")
            return lambda value: value is operand
        word = self._text(operand)
        return lambda value: bool(value.lower() == word)

    def _text(self, operand: object) -> str:
        if isinstance(operand, (dict, list)) or operand is None:
            raise ValueError(f"{self.fact.name} is compared with a text; found {_word(operand)}")
        word = _word(operand).lower()
        if self.fact.words and word not in self.fact.words:
            near = difflib.get_close_matches(word, self.fact.words, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"it can be {', '.join(self.fact.words)}"
            raise ValueError(f'{self.fact.name} is never "{word}"; {hint}')
        if self.fact.kind == "domain":
            return a_label(word) or word
        return word

    def _number(self, operand: object) -> float:
        if isinstance(operand, bool) or not isinstance(operand, (int, float, str)):
            raise ValueError(f"{self.fact.name} is a number; found {_word(operand)}")
        if self.fact.unit == "s" and isinstance(operand, str):
            return duration(operand)
        if self.fact.unit == "octets" and isinstance(operand, str):
            return size(operand)
        try:
            return float(operand)
        except ValueError:
            raise ValueError(f'{self.fact.name} is a number; found "{operand}"') from None


_SIGN = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥"}


def _lifted(fact: Fact, predicate: Predicate) -> Test:
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


def _joined(parts: tuple[Condition, ...], word: str) -> Condition:
    """All (`and`) or any (`or`) of `parts` as one condition."""
    if len(parts) == 1:
        return parts[0]
    tests = tuple(part.test for part in parts)
    text = f" {word} ".join(part.text for part in parts)
    names = tuple(dict.fromkeys(name for part in parts for name in part.facts))
    if word == "and":
        return Condition(lambda view: all(test(view) for test in tests), f"({text})", names)
    return Condition(lambda view: any(test(view) for test in tests), f"({text})", names)


def _negated(condition: Condition) -> Condition:
    test = condition.test
    return Condition(lambda view: not test(view), f"not ({condition.text.strip('()')})", condition.facts)


def _networks(entries: list[Any]) -> Members:
    for entry in entries:
        try:
            ip_network(str(entry))
        except ValueError as error:
            raise ValueError(f'"{entry}" is no IP address or network: {error}') from None
    return members(str(entry) for entry in entries)


def _first_of(tests: list[Callable[[str], bool]]) -> Callable[[str], bool]:
    """Does any of `tests` hold?"""
    if len(tests) == 1:
        return tests[0]
    return lambda text: any(test(text) for test in tests)


def _search(pattern: str) -> Callable[[str], bool]:
    """A test for RE2 to find `pattern` anywhere."""
    search = _re2(pattern).search
    return lambda text: search(text) is not None


def _glob(pattern: str) -> Callable[[str], bool]:
    """A test for the whole text: * stands for any characters, ? for one, [ab] for one of these. Linear time."""
    if "?" in pattern or "[" in pattern:
        # fnmatch gives Python's syntax; RE2 writes \\Z as \\z and knows no atomic groups
        full = _re2(fnmatch.translate(pattern).replace(r"\Z", r"\z").replace("(?>", "(?:")).fullmatch
        return lambda text: full(text) is not None
    first, *middle = pattern.split("*")
    if not middle:
        return lambda text: text == first
    last = middle.pop()
    shortest = len(first) + len(last)

    def looks(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        place, end = len(first), len(text) - len(last)
        for part in middle:
            place = text.find(part, place, end)
            if place < 0:
                return False
            place += len(part)
        return True

    return looks


def _re2(pattern: str) -> Any:  # noqa: ANN401 - re2 ships no types
    """Compile on RE2: linear time whatever the text; look-around and back-references do not exist there."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"/{pattern}/ is no regular expression of RE2: {reason}") from None


def _all(value: Value) -> tuple[Any, ...]:
    """The values of a fact, texts without case."""
    if value is None:
        return ()
    values = value if isinstance(value, tuple) else (value,)
    return tuple(item.lower() if isinstance(item, str) else item for item in values)


def _word(value: object) -> str:
    """A YAML scalar as the administrator wrote it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else str(value)


def _a(kind: str) -> str:
    return {"ip": "an IP address", "bool": "true or false", "result": "a result word"}.get(kind, f"a {kind}")

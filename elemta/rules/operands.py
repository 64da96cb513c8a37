"""Operands: what does a value beside a fact mean, in the form in which that fact is compared, and can it be so?

Each function takes the fact and what stands in the YAML, and raises ValueError with a text that teaches.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

from elemta.addresses import a_label, compared
from elemta.config.types import duration, network, size
from elemta.config.words import word
from elemta.rules.view import Fact

MEANT: Mapping[str, str] = {
    "gte": "ge", "lte": "le", ">=": "ge", "<=": "le", ">": "gt", "<": "lt", "=": "eq", "==": "eq", "!=": "ne",
    "is": "eq", "equals": "eq", "nin": "not", "matches": "regex", "match": "regex", "re": "regex", "like": "glob",
    "contains": "regex", "network": "cidr", "net": "cidr", "present": "exists", "or": "any", "and": "all",
}  # fmt: skip
"""Operators by what else people call them."""
_NONE = "{exists: false} where there is none"
_BOUND = re.compile(r"([<>]=?) *(\S+)")


def text_of(fact: Fact, operand: object) -> str:
    """A text that the fact may be equal to, lower case; a domain or an address in the form in which it is compared."""
    if isinstance(operand, (dict, list)) or operand is None:
        hint = f"; write {_NONE}" if operand is None else ""
        raise ValueError(f"{fact.name} is compared with a text; found {word_of(operand)}{hint}")
    word = word_of(operand).lower()
    if isinstance(operand, bool) and word not in fact.words:
        raise ValueError(f'{fact.name} is a text; write {{exists: {word}}}, or "{word}" in quotes for the word')
    if fact.words and word not in fact.words:
        near = difflib.get_close_matches(word, fact.words, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"it can be {', '.join(fact.words)}"
        raise ValueError(f'{fact.name} is never "{word}"; {hint}')
    if fact.kind == "domain" and word.startswith((".", "*.")) and a_label(below := word.removeprefix("*")[1:]):
        raise ValueError(f'"{word}" is no domain; write {{in: [.{below}]}} for every name below {below}')
    return as_compared(fact, _meant(fact, word))


def as_compared(fact: Fact, text: str) -> str:
    """The form in which domains and addresses are compared; other texts as they are."""
    if fact.kind == "address":
        return compared(text)
    return (a_label(text) or text) if fact.kind == "domain" else text


def _meant(fact: Fact, word: str) -> str:
    """`word`, unless no such fact can be equal to it."""
    if fact.kind == "domain" and word[:1] in ("", "@"):
        raise ValueError(f'"{word}" is no domain; write {word[1:] or _NONE}')
    if fact.never and word.startswith(fact.never):
        raise ValueError(f'{fact.name} never begins with "{fact.never}"; write {word.lstrip(fact.never) or _NONE}')
    return _address(fact, word) if fact.kind == "address" else word


def _address(fact: Fact, word: str) -> str:
    """`word`, unless it is a pattern or the null sender, which no address is equal to."""
    if word in ("", "<>"):
        raise ValueError(f'"{word}" is no address; write {_NONE}')
    local, at, domain = word.rpartition("@")
    if at and local in ("", "*"):
        raise ValueError(f'"{word}" is no address; write {{glob: "*@{domain}"}}, or {fact.name}.domain: {domain}')
    return word


def entry(operand: object) -> str:
    """One text of those that are listed, or a pattern."""
    if isinstance(operand, (dict, list)) or operand is None:
        raise ValueError(f"takes texts; found {word_of(operand)}")
    return word_of(operand)


def member(fact: Fact, operand: object) -> str:
    """One entry of a list in place of a set."""
    return _meant(fact, entry(operand))


def labelled(fact: Fact, pattern: str) -> str:
    """A glob of domains, or of addresses behind their @, with its labels as A-labels: *.bücher.example."""
    local, at, domain = pattern.rpartition("@")
    if domain.isascii() or fact.kind != ("address" if at else "domain"):
        return pattern
    labels = [label if label.isascii() else a_label(label) or "" for label in domain.split(".")]
    if "" in labels:
        raise ValueError(f'{fact.name} is compared as A-labels; write xn--… in "{domain}"')
    return local + at + ".".join(labels)


def number_of(fact: Fact, operand: object) -> float:
    """A number that the fact is compared with: seconds or octets where it is a duration or a size."""
    if isinstance(operand, bool) or not isinstance(operand, (int, float, str)):
        raise ValueError(f"{fact.name} is a number; found {word_of(operand)}")
    bound = _BOUND.fullmatch(operand) if isinstance(operand, str) else None
    if bound:
        raise ValueError(f"compare with an operator; write {{{MEANT[bound[1]]}: {bound[2]}}}")
    if isinstance(operand, str) and isinstance(number := word(operand), float):
        operand = number  # 1.10, which is carried as the text that it may be
    if fact.unit == "s" and isinstance(operand, str):
        return duration(operand)
    if fact.unit == "octets" and isinstance(operand, str):
        return size(operand)
    try:
        number = float(operand)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{fact.name} is a number; found "{operand}"')
    return number


def several(operand: object) -> list[Any]:
    """One operand or a list of them, as a list."""
    if operand == []:
        raise ValueError("an empty list matches nothing; write at least one value")
    return operand if isinstance(operand, list) else [operand]


def network_of(operand: object) -> str:
    """An IP address or a network, as an entry of a set."""
    word = word_of(operand)
    network(word)
    return word


def word_of(value: object) -> str:
    """A YAML scalar as the administrator wrote it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else str(value)

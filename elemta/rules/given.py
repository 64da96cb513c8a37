"""Given: what does a test inside the configuration say that a fact is, and can that fact be so?

Words become values of the fact's kind, as the mail would have given them, so that rules can be asked about them.
"""

from __future__ import annotations

from elemta.config.problems import either, quoted, suggest
from elemta.config.types import duration, size
from elemta.config.validate import found
from elemta.config.words import word
from elemta.facts import parse_ip
from elemta.findings import Value
from elemta.rules.operands import as_compared
from elemta.rules.view import Fact


def given(fact: Fact, told: object) -> Value:
    """The value of `fact` that the test writes as `told`; nothing is that it is absent.

    Raises:
        ValueError: the fact is never so; the text says what to write.
    """
    if told is None:
        return None
    if isinstance(told, list):
        if not fact.many:
            raise ValueError(f"a list stands here; {fact.name} has one value")
        return tuple(str(_one(fact, each)) for each in told)
    value = _one(fact, told)
    return (str(value),) if fact.many else value


def _one(fact: Fact, told: object) -> str | int | float | bool | Value:
    if isinstance(told, (list, dict)):
        raise ValueError(f"{found(told)}; {fact.name} is {_KINDS[fact.kind]}")
    if fact.kind == "bool":
        if not isinstance(told, bool):
            raise ValueError(f"{found(told)}; write true or false")
        return told
    if fact.kind == "number":
        return _number(fact, told)
    if fact.kind == "result":
        return _word(fact, str(told))
    if isinstance(told, bool) or told is None:
        raise ValueError(f"{found(told)}; {fact.name} is {_KINDS[fact.kind]}; write it in quotes if it is meant so")
    return _ip(str(told)) if fact.kind == "ip" else _text(fact, str(told))


def _ip(text: str) -> Value:
    address = parse_ip(text)
    if address is None:
        raise ValueError(f"{quoted(text)} is no IP address; write one such as 192.0.2.1")
    return address


def _text(fact: Fact, text: str) -> str:
    if fact.kind == "address" and text in ("", "<>"):
        raise ValueError(f"{quoted(text)} is no address; write nothing where there is none")
    if fact.words and fact.name != "class":  # who knows the classes tells of these
        return _word(fact, text)
    if fact.kind == "domain" and fact.source == "client" and text.isascii():
        return text.removesuffix(".") or text  # as clients say it: its case stays, for regular expressions
    return as_compared(fact, text)


def _word(fact: Fact, told: str) -> str:
    said = told.lower()
    if said not in fact.words:
        hint = suggest(said, fact.words) or f"; it can be {either(sorted(fact.words))}"
        raise ValueError(f"{fact.name} is never {quoted(told)}{hint}")
    return said


def _number(fact: Fact, told: object) -> float:
    number = word(told) if isinstance(told, str) else told
    if isinstance(number, float):
        return number
    if isinstance(told, str) and fact.unit == "s":
        return duration(told)
    if isinstance(told, str) and fact.unit == "octets":
        return size(told)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ValueError(f"{found(told)}; {fact.name} is a number")
    return number


_KINDS = {
    "text": "a text",
    "domain": "a domain",
    "address": "a mail address",
    "ip": "an IP address",
    "number": "a number",
    "bool": "true or false",
    "result": "a result",
}

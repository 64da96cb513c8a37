"""The contract of a check class: can the engine, rules and documents work with what its author wrote?

Our own checks keep it, and tests see to that; a plugin is asked before it is used, so that its author reads one clear
line instead of a traceback while mail flows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from inspect import iscoroutinefunction
from ipaddress import IPv4Address
from typing import Any, get_args

from elemta.check import Check, Field, Options, Trouble
from elemta.config.problems import either, quoted
from elemta.findings import Result
from elemta.rules.view import MAIL_FACTS

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # as under `checks:`
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")  # the part of a fact's name after the dot
_TYPES = (str, int, float, bool, IPv4Address, tuple)
_TAKEN = {fact.name.partition(".")[0] for fact in MAIL_FACTS} | {"header", "all", "any", "not"}
COUNTING = ("recipient_refused", "message_accepted", "message_given_up", "message_refused")


class PluginError(Exception):
    """A plugin cannot be used; the text says which and why."""


def complaint(check: type[Check[Any]]) -> str:
    """What its author must mend first; "" for a check that can be used."""
    return next(_complaints(check), "")


def has_meaning(name: str) -> bool:
    """Whether rules know this word as something else, so that no check can have it as its name."""
    return name in _TAKEN


def counts(check: type[Check[Any]]) -> bool:
    """Whether it wants to be told what became of the mail."""
    return any(getattr(check, name) is not getattr(Check, name) for name in COUNTING)


def depends(check: Check[Any]) -> dict[str, str]:
    """What it says that it depends on; a crash of it is told likewise, and harms nobody else's."""
    try:
        return {str(name): str(why) for name, why in check.dependencies().items()}
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        return {"dependencies": f"crashed: {type(error).__name__}: {error}"}


def _complaints(check: type[Check[Any]]) -> Iterator[str]:
    name = getattr(check, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f'it needs a name of letters, digits, - and _: name = "{check.__name__.lower()}"'
    elif has_meaning(name):
        yield f'the name "{name}" means something else in rules; take another'
    if not (check.__doc__ or "").strip():
        yield "it needs a docstring whose first line is the question it answers"
    try:
        check.stage()
    except TypeError as error:
        yield str(error)
    if not iscoroutinefunction(check.run):
        yield "run must be a coroutine: async def run(self, facts, seen)"
    yield from _complaints_about_fields(check.fields)
    if not (isinstance(check.results, tuple) and check.results and all(isinstance(e, Result) for e in check.results)):
        yield "results must be a tuple of elemta.Result"
    if check.trouble not in get_args(Trouble):
        yield f"trouble must be {either(get_args(Trouble))}"
    if not (isinstance(check.after, tuple) and all(isinstance(each, str) for each in check.after)):
        yield 'after must be a tuple of names: after = ("spf",)'
    if not (isinstance(check.Options, type) and issubclass(check.Options, Options)):
        yield "Options must be a subclass of elemta.Options"


def _complaints_about_fields(fields: object) -> Iterator[str]:
    if not isinstance(fields, Mapping):
        yield 'fields must be a mapping: fields = {"score": Field(float, "what it means")}'
        return
    for name, field in fields.items():
        if not isinstance(name, str) or not _FIELD.fullmatch(name):
            yield f"the field {quoted(name)} needs a name of letters, digits and _"
        elif not isinstance(field, Field):
            yield f'the field {name} must be a Field: Field(float, "what it means")'
        elif field.type not in _TYPES:
            yield f"the field {name} must be of type {either(each.__name__ for each in _TYPES)}"
        elif not isinstance(field.doc, str) or not field.doc:
            yield f'the field {name} must say what it means: Field({field.type.__name__}, "what it means")'
        elif (field.words or field.domain) and field.type not in (str, tuple):
            yield f"the field {name} is no text: it has no words, and is no domain"
        elif not (isinstance(field.words, tuple) and all(word == str(word).lower() for word in field.words)):
            yield f'the words of the field {name} must be a tuple of words in lower case: words=("low", "high")'

"""Templates: how does "550 5.7.1 {clamav.virus} found. Reference {id}" become the text of one mail?

`{fact}` is filled in, `{{` and `}}` are braces.  What goes in was often chosen by an attacker: control
characters and line ends become spaces, long values are cut, and in HTML nothing of it is markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from elemta.findings import Value

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]+")
_LONGEST = 200  # characters of one value

Template = Callable[[Mapping[str, Value]], str]
NOTHING: Mapping[str, str] = MappingProxyType({})


def names(text: str) -> tuple[str, ...]:
    """The facts that a template asks for.

    Raises:
        ValueError: a brace stands alone.
    """
    found = []
    for match in _PIECE.finditer(text):
        if match[0] in ("{", "}"):
            raise ValueError(f"a single {match[0]} at character {match.start() + 1}; write {match[0] * 2} for a brace")
        if match[0] == "{}":
            raise ValueError(
                f"nothing in {{}} at character {match.start() + 1}; write a fact in it, or {{{{}}}} for braces"
            )
        if match[1] is not None:
            found.append(match[1])
    return tuple(found)


def compile_template(
    text: str,
    durations: Collection[str] = (),
    *,
    given: Mapping[str, str] = NOTHING,
    later: Collection[str] = (),
    escape: Callable[[str], str] = str,
) -> Template:
    """A function that fills `text` with facts.

    Args:
        text: the template.
        durations: the names of facts that are seconds and are printed as "4m 30s".
        given: what is known already, by name.
        later: names that stay as they are: what comes out is itself a template, with these alone to be filled in.
        escape: what makes plain text of a value; `html.escape` where the template is HTML.

    Raises:
        ValueError: a brace stands alone.
    """
    names(text)
    if later:
        text, escape = _kept(text, later), _braces
    pieces = [
        (escape(given[name]), None, False) if name is not None and name in given else (words, name, is_duration)
        for words, name, is_duration in _pieces(text, durations)
    ]
    if all(name is None for _, name, _ in pieces):
        plain = "".join(words for words, _, _ in pieces)
        return lambda _values: plain

    def fill(values: Mapping[str, Value]) -> str:
        return "".join([
            words if name is None else escape(_printed(values[name], is_duration))
            for words, name, is_duration in pieces
        ])  # fmt: skip

    return fill


def _kept(text: str, later: Collection[str]) -> str:
    """The template that gives, filled in, one for the names `later`."""

    def doubled(match: re.Match[str]) -> str:
        return match[0] if match[1] is not None and match[1] not in later else _braces(match[0])

    return _PIECE.sub(doubled, text)


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _pieces(text: str, durations: Collection[str]) -> Iterator[tuple[str, str | None, bool]]:
    """What a text consists of: words as they stand, or a fact and whether it is a duration."""
    end = 0
    for match in _PIECE.finditer(text):
        if before := text[end : match.start()]:
            yield before, None, False
        if match[1] is None:
            yield match[0][0], None, False
        else:
            yield "", match[1], match[1] in durations
        end = match.end()
    if end < len(text):
        yield text[end:], None, False


def _printed(value: Value, is_duration: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        value = ", ".join(value)
    if is_duration and isinstance(value, (int, float)):
        return human_duration(value)
    if isinstance(value, bool):
        value = "true" if value else "false"  # as in the policy file
    elif isinstance(value, float):
        value = f"{value:g}"
    return _CONTROL.sub(" ", str(value))[:_LONGEST]


def human_duration(seconds: float) -> str:
    """Seconds for people: "45s", "4m 30s", "2h 5m", "3d 4h"; part seconds round up."""
    return _human(int(-(-seconds // 1)))


@lru_cache(maxsize=4096)
def _human(left: int) -> str:
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"

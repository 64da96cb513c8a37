"""Templates: how does "550 5.7.1 {clamav.virus} found. Reference {id}" become the text of one mail?

`{fact}` is filled in, `{{` and `}}` are braces.  What goes in was often chosen by an attacker: control
characters and line ends become spaces, long values are cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from elemta.findings import Value

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]+")
_LONGEST = 200  # characters of one value

Template = Callable[[Mapping[str, Value]], str]


def names(text: str) -> tuple[str, ...]:
    """The facts that a template asks for.

    Raises:
        ValueError: a brace stands alone.
    """
    found = []
    for match in _PIECE.finditer(text):
        if match[0] in "{}":
            raise ValueError(f"a single {match[0]} at character {match.start() + 1}; write {match[0] * 2} for a brace")
        if match[1] is not None:
            found.append(match[1])
    return tuple(found)


def compile_template(text: str, durations: Collection[str] = ()) -> Template:
    """A function that fills `text` with facts.

    Args:
        text: the template.
        durations: the names of facts that are seconds and are printed as "4m 30s".

    Raises:
        ValueError: a brace stands alone.
    """
    wanted = names(text)
    if not wanted:
        plain = text.replace("{{", "{").replace("}}", "}")
        return lambda _values: plain

    pieces = tuple(_pieces(text, durations))

    def fill(values: Mapping[str, Value]) -> str:
        return "".join([
            text if name is None else _printed(values[name], is_duration) for text, name, is_duration in pieces
        ])  # fmt: skip

    return fill


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
    if isinstance(value, float):
        value = f"{value:g}"
    return _CONTROL.sub(" ", str(value))[:_LONGEST]


def human_duration(seconds: float) -> str:
    """Seconds for people: "45s", "4m 30s", "2h 5m", "3d 4h"; part seconds round up."""
    left = int(-(-seconds // 1))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"

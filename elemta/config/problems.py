"""Problems: what is wrong in the configuration, where, and what should stand there instead?

Every stage that reads the configuration (YAML, settings, checks' options, rules, plugins) reports `Problem`s by
path; `Source` adds the place, and `ConfigErrors` carries all of them at once.  A printed problem is one line:

    policy.yaml:41:7: rules.message[3].when: unknown fact "dmark"; did you mean "dmarc"?
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from elemta.printable import clean

Path = tuple[str | int, ...]
"""Keys and list indexes (from 0) that lead from the top of the file to a value."""

SHOWN = 100
"""Problems printed at once; the number of those left out is told."""
WITHOUT_QUOTES = ", without quotes"
"""The end of a message about a text in quotes that would be right without them, behind that text."""
_QUOTED = 60
_LISTED = 12  # names at most, where none is near
_NO_SPACE = re.compile(r"([a-z_][a-z0-9_.]*):([^\s:/][^\n]*)")  # not in an address: fd00::1, https://…
PATH_MAX = 4096
"""Characters of a file's path that are shown: all of them."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """A place in a file.

    Attributes:
        file: the path as it was given or found.
        line: from 1; 0 = the file as a whole.
        column: in characters, from 1.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, or one warning.

    Attributes:
        path: where it is; with `on="key"` the path's last part is the key that is wrong.
        message: what is wrong and what to write instead, one line.
        on: whether the key or its value is pointed at.
        origin: the place; None until `Source` has looked it up.
    """

    path: Path
    message: str
    on: Literal["key", "value"] = "value"
    origin: Origin | None = None

    def __str__(self) -> str:
        path = self.path[:-1] if self.on == "key" else self.path
        return ": ".join(part for part in (str(self.origin or ""), path_text(path), self.message) if part)


class ConfigErrors(Exception):  # noqa: N818 - there are always several, or may be
    """The configuration cannot be used.

    Attributes:
        problems: all that is wrong, in the order of the files' lines; never empty.
        status: the exit status of sysexits.h: EX_CONFIG, or EX_NOINPUT when the file itself cannot be read.
    """

    def __init__(self, problems: Iterable[Problem], status: int = os.EX_CONFIG) -> None:
        self.problems: Sequence[Problem] = tuple(
            sorted(dict.fromkeys(problems), key=lambda each: each.origin or Origin(""))
        )
        self.status = status
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [str(each) for each in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"and {len(self.problems) - SHOWN} more")
        return "\n".join(lines)


def path_text(path: Path) -> str:
    """`("rules", "message", 3, "when")` as people write it: "rules.message[3].when"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}"
    return text.removeprefix(".")


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "dmarc"?` where one of `known` is near to `word`, else ""."""
    near = get_close_matches(word[:_QUOTED], list(known), n=1)
    return f"; did you mean {quoted(near[0])}?" if near else ""


def unknown(path: Path, what: str, name: str, known: Iterable[str], on: Literal["key", "value"] = "key") -> Problem:
    """A name that nothing has."""
    words = sorted(known)
    hint = suggest(name, words) or (f"; there are {either(words)}" if 0 < len(words) <= _LISTED else "")
    return Problem(path, f"there is no {what} {quoted(name)}{hint}", on)


def spaced(value: object) -> str:
    """`; did you mean `host: mx1`?` where a space is missing behind the colon of a key, else ""."""
    match = _NO_SPACE.fullmatch(value) if isinstance(value, str) else None
    return f"; did you mean `{printable(match[1])}: {printable(match[2])}`, with a space?" if match else ""


def either(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def quoted(value: object, longest: int = _QUOTED) -> str:
    """`value`, as the YAML has it, in double quotes on one line, cut after `longest` characters."""
    return f'"{printable(str(value).lower() if isinstance(value, bool) else str(value), longest)}"'


def printable(text: str, longest: int = _QUOTED) -> str:
    """`text` without anything that would disturb a terminal or a log line, cut after `longest` characters."""
    return clean(text if len(text) <= longest else text[: longest - 1] + "…")

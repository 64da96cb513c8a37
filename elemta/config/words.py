"""Words: what does a scalar of the configuration mean, and what is filled in from outside?

Without quotes, `true` and `false` are the only booleans; nothing, `~` and `null` are "nothing"; a plain decimal is a
number, and `1.10` beside a fact that is a text is that text; all else is text: `off`, `no`, `08`, `0x10`, `12:30`,
`2026-01-31`, `1e3`.  In quotes, everything is text.

`${NAME}` anywhere in a text is the environment variable NAME, and `$${` is `${` itself.  Where it makes up a value
without quotes, a number or boolean found there is one.  A value that begins with `file:` is the content of that file
without its last line end: `password: file:/run/secrets/redis`.  Keys are never filled in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Self

from elemta.config.nodes import Node, Scalar
from elemta.config.problems import PATH_MAX, Origin, quoted

MAX_FILE_VALUE = 1 << 20
"""Octets of a file named by `file:`."""

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_NOTHING = {"", "~", "null"}
_BOOLEAN = {"true": True, "false": False}
_FILLED = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


def read(text: str, plain: bool, origin: Origin, environment: Mapping[str, str]) -> Node:
    """The node that a scalar stands for; `plain` = without quotes.

    Raises:
        ValueError: an unset variable, a file that cannot be read, a NUL character.
    """
    if "\0" in text:
        raise ValueError("a value cannot hold a NUL character; remove it")
    filled = fill(text, environment)
    if text.startswith("file:") and text != "file:":
        return Node(origin, from_file(beside(origin.file, filled[5:].strip())), secret=True)
    if plain and (filled or not text):
        return Node(origin, word(filled))
    return Node(origin, filled, filled=text if filled != text else "")


def word(text: str) -> Scalar:
    """What a word without quotes means."""
    if text in _NOTHING:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _NUMBER.fullmatch(text):
        return int(text)
    return Decimal(text) if _FRACTION.fullmatch(text) else text


class Decimal(float):
    """A number that remembers how it is written: as a text, 1.10 is not 1.1.

    Attributes:
        text: as it stands in the file.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """What stands in the file."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def fill(text: str, environment: Mapping[str, str]) -> str:
    """`text` with every `${NAME}` filled in.

    Raises:
        ValueError: NAME is not set, is not text, or `${` begins nothing.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name = match[1]
        if name is None:
            raise ValueError(f"`${{` begins nothing in {quoted(text)}; write ${{NAME}}, or $${{ for the characters")
        if name not in environment:
            raise ValueError(f"the environment variable {name} is not set; set it, or write the value here")
        if any("\ud800" <= each <= "\udfff" for each in environment[name]):  # how Python holds other octets
            raise ValueError(f"the environment variable {name} is not UTF-8 text; write it in UTF-8")
        return environment[name]

    return _FILLED.sub(value, text) if "${" in text else text


def beside(file: str, path: str) -> str:
    """The absolute form of `path`, which `file` names."""
    return os.path.abspath(Path(file).parent / path)  # noqa: PTH100 - resolve() would follow symbolic links


def from_file(path: str) -> str:
    """The content of the file `path` without its last line end.

    Raises:
        ValueError: it is missing, cannot be read, is not text, or is longer than `MAX_FILE_VALUE`.
    """
    trouble = unreadable(path)
    if trouble:
        raise ValueError(trouble)
    with Path(path).open("rb") as file:
        content = file.read(MAX_FILE_VALUE + 1)
    if len(content) > MAX_FILE_VALUE:
        raise ValueError(f"{quoted(path, PATH_MAX)} is longer than {MAX_FILE_VALUE} octets; name a shorter file")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{quoted(path, PATH_MAX)} is not UTF-8 text; write it in UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{quoted(path, PATH_MAX)} holds a NUL character; remove it")
    return text.removesuffix("\n").removesuffix("\r")


def unreadable(path: str) -> str:
    """Why the file `path` cannot be read, and what to do about it; "" when it can."""
    try:
        if not S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for ever
            return f"{quoted(path, PATH_MAX)} is not a file; name a file"
        with Path(path).open("rb"):
            return ""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return f"{quoted(path, PATH_MAX)} cannot be read: {reason}; correct the path, or make the file readable"

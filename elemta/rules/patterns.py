"""Patterns: does a text look like a glob, or does a regular expression of RE2 find something in it?

Both take time linear in the text, whatever an administrator writes and an attacker sends.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any

import re2

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def first_of(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    """Does any of `tests` hold?"""
    if len(tests) == 1:
        return tests[0]
    return lambda text: any(test(text) for test in tests)


def glob(pattern: str) -> Callable[[str], bool]:
    """A test for the whole text: * stands for any characters, ? for one, [ab] for one of these. Linear time."""
    if "?" in pattern or "[" in pattern:
        # fnmatch gives Python's syntax; RE2 writes \\Z as \\z and knows no atomic groups
        translated = fnmatch.translate(pattern)
        if "(?!)" in translated:
            raise ValueError(f'"{pattern}" matches nothing: in [ ], a range must end behind its beginning, as in [a-z]')
        return _test(_re2(translated.replace(r"\Z", r"\z").replace("(?>", "(?:")).fullmatch)
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


def search(pattern: str) -> Callable[[str], bool]:
    """A test for RE2 to find `pattern` anywhere."""
    return _test(_re2(pattern).search)


def _test(match: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            return match(text) is not None
        except UnicodeEncodeError:  # an octet that was no UTF-8, in a HELO name or an address: RE2 knows UTF-8 only
            return match(_SURROGATE.sub("\ufffd", text)) is not None

    return test


def _re2(pattern: str) -> Any:  # noqa: ANN401 - re2 ships no types
    """Compile on RE2: linear time whatever the text; look-around and back-references do not exist there."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"/{pattern}/ is no regular expression of RE2: {reason}") from None

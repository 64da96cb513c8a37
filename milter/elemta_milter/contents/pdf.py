"""PDF: does it run something, carry files, or need a password?

One pass over the octets looks for the names of actions, however they are escaped; compressed object streams, in which
they may hide, are unpacked within the budget.  Nothing is parsed that a hostile file could make long.

Source: ISO 32000-2 sections 7.3 (strings, names, dictionaries, streams), 7.5.7 (object streams), 7.6 (encryption),
12.6.4 (actions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from elemta_milter.archives.budget import Budget
from elemta_milter.archives.piecewise import matches
from elemta_milter.archives.stream import Stream, unpack, zlib_stream

_WORDS = {
    b"JavaScript": "javascript",
    b"Launch": "launch",
    b"OpenAction": "open_action",
    b"EmbeddedFile": "embedded_file",
    b"EmbeddedFiles": "embedded_file",
    b"Encrypt": "encrypted",
    b"ObjStm": "object_stream",
    b"First": "first",
}
_OF_STREAMS = frozenset({"object_stream", "first"})
"""What an object stream says it is, and what one has that does not say so, and outlines."""
_NAMES = re.compile(
    rb"/(?:(JavaScript|Launch|OpenAction|EmbeddedFiles?|Encrypt|ObjStm|First)(?![A-Za-z0-9_#])"
    rb"|([A-Za-z]{0,16}#[0-9A-Fa-f]{2}[A-Za-z0-9#]{0,60}))"
)
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_BETWEEN = rb"(?:[\0\t\n\f\r ]|%[^\r\n]*+[\r\n])*+"
_STREAM = re.compile(_BETWEEN + rb"stream[\0\t\f ]{0,9}(?:\r\n|\r|\n)?")
_OBJECT_END = re.compile(_BETWEEN + rb"endobj")
_TOKEN = re.compile(rb"<<|>>|\(|%[^\r\n]*+|<[^<>]*+>|[^<>(%]++|[<>]")
_PARENTHESIS = re.compile(rb"\\.|[()]", re.DOTALL)
_NUMBERS = re.compile(rb"\s*[0-9]")
"""How an object stream begins (section 7.5.7); what begins otherwise was packed twice, or in another way."""
_BEGINNING = 100
_DICTIONARY = 4096
"""Octets between an object stream's name and the end of its dictionary."""
_INFLATED = 4 << 20
_MOST = 2000  # object streams
_LONGEST = 100
"""Octets of a name, with those that tell where it ends."""


@dataclass(frozen=True, slots=True)
class Pdf:
    """What is in it.

    Attributes:
        does: of "javascript", "launch", "open_action", "embedded_file", those that are there.
        encrypted: it is encrypted.
        unread: object streams that could not be unpacked.
    """

    does: tuple[str, ...] = ()
    encrypted: bool = False
    unread: int = 0


def look(data: memoryview, budget: Budget) -> Pdf:
    """Look for what it does."""
    found: dict[str, None] = {}
    begins: set[int] = set()
    unread = 0
    for word, place in _words(data, budget):
        if word not in _OF_STREAMS:
            found[word] = None
            continue
        begin = _begin(data, place) if len(begins) < _MOST else -1
        if begin <= 0:
            unread += begin < 0 or word == "object_stream"
        elif begin not in begins:
            begins.add(begin)
            packed = Stream(unpack((data[begin:],), zlib_stream, budget))
            unread += not _NUMBERS.match(packed.peek(_BEGINNING))
            found.update((word, None) for word, _ in _words(packed.peek(_INFLATED), budget) if word not in _OF_STREAMS)
    encrypted = found.pop("encrypted", 0) is None
    return Pdf(tuple(found), encrypted, 0 if encrypted else unread)


def _begin(data: memoryview, place: int) -> int:
    """Where the stream begins whose dictionary holds what stands here; 0 for none, -1 where its end is too far away."""
    depth, end = 0, place + _DICTIONARY
    while (token := _TOKEN.match(data, place, end)) is not None:
        place = token.end()
        if token[0] == b"(":
            place = _string_end(data, place, end)
        elif token[0] == b"<<":
            depth += 1
        elif token[0] == b">>" and depth:
            depth -= 1
        elif token[0] == b">>":
            if (stream := _STREAM.match(data, place, place + _DICTIONARY)) is not None:
                return stream.end()
            if _OBJECT_END.match(data, place, place + _DICTIONARY):
                return 0
    return -1 if end < len(data) else 0


def _string_end(data: memoryview, place: int, end: int) -> int:
    """Where a string ends; parentheses within it are paired (section 7.3.4.2)."""
    depth = 1
    for found in _PARENTHESIS.finditer(data, place, end):
        depth += {b"(": 1, b")": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    return end


def _words(data: memoryview, budget: Budget) -> Iterator[tuple[str, int]]:
    """The names of interest, and where they end; no more of them once the budget is spent."""
    for match in matches(_NAMES, data, _LONGEST, budget.goes_on):
        if not budget.goes_on():
            return
        name = match[1] or _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), match[2])
        word = _WORDS.get(name)
        if word:
            yield word, match.end()

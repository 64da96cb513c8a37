"""PDF: does it run something, carry files, or need a password?

One pass over the octets looks for the names of actions, however they are escaped; compressed object streams, in which
they may hide, are unpacked within the budget.  Nothing is parsed that a hostile file could make long.

Source: ISO 32000-2 sections 7.3.5 (names), 7.5.7 (object streams), 7.6 (encryption), 12.6.4 (actions).
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
    b"First": "object_stream",
}
_NAMES = re.compile(
    rb"/(?:(JavaScript|Launch|OpenAction|EmbeddedFiles?|Encrypt|ObjStm)(?![A-Za-z0-9_#])"
    rb"|(First)\s{0,9}\d{1,9}\s{0,9}(?=/|>>)"  # of an object stream that does not say what it is
    rb"|([A-Za-z]{0,16}#[0-9A-Fa-f]{2}[A-Za-z0-9#]{0,60}))"
)
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_STREAM = re.compile(rb"stream(?:\r\n|\r|\n)")
_NUMBERS = re.compile(rb"\s*[0-9]")
"""How an object stream begins (section 7.5.7); what begins otherwise was packed twice, or in another way."""
_BEGINNING = 100
_DICTIONARY = 4096
"""Octets between an object stream's name and its beginning."""
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
    unread = streams = last = 0
    for word, place in _words(data, budget):
        if word != "object_stream":
            found[word] = None
            continue
        streams += 1
        start = _STREAM.search(data, place, place + _DICTIONARY) if streams <= _MOST else None
        if start is None:
            unread += 1
        elif start.end() != last:
            last = start.end()
            packed = Stream(unpack((data[last:],), zlib_stream, budget))
            unread += not _NUMBERS.match(packed.peek(_BEGINNING))
            found.update((word, None) for word, _ in _words(packed.peek(_INFLATED), budget) if word != "object_stream")
    encrypted = found.pop("encrypted", 0) is None
    return Pdf(tuple(found), encrypted, 0 if encrypted else unread)


def _words(data: memoryview, budget: Budget) -> Iterator[tuple[str, int]]:
    """The names of interest, and where they end; no more of them once the budget is spent."""
    for match in matches(_NAMES, data, _LONGEST, budget.goes_on):
        if not budget.goes_on():
            return
        name = match[1] or match[2] or _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), match[3])
        word = _WORDS.get(name)
        if word:
            yield word, match.end()

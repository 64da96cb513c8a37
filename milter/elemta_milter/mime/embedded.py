"""Embedded files: which blocks of a text would some programs show as attachments?

Takes text as it stands; gives the places of blocks of uuencode, of its form with base64, and of yEnc.  Linear in the
text, and no farther than it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from mmap import mmap

from elemta.charsets import undeclared

# Linear: no two parts next to each other can both take a blank, but for those of which the first gives none back.
_UUENCODE = re.compile(rb"begin(-base64)? ++(?:[0-7]{3,4} ++)?([^\r\n]{1,1000}+) *+\r?\n")
_UU_LINE = re.compile(rb"([!-_])([ -`]{1,90})\r?(?:\n|\Z)")
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]{4,}\r?(?:\n|\Z)")
_YENC = re.compile(rb"=ybegin ([^\r\n]{1,2000}+) *+\r?\n(?:=ypart [^\r\n]{0,200}\r?\n)?")


@dataclass(frozen=True, slots=True)
class Block:
    """A file in a text.

    Attributes:
        encoding: uuencode, base64 or yenc.
        name: the file's name as told.
        begin: where the line begins that names it.
        start: where its content begins.
        end: where it ends; a block without an end goes on to the end of the text.
    """

    encoding: str
    name: str
    begin: int
    start: int
    end: int


def blocks(data: bytes | mmap, start: int, end: int, most: int, goes_on: Callable[[], bool]) -> Iterator[Block]:
    """Give the blocks between two places, at most so many; `goes_on` is asked at each place where one may begin."""
    place, ends = start, dict[bytes, int]()
    while most and (place := data.find(b"begin", place, end)) >= 0 and goes_on():
        found = None
        if place == start or data[place - 1] in b"\r\n":
            found = _uuencode(data, place, end)
        elif data[max(place - 2, start) : place] == b"=y" and (place - 2 == start or data[place - 3] in b"\r\n"):
            found = _yenc(data, place - 2, end)
        place += 5  # and on within the block: what begins before another has ended is shown by some
        if found is None:
            continue
        block, mark = found
        if ends.get(mark, 0) < block.start:
            last = data.find(mark, block.start, end)
            ends[mark] = last + 1 if last >= 0 else end
        yield replace(block, end=ends[mark])
        most -= 1


def _uuencode(data: bytes | mmap, place: int, end: int) -> tuple[Block, bytes] | None:
    """The block that begins here, its end yet to be found, and what it ends with."""
    match = _UUENCODE.match(data, place, end)
    if match is None:
        return None
    name = undeclared(match[2].rstrip(b" "))
    if match[1]:
        base64 = _BASE64_LINE.match(data, match.end(), end)
        return (Block("base64", name, place, match.end(), end), b"\n====") if base64 else None
    line = _UU_LINE.match(data, match.end(), end)
    if line is None or len(line[2]) > (line[1][0] - 30) // 3 * 4 + 2:  # the first character tells the octets + 32
        return None
    return Block("uuencode", name, place, match.end(), end), b"\nend"


def _yenc(data: bytes | mmap, place: int, end: int) -> tuple[Block, bytes] | None:
    match = _YENC.match(data, place, end)
    _, named, name = match[1].partition(b"name=") if match else (b"", b"", b"")  # the last of its keywords
    if match is None or not named or not name:
        return None
    return Block("yenc", undeclared(name.rstrip(b" ")), place, match.end(), end), b"\n=yend"

"""Lines: where do delimiter lines stand, and what do the lines of a part's header say?

Line ends are CRLF, LF or CR alone, as some program or other takes them.  Linear: nothing is searched twice.

RFC 2046 section 5.1.1 (delimiter lines), RFC 5322 section 2.2 (fields and their folding).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

LINE_END = re.compile(rb"(?>\r{0,2}\n|\r)")  # also of lines that were converted once too often

Fields = tuple[tuple[bytes, bytes], ...]

_FIELD = re.compile(rb"([!-9;-~]+)[ \t\v\f]*:")
_DESCRIBING = frozenset({b"content-type", b"content-disposition", b"content-transfer-encoding"})
_GUESS = re.compile(rb"--([!-~][ -~]{0,99}|(?=[\r\n]))")  # nothing, where the boundary is ""
_BLANK = b" \t"
_COMPARED = 4
"""To compare a line with so many boundaries takes as long as to find it; with 8 times as many, if it is none."""


@dataclass(frozen=True, slots=True)
class Delimiter:
    """A delimiter line.

    Attributes:
        before: where the line end before it begins, which belongs to it.
        begin: where it begins.
        end: where the next line begins.
        owner: the number of the boundary that it begins with.
        last: it closes the multipart.
        odd: what is wrong with it, in words; "" for nothing.
    """

    before: int
    begin: int
    end: int
    owner: int
    last: bool
    odd: str = ""


class DelimiterLines:
    """The delimiter lines of the multiparts that are open.

    Attributes:
        dashes: how many more lines that begin with "--" may be looked at; at 0 the search is over.  Where many
            boundaries are open a line counts for several.
    """

    def __init__(self, data: bytes | mmap, size: int, longest: int, dashes: int) -> None:
        """Look through the first `size` octets of `data`, for boundaries of at most `longest` octets."""
        self.dashes = dashes
        self._data, self._size, self._longest = data, size, longest
        self._starts: tuple[bytes, ...] = ()
        self._found = {b"\n--": -2, b"\r--": -2}  # where the next line begins with "--", by what stands before it

    def set_boundaries(self, boundaries: tuple[bytes, ...]) -> None:
        """Look for these from now on; the innermost multipart's stand last."""
        self._starts = tuple(b"--" + boundary for boundary in boundaries)

    def at(self, place: int) -> bool:
        """Whether a line that begins here is a delimiter line."""
        return self._data[place : place + self._longest + 2].startswith(self._starts)

    def next(self, place: int) -> Delimiter | None:
        """The first one that begins at `place` or later."""
        while self._starts and (line := self.next_dashes(place)) >= 0 and self.dashes:
            found = self.at(line)
            self.dashes = max(self.dashes - 1 - len(self._starts) // (_COMPARED if found else 8 * _COMPARED), 0)
            if found:
                return self._delimiter(line)
            place = line + 2
        return None

    def next_dashes(self, place: int) -> int:
        """Where the next line begins that begins with "--"; -1 when there is none."""
        if place == 0 and self._data[:2] == b"--":
            return 0
        nearest = -1
        for mark, known in self._found.items():
            stale = -1 != known < place - 1
            found = self._data.find(mark, max(place - 1, 0), self._size) if stale else known
            self._found[mark] = found
            if found >= 0 and (nearest < 0 or found < nearest):
                nearest = found
        return nearest + 1 if nearest >= 0 else -1

    def guess(self, place: int) -> tuple[bytes, ...]:
        """The boundary of a multipart that tells none: some programs take the first line that begins with "--"."""
        line = self.next_dashes(place)
        match = None if line < 0 or self.at(line) else _GUESS.match(self._data, line, self._size)
        return (match[1].rstrip(),) if match else ()

    def _delimiter(self, line: int) -> Delimiter:
        """Whose is it? The innermost's whose boundary is the whole line; else the longest's that it begins with."""
        ending = LINE_END.search(self._data, line, self._size)
        stop = ending.start() if ending else self._size
        text = self._data[line : min(stop, line + self._longest + 100)]
        best: tuple[bool, int, int] = (False, 0, 0)
        for number, start in enumerate(self._starts):
            if text.startswith(start):
                best = max(best, (text[len(start) :].strip(_BLANK) in {b"", b"--"}, len(start), number))
        rest = text[best[1] :].strip(_BLANK)
        odd = "a delimiter line that ends with CR alone" if ending and ending[0] == b"\r" else ""
        if not best[0]:
            odd = "a delimiter line with text after the boundary"
        crlf = line >= 2 and self._data[line - 2 : line] == b"\r\n"
        before = line - 2 if crlf else max(line - 1, 0)
        return Delimiter(before, line, ending.end() if ending else self._size, best[2], rest.startswith(b"--"), odd)


@dataclass(frozen=True, slots=True)
class Header:
    """A part's header.

    Attributes:
        fields: name and value of each, raw, as in `Message.headers`.
        end: where the part's content begins.
        looked: how far it was looked for.
        junk: it has lines that are no fields; they were passed over.
        cut: it goes on.
    """

    fields: Fields
    end: int
    looked: int
    junk: bool = False
    cut: bool = False


def read_header(data: bytes | mmap, place: int, stop: int, is_delimiter: Callable[[int], bool]) -> Header:
    """Read the header that begins at `place`, up to an empty line, a delimiter line or `stop`.

    Lines that are no fields are passed over, as by programs that show more; text in which no field describes the part
    is no header at all.
    """
    fields: list[tuple[bytes, bytes]] = []
    field: list[bytes] = []  # name and lines of the one being read
    begin, text, junk, cut = place, False, False, True
    while place < stop:
        ending = LINE_END.search(data, place, stop)
        line = data[place : ending.start() if ending else stop]
        after = ending.end() if ending else stop
        if not line or (line.startswith(b"--") and is_delimiter(place)):
            place, cut = place if line else after, False
            break
        name = None if line[0] in _BLANK else _FIELD.match(line)
        if name is not None:
            _put(field, fields)
            field = [name[1], line[name.end() :]]
        elif not field:
            text = junk = True
        elif line[0] in _BLANK or (ending is not None and ending[0] == b"\r"):  # folded, for a program that knows CR
            field += [b"\r\n", line]
        else:
            junk = True
        place = after
    _put(field, fields)
    if text and _DESCRIBING.isdisjoint(name.lower() for name, _ in fields):
        return Header((), begin, place, cut=cut)
    return Header(tuple(fields), place, place, junk, cut)


def _put(field: list[bytes], fields: list[tuple[bytes, bytes]]) -> None:
    if field:
        fields.append((field[0], b"".join(field[1:])))

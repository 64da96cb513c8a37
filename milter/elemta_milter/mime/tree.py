"""Tree: which parts does this message have?

Takes a message as it came; gives the tree of its parts, made once a message however many checks ask (`tree_of`).  Where
programs differ in what they would show, the reading counts that shows more: a delimiter line with text after it, parts
after the last delimiter, several boundaries, a boundary that is not told, blocks of uuencode and yEnc in text.  Linear
in the size of the message, in bounded memory, without recursion; a bound that is passed is told in `Tree.excess`, what
is wrong in `Tree.defects`.  Never raises on what a sender wrote.

RFC 2046 sections 5.1 and 5.2.1; RFC 9051 section 6.4.5 (numbers of parts).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from mmap import mmap
from types import MappingProxyType

from elemta.facts import Message
from elemta_milter.body import buffer
from elemta_milter.mime.description import IDENTITY, Description, describe
from elemta_milter.mime.embedded import Block, blocks
from elemta_milter.mime.parts import Part, Tree

LINE_END = re.compile(rb"(?>\r{0,2}\n|\r)")  # also of lines that were converted once too often
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MBOX = re.compile(rb">?From ")
_GUESS = re.compile(rb"--([!-~][ -~]{0,99})")
_BLANK = b" \t"


@dataclass(frozen=True, slots=True)
class MimeBounds:
    """How much of one message is looked at.

    Attributes:
        octets: of the body; delimiter lines beyond are not seen.
        parts: parts in all, multiparts and attached messages included.
        depth: parts within parts.
        part_header: octets of the header of one part, and of the fields that describe the message itself.
        headers: octets of the headers of all parts.
        boundary: octets of a boundary; one that is longer is compared so far.
        dashes: lines that begin with "--" and were compared with the boundaries.
    """

    octets: int = 1 << 28
    parts: int = 1000
    depth: int = 50
    part_header: int = 64 << 10
    headers: int = 1 << 20
    boundary: int = 512
    dashes: int = 200_000


BOUNDS = MimeBounds()


def tree_of(message: Message) -> Tree:
    """The tree of a message's parts, made once.

    Raises:
        OSError: a spooled body cannot be read.
    """
    return message.once(read)


def read(message: Message, bounds: MimeBounds = BOUNDS) -> Tree:
    """Read the parts of a message.

    Raises:
        OSError: a spooled body cannot be read.
    """
    return _Reader(buffer(message.body), bounds).read(message.headers)


def read_octets(
    octets: bytes, header: Sequence[tuple[bytes, bytes]] | None = None, bounds: MimeBounds = BOUNDS
) -> Tree:
    """Read a message that was itself encoded; or, with a `header`, the body of one."""
    return _Reader(octets, bounds).read(header)


@dataclass(slots=True, eq=False)
class _Node:
    """A part while it is read; see `Part`."""

    number: str
    depth: int
    header: tuple[tuple[bytes, bytes], ...]
    header_start: int
    start: int
    said: Description
    end: int = -1
    default: str = "text/plain"
    boundaries: tuple[bytes, ...] = ()
    closed: bool = False
    children: list[_Node] = field(default_factory=list)
    blocks: list[Part] = field(default_factory=list)


class _Reader:
    """Reads one message from the beginning to the end."""

    def __init__(self, data: bytes | mmap, bounds: MimeBounds) -> None:
        self.data = data
        self.bounds = bounds
        self.size = min(len(data), bounds.octets)
        self.nodes: list[_Node] = []
        self.open: list[_Node] = []  # from the whole message inward
        self.delimiters: tuple[bytes, ...] = ()  # what begins the delimiter lines of those
        self.excess: dict[str, None] = {}
        self.defects: dict[str, None] = {}
        self.headers = bounds.headers
        self.dashes = bounds.dashes
        self.found = {b"\n--": -2, b"\r--": -2}  # where the next line begins with "--", by the octet before it

    def read(self, header: Sequence[tuple[bytes, bytes]] | None) -> Tree:
        if len(self.data) > self.size:
            self.excess[f"{self.bounds.octets} octets"] = None
        fields, start = self._header(0) if header is None else (tuple(header), 0)
        place = self._begin(_Node("", 0, fields, 0, start, self._described(fields)))
        while len(self.nodes) <= self.bounds.parts and (line := self._delimiter(place)) is not None:
            place = self._part(*line)
        if len(self.nodes) > self.bounds.parts:
            self.excess[f"{self.bounds.parts} parts"] = None
        self._close(0, len(self.data))
        for node in [node for node in self.nodes if node.said.media_type.startswith("text/") and not node.children]:
            self._look_for_blocks(node)
        return Tree(self._frozen(), memoryview(self.data), tuple(self.excess), tuple(self.defects))

    # ── delimiter lines ──────────────────────────────────────────────────────────────────────────────────

    def _delimiter(self, place: int) -> tuple[int, int, bytes, int] | None:
        """Find the next delimiter line: where the line end before it and itself begin, its boundary, whose it is."""
        while self.delimiters:
            line = self._dashes(place)
            if line < 0:
                return None
            if not self.dashes:
                self.excess[f"{self.bounds.dashes} lines that begin with --"] = None
                return None
            self.dashes -= 1
            if self._starts(line):
                boundary, owner = self._owner(line)
                return self._before(line), line, boundary, owner
            place = line + 2
        return None

    def _starts(self, line: int) -> bool:
        return self.data[line : line + self.bounds.boundary + 2].startswith(self.delimiters)

    def _dashes(self, place: int) -> int:
        """Find the next line from `place` on that begins with "--"; -1 when there is none."""
        if place == 0 and self.data[:2] == b"--":
            return 0
        nearest = -1
        for mark, known in self.found.items():
            stale = -1 != known < place - 1
            found = self.data.find(mark, max(place - 1, 0), self.size) if stale else known
            self.found[mark] = found
            if found >= 0 and (nearest < 0 or found < nearest):
                nearest = found
        return nearest + 1 if nearest >= 0 else -1

    def _owner(self, line: int) -> tuple[bytes, int]:
        """Whose delimiter is it? The innermost whose boundary is the whole of it, else the longest it begins with."""
        start = self.data[line + 2 : line + self.bounds.boundary + 6]
        best: tuple[bool, int, int] = (False, -1, -1)
        boundary = b""
        for level, node in enumerate(self.open):
            for each in node.boundaries:
                if start.startswith(each):
                    rest = LINE_END.split(start[len(each) :], maxsplit=1)[0].strip(_BLANK)
                    rank = (rest in {b"", b"--"}, len(each), level)
                    if rank > best:
                        best, boundary = rank, each
        return boundary, best[2]

    def _before(self, line: int) -> int:
        """Where the line end before the line begins; it belongs to the delimiter."""
        if self.data[max(line - 2, 0) : line] == b"\r\n":
            return line - 2
        return max(line - 1, 0)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────

    def _part(self, before: int, line: int, boundary: bytes, level: int) -> int:
        """Take a delimiter line: end what it ends, begin what follows; where to go on."""
        ending = LINE_END.search(self.data, line, self.size)
        after = ending.end() if ending else self.size
        rest = self.data[line + 2 + len(boundary) : min(after, line + 2 + len(boundary) + 80)].strip(b" \t\r\n")
        if ending is not None and ending[0] == b"\r":
            self._defect("a delimiter line that ends with CR alone")
        parent = self.open[level]
        self._close(level + 1, before)
        if rest.startswith(b"--"):
            parent.closed = True
            return after - 1
        if rest:
            self._defect("a delimiter line with text after the boundary")
        if parent.closed:
            self._defect("parts after the last delimiter")
        header, start = self._header(after)
        number = f"{parent.number.removesuffix('TEXT').rstrip('.')}.{len(parent.children) + 1}".lstrip(".")
        said = self._described(header, parent.default)
        node = _Node(number, parent.depth + 1, header, after, start, said)
        parent.children.append(node)
        return self._begin(node)

    def _begin(self, node: _Node) -> int:
        """Go into a part, and into the messages it consists of; where to look for delimiters from."""
        while True:
            self.nodes.append(node)
            self.open.append(node)
            said = node.said
            if said.is_multipart:
                self._begin_multipart(node)
                return node.start if node.start == 0 else node.start - 1
            if not said.is_message or said.encoding not in IDENTITY or not self._deeper(node):
                if said.is_message and said.encoding not in IDENTITY:
                    self._defect(f"a message in {said.encoding}")
                return node.start if node.start == 0 else node.start - 1
            begin = self._after_mbox_line(node.start)
            header, start = self._header(begin)
            inner = self._described(header)
            number = f"{node.number}.{'TEXT' if inner.is_multipart else '1'}".lstrip(".")
            child = _Node(number, node.depth + 1, header, begin, start, inner)
            node.children.append(child)
            node = child

    def _begin_multipart(self, node: _Node) -> None:
        if not self._deeper(node):
            return
        boundaries = node.said.boundaries
        if not boundaries:
            boundaries = self._guessed(node)
            self._defect("a multipart without a boundary")
        if node.said.encoding not in IDENTITY:
            self._defect(f"a multipart in {node.said.encoding}")
        if any(len(boundary) > self.bounds.boundary for boundary in boundaries):
            self.excess[f"{self.bounds.boundary} octets of a boundary"] = None
        node.boundaries = tuple(boundary[: self.bounds.boundary] for boundary in boundaries)
        node.default = "message/rfc822" if node.said.media_type == "multipart/digest" else "text/plain"
        self._open_changed()

    def _guessed(self, node: _Node) -> tuple[bytes, ...]:
        """Guess the boundary that is not told: some programs take the first line that begins with "--"."""
        line = self._dashes(node.start)
        match = _GUESS.match(self.data, line, self.size) if line >= 0 else None
        return (match[1].rstrip(),) if match else ()

    def _deeper(self, node: _Node) -> bool:
        if node.depth < self.bounds.depth and len(self.nodes) <= self.bounds.parts:
            return True
        if node.depth >= self.bounds.depth:
            self.excess[f"{self.bounds.depth} parts within each other"] = None
        return False

    def _close(self, level: int, end: int) -> None:
        """End the parts from this level inward."""
        for node in self.open[level:]:
            node.end = max(end, node.start)
            if node.boundaries and not node.closed:
                self._defect("a multipart without its last delimiter")
        del self.open[level:]
        self._open_changed()

    def _open_changed(self) -> None:
        self.delimiters = tuple(b"--" + boundary for node in self.open for boundary in node.boundaries)

    # ── headers of parts ─────────────────────────────────────────────────────────────────────────────────

    def _header(self, place: int) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
        """Read the header that begins at `place`, up to an empty line or a delimiter; give it and where it ends."""
        fields: list[tuple[bytes, bytes]] = []
        lines: list[bytes] = []  # of the field being read
        stop = min(self.size, place + min(self.bounds.part_header, self.headers))
        start = place
        while place < stop:
            ending = LINE_END.search(self.data, place, stop)
            line = self.data[place : ending.start() if ending else stop]
            if not line or (line.startswith(b"--") and self.delimiters and self._starts(place)):
                place = ending.end() if ending and not line else place
                break
            name = None if line[0] in _BLANK else _FIELD.match(line)
            if name is None and not lines:
                break  # no header at all: text
            if name is not None:
                _end_field(lines, fields)
                lines = [name[1], line[name.end() :]]
            elif line[0] in _BLANK or (ending is not None and ending[0] == b"\r"):
                lines += [b"\r\n", line]
            else:
                self._defect("a line in a header that is no field")
            place = ending.end() if ending else stop
        else:
            if place < self.size:
                self.excess[f"{self.bounds.part_header} octets of the header of a part"] = None
        _end_field(lines, fields)
        self.headers -= place - start
        return tuple(fields), place

    def _after_mbox_line(self, place: int) -> int:
        """Pass over what programs pass over before an attached message: empty lines, and a line of a mailbox file."""
        stop = min(self.size, place + 1000)
        while place < stop:
            ending = LINE_END.search(self.data, place, stop)
            if ending is None or not (ending.start() == place or _MBOX.match(self.data, place, stop)):
                break
            place = ending.end()
        return place

    def _described(self, header: Sequence[tuple[bytes, bytes]], default: str = "text/plain") -> Description:
        longest = self.bounds.part_header
        if any(len(value) > longest for name, value in header if name[:8].lower() == b"content-"):
            self.excess[f"{longest} octets of a header field"] = None
            header = [(name, value[:longest]) for name, value in header]
        said = describe(header, default)
        for defect in said.defects:
            self._defect(defect)
        return said

    def _defect(self, text: str) -> None:
        self.defects[text] = None

    # ── what is left at the end ──────────────────────────────────────────────────────────────────────────

    def _look_for_blocks(self, node: _Node) -> None:
        room = self.bounds.parts - len(self.nodes) - sum(len(each.blocks) for each in self.nodes)
        if room <= 0 or node.said.encoding not in IDENTITY:
            return
        for count, block in enumerate(blocks(self.data, node.start, min(node.end, self.size), room), 1):
            node.blocks.append(_block(node, count, block))
            self._defect(f"{block.encoding} in text")

    def _frozen(self) -> Part:
        """Make the parts, the innermost first."""
        made: dict[_Node, Part] = {}
        for node in reversed(self.nodes):  # a part was begun before those in it
            said = node.said
            made[node] = Part(
                node.number,
                node.depth,
                node.header,
                node.header_start,
                node.start,
                node.end,
                said.media_type,
                MappingProxyType(dict(said.parameters)),
                said.disposition,
                said.filenames[0] if said.filenames else "",
                said.filenames,
                said.encoding,
                (*(made.pop(child) for child in node.children), *node.blocks),
            )
        return made[self.nodes[0]]


def _end_field(lines: list[bytes], fields: list[tuple[bytes, bytes]]) -> None:
    """Put the field that was read, if any, where fields are."""
    if lines:
        fields.append((lines[0], b"".join(lines[1:])))


def _block(node: _Node, count: int, block: Block) -> Part:
    return Part(
        f"{node.number}.{count}".lstrip("."),
        node.depth + 1,
        (),
        block.begin,
        block.start,
        block.end,
        "application/octet-stream",
        {},
        "attachment",
        block.name,
        (block.name,),
        block.encoding,
    )

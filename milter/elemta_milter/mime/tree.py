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
from elemta_milter.body import buffer, give_back
from elemta_milter.mime.bounds import BOUNDS, MimeBounds
from elemta_milter.mime.description import Description, describe
from elemta_milter.mime.embedded import Block, blocks
from elemta_milter.mime.lines import LINE_END, Delimiter, DelimiterLines, Fields, read_header
from elemta_milter.mime.parts import Part, Tree

_MBOX = re.compile(rb">?From ")
_BLANK = (b" ", b"\t", b"\r", b"\n", b"")
_DASHES = 1000  # lines of a signature or a ruler that are passed over


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
    tree = _Reader(buffer(message.body), bounds).read(message.headers)
    give_back(tree.body)  # it waits for other checks
    return tree


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
    header: Fields
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
        self.levels: tuple[int, ...] = ()  # of each boundary looked for, the place in `open` of its multipart
        self.lines = DelimiterLines(data, self.size, bounds.boundary, bounds.dashes)
        self.excess: dict[str, None] = {}
        self.defects: dict[str, None] = {}
        self.headers = bounds.headers  # octets that may still be read
        self.pieces = bounds.pieces  # of their fields that may still be read
        self.begins = bounds.begins  # places that may still be looked at
        self.blocks = 0  # files found in texts

    def read(self, header: Sequence[tuple[bytes, bytes]] | None) -> Tree:
        if len(self.data) > self.size:
            self.excess[f"{self.bounds.octets} octets"] = None
        fields, start = self._header(0) if header is None else (tuple(header), 0)
        place = self._begin(_Node("", 0, fields, 0, start, self._described(fields)))
        while len(self.nodes) <= self.bounds.parts and (line := self.lines.next(place)) is not None:
            place = self._part(line)
        if not self.lines.dashes:
            self.excess[f"{self.bounds.dashes} lines that begin with --"] = None
        if len(self.nodes) > self.bounds.parts:
            self.excess[f"{self.bounds.parts} parts"] = None
        self._close(0, len(self.data))
        for node in [node for node in self.nodes if node.said.media_type.startswith("text/") and not node.children]:
            self._look_for_blocks(node)
        return Tree(self._frozen(), memoryview(self.data), tuple(self.excess), tuple(self.defects))

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────

    def _part(self, line: Delimiter) -> int:
        """Take a delimiter line: end what it ends, begin what follows; where to go on."""
        level = self.levels[line.owner]
        parent = self.open[level]
        self._close(level + 1, line.before)
        if line.odd:
            self._defect(line.odd)
        if line.last:
            parent.closed = True
            return line.end
        if parent.closed:
            self._defect("parts after the last delimiter")
        header, start = self._header(line.end)
        number = f"{parent.number.removesuffix('TEXT').rstrip('.')}.{len(parent.children) + 1}".lstrip(".")
        said = self._described(header, parent.default)
        node = _Node(number, parent.depth + 1, header, line.end, start, said)
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
                return node.start
            if said.is_message and said.is_encoded:
                self._defect(f"a message in {said.encoding}")
            if not said.is_message or said.is_encoded or not self._deeper(node):
                return node.start
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
            boundaries = self.lines.guess(node.start)
            self._defect("a multipart without a boundary")
        if node.said.is_encoded:
            self._defect(f"a multipart in {node.said.encoding}")
        if any(len(boundary) > self.bounds.boundary for boundary in boundaries):
            self.excess[f"{self.bounds.boundary} octets of a boundary"] = None
        node.boundaries = tuple(boundary[: self.bounds.boundary] for boundary in boundaries)
        node.default = "message/rfc822" if node.said.media_type == "multipart/digest" else "text/plain"
        self._open_changed()

    def _deeper(self, node: _Node) -> bool:
        if node.depth >= self.bounds.depth:
            self.excess[f"{self.bounds.depth} parts within each other"] = None
            return False
        return len(self.nodes) <= self.bounds.parts

    def _close(self, level: int, end: int) -> None:
        """End the parts from this level inward."""
        for node in self.open[level:]:
            node.end = max(end, node.start)
            if node.boundaries and not node.closed:
                self._defect("a multipart without its last delimiter")
            if node.boundaries and not node.children and _has_other_parts(self.data, node):
                self._defect("a delimiter line of a boundary that is not told")
        del self.open[level:]
        self._open_changed()

    def _open_changed(self) -> None:
        """Look for the delimiters of the parts that are open now."""
        known = [(level, boundary) for level, node in enumerate(self.open) for boundary in node.boundaries]
        self.levels = tuple(level for level, _ in known)
        self.lines.set_boundaries(tuple(boundary for _, boundary in known))

    def _header(self, place: int) -> tuple[Fields, int]:
        """Read the header that begins at `place`; give it and where it ends."""
        stop = min(self.size, place + min(self.bounds.part_header, self.headers))
        header = read_header(self.data, place, stop, self.lines.at)
        self.headers -= header.looked - place
        if header.junk:
            self._defect("a line in a header that is no field")
        if header.cut and header.looked < self.size:
            self.excess[f"{self.bounds.part_header} octets of the header of a part"] = None
        return header.fields, header.end

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
        said = describe(header, default, self.bounds.part_header, max(self.pieces, 0))
        self.pieces -= said.pieces
        for bound in said.excess:
            self.excess[bound] = None
        for defect in said.defects:
            self._defect(defect)
        return said

    def _defect(self, text: str) -> None:
        self.defects[text] = None

    # ── what is left at the end ──────────────────────────────────────────────────────────────────────────

    def _look_for_blocks(self, node: _Node) -> None:
        room = self.bounds.parts - len(self.nodes) - self.blocks
        if room <= 0 or node.said.is_encoded:
            return
        end = min(node.end, self.size)
        for count, block in enumerate(blocks(self.data, node.start, end, room, self._another_begin), 1):
            node.blocks.append(_block(node, count, block))
            self.blocks += 1
            self._defect(f"{block.encoding} in text")

    def _another_begin(self) -> bool:
        """Whether one more place may be looked at where an embedded file could begin."""
        self.begins -= 1
        if self.begins < 0:
            self.excess[f"{self.bounds.begins} times begin in text"] = None
        return self.begins >= 0

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


def _has_other_parts(data: bytes | mmap, node: _Node) -> bool:
    """Whether a program that takes any line for a delimiter that begins with "--" finds parts where there are none."""
    place = node.start - 1
    for _ in range(_DASHES):
        place = data.find(b"\n--", max(place, 0), node.end)
        if place < 0 or data[place + 3 : place + 4] not in _BLANK:
            break
        place += 3
    return place >= 0


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

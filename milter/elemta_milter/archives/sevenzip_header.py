"""7z header: which files does a 7-Zip archive name, and how were its octets packed?

Its numbers are believed only as far as its octets reach, so many things are counted and no more, and nothing is told
twice: each time would cost as much as there are files.

Source: 7zFormat.txt of the 7-Zip SDK.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from elemta_milter.archives.budget import BrokenError, UnreadableError

LIMIT = 1 << 20
"""Octets of a header: the names of some ten thousand files."""
HEADER, FILES, STREAMS, PACKED_HEADER, PROPERTIES = 1, 5, 4, 23, 2
_MOST = 1 << 15
_PACK, _FOLDERS, _SUBSTREAMS, _SIZES, _CRCS, _FOLDER, _UNPACK_SIZES, _COUNTS = 6, 7, 8, 9, 10, 11, 12, 13
_TWICE = "its header tells something twice"
_EMPTY, _EMPTY_FILE, _NAMES = 14, 15, 17


class Cursor:
    """Numbers and octets of a header, in order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """So many octets."""
        if count > len(self.data) - self.at:
            raise BrokenError("its header ends in the middle")
        self.at += count
        return self.data[self.at - count : self.at]

    def octet(self) -> int:
        """One octet."""
        return self.take(1)[0]

    def number(self) -> int:
        """As many octets follow as the first has leading ones."""
        first = self.octet()
        extra = 8 - (first ^ 0xFF).bit_length()
        low = int.from_bytes(self.take(extra), "little")
        high = first & (0x7F >> extra)
        return low + (high << (8 * extra))

    def count(self) -> int:
        """How many things there are."""
        count = self.number()
        if count > 8 * len(self.data):
            raise BrokenError("its header counts more than it holds")
        if count > _MOST:
            raise UnreadableError(f"its header counts {count} things")
        return count

    def bits(self, count: int) -> list[bool]:
        """So many bits, the highest of each octet first."""
        octets = self.take((count + 7) // 8)
        return [bool(octets[at >> 3] & 0x80 >> (at & 7)) for at in range(count)]

    def optional_bits(self, count: int) -> list[bool]:
        """So many bits, which are left out where all of them are true."""
        return [True] * count if self.octet() else self.bits(count)


@dataclass
class Folder:
    """Octets that were packed together: by which coders, into how much."""

    coders: list[tuple[str, bytes]] = field(default_factory=list)
    packs: int = 1
    outputs: int = 1
    sizes: list[int] = field(default_factory=list)
    crc: bool = False
    files: list[int] = field(default_factory=list)
    start: int = 0
    packed: int = 0

    @property
    def size(self) -> int:
        """Octets when unpacked."""
        return max(self.sizes, default=0)


def file_table(cursor: Cursor) -> tuple[list[str], list[bool], list[bool]]:
    """Of each file: its name, and whether it has no content; of those, whether it is a file at all."""
    count = cursor.count()
    names: list[str] = []
    empty, empty_files = [False] * count, []
    told: set[int] = set()
    while kind := cursor.number():
        if kind in told and kind in (_EMPTY, _EMPTY_FILE, _NAMES):
            raise BrokenError(_TWICE)
        told.add(kind)
        part = Cursor(cursor.take(cursor.number()))
        if kind == _EMPTY:
            empty = part.bits(count)
        elif kind == _EMPTY_FILE:
            empty_files = part.bits(sum(empty))
        elif kind == _NAMES and not part.octet():
            names = part.data[1:].decode("utf-16-le", "replace").split("\0")[:count]
    return names + [""] * (count - len(names)), empty, empty_files


def streams(cursor: Cursor) -> list[Folder]:
    """Where the packed octets stand, how they were packed, and how many files they are."""
    start = 0
    sizes: list[int] = []
    folders: list[Folder] = []
    last = 0
    while kind := cursor.octet():
        if kind <= last:
            raise BrokenError(_TWICE)
        last = kind
        if kind == _PACK:
            start, sizes = _packs(cursor)
        elif kind == _FOLDERS:
            folders = _folders(cursor)
        elif kind == _SUBSTREAMS:
            _substreams(cursor, folders)
        else:
            raise BrokenError("its header is broken")
    at, place = 32 + start, 0
    for folder in folders:
        folder.start, folder.packed = at, sum(sizes[place : place + folder.packs])
        folder.files = folder.files or [folder.size]
        at, place = at + folder.packed, place + folder.packs
    return folders


def _packs(cursor: Cursor) -> tuple[int, list[int]]:
    start, count = cursor.number(), cursor.count()
    sizes: list[int] = []
    while kind := cursor.octet():
        if kind == _SIZES:
            sizes = [cursor.number() for _ in range(count)]
        elif kind == _CRCS:
            _crcs(cursor, count)
        else:
            raise BrokenError("its header is broken")
    return start, sizes


def _crcs(cursor: Cursor, count: int) -> list[bool]:
    there = cursor.optional_bits(count)
    cursor.take(4 * sum(there))
    return there


def _folders(cursor: Cursor) -> list[Folder]:
    if cursor.octet() != _FOLDER:
        raise BrokenError("its header is broken")
    count = cursor.count()
    if cursor.octet():
        raise UnreadableError("its header stands elsewhere")
    folders = [_folder(cursor) for _ in range(count)]
    while kind := cursor.octet():
        if kind == _UNPACK_SIZES:
            for folder in folders:
                folder.sizes = [cursor.number() for _ in range(folder.outputs)]
        elif kind == _CRCS:
            for folder, there in zip(folders, _crcs(cursor, count), strict=True):
                folder.crc = there
        else:
            raise BrokenError("its header is broken")
    return folders


def _folder(cursor: Cursor) -> Folder:
    folder = Folder()
    inputs = outputs = 0
    for _ in range(cursor.count()):
        flags = cursor.octet()
        method = cursor.take(flags & 15).hex()
        more_in, more_out = (cursor.number(), cursor.number()) if flags & 16 else (1, 1)
        if max(more_in, more_out) > 32 or len(folder.coders) >= 32:
            raise BrokenError("its header is broken")
        inputs, outputs = inputs + more_in, outputs + more_out
        folder.coders.append((method, cursor.take(cursor.number()) if flags & 32 else b""))
    for _ in range(outputs - 1):
        cursor.number()
        cursor.number()
    folder.packs, folder.outputs = inputs - outputs + 1, outputs
    if folder.packs < 1 or outputs < 1:
        raise BrokenError("its header is broken")
    if folder.packs > 1:
        for _ in range(folder.packs):
            cursor.number()
    return folder


def _substreams(cursor: Cursor, folders: list[Folder]) -> None:
    """How many files each folder holds, and how long they are: all but the last one's length is written."""
    counts = [1] * len(folders)
    kind = cursor.octet()
    if kind == _COUNTS:
        counts = [cursor.count() for _ in folders]
        kind = cursor.octet()
    for folder, count in zip(folders, counts, strict=True):
        sizes = [cursor.number() for _ in range(count - 1)] if kind == _SIZES else []
        folder.files = [*sizes, max(folder.size - sum(sizes), 0)] if count else []
    if kind == _SIZES:
        kind = cursor.octet()
    if kind == _CRCS:
        _crcs(cursor, sum(n for folder, n in zip(folders, counts, strict=True) if n != 1 or not folder.crc))
        kind = cursor.octet()
    if kind:
        raise BrokenError("its header is broken")

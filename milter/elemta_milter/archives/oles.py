"""OLE: which streams does a compound file hold, and which files were packed into it?

The file system within old Office documents, Outlook messages and encrypted new ones.  Its directory is read as a list,
so that what no tree leads to is seen too.  Chains of sectors are followed only as far as the file is long.

Source: [MS-CFB] sections 2.2 to 2.6; [MS-OLEDS] section 2.3.6 (packages); [MS-OXMSG] section 2.2.2 (attachments).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from elemta_milter.archives.budget import BrokenError, Budget
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.stream import Stream

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_END = 0xFFFFFFF0  # from here on a number is no sector
_MOST = 10_000
"""Streams of one file."""
STORAGE, STREAM, ROOT = 1, 2, 5
_LONGEST_NAMES = 1 << 16
"""Octets in which a packed file is named."""
_STRINGS = {"001f": "utf-16-le", "001e": "cp1252"}
"""Types of texts ([MS-OXCDATA] section 2.11.1: PtypString, PtypString8)."""
_PACKAGE = "\x01ole10native"
_DOCUMENTS = ("package", "contents")
"""Streams in which a newer document is embedded in an older one."""
_ATTACHED = "__substg1.0_37010102"
_NAMES = {f"__substg1.0_{tag}{kind}": codec for tag in ("3707", "3704") for kind, codec in _STRINGS.items()}
"""Names of attached files, long and short; and their codecs: messages are in Unicode or in a code page."""
_FILES = frozenset({_PACKAGE, *_DOCUMENTS, _ATTACHED})


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the directory.

    Attributes:
        name: lower case.
        kind: STORAGE, STREAM or ROOT.
        start: its first sector.
        size: octets.
    """

    name: str
    kind: int
    start: int
    size: int


class Ole:
    """A compound file.

    Attributes:
        items: its directory, unused entries left out.
    """

    def __init__(self, data: memoryview) -> None:
        """Read its directory.

        Raises:
            BrokenError: it is no compound file.
        """
        if len(data) < 512 or bytes(data[:8]) != MAGIC:
            raise BrokenError("it is no compound file")
        self._data = data
        major, _, shift, mini_shift = struct.unpack_from("<HHHH", data, 26)
        if shift not in (9, 12) or mini_shift != 6:
            raise BrokenError("its sectors have no lawful size")
        self._sector, self._wide = 1 << shift, major > 3
        self._fat = self._table()
        directory, self._cutoff, mini = (struct.unpack_from("<L", data, at)[0] for at in (48, 56, 60))
        self._mini_fat = _numbers(b"".join(self._chain(mini, len(data) // 16 + 1)))  # four octets for each 64
        self.items = self._items(b"".join(self._chain(directory, _MOST * 128)))
        root = next((each for each in self.items if each.kind == ROOT), None)
        self._mini = array("I", self._sectors(root.start, root.size) if root else ())

    @property
    def names(self) -> frozenset[str]:
        """The names of all streams and storages, lower case."""
        return frozenset(each.name for each in self.items)

    def stream(self, name: str, most: int) -> bytes:
        """The beginning of the first stream of this name; empty if there is none."""
        item = next((each for each in self.items if each.name == name and each.kind == STREAM), None)
        return self.read(item, most) if item else b""

    def read(self, item: Item, most: int) -> bytes:
        """The beginning of a stream."""
        size = min(item.size, most)
        if item.size >= self._cutoff:
            return b"".join(_first(self._chain(item.start, size), size))
        pieces, at = [], item.start
        for _ in range(-(-size // 64)):
            if at >= len(self._mini_fat):
                break
            pieces.append(self._mini_at(at))
            at = self._mini_fat[at]
        return b"".join(pieces)[:size]

    def _mini_at(self, number: int) -> memoryview:
        """One of the short sectors, which lie in the root's stream."""
        place, within = divmod(number * 64, self._sector)
        return self._at(self._mini[place])[within : within + 64] if place < len(self._mini) else self._data[:0]

    def _table(self) -> array[int]:
        """The table of which sector follows which ([MS-CFB] sections 2.3 and 2.5)."""
        (difat,) = struct.unpack_from("<L", self._data, 68)
        places = list(struct.unpack_from("<109L", self._data, 76))
        each = self._sector // 4 - 1
        most = len(self._data) // self._sector // (self._sector // 4) + 1
        for _ in range(most // each + 2):  # no more than are needed: they may lead in a circle
            sector = self._at(difat)
            if len(sector) < self._sector:
                break
            *more, difat = struct.unpack(f"<{each + 1}L", sector)
            places += more
        places = [place for place in places if place < _END][:most]
        return _numbers(b"".join(self._at(place) for place in places))

    def _at(self, number: int) -> memoryview:
        start = (number + 1) * self._sector
        return self._data[start : start + self._sector]

    def _chain(self, number: int, most: int) -> Iterator[memoryview]:
        """The sectors from this one on; no more than there are, nor than hold `most` octets."""
        return map(self._at, self._sectors(number, most))

    def _sectors(self, number: int, most: int) -> Iterator[int]:
        """Their numbers."""
        for _ in range(min(len(self._data), most) // self._sector + 1):
            if number >= len(self._fat):
                return
            yield number
            number = self._fat[number]

    def _items(self, directory: bytes) -> tuple[Item, ...]:
        found = []
        for at in range(0, len(directory) - 127, 128):
            length, kind = struct.unpack_from("<HB", directory, at + 64)
            if kind not in (STORAGE, STREAM, ROOT):
                continue
            name = directory[at : at + min(max(length - 2, 0), 64)].decode("utf-16-le", "replace").lower()
            start, size = struct.unpack_from("<LQ", directory, at + 116)
            found.append(Item(name, kind, start, size if self._wide else size & 0xFFFFFFFF))
        return tuple(found)


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """The files that were packed into it, or attached to it if it is a message of Outlook.

    Raises:
        BrokenError: it is no compound file.
    """
    ole = Ole(data)
    names = [
        ole.read(each, 1024).decode(_NAMES[each.name], "replace").rstrip("\0")
        for each in ole.items
        if each.name in _NAMES
    ]
    for each in ole.items:
        if each.kind != STREAM or each.name not in _FILES:
            continue
        content = ole.read(each, budget.bounds.held)
        if not budget.unpacked(len(content)):
            return
        if each.name == _PACKAGE:
            name, also, packed = package(content)
            yield Member(name, Stream((packed,)), also)
        else:  # which name belongs to which content the list does not tell
            yield Member("", Stream((content,)))
    for name in dict.fromkeys(names):
        yield Member(name)


def package(native: bytes) -> tuple[str, tuple[str, ...], memoryview]:
    """Name, other names and content of a packed file ([MS-OLEDS] section 2.3.6; its octets are those of Packager)."""
    label, path, *_ = [*native[6 : 6 + _LONGEST_NAMES].split(b"\0", 2), b""]
    rest = memoryview(native)[6 + len(label) + len(path) + 2 :]
    length = int.from_bytes(rest[4:8], "little")
    temporary, content = bytes(rest[8 : 8 + min(length, _LONGEST_NAMES)]), rest[8 + length :]
    whole = (text(each.rstrip(b"\0")) for each in (label, path, temporary))
    names = dict.fromkeys(name for each in whole if (name := each.rpartition("\\")[2]))
    first, *also = names or [""]
    return first, tuple(also), content[4 : 4 + int.from_bytes(content[:4], "little")]


def _first(pieces: Iterator[memoryview], octets: int) -> Iterator[memoryview]:
    """So many octets of these."""
    for piece in pieces:
        yield piece[: max(octets, 0)]
        octets -= len(piece)


def _numbers(octets: bytes) -> array[int]:
    numbers = array("I")
    numbers.frombytes(octets[: len(octets) // 4 * 4])
    return numbers

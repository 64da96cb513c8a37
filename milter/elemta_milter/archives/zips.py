"""Zip: which files does a zip archive hold, whoever reads it?

Some programs go by the central directory at the end, some by the headers before each file.  So both are read: a file
that only one of them names is a member too, and where they contradict each other that is a defect.  Junk before the
archive, a comment behind it, zip64 and data descriptors are lawful.  Files may overlap: what comes out counts.

Source: PKWARE's APPNOTE 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import lzma
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from elemta_milter.archives.budget import BrokenError, Budget
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.piecewise import matches
from elemta_milter.archives.stream import (
    BEHIND,
    LZMA_MEMORY,
    Decompressor,
    Octets,
    Stream,
    bzip2,
    cut,
    deflate,
    unpack,
    xz,
)

_LOCAL, _CENTRAL, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END64, _LOCATOR = b"PK\6\6", b"PK\6\7"
_LONGEST_COMMENT = 0xFFFF
_LONGEST_NAME = 4096
_ENDS = 10_000  # in the longest comment there is room for more, and no program looks so often
_ENCRYPTED, _STRONG, _DESCRIPTOR = 1, 1 << 6, 1 << 3
STORED, DEFLATED, BZIPPED, LZMAED, XZED, AES = 0, 8, 12, 14, 95, 99
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 93: "zstd", 96: "jpeg", 97: "wavpack", 98: "ppmd"}
_CREDIBLE = re.compile(rb"PK\x03\x04[\x00-\x3f].[\x00-\xff]{2}[\x00-\x63]\x00", re.DOTALL)
"""A local header of a version and a method that there are; of so many octets:"""
_CREDIBLE_OCTETS = 10
_READ = {DEFLATED: deflate, BZIPPED: bzip2, XZED: xz}


@dataclass(frozen=True, slots=True)
class _Header:
    """What a header says of a file, in either place."""

    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    extra: bytes
    data: int  # where its data begins; of a central header: where its local header stands


def find_end(data: Octets) -> int:
    """Where the record stands that ends a zip archive; -1 if none does whose central directory is there."""
    tail = bytes(data[-(_LONGEST_COMMENT + 22) :])
    at = len(tail)
    for _ in range(_ENDS):  # a comment may hold the magic too
        at = tail.rfind(_END, 0, at)
        if at < 0:
            return -1
        end = len(data) - len(tail) + at
        if len(tail) - at >= 22 and _directory(data, end) is not None:
            return end
    return -1


def find_file(data: bytes) -> int:
    """Where the first file of a zip archive stands that has lost its end, or much junk behind it; -1 for none."""
    first = data.find(_LOCAL)
    for found in _CREDIBLE.finditer(data, first) if first >= 0 else ():
        local = _local(memoryview(data), found.start())
        if local is not None and _is_credible(local, len(data)):
            return found.start()
    return -1


def members(data: Octets, budget: Budget) -> Iterator[Member]:
    """Its files, those of the central directory first.

    Raises:
        BrokenError: it ends in the middle, or has no central directory.
    """
    view = memoryview(data)
    end = find_end(view)
    taken: list[tuple[int, int]] = []
    if end >= 0:
        for central, start in _central(view, end):
            local = _local(view, start)
            if local is None:
                yield Member(_name(central), defect="it has no local header")
                continue
            taken.append((start, local.data + central.packed))
            yield _member(view, central, local, budget)
    yield from _not_named(view, taken, budget)
    if end < 0:
        raise BrokenError("it has no central directory")


def _directory(data: Octets, end: int) -> tuple[int, int] | None:
    """Where the central directory begins, and how far everything is shifted by junk before the archive."""
    size, offset = struct.unpack_from("<LL", data, end + 12)
    place = end
    if bytes(data[max(end - 20, 0) : end][:4]) == _LOCATOR and (size == 0xFFFFFFFF or offset == 0xFFFFFFFF):
        found = end - 20 - 56
        if found >= 0 and bytes(data[found : found + 4]) == _END64:
            size, offset = struct.unpack_from("<QQ", data, found + 40)
            place = found
    if not size and not offset and not place:
        return end, 0  # an empty archive
    for start in (place - size, offset):
        if 0 <= start < end and bytes(data[start : start + 4]) == _CENTRAL:
            return start, start - offset
    return (place, place - offset) if not size and place - offset >= 0 else None


def _central(data: memoryview, end: int) -> Iterator[tuple[_Header, int]]:
    """The central directory's headers, and where the local ones stand."""
    found = _directory(data, end)
    if found is None:
        return
    at, shift = found
    while at + 46 <= len(data) and data[at : at + 4] == _CENTRAL:
        flags, method = struct.unpack_from("<HH", data, at + 8)
        packed, size = struct.unpack_from("<LL", data, at + 20)
        name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        (offset,) = struct.unpack_from("<L", data, at + 42)
        names = bytes(data[at + 46 : at + 46 + name])
        extras = bytes(data[at + 46 + name : at + 46 + name + extra])
        size, packed, offset = _zip64(extras, size, packed, offset)
        start = offset + shift
        if shift and bytes(data[start : start + 4]) != _LOCAL:
            start = offset
        yield _Header(names, flags, method, packed, size, extras, start), start
        at += 46 + name + extra + comment


def _local(data: memoryview, at: int) -> _Header | None:
    """The header before a file, if one stands there."""
    if at < 0 or at + 30 > len(data) or data[at : at + 4] != _LOCAL:
        return None
    flags, method = struct.unpack_from("<HH", data, at + 6)
    packed, size = struct.unpack_from("<LL", data, at + 18)
    name, extra = struct.unpack_from("<HH", data, at + 26)
    extras = bytes(data[at + 30 + name : at + 30 + name + extra])
    size, packed, _ = _zip64(extras, size, packed, 0)
    return _Header(bytes(data[at + 30 : at + 30 + name]), flags, method, packed, size, extras, at + 30 + name + extra)


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The sizes of section 4.5.3, where the usual fields say that they are there."""
    values = _extras(extra).get(1, b"")
    numbers = iter(struct.unpack(f"<{len(values) // 8}Q", values[: len(values) // 8 * 8]))
    return tuple(next(numbers, each) if each == 0xFFFFFFFF else each for each in (size, packed, offset))  # type: ignore[return-value]


def _extras(extra: bytes) -> dict[int, bytes]:
    """The extra fields by their numbers."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, size = struct.unpack_from("<HH", extra, at)
        found.setdefault(number, extra[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _not_named(data: memoryview, taken: list[tuple[int, int]], budget: Budget) -> Iterator[Member]:
    """Files with a local header that the central directory does not know."""
    ranges = iter([*sorted(taken), (len(data), len(data))])
    start, end = next(ranges)
    after = 0
    for found in matches(_CREDIBLE, data, _CREDIBLE_OCTETS, budget.goes_on):
        if not budget.goes_on():
            return
        at = found.start()
        while at >= end and start < len(data):
            after = max(after, end)
            start, end = next(ranges)
        if at < after or start <= at < end:
            continue
        local = _local(data, at)
        if local is None or not _is_credible(local, len(data)):
            continue
        yield _member(data, local, local, budget, defect="the central directory does not name it" if taken else "")
        after = local.data + (local.packed if local.data + local.packed <= start else 0)


def _is_credible(local: _Header, size: int) -> bool:
    known = local.method in _METHODS or local.method in _READ or local.method in (STORED, LZMAED, AES)
    return known and 0 < len(local.name) <= _LONGEST_NAME and local.data <= size and b"\0" not in local.name


def _member(data: memoryview, header: _Header, local: _Header, budget: Budget, defect: str = "") -> Member:
    """One file: what it holds and what is odd about it."""
    also = tuple(dict.fromkeys(each for each in _names(local) + _names(header)[1:] if each != _name(header)))
    flags = header.flags | local.flags
    encrypted = bool(flags & (_ENCRYPTED | _STRONG)) or AES in (header.method, local.method)
    if local.name != header.name:
        defect = "its two headers give different names"
    elif local.method != header.method:
        defect = "its two headers give different methods"
    elif not local.flags & _DESCRIPTOR and (local.packed, local.size) != (header.packed, header.size):
        defect = "its two headers give different sizes"
    unread = ""
    stream = Stream()
    if not encrypted:
        open_ended = header is local and header.flags & _DESCRIPTOR and not header.packed
        packed = data[local.data :] if open_ended else data[local.data : local.data + header.packed]
        if not open_ended and len(packed) < header.packed:
            defect = defect or "it ends in the middle"
        if header.method == STORED:
            stream = Stream(_counted(packed, budget))
        elif header.method == LZMAED:
            stream = Stream(_lzma(packed, header.size, budget))
            if not open_ended and any(True for _ in matches(_CREDIBLE, packed, _CREDIBLE_OCTETS, budget.goes_on)):
                defect = defect or BEHIND
        elif header.method in _READ:
            stream = Stream(unpack((packed,), _READ[header.method], budget, whole=not open_ended))
        else:
            unread = f"packed by {_METHODS.get(header.method, f'method {header.method}')}"
    return Member(_name(header), stream, also, encrypted, unread, defect)


def _counted(packed: memoryview, budget: Budget) -> Iterator[memoryview]:
    """Octets that are not packed; they count against the budget, too."""
    for start in range(0, len(packed), 1 << 16):
        piece = packed[start : start + (1 << 16)]
        yield piece
        if not budget.unpacked(len(piece)) or not budget.goes_on():
            return


def _lzma(packed: memoryview, size: int, budget: Budget) -> Iterator[bytes]:
    """Section 5.8: a version, the length of the properties, the properties, and a raw stream."""
    if len(packed) < 9 or packed[2] != 5:
        raise BrokenError("its lzma properties are broken")

    def make() -> Decompressor:
        dictionary = min(int.from_bytes(packed[5:9], "little"), LZMA_MEMORY)
        rest, lc = divmod(packed[4], 9)
        pb, lp = divmod(rest, 5)
        chain = [{"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": lc, "lp": lp, "pb": pb}]
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)

    yield from cut(unpack((packed[9:],), make, budget), size)


def _names(header: _Header) -> list[str]:
    """Its name, and those in extra fields (section 4.6.9)."""
    first = text(header.name, "cp437")
    unicode = _extras(header.extra).get(0x7075, b"")[5:]
    return [first, *([text(unicode)] if unicode else [])]


def _name(header: _Header) -> str:
    return _names(header)[0]

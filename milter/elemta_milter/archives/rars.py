"""Rar: which files does a RAR archive name, and which of them are encrypted?

Both formats, RAR 1.5 to 4 and RAR 5.  A stream of NTFS that belongs to a file is one more file: its name says where it
goes.  RAR's packing is not read here: what was stored can be looked at, for the rest `foreign` has a program.

Source: TechNote.txt of WinRAR 4 and "RAR 5.0 archive format" of WinRAR.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from elemta_milter.archives.budget import BrokenError, Budget, EncryptedError
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.stream import Stream

PACKED = "packed by RAR"
SPLIT = "a file that goes on in another volume"
_OLD, _NEW = b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00"
_LONGEST_NAME = 4096
_STREAM = b"STM"
"""What a header is called that holds a stream of NTFS; its name stands elsewhere."""
_ENCRYPTION, _SERVICE_DATA = 1, 7


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Its files, in order.

    Raises:
        BrokenError: a header is broken.
        EncryptedError: the headers are encrypted.
    """
    if bytes(data[: len(_NEW)]) == _NEW:
        yield from _new(data, budget)
    else:
        yield from _old(data, budget)


def _old(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Blocks of RAR 1.5 to 4."""
    at = len(_OLD)
    while at + 7 <= len(data) and budget.goes_on():
        kind, flags, size = struct.unpack_from("<BHH", data, at + 2)
        if size < 7 or at + size > len(data) or not 0x72 <= kind <= 0x7B:
            raise BrokenError("a header in it is broken")
        more = struct.unpack_from("<L", data, at + 7)[0] if flags & 0x8000 and size >= 11 else 0
        if kind == 0x73 and flags & 0x80:
            raise EncryptedError("its headers are encrypted")
        if kind == 0x7B:
            return
        name = at + (40 if flags & 0x100 and size >= 40 else 32)  # long sizes stand before it
        if kind == 0x74 or (kind == 0x7A and bytes(data[name : at + size][:3]) == _STREAM):
            if size < 32:
                raise BrokenError("a header in it is broken")
            more, member = _old_file(data[at : at + size], data[at + size :], flags)
            yield member
        at += size + more
    if at > len(data):
        raise BrokenError("it ends in the middle")


def _old_file(header: memoryview, data: memoryview, flags: int) -> tuple[int, Member]:
    """How much data follows, and the file."""
    (packed,) = struct.unpack_from("<L", header, 7)
    method, length = header[25], struct.unpack_from("<H", header, 26)[0]
    at = 32
    if flags & 0x100 and len(header) >= 40:
        packed |= struct.unpack_from("<L", header, 32)[0] << 32
        at = 40
    name, _, encoded = bytes(header[at : at + min(length, _LONGEST_NAME)]).partition(b"\0")
    also = (_old_unicode(name, encoded),) if flags & 0x200 and encoded else ()
    if header[2] == 0x7A:
        end = len(header) - (8 if flags & 0x400 else 0)  # a salt
        name, also, flags = bytes(header[at + length : end]).decode("utf-16-le", "replace").encode(), (), flags & 7
    if flags & 0xE0 == 0xE0:
        return packed, Member(text(name, "cp437").rstrip("/\\") + "/")
    stored = method == 0x30
    return packed, Member(
        text(name, "cp437"),
        Stream((data[:packed],)) if stored and not flags & 4 else Stream(),
        also,
        encrypted=bool(flags & 4),
        unread=SPLIT if flags & 3 else "" if stored else PACKED,
    )


def _old_unicode(name: bytes, encoded: bytes) -> str:
    """The name in Unicode, made of the name in octets and what differs."""
    high, flags, bits = encoded[0] << 8, 0, 0
    found: list[int] = []
    at = 1
    while at < len(encoded) and len(found) < _LONGEST_NAME:
        if not bits:
            flags, bits = encoded[at], 8
            at += 1
        bits -= 2
        kind = flags >> bits & 3
        octets = encoded[at : at + (1, 1, 2, 1)[kind]]
        if not octets:
            break
        at += len(octets)
        if kind == 3:
            count = (octets[0] & 0x7F) + 2
            shift = encoded[at] if octets[0] & 0x80 and at < len(encoded) else 0
            at += octets[0] >> 7
            same = name[len(found) : len(found) + count]
            found += [((each + shift) & 0xFF) | high for each in same] if octets[0] & 0x80 else same
            if len(same) < count:
                break
        else:
            found.append(int.from_bytes(octets, "little") | (high if kind == 1 else 0))
    return struct.pack(f"<{len(found)}H", *(each & 0xFFFF for each in found)).decode("utf-16-le", "replace")


def _new(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Blocks of RAR 5."""
    at = len(_NEW)
    while at + 7 <= len(data) and budget.goes_on():
        size, start = _number(data, at + 4)
        if not size or start + size > len(data):
            raise BrokenError("a header in it is broken")
        header = data[start : start + size]
        kind, place = _number(header, 0)
        flags, place = _number(header, place)
        extra, place = _number(header, place) if flags & 1 else (0, place)
        follows, place = _number(header, place) if flags & 2 else (0, place)
        if kind == 4:
            raise EncryptedError("its headers are encrypted")
        if kind == 5:
            return
        at = start + size
        if kind in (2, 3):
            yield from _new_file(
                header, place, extra, data[at : at + follows], service=kind == 3, split=bool(flags & 0x18)
            )
        at += follows
    if at > len(data):
        raise BrokenError("it ends in the middle")


def _new_file(
    header: memoryview, place: int, extra: int, data: memoryview, *, service: bool, split: bool
) -> Iterator[Member]:
    kind, place = _number(header, place)
    _, place = _number(header, place)  # its size
    _, place = _number(header, place)  # its attributes
    place += (4 if kind & 2 else 0) + (4 if kind & 4 else 0)  # time and checksum
    packing, place = _number(header, place)
    _, place = _number(header, place)  # the system it was made on
    length, place = _number(header, place)
    name = bytes(header[place : place + min(length, _LONGEST_NAME)])
    stored = not packing >> 7 & 7
    more = header[max(len(header) - extra, 0) :]
    if service and name != _STREAM:
        return
    if service:
        name = bytes(next((record for each, record in _records(more) if each == _SERVICE_DATA), b"")[:_LONGEST_NAME])
    elif kind & 1:
        yield Member(text(name).rstrip("/") + "/")
        return
    encrypted = any(each == _ENCRYPTION for each, _ in _records(more))
    stream = Stream((data,)) if stored and not encrypted else Stream()
    yield Member(text(name), stream, encrypted=encrypted, unread=SPLIT if split else "" if stored else PACKED)


def _records(extra: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The records of the extra area of a file: what kind each is, and its data."""
    at = 0
    while at < len(extra):
        size, start = _number(extra, at)
        if not size or start >= len(extra):
            return
        kind, place = _number(extra, start)
        at = start + size
        yield kind, extra[place:at]


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """Seven bits an octet, the lowest first; the number and where it ends."""
    number = shift = 0
    for place in range(at, min(at + 10, len(data))):
        number |= (data[place] & 0x7F) << shift
        if not data[place] & 0x80:
            return number, place + 1
        shift += 7
    raise BrokenError("a header in it is broken")

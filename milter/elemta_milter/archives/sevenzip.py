"""7z: which files does a 7-Zip archive hold?

The header stands at the end and is usually packed itself.  Its numbers are believed only as far as the octets reach.
What is packed by LZMA, LZMA2, bzip2, deflate or not at all is unpacked, with the filters that liblzma has; of the rest
(PPMd, BCJ2, …) the names are read.

Source: 7zFormat.txt of the 7-Zip SDK.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterator

from elemta_milter.archives.budget import BrokenError, Budget, EncryptedError, UnreadableError
from elemta_milter.archives.member import Member
from elemta_milter.archives.sevenzip_header import (
    FILES,
    HEADER,
    LIMIT,
    PACKED_HEADER,
    PROPERTIES,
    STREAMS,
    Cursor,
    Folder,
    file_table,
    streams,
)
from elemta_milter.archives.stream import LZMA_MEMORY, Decompressor, Stream, bzip2, cut, deflate, unpack

_HELD_BACK = 16
"""Octets at the end that liblzma's branch filters may keep to themselves where no end marker follows."""
_AES, _COPY, _LZMA, _LZMA2, _DEFLATE, _BZIP2 = "06f10701", "00", "030101", "21", "040108", "040202"
_FILTERS = {
    "03": lzma.FILTER_DELTA,
    "03030103": lzma.FILTER_X86,
    "04": lzma.FILTER_X86,
    "03030501": lzma.FILTER_ARMTHUMB,
    "03030205": lzma.FILTER_POWERPC,
    "03030401": lzma.FILTER_IA64,
    "03030805": lzma.FILTER_SPARC,
    "0303010a": lzma.FILTER_ARM,
}


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Its files, in order.

    Raises:
        BrokenError: the header is not what it should be.
        EncryptedError: the header is encrypted.
        UnreadableError: the header is packed in a way that is not read here.
    """
    cursor = _start(data)
    if cursor is None:
        return
    kind = cursor.octet()
    for _ in range(4):
        if kind != PACKED_HEADER:
            break
        folders = streams(cursor)
        if not folders:
            raise BrokenError("its header is nowhere")
        unpacked = Stream(_unpacked(data, folders[0], budget))
        cursor = Cursor(bytes(unpacked.read(min(folders[0].size, LIMIT))))
        if unpacked.broken:
            raise BrokenError(unpacked.broken)
        kind = cursor.octet()
    if kind != HEADER:
        raise BrokenError("its header is none")
    yield from _files(cursor, data, budget)


def _start(data: memoryview) -> Cursor | None:
    """The header, as it stands; None in an archive of no files."""
    if len(data) < 32:
        raise BrokenError("it ends in the middle")
    offset, size = struct.unpack_from("<QQ", data, 12)
    if not size and len(data) == 32:
        return None
    if not size:  # 7-Zip looks for it where it was wiped out
        raise BrokenError("its header is nowhere")
    if 32 + offset + size > len(data):
        raise BrokenError("its header is beyond its end")
    if size > LIMIT:
        raise UnreadableError("its header is too long")
    return Cursor(bytes(data[32 + offset : 32 + offset + size]))


def _files(cursor: Cursor, data: memoryview, budget: Budget) -> Iterator[Member]:
    folders: list[Folder] = []
    while (kind := cursor.octet()) != FILES:
        if kind == 0:
            return
        if kind == STREAMS:
            folders = streams(cursor)
        elif kind == PROPERTIES:
            while cursor.octet():
                cursor.take(cursor.number())
        else:
            raise UnreadableError("its header holds additional streams")
    names, empty, empty_files = file_table(cursor)
    waiting = iter([name for name, nothing in zip(names, empty, strict=True) if not nothing])
    for folder in folders:
        yield from _content(data, folder, waiting, budget)
    nothing = [name for name, each in zip(names, empty, strict=True) if each]
    for name, is_file in zip(nothing, empty_files or [False] * len(nothing), strict=False):
        yield Member(name if is_file else name.rstrip("/") + "/")
    for name in waiting:
        yield Member(name, defect="it has no content")


def _content(data: memoryview, folder: Folder, names: Iterator[str], budget: Budget) -> Iterator[Member]:
    """The files of one folder."""
    encrypted = any(method == _AES for method, _ in folder.coders)
    try:
        stream, unread = Stream(() if encrypted else _unpacked(data, folder, budget)), ""
    except UnreadableError as error:
        stream, unread = Stream(), str(error)
    for size in folder.files:
        name = next(names, "")
        content = Stream(stream.take(size))
        yield Member(name, content, encrypted=encrypted, unread=unread)
        stream.skip(size - content.seen)
    if stream.broken:
        raise BrokenError(stream.broken)


def _unpacked(data: memoryview, folder: Folder, budget: Budget) -> Iterator[bytes | memoryview]:
    """Unpack a folder.

    Raises:
        EncryptedError: it is encrypted.
        UnreadableError: it was packed in a way that is not read here.
    """
    make = _maker(folder)
    packed = data[folder.start : folder.start + folder.packed]
    if make is None:
        return iter((packed,))
    return cut(unpack((packed,), make, budget), folder.size, _HELD_BACK)


def _maker(folder: Folder) -> Callable[[], Decompressor] | None:
    methods = [method for method, _ in folder.coders]
    if _AES in methods:
        raise EncryptedError("its header is encrypted")
    if methods == [_COPY]:
        return None
    if methods in ([_BZIP2], [_DEFLATE]):
        return bzip2 if methods == [_BZIP2] else deflate
    if folder.outputs != len(methods) or folder.packs != 1:
        raise UnreadableError("packed by coders that are not read here")
    chain = [_filter(method, properties) for method, properties in folder.coders]
    if methods[0] in (_LZMA, _LZMA2):  # 7-Zip writes the last coder first or last; liblzma wants it last
        chain.reverse()
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)


def _filter(method: str, properties: bytes) -> dict[str, int]:
    """The filter of liblzma for a coder."""
    if method == _LZMA and len(properties) >= 5 and properties[0] < 225:
        rest, lc = divmod(properties[0], 9)
        pb, lp = divmod(rest, 5)
        dictionary = _dictionary(int.from_bytes(properties[1:5], "little"))
        return {"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}
    if method == _LZMA2 and properties and properties[0] <= 40:
        bits = properties[0]
        return {"id": lzma.FILTER_LZMA2, "dict_size": _dictionary((2 | (bits & 1)) << (bits // 2 + 11))}
    if method in _FILTERS:
        delta = {"dist": properties[0] + 1} if method == "03" and properties else {}
        return {"id": _FILTERS[method], **delta}
    raise UnreadableError("packed by coders that are not read here")


def _dictionary(size: int) -> int:
    if size > LZMA_MEMORY:
        raise UnreadableError(f"packed with a dictionary of {size} octets")
    return max(size, 4096)

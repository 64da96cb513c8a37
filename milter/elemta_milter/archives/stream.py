"""Stream: how are octets read that come in chunks, from memory or from a decompressor, without holding them all?

A decompressor never gives more than `CHUNK` octets at a time and asks the budget after each.  What breaks on the way
ends the stream; `broken` says why, and what came before stays.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from elemta_milter.archives.budget import BrokenError, Budget, UnreadableError

CHUNK = 1 << 16
LZMA_MEMORY = 64 << 20
"""Octets of a dictionary; `xz -9` asks for 64 MiB."""
BEHIND = "there is more behind its end"
_LITTLE = 21
"""Octets behind the end that are no archive: the shortest is an empty one of zip, of 22."""

Octets = bytes | memoryview


class Stream:
    """Octets with a look ahead.

    Attributes:
        broken: why it ended before its end; "" while it has not.
        unread: likewise, what cannot be read here.
        seen: octets that came out so far.
        in_memory: octets that were in memory from the beginning, if that is all.
    """

    def __init__(self, chunks: Iterable[Octets] = (), start: Octets = b"") -> None:
        self._chunks = iter(chunks)
        self._held: Octets = start
        self._at = 0
        self._ended = False
        self.broken = ""
        self.unread = ""
        self.seen = len(start)
        self.in_memory = len(start) if not chunks else 0

    def peek(self, count: int) -> memoryview:
        """The next `count` octets, fewer at the end; they stay."""
        if len(self._held) - self._at < count and not self._ended:
            have = len(self._held) - self._at
            pieces = [self._held[self._at :]] if have else []
            while have < count and (chunk := self._next()):
                pieces.append(chunk)
                have += len(chunk)
            self._held, self._at = (pieces[0] if len(pieces) == 1 else b"".join(pieces)), 0  # one is not copied
        return memoryview(self._held)[self._at : self._at + count]

    def read(self, count: int) -> memoryview:
        """The next `count` octets, fewer at the end; they are gone."""
        taken = self.peek(count)
        self._at += len(taken)
        return taken

    def skip(self, count: int) -> int:
        """Pass over `count` octets; how many there were."""
        left = count
        while left and (taken := len(self.read(min(left, CHUNK)))):
            left -= taken
        return count - left

    def take(self, count: int) -> Iterator[memoryview]:
        """The next `count` octets in chunks, taken as they are asked for."""
        while count and (chunk := self.read(min(count, CHUNK))):
            count -= len(chunk)
            yield chunk

    def _next(self) -> Octets:
        try:
            chunk = next(self._chunks, b"")
        except (BrokenError, zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
            chunk = b""
            if isinstance(error, UnreadableError):
                self.unread = str(error)
            else:
                self.broken = str(error) or type(error).__name__
        self.seen += len(chunk)
        self._ended = not chunk
        return chunk


class Decompressor(Protocol):
    """What bz2 and lzma have; zlib is wrapped."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """The next octets."""
        ...

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""
        ...


class Inflate:
    """zlib's decompressor with the ways of the others."""

    def __init__(self, window: int) -> None:
        self._made = zlib.decompressobj(window)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """The next octets."""
        return self._made.decompress(self._made.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""
        return self._made.eof

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""
        return self._made.unused_data


def deflate() -> Decompressor:
    """Raw deflate, as in zip (RFC 1951)."""
    return Inflate(-15)


def gzip() -> Decompressor:
    """One member of a gzip file (RFC 1952)."""
    return Inflate(31)


def zlib_stream() -> Decompressor:
    """Deflate as PDF has it (RFC 1950)."""
    return Inflate(15)


def bzip2() -> Decompressor:
    """One stream of a bzip2 file."""
    return bz2.BZ2Decompressor()


def xz() -> Decompressor:
    """One stream of an xz file, or an lzma file of old."""
    return lzma.LZMADecompressor(memlimit=LZMA_MEMORY + (8 << 20))


def unpack(  # noqa: C901 - one loop reads better than two that call each other
    packed: Iterable[Octets],
    make: Callable[[], Decompressor],
    budget: Budget,
    *,
    many: bool = False,
    whole: bool = False,
) -> Iterator[bytes]:
    """The octets that a decompressor makes of these, until the budget says stop.

    Args:
        packed: what to unpack.
        make: makes the decompressor.
        budget: asked after each chunk.
        many: several streams may follow each other (gzip, bzip2, xz); what is no stream any more ends it.
        whole: nothing may follow the stream.

    Raises:
        BrokenError: it ends in the middle, or before the end of what is `whole`.
        zlib.error, lzma.LZMAError, OSError, EOFError: it is broken.
    """
    made = make()
    took = gave = streams = 0
    pieces = _pieces(packed)
    for piece in pieces:
        took += len(piece)
        data = piece
        while True:
            if made.eof:
                if not many:
                    return _end(data or next(pieces, b"")) if whole else None
                data = data.lstrip(b"\0")  # padding between streams
                if not data:
                    break
                made, streams = make(), streams + 1
            try:
                out = made.decompress(data, CHUNK)
            except (zlib.error, lzma.LZMAError, OSError):
                if not streams:
                    raise
                if len(data) + len(next(pieces, b"")) > _LITTLE:  # what follows the last stream is none
                    raise BrokenError(BEHIND) from None
                return
            if out:
                gave += len(out)
                yield out
            if not (budget.unpacked(len(out)) and budget.ratio_kept(gave, took) and budget.goes_on()):
                return
            if not out and not made.eof:
                break
            data = made.unused_data if made.eof else b""
    if not made.eof:
        raise BrokenError("it ends in the middle")


def _end(behind: bytes) -> None:
    if behind:
        raise BrokenError(BEHIND)


def cut(pieces: Iterator[bytes], size: int, missing: int = 0) -> Iterator[bytes]:
    """The first `size` octets: without an end marker the size says where they end; `missing` of them may be lost."""
    try:
        for piece in pieces:
            yield piece[:size]
            size -= len(piece)
            if size <= 0:
                return
    except BrokenError:
        if size > missing:
            raise


def _pieces(packed: Iterable[Octets]) -> Iterator[bytes]:
    """No more than `CHUNK` at a time: a decompressor copies what it has not used."""
    for chunk in packed:
        for start in range(0, len(chunk), CHUNK):
            yield bytes(chunk[start : start + CHUNK])

"""Body: where do the octets of a message wait until it is judged?

A `Spool` takes the chunks as they come: in memory up to a bound, from there on in a file without a name, which the
kernel takes back even when the worker is killed.  `finish()` gives an `elemta.facts.Body` that can be read again and
again, by several threads at once; the file lives as long as that body is referred to and not longer.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elemta.facts import Body, BytesBody
from elemta_milter.bounds import BOUNDS

PIECE = 1 << 18
"""Octets read from a spooled body at once."""

_NO_TMPFILE = {errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL}


class Spool:
    """Collects one body."""

    __slots__ = ("_directory", "_file", "_keep", "_memory", "_start", "size")

    def __init__(self, directory: str, memory: int = BOUNDS.body_memory, keep: int = BOUNDS.body_octets) -> None:
        """Hold `memory` octets before going to a file in `directory`, and keep `keep` octets in all."""
        self._directory = directory
        self._memory = memory
        self._keep = keep
        self._start = bytearray()
        self._file: SpooledFile | None = None
        self.size = 0

    def append(self, chunk: bytes) -> bool:
        """Take the next octets; False when they go over what is kept: they and all that follow are dropped.

        Raises:
            OSError: the spool file cannot be made or written.
        """
        if self.size + len(chunk) > self._keep:
            self._keep = 0
            return False
        self.size += len(chunk)
        if self._file is not None:
            self._file.write(chunk)
        elif self.size <= self._memory:
            self._start += chunk
        else:
            self._file = SpooledFile(self._directory)
            self._file.write(self._start)
            self._file.write(chunk)
            self._start = bytearray()
        return True

    def finish(self) -> Body:
        """Give what came as a body."""
        return BytesBody(bytes(self._start)) if self._file is None else SpooledBody(self._file, self.size)


class SpooledFile:
    """A file without a name; closed when nobody refers to it any more."""

    def __init__(self, directory: str) -> None:
        """Make it in `directory`.

        Raises:
            OSError: the directory is missing, full or not ours.
        """
        self.descriptor = _unnamed(directory)
        weakref.finalize(self, os.close, self.descriptor)

    def write(self, data: bytes | bytearray) -> None:
        """Append all of `data`.

        Raises:
            OSError: the disk is full.
        """
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += os.write(self.descriptor, rest[done:])


@dataclass(frozen=True, slots=True)
class SpooledBody:
    """A body kept in a file."""

    file: SpooledFile
    size: int

    def chunks(self) -> Iterator[bytes]:
        """Read the octets in pieces of 256 KiB, from the beginning at each call.

        Raises:
            OSError: the disk cannot be read.
        """
        for at in range(0, self.size, PIECE):
            yield os.pread(self.file.descriptor, min(PIECE, self.size - at), at)


def buffer(body: Body) -> bytes | mmap.mmap:
    """The whole body to look things up in, all at once; a spooled one is mapped, not read into memory.

    Raises:
        OSError: a spooled body cannot be mapped.
    """
    if isinstance(body, BytesBody):
        return body.data
    if isinstance(body, SpooledBody) and body.size:
        return mmap.mmap(body.file.descriptor, body.size, access=mmap.ACCESS_READ)
    return b"".join(body.chunks())


def give_back(octets: memoryview) -> None:
    """Let go of the memory that a mapped body takes up (`buffer`); what is read again comes from the file again."""
    if isinstance(octets.obj, mmap.mmap):
        octets.obj.madvise(mmap.MADV_DONTNEED)


def _unnamed(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    descriptor, path = tempfile.mkstemp(prefix="body-", dir=directory)  # a file system without O_TMPFILE, such as NFS
    Path(path).unlink()
    return descriptor

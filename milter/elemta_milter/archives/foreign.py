"""Foreign: how are archives read whose packing Python does not know (RAR, CAB, ISO, LHA, …)?

By libarchive, if it is installed: it reads the archive from memory and writes to a pipe what is in it, in a process of
its own with little memory and processor time (`libarchive`).  Nothing touches the disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, cast

from elemta_milter.archives import libarchive
from elemta_milter.archives.budget import BrokenError, Budget, UnreadableError
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.squeezed import inner_name
from elemta_milter.archives.stream import CHUNK, Stream

KINDS = frozenset({*libarchive.FORMATS, *libarchive.FILTERS})
"""What libarchive reads of those that we do not."""
_FRAME = 5
_UDF = b"NSR0"
_SECTOR = 2048
_DESCRIPTORS, _DESCRIPTORS_END = 16 * _SECTOR + 1, 64 * _SECTOR
"""Where the volumes of an ISO image are described (ECMA-119 section 8, ECMA-167 part 3 section 9.1)."""
_LONGEST_NAME = 4096


@cache
def installed() -> bool:
    """Whether libarchive is there."""
    return libarchive.load() is not None


def members(data: memoryview, kind: str, names: Sequence[str], budget: Budget) -> Iterator[Member]:
    """The files of an archive with these names.

    Raises:
        BrokenError: libarchive cannot read it, or not to its end.
        UnreadableError: it has another file system, which is not read.
    """
    if not budget.program():
        return
    with os.fdopen(os.memfd_create("archive"), "w+b") as archive:
        archive.write(data)
        archive.seek(0)
        process = subprocess.Popen(  # noqa: S603 - no word of the mail is in the command
            [sys.executable, "-I", "-S", str(Path(libarchive.__file__)), kind],
            stdin=archive,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
        )
    ended = False
    with process, cast("IO[bytes]", process.stdout) as pipe:
        try:
            for member in _members(Stream(_chunks(pipe, budget))):
                name, *also = map(inner_name, names)
                yield Member(name, member.stream, tuple(also)) if kind in libarchive.FILTERS else member
            ended = not budget.over
        finally:
            if not ended:
                process.kill()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            budget.charge(used.ru_utime + used.ru_stime)
    if process.returncode:
        raise BrokenError("not all of it can be read")
    if kind == "iso" and any(bytes(data[at : at + 4]) == _UDF for at in range(_DESCRIPTORS, _DESCRIPTORS_END, _SECTOR)):
        raise UnreadableError("a file system of UDF, which Windows prefers")


def _members(frames: Stream) -> Iterator[Member]:
    while head := bytes(frames.read(_FRAME)):
        name = bytes(frames.read(int.from_bytes(head[1:], "little")))
        content = Stream(_content(frames))
        yield Member(text(name[-_LONGEST_NAME:]), content)
        content.skip(sys.maxsize)


def _content(frames: Stream) -> Iterator[memoryview]:
    """The data of one file."""
    while bytes(frames.peek(1)) == b"D":
        yield frames.read(int.from_bytes(frames.read(_FRAME)[1:], "little"))


def _chunks(pipe: IO[bytes], budget: Budget) -> Iterator[bytes]:
    while chunk := os.read(pipe.fileno(), CHUNK):
        yield chunk
        if not budget.unpacked(len(chunk)) or not budget.goes_on():
            return

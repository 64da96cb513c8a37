"""Foreign: how are archives read whose packing Python does not know (RAR, CAB, ISO, LHA, …)?

By bsdtar of libarchive, if it is installed: it reads the archive from memory and writes a tar archive to a pipe, in a
process of its own with little memory and processor time.  Nothing touches the disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import IO, cast

from elemta_milter.archives import tars
from elemta_milter.archives.budget import BrokenError, Budget
from elemta_milter.archives.member import Member
from elemta_milter.archives.stream import CHUNK, Stream

KINDS = frozenset({"rar", "7z", "cab", "iso", "lha", "cpio", "ar", "xar", "zstd", "lz4", "lzip", "compress"})
"""What bsdtar reads of those that we do not."""
_SECONDS, _KIBIBYTES = 1, 256 << 10


@cache
def program() -> str:
    """Where bsdtar is; "" if it is not installed."""
    return shutil.which("bsdtar", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/usr/local/bin") or ""


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """The files of an archive of any kind that bsdtar reads.

    Raises:
        BrokenError: bsdtar cannot read it, or not to its end.
    """
    if not budget.program():
        return
    limits = f"ulimit -t {_SECONDS} -v {_KIBIBYTES}; exec " + '"$0" -c -f - --format=pax @-'
    with os.fdopen(os.memfd_create("archive"), "w+b") as archive:
        archive.write(data)
        archive.seek(0)
        process = subprocess.Popen(  # noqa: S603 - no word of the mail is in the command
            ["/bin/sh", "-c", limits, program()],
            stdin=archive,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
        )
    ended = False
    with process, cast("IO[bytes]", process.stdout) as pipe:
        try:
            stream = Stream(_chunks(pipe, budget))
            yield from tars.members(stream, budget)
            stream.skip(sys.maxsize)
            ended = not budget.over
        finally:
            if not ended:
                process.kill()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            budget.charge(used.ru_utime + used.ru_stime)
    if process.returncode:
        raise BrokenError("bsdtar cannot read all of it")


def _chunks(pipe: IO[bytes], budget: Budget) -> Iterator[bytes]:
    while chunk := os.read(pipe.fileno(), CHUNK):
        yield chunk
        if not budget.unpacked(len(chunk)) or not budget.goes_on():
            return

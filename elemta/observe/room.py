"""Room: is there place on the disk for one more count, before it is written?

Counts are written into mapped files, where a disk without room says so by SIGBUS: the process ends, and with it the
mail in its hands.  So the room is taken before it is mapped.  Where there is none, a count stays in the process, and
is written with its next change once there is.
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict


class RoomyDict(MmapedDict):
    """A file of counts that never grows into room that the disk does not have."""

    def read_value(self, key: str) -> tuple[float, float]:
        """Value and time; nothing where there is no room for it."""
        try:
            return super().read_value(key)  # type: ignore[no-any-return, no-untyped-call]
        except OSError:
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write it, if there is room: `value` is the whole count, so that the next time tells all."""
        try:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError:
            return

    def _init_value(self, key: str) -> None:
        needed, size = self._used + len(key.encode()) + OVERHEAD, self._capacity
        while needed > size:
            size *= 2
        if size > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, size)
        super()._init_value(key)  # type: ignore[no-untyped-call]


_log = logging.getLogger("elemta.observe")

KINDS = ("counter", "gauge_max", "gauge_min", "gauge_sum", "histogram")
"""What the library keeps in a file of its own, for each process."""
FIRST = 1 << 16
"""Octets of a new file, as the library makes it."""
HEAD = 8
"""Octets before the first entry."""
NOTHING = struct.pack("i", HEAD)
"""The beginning of a file without entries: how many octets of it are used."""
OVERHEAD = 32
"""Octets of an entry beside its key, at most."""


def use(directory: str, identity: str) -> None:
    """Let prometheus_client keep its files so, and make those of this process; one that is damaged begins anew.

    Raises:
        OSError: they cannot be made, or there is no room for them.
    """
    values.MmapedDict = RoomyDict  # type: ignore[attr-defined]
    for kind in KINDS:
        path = Path(directory) / f"{kind}_{identity}.db"
        _make(path)
        try:
            for _ in _keys(path):
                pass
        except (struct.error, RuntimeError, ValueError, TypeError) as error:  # else no process could take this number
            _log.warning("%s: damaged (%s); what was counted there is lost", path, error)
            empty(path)


def kept(directory: str, identity: str) -> Mapping[str, list[Mapping[str, str]]]:
    """By metric, with which labels one who had this number before counted: his counts stand there still."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for kind in KINDS:
        for metric, labels in _keys(Path(directory) / f"{kind}_{identity}.db"):
            found.setdefault(metric, []).append(labels)
    return found


def empty(path: Path) -> None:
    """Let a file hold nothing; on a full disk its successor could not have the room again.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("r+b") as file:
        file.write(NOTHING)


def _keys(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Metric and labels of each entry.

    Raises:
        ValueError: its length is none, or an entry is none; of no entries the library could not write one then.
        struct.error, RuntimeError, TypeError: likewise.
    """
    with path.open("rb") as file:
        [used] = struct.unpack("i", file.read(4))
    if used and used < HEAD:  # 0: one that was only made
        raise ValueError(f"only {used} octets of it are used")
    for key, *_ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
        metric, _, labels, _ = json.loads(key)  # as `prometheus_client.mmap_dict.mmap_key` makes it
        yield metric, labels


def _make(path: Path) -> None:
    with path.open("ab") as file:
        size = file.tell()
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, FIRST))
        except OSError as error:
            if not size:
                path.unlink()  # an empty one is taken for damaged
            raise OSError(error.errno, error.strerror, str(path)) from error

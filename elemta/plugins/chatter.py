"""Chatter: what does a plugin write to standard output and standard error?

Each line appears in our log with the plugin's name, cleaned and cut; what its process brings of the standard `logging`
(`child.py`) at its own level, all else as a note.  A plugin that writes without end waits on its
full pipe, and costs the worker a bounded share of its time; lines over the bound are counted, not shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time

from elemta.printable import clean

LINES, WINDOW = 50, 10.0  # lines shown in so many seconds
OCTETS = 1 << 18  # read in one second; then the plugin waits
_READ = 1 << 16
_LONGEST = 500  # characters of a line

_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "CRITICAL": logging.CRITICAL}
_log = logging.getLogger("elemta.plugins")


class Chatter:
    """Reads one pipe until its end. Lives on the loop."""

    def __init__(self, name: str, pipe: int) -> None:
        """`name`: the plugin's; `pipe`: a descriptor to read from, closed here."""
        self._name = name
        self._pipe = pipe
        self._rest = b""
        self._began = self._second = time.monotonic()
        self._shown = self._left_out = self._octets = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._readable)

    def close(self) -> None:
        """Show what is left, and read no more."""
        if self._pipe < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._pipe)
        with contextlib.suppress(BlockingIOError):
            self._take(os.read(self._pipe, _READ))
        self._lines(self._rest, b"")
        self._tell_left_out()
        os.close(self._pipe)
        self._pipe = -1

    def _readable(self) -> None:
        try:
            octets = os.read(self._pipe, _READ)
        except BlockingIOError:
            return
        if not octets:
            self.close()
            return
        self._take(octets)
        now = time.monotonic()
        if now - self._second > 1.0:
            self._second, self._octets = now, 0
        self._octets += len(octets)
        if self._octets > OCTETS:
            self._loop.remove_reader(self._pipe)
            self._timer = self._loop.call_later(1.0, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._octets = 0
        self._loop.add_reader(self._pipe, self._readable)

    def _take(self, octets: bytes) -> None:
        lines, _, self._rest = (self._rest + octets).rpartition(b"\n")
        if len(self._rest) > _READ:
            lines, self._rest = lines + b"\n" + self._rest, b""
        if lines:
            self._lines(*lines.split(b"\n"))

    def _lines(self, *lines: bytes) -> None:
        now = time.monotonic()
        if now - self._began > WINDOW:
            self._tell_left_out()
            self._began, self._shown = now, 0
        for line in lines:
            if not line.strip():
                continue
            if self._shown >= LINES:
                self._left_out += 1
                continue
            self._shown += 1
            text = line[: 4 * _LONGEST].decode("utf-8", "backslashreplace").rstrip()
            level = _LEVELS.get(text.partition(" ")[0], logging.INFO)
            _log.log(level, "plugin %s says: %s", self._name, clean(text[:_LONGEST]))

    def _tell_left_out(self) -> None:
        if self._left_out:
            _log.warning("plugin %s: %d more lines are left out", self._name, self._left_out)
        self._left_out = 0

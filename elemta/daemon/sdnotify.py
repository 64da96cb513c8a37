"""systemd: how far along are we, and do we live?

sd_notify(3): one datagram to $NOTIFY_SOCKET; nothing without it.
"""

from __future__ import annotations

import math
import os
import socket
import time


def notify(*lines: str) -> None:
    """Tell the service manager: one assignment a line, "READY=1", "STATUS=answering"."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where:
        return
    if where.startswith("@"):
        where = "\0" + where[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(lines).encode(), where)
        except OSError:
            return  # nobody listens: that is the service manager's business


def reloading() -> None:
    """A reload begins (Type=notify-reload wants the time)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


class Watchdog:
    """systemd's watchdog (WatchdogSec= in the unit, sd_watchdog_enabled(3)); nothing without it."""

    def __init__(self) -> None:
        told, whom = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        self._every = int(told) / 2e6 if told.isdecimal() and whom in ("", str(os.getpid())) else math.inf
        self._next = 0.0 if self._every < math.inf else math.inf

    def alive(self) -> None:
        """Give a sign of life, twice in the watchdog's time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            notify("WATCHDOG=1")

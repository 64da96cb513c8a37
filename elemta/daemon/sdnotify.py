"""systemd: how far along are we?

sd_notify(3): one datagram to $NOTIFY_SOCKET; nothing without it.
"""

from __future__ import annotations

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

"""Outlet: how do lines get out of this process while nobody may be reading them?

Standard error is often a pipe or a socket (a container's log, systemd's journal).  One whose reader has stopped is full
after some hundred lines, and who writes to it then waits in vain: so did all mail.  An outlet waits `PATIENCE` for
room, once; until there is some again, every line that finds none is dropped at once, and counted.

Whether writing waits is a property of what was opened, and that is shared with whoever gave it to us: it is left as it
is.  `detach` opens a pipe anew for ourselves, beside the old descriptor: libuv makes the old one wait again for each
process that it starts.  A socket is told with each line not to wait.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
import weakref
from contextlib import suppress
from functools import partial

PATIENCE = 0.2
"""Seconds that a line waits for room at most; a reader that is only slow makes some in that time."""


_detached: dict[int, int] = {}  # pipes that are open anew: beside which descriptor


def detach(fd: int = 2) -> None:
    """Where `fd` is a pipe, open it anew for outlets of this process and its forks, which then never wait for it.

    To be called before root is given up: where it is not allowed (a pipe of somebody else), all stays as it is.
    """
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            _detached[fd] = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


class Outlet:
    """Writes lines to one file descriptor. Any thread may call it.

    Attributes:
        dropped: lines that found no room or no reader, in whole or in part.
    """

    def __init__(self, fd: int) -> None:
        """Write to `fd`: a file, a terminal, a pipe or a socket."""
        self.dropped = 0
        self._fd = fd = _detached.get(fd, fd)
        self._write = partial(os.write, fd)
        self._full = False  # since the last line that was dropped, none got out
        self._cut = False  # the last line that got out has no end
        self._waiting = threading.Lock()
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                own = socket.socket(fileno=os.dup(fd))
                weakref.finalize(self, own.close).atexit = False  # a reload makes another outlet
                self._write = partial(_send, own)

    def put(self, line: bytes) -> bool:
        """Write a line with its end, or several, in one call, so that the lines of several processes never mix.

        It never raises and never waits for long; True when it is the first one after others that were dropped.
        """
        if self._full:
            return self._after(line)
        try:
            done = self._write(line)
        except BlockingIOError:
            done = 0
        except OSError:  # who read it is gone, or the disk is full: that must not stop the mail
            self.dropped += line.count(b"\n")
            self._full = True
            return False
        if done < len(line):
            self._rest(line, done)
        return False

    def _after(self, line: bytes) -> bool:
        """Try whether there is room again."""
        text = b"\n" + line if self._cut else line
        try:
            done = self._write(text)
        except OSError:
            self.dropped += line.count(b"\n")
            return False
        if done < len(text):
            self.dropped += text.count(b"\n", done)
            self._cut = True
            return False
        self._full = self._cut = False
        return True

    def _rest(self, line: bytes, done: int) -> None:
        """Write what is left of a line, as soon as there is room; others who find none do not wait in turn."""
        with self._waiting:
            while done < len(line) and not self._full:
                try:
                    if not select.select((), (self._fd,), (), PATIENCE)[1]:
                        break
                    done += self._write(line[done:])
                except (OSError, ValueError):  # somebody else was faster; or it wants room for all of it; or has none
                    break
            if done < len(line):
                self.dropped += line.count(b"\n", done)
                self._full, self._cut = True, self._cut or done > 0


def _send(connection: socket.socket, data: bytes) -> int:
    return connection.send(data, socket.MSG_DONTWAIT)

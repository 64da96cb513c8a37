"""The door: does this worker take new connections now?

libmilter accepts them from a descriptor of its own and knows no pause: where a process may open no more files, it tries
again at once and for ever, and takes a whole processor.  So a socket that nobody knows takes the listener's place while
few descriptors are left, and for good when the worker drains; others take who comes, or he waits.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket

LOOK = 1.0  # seconds between two looks at how many descriptors are left
SPARE = 20  # descriptors that mails under way may want: a spooled body, a scanner, a name server

_log = logging.getLogger("elemta.milter")


class Door:
    """Where libmilter waits for connections.

    Attributes:
        descriptor: for libmilter.
    """

    def __init__(self, listener: socket.socket) -> None:
        """Open, on a listening, non-blocking socket that others may share."""
        self._listener = listener
        self._nobody = socket.socket(socket.AF_UNIX)
        self._nobody.bind("")  # Linux gives it an abstract name
        self._nobody.listen(1)
        self._nobody.setblocking(False)
        self.descriptor = os.dup(listener.fileno())  # ours alone

    def shut(self) -> None:
        """Take no new connection; needs no descriptor."""
        os.dup2(self._nobody.fileno(), self.descriptor, inheritable=False)

    async def watch(self) -> None:
        """Be shut while too few descriptors are left, until cancelled."""
        is_open = True
        while True:
            await asyncio.sleep(LOOK)
            left = _left()
            if is_open and left < SPARE:
                self.shut()
                _log.error("no new connection is taken: this process may open %d more files", left)
                is_open = False
            elif not is_open and left >= 2 * SPARE:
                os.dup2(self._listener.fileno(), self.descriptor, inheritable=False)  # libmilter sees it in 5 s at most
                _log.warning("new connections are taken again")
                is_open = True


def _left() -> int:
    """How many files this process may open still; where nobody tells how many it has, as many as it may have at all."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return most - len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    except OSError as error:
        return 0 if error.errno in (errno.EMFILE, errno.ENFILE) else most

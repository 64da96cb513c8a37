"""The server: who may connect, for how long, and where do open connections go when this worker ends?

Accepts from the listening socket that all workers share, one connection at a time so that they share the load, and
takes what an older generation of workers hands over.  Above the cap new connections are closed at once: Postfix
then asks again, or answers 4xx.  Silent, half-open and slow peers are cut off by one look at all of them every few
seconds, which costs a request nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from elemta.case import Case
from elemta_policyd.connection import Connection, HandOver

LOOK = 2.0  # seconds between two looks at all connections

_log = logging.getLogger("elemta.policyd")


class Server:
    """Keeps the connections of one worker."""

    def __init__(self, new_case: Callable[[], Case], *, idle: float, most: int, counts: bool = False) -> None:
        """Prepare.

        Args:
            new_case: begins a message.
            idle: seconds that a peer may be silent between requests.
            most: connections open at once.
            counts: some check wants to know which messages are accepted.
        """
        self._new_case = new_case
        self._idle = idle
        self._most = most
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._to_flush: list[Connection] = []
        self._taking: set[asyncio.Task[None]] = set()
        self._hand_over: HandOver | None = None
        self._full = False  # so that one line is logged, not thousands
        self._empty = asyncio.Event()
        self._loop.call_later(LOOK, self._look_at_all)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def listen(self, listener: socket.socket) -> None:
        """Accept from `listener` (listening, non-blocking, shared with other processes)."""
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    def take(self, connection: socket.socket, under_way: bytes = b"") -> None:
        """Serve an open connection; `under_way` is the message that another worker judged so far (`Connection`)."""
        if self._hand_over is not None:  # this worker is ending
            with connection:
                self._hand_over(connection, under_way)
        elif len(self._connections) >= self._most:
            connection.close()
            if not self._full:
                _log.warning("%d connections are open: closing new ones", self._most)
            self._full = True
        else:
            connection.setblocking(False)
            task = self._loop.create_task(self._attach(connection, under_way))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    def stop_listening(self) -> None:
        """Accept no more."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener = None

    async def drain(self, hand_over: HandOver, grace: float) -> None:
        """Once we do not listen: let what is under way finish, hand idle connections over; in `grace` seconds, go."""
        self._hand_over = hand_over  # also for what an older worker hands over from now on
        if self._taking:
            await asyncio.wait(self._taking)
        for connection in tuple(self._connections):
            connection.retire(hand_over)
        try:
            async with asyncio.timeout(grace):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            _log.warning("%d connections were still busy after %g s", len(self._connections), grace)
            for connection in tuple(self._connections):
                connection.abort()

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - listen() comes first
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another worker was faster, or the peer has gone
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                raise
            _log.error("cannot accept for a second: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(1.0, self._accept_again)
            return
        self.take(connection)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    async def _attach(self, sock: socket.socket, under_way: bytes) -> None:
        connection = Connection(
            self._new_case, self._idle, self._flush_soon, self._gone, counts=self._counts, under_way=under_way
        )
        self._connections.add(connection)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:  # the peer has gone
            sock.close()
            self._gone(connection)

    def _flush_soon(self, connection: Connection) -> None:
        """Send the answers of all connections together, after this turn of the loop.

        An answer wakes the process that waits for it.  Where that happens after each judgement the two take turns on
        the processor, which costs a busy worker a fifth of its time (measured with 20 connections).
        """
        if not self._to_flush:
            self._loop.call_soon(self._flush)
        self._to_flush.append(connection)

    def _flush(self) -> None:
        ready, self._to_flush = self._to_flush, []
        for connection in ready:
            connection.flush()

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._full = False
        self._empty.set()

    def _look_at_all(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.cut_off_if_late(now)
        self._loop.call_later(LOOK, self._look_at_all)

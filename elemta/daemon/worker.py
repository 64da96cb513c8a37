"""A worker: one forked process that answers Postfix with one engine on one event loop.

The supervisor speaks to it over a control socket: the worker says READY, and ALIVE every BEAT seconds, the supervisor
says RETIRE with the inbox of the next generation (hand over your connections, then go), the worker says CLOSED as soon
as it takes no new connection, and a closed control socket means that the supervisor is gone.  SIGTERM means: finish
what is under way, then go.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import uvloop

from elemta.config.model import Settings
from elemta.daemon.observing import Opened, open_observers
from elemta.decision import StageName
from elemta.dns import NoServers
from elemta.engine import Engine
from elemta.policy import Policy
from elemta.store import StoreError
from elemta.tools import open_tools

_log = logging.getLogger("elemta.daemon.worker")

GARBAGE = 20_000
"""New objects before Python looks for cycles: a mail makes hundreds and no cycle; the default of 700 cost 6 %."""

PATIENCE = 600.0
"""Seconds that a worker whose place others have taken may take to finish what cannot be handed over."""

WORD = 200
"""Octets of the word that may go with a connection to the next generation."""

BEAT = 2.0
"""Seconds between two signs of life."""

READY = b"ready"
ALIVE = b"alive"
CLOSED = b"closed"
RETIRE = b"retire"


class Service(Protocol):
    """What a daemon does; everything else is the skeleton's.

    Attributes:
        name: "milter" or "policyd": also the section of the settings that says where to listen.
    """

    name: str

    async def serve(self, worker: Worker) -> None:
        """Answer Postfix until `worker.stopping`; return when drained."""
        ...


@dataclass
class Worker:
    """What a service may use of its process.

    Attributes:
        slot: which worker of its generation, from 0.
        listener: listening, non-blocking, shared by all workers.
        engine: opened.
        settings: the settings.
        opened: log, metrics and journal of this process.
        stopping: set on SIGTERM and at reload: stop accepting, finish, return.
        grace: seconds that finishing may take when the daemon stops.
        deadline: when finishing must be over, by `time.monotonic`; it may come nearer.
    """

    slot: int
    listener: socket.socket
    engine: Engine
    settings: Settings
    control: socket.socket
    inbox: socket.socket
    opened: Opened
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    grace: float = 30.0
    deadline: float = math.inf
    _outbox: socket.socket | None = None

    def ready(self) -> None:
        """Tell the supervisor that this worker answers."""
        self.control.send(READY)

    def beat(self) -> None:
        """Tell the supervisor that the event loop turns, from now on."""
        with suppress(OSError):  # it does not listen now, or is gone
            self.control.send(ALIVE)
        asyncio.get_running_loop().call_later(BEAT, self.beat)

    def go(self, seconds: float) -> None:
        """Begin to finish, within so many seconds."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self.stopping.set()

    def closed(self) -> None:
        """Tell the supervisor that this worker takes no new connection any more."""
        try:
            self.control.send(CLOSED)
        except OSError:  # it was killed: nobody shall wait here for an answer, and another daemon may have the place
            self.listener.close()  # ours alone: to shut it for all ends a libmilter that does not know yet

    def hand_over(self, connection: socket.socket, word: bytes = b"") -> bool:
        """Give an open, idle connection to a worker of the next generation, with a word; False when there is none.

        Of the word, `WORD` octets arrive.
        """
        if self._outbox is None:
            return False
        try:
            socket.send_fds(self._outbox, [b"+", word], [connection.fileno()])
        except OSError as error:
            _log.warning("could not hand over a connection: %s", error)
            return False
        return True

    def adopt(self, callback: Callable[[socket.socket, bytes], None]) -> None:
        """Have `callback` called with each connection that an older generation hands over, and its word."""

        def arrived() -> None:
            try:
                data, fds, _, _ = socket.recv_fds(self.inbox, 1 + WORD, 16)
            except BlockingIOError:
                return  # another worker took it
            for fd in fds:
                callback(socket.socket(fileno=fd), data[1:])

        asyncio.get_running_loop().add_reader(self.inbox, arrived)

    def obey(self) -> None:
        """Read what the supervisor says."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, 64, 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if data == RETIRE and fds:
            self._outbox = socket.socket(fileno=fds[0])
        if not data:
            asyncio.get_running_loop().remove_reader(self.control)
        self.go(PATIENCE if data == RETIRE else self.grace)


@dataclass(frozen=True)
class Post:
    """Where a worker is put: what the supervisor knows at the fork."""

    slot: int
    policy: Policy
    listener: socket.socket
    control: socket.socket
    inbox: socket.socket


def work(service: Service, post: Post) -> int:
    """Be a worker until told to stop; the process's exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor tells us
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(GARBAGE, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(service, post))
        except (StoreError, NoServers) as error:  # a file's fault; the text says what to do
            _log.error("worker %d of %s cannot work: %s", post.slot, service.name, error)
            return os.EX_UNAVAILABLE
        except Exception:  # noqa: BLE001 - logged with its traceback; the supervisor starts another
            _log.exception("worker %d of %s failed", post.slot, service.name)
            return os.EX_SOFTWARE
    return os.EX_OK


async def _serve(service: Service, post: Post) -> None:
    async with AsyncExitStack() as stack:
        settings = post.policy.settings
        tools = await stack.enter_async_context(open_tools(settings))
        opened = await stack.enter_async_context(open_observers(post.policy, service.name, tools))
        engine = Engine(post.policy, tools, opened.all)
        await engine.open()
        stack.push_async_callback(engine.close)
        stage: StageName = "message" if service.name == "milter" else "recipient"
        opened.dependencies = partial(engine.dependencies, stage)
        await engine.ahead(stage)
        worker = Worker(post.slot, post.listener, engine, settings, post.control, post.inbox, opened)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.go, worker.grace)
        post.control.setblocking(False)
        post.inbox.setblocking(False)
        worker.beat()
        loop.add_reader(post.control, worker.obey)
        await service.serve(worker)
        loop.remove_reader(post.inbox)
        loop.remove_reader(post.control)

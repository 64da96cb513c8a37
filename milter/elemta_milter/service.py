"""Service: how does one worker serve the milter protocol until it is told to stop?

libmilter listens on the socket that all workers share, on a thread of its own; the engine lives on the worker's
loop.  To stop, it is shown a closed door: new connections go to the other workers, and those that are open here end in
their own time, by the worker's deadline: libmilter cannot hand them over.

libmilter cannot be ended in good order while sessions are open, and its threads may call into Python at any moment:
after `serve` returns, the process must end by os._exit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from elemta.case import Case
from elemta.config.model import Settings
from elemta.daemon.worker import Worker
from elemta.decision import Decision
from elemta.engine import Engine
from elemta.facts import Client
from elemta.journal import Act, Deed, JournalError, record
from elemta.rules.sets import members
from elemta_milter.door import Door
from elemta_milter.keyring.watch import watch
from elemta_milter.port import Port
from elemta_milter.vouching import Voucher
from elemta_milter.wire import Wire

_log = logging.getLogger("elemta.milter")
LOOK = 0.05
"""Seconds between two looks at what is still open while draining."""
SETTLE = 0.3
"""Seconds in which a connection that was accepted just before says who it is: until then nobody counts it."""


class MilterService:
    """Judge whole messages for Postfix over the milter protocol."""

    name = "milter"
    _failure: BaseException | None = None  # of libmilter

    async def serve(self, worker: Worker) -> None:
        """Answer Postfix until `worker.stopping`; return when drained, or at `worker.deadline`.

        Raises:
            RuntimeError: libmilter gave up.
        """
        loop, engine, settings = asyncio.get_running_loop(), worker.engine, worker.settings
        undone = partial(_undone, worker, loop)
        port = Port(partial(Case, engine, settings.milter.budget), loop, settings.milter.budget, undone)
        voucher = Voucher.of(engine.policy.parts, settings.host)
        wire = Wire(
            port,
            settings,
            early=engine.wants.early,
            body=engine.wants.body,
            trusts=trust(engine),
            undone=undone,
            voucher=voucher,
        )
        metrics = worker.opened.metrics
        metrics.gauge(metrics.connections, lambda: wire.connections)
        door = Door(worker.listener)
        wire.listen(door.descriptor)
        threading.Thread(target=self._run, args=(wire, worker, loop), name="libmilter", daemon=True).start()
        worker.ready()
        watching = [asyncio.create_task(door.watch())]
        if worker.slot == 0 and voucher is not None:  # one worker looks after the keys that sign and seal
            watching.append(asyncio.create_task(watch(settings, voucher.keys, engine.tools, metrics)))
        await worker.stopping.wait()
        for each in watching:
            each.cancel()
        if self._failure is not None:
            raise RuntimeError("libmilter gave up") from self._failure
        door.shut()
        worker.closed()
        await _drain(wire, worker)

    def _run(self, wire: Wire, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        """Be libmilter's thread."""
        _stay(worker.slot, worker.settings.milter.workers)
        try:
            wire.run()
            self._failure = RuntimeError("it stopped by itself")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the worker must end and say so
            self._failure = error
        loop.call_soon_threadsafe(worker.stopping.set)


def _stay(slot: int, workers: int) -> None:
    """Keep this thread, and those that it starts, on one processor, where each gets as many workers as the others.

    The threads of a worker take turns at the interpreter. On several processors they spend up to a tenth of their time
    on waiting for each other there, and on fetching from another processor's cache what they need.
    """
    with suppress(OSError):  # a processor was taken away just now, or we may not ask
        processors = sorted(os.sched_getaffinity(0))  # those that we may use: systemd's CPUAffinity=, a cpuset
        if workers % len(processors) == 0:
            os.sched_setaffinity(0, {processors[slot % len(processors)]})


def trust(engine: Engine) -> Callable[[Client], bool]:
    """Tell by a client's address whether it may bring Authentication-Results in our name (milter.trusted)."""
    names = engine.policy.settings.milter.trusted
    sets = [engine.policy.sets[name] for name in names if name in engine.policy.sets]
    networks = members(name for name in names if name not in engine.policy.sets)

    def trusts(client: Client) -> bool:
        address = client.address
        return address is not None and (address in networks or any(address in named.members for named in sets))

    return trusts


def _undone(worker: Worker, loop: asyncio.AbstractEventLoop, decision: Decision) -> None:
    """Tell log, limits and journal that what was decided was not done."""
    _log.error("decision %s was not carried out, the mail is deferred", decision.id)
    worker.engine.undone(decision)
    act = Act(decision.id, time.time(), Deed.UNDONE, "elemta-milter")
    loop.call_soon_threadsafe(loop.run_in_executor, worker.engine.tools.threads, _kept, worker.settings, act)


def _kept(settings: Settings, act: Act) -> None:
    try:
        record(settings.journal.path, [act])
    except JournalError as error:
        _log.error("the journal is not told that decision %s was not carried out: %s", act.id, error)


async def _drain(wire: Wire, worker: Worker) -> None:
    began = time.monotonic()
    while wire.connections or time.monotonic() < began + SETTLE:
        if time.monotonic() >= worker.deadline:
            break
        await asyncio.sleep(LOOK)  # libmilter's threads set no event
    if wire.connections:
        lasted = time.monotonic() - began
        _log.warning("%d connections are still open after %.0f s: they are cut", wire.connections, lasted)

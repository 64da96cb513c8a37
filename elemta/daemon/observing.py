"""Observing: what does each process of a daemon tell the administrator, and where?

The supervisor has one `Observing`: its log, its counters, and the status file that /readyz reads.  Each worker opens
its own observers after the fork: the mail log, the metrics and the journal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import uvloop

from elemta.check import Tools
from elemta.config.model import Milter, Policyd, Settings
from elemta.daemon.keeper import keep
from elemta.daemon.status import WorkerStatus, abandon, metrics_directory, write_status
from elemta.decision import Observer
from elemta.dns import CachedResolver
from elemta.journal import Courier
from elemta.observe import Log, MailLog, Metrics
from elemta.observe.log import Told
from elemta.observe.metrics import bury, prepare
from elemta.policy import Policy


def section(settings: Settings, daemon: str) -> Milter | Policyd:
    """The daemon's own section of the settings."""
    return settings.milter if daemon == "milter" else settings.policyd


class Observing:
    """What the supervisor tells.

    Attributes:
        log: standard error.
        daemon: "milter" or "policyd".
    """

    def __init__(self, settings: Settings, daemon: str) -> None:
        self.daemon = daemon
        self.directory = metrics_directory(settings)
        self.log = Log(settings.log.format, settings.log.level, daemon=daemon)
        self._metrics: Metrics | None = None
        self._told: Mapping[str, object] = {}  # what stands in the status file
        self._complained = False
        self._unreachable = ""

    def start_metrics(self) -> None:
        """Begin to count, as the user that the workers will be.

        Raises:
            OSError: the directory cannot be written.
        """
        prepare(self.directory, self.daemon)
        self._metrics = Metrics(self.directory, self.daemon, "supervisor")

    def follow(self, settings: Settings) -> None:
        """Tell from now on where, and in the form, that a new policy says."""
        self.log = Log(settings.log.format, settings.log.level, daemon=self.daemon)
        if (directory := metrics_directory(settings)) == self.directory or self._metrics is None:
            return
        try:
            there = Metrics(directory, self.daemon, "supervisor")
        except OSError as error:  # its workers could write there
            self.log.trouble(f"{error}; /readyz is not told how many workers answer")
            return
        self._metrics.close()
        self._metrics = there
        self.gone()
        self.directory, self._told = directory, {}

    def ended(self, status: int) -> None:
        """A process ended; one that was killed did not put its gauges in order."""
        if status and self._metrics is not None:
            with suppress(OSError):
                bury(self.directory, self.daemon)

    def died(self, slot: int, how: str, lived: float, pause: float) -> None:
        """A worker ended by itself."""
        self.log.worker_died(slot, how=how, lived=round(lived, 1), next_try=round(pause, 1))
        if self._metrics is not None:
            self._metrics.restarted()
            self._metrics.flush()

    def reloaded(self, *, ok: bool, **more: Told) -> None:
        """The configuration was read again."""
        self.log.reloaded(ok=ok, **more)
        if self._metrics is not None:
            self._metrics.reloaded(ok=ok)
            self._metrics.flush()

    def status(self, *, unreachable: str, **told: object) -> None:
        """Say for /readyz how many workers answer; where that cannot be written, it is tried again at the next call.

        Args:
            unreachable: why nobody can connect; "" for nothing.
            told: see `write_status`.
        """
        if unreachable and unreachable != self._unreachable:
            self.log.trouble(unreachable)
        self._unreachable = unreachable
        told["unreachable"] = unreachable
        if told == self._told:
            return
        try:
            write_status(self.directory, self.daemon, {"pid": os.getpid(), **told})
        except OSError as error:  # a full disk must not end the daemon
            if not self._complained:
                self.log.trouble(f"/readyz is not told how many workers answer: {self.directory}: {error.strerror}")
            self._complained = True
        else:
            self._told, self._complained = told, False

    def gone(self) -> None:
        """This daemon has stopped on purpose: /readyz shall not wait for it."""
        with suppress(OSError):
            write_status(self.directory, self.daemon, None)


@dataclass
class Opened:
    """The observers of one worker.

    Attributes:
        dependencies: `Engine.dependencies`, once there is an engine: what /readyz and the metrics tell of them.
    """

    log: Log
    metrics: Metrics
    journal: Courier
    all: tuple[Observer, ...]
    dependencies: Callable[[], Mapping[tuple[str, str], str]] = dict


@asynccontextmanager
async def open_observers(policy: Policy, daemon: str, tools: Tools) -> AsyncIterator[Opened]:
    """The worker's mail log, metrics and journal; complete at the end of a clean stop."""
    settings = policy.settings
    directory = metrics_directory(settings)
    log = Log(settings.log.format, settings.log.level, daemon=daemon)
    metrics = Metrics(directory, daemon)
    journal = Courier(settings.journal.path, log.trouble)
    journal.policy(policy.fingerprint, policy.describe())
    metrics.gauge(metrics.journal_queue, lambda: journal.waiting)
    metrics.count(metrics.journal_written, lambda: journal.written)
    metrics.count(metrics.journal_dropped, lambda: journal.dropped)
    metrics.count(metrics.journal_failures, lambda: journal.failures)
    metrics.count(metrics.log_dropped, lambda: log.dropped)
    if isinstance(tools.resolver, CachedResolver):
        counts = tools.resolver.counts
        metrics.count(metrics.dns_hits, lambda: counts.hits)
        metrics.count(metrics.dns_queries, lambda: counts.queries)
        metrics.count(metrics.dns_errors, lambda: counts.errors)
    status = WorkerStatus(directory, metrics.identity)

    mail_log = MailLog(log, asyncio.get_running_loop())
    opened = Opened(log, metrics, journal, (mail_log, metrics, journal))

    def tell() -> None:
        states = opened.dependencies()
        metrics.depends(states)
        left_alone = tuple(
            f"check {check}: {name} does not answer: {why}" for (check, name), why in states.items() if why
        )
        known = {check for check, _ in states}
        silent = tuple(f"check {name} does not answer" for name in metrics.silent if name not in known)
        status.tell((*left_alone, *silent, *((f"journal: {journal.trouble}",) if journal.trouble else ())))

    metrics.each_second(tell)
    journal.open()
    metrics.open()
    try:
        yield opened
    finally:
        await journal.close()
        metrics.close()
        mail_log.close()
        status.gone()


def be_keeper(settings: Settings, daemon: str, control: socket.socket, ready: bytes) -> int:
    """Be the keeper process until told to stop, or until the supervisor is gone; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor = os.getppid()

    async def run() -> None:
        stopping, alone = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        control.setblocking(False)

        def orphaned() -> None:
            """The supervisor says nothing to a keeper, so what is heard is its end."""
            alone.set()
            stopping.set()

        loop.add_reader(control, orphaned)
        control.send(ready)
        await keep(settings, daemon, stopping)
        if alone.is_set():
            abandon(metrics_directory(settings), daemon, supervisor)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    return os.EX_OK

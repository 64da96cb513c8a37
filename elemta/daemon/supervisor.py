"""The supervisor: are N workers answering, with the policy that the administrator wrote last?

It binds the socket, forks workers on fixed slots and a keeper beside them, restarts whoever dies (with
back-off) or hangs, and on SIGHUP forks a new generation with the new policy: only when every new worker answers are the
old ones told to hand over and go; otherwise the new ones go and the old ones stay.  It runs no thread and no
event loop, so that it can fork at any time.  SIGUSR1 has it, a worker or the keeper write the stack of every thread on
standard error, and work on.

    supervisor = Supervisor(service, load, watch)      load() -> Policy, or raises ConfigErrors
    status = supervisor.run(policy, listener)
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

from elemta.config.problems import ConfigErrors
from elemta.daemon import sdnotify, sockets
from elemta.daemon.birth import fork, send_away
from elemta.daemon.generation import KEEPER, Generation, Process, how_it_ended
from elemta.daemon.observing import Observing, section
from elemta.daemon.overdue import Overdue
from elemta.daemon.worker import CLOSED, READY, Service
from elemta.policy import Policy
from elemta.version import VERSION

_log = logging.getLogger("elemta.daemon.supervisor")

START_LIMIT = 30.0  # seconds in which a new generation must answer
MOST_LEAVING = 3  # generations that may take their time; one more, and the oldest has no more than GRACE
SETTLED = 30.0  # seconds after which a worker's death is its first again
POLL = 0.5  # seconds


class Supervisor:
    """Keeps one daemon's processes; see the module's docstring."""

    def __init__(self, service: Service, load: Callable[[], Policy], watch: Observing) -> None:
        self.service = service
        self.load = load
        self.watch = watch
        self.current: Generation | None = None
        self.candidate: Generation | None = None
        self.replaced: Generation | None = None  # whose workers may still take a connection
        self.leaving: list[Generation] = []
        self.stopping = False
        self.restarts = 0
        self._signals: list[int] = []
        self._again = False
        self._stopping_since = 0.0
        self._overdue = Overdue()
        self._watchdog = sdnotify.Watchdog()
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self, policy: Policy, listener: socket.socket) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._noted)
        faulthandler.register(signal.SIGUSR1)  # for all processes: one without it would end
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self.candidate = self._generation(policy, listener)
        while not (self.stopping and not self._all()):
            for key, _ in self._selector.select(POLL):
                self._heard(key)
            self._handle_signals()
            self._reap()
            self._promote()
            self._tell_of_reload()
            self._turn_away()
            if self._again and not self._reloading:
                self._again = False
                self._reload()
            self._restart()
            self._overdue.end(self._all())
            self._watchdog.alive()
            self._report()
            if self.current is None and self.candidate is None and not self.stopping:
                return os.EX_SOFTWARE  # the first generation never answered; its workers said why
        self.watch.log.stopped(seconds=round(time.monotonic() - self._stopping_since, 1))
        return os.EX_OK

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _heard(self, key: selectors.SelectorKey) -> None:
        if key.fd == self._wake_r:
            with suppress(BlockingIOError):
                os.read(self._wake_r, 4096)
            return
        process: Process = key.data
        try:
            data = process.control.recv(64)
        except OSError:
            data = b""
        process.heard = time.monotonic()
        if data == READY:
            process.ready = True
        elif data == CLOSED:
            process.takes_none()
        elif not data:
            self._selector.unregister(process.control)

    def _handle_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP:
                self._reload()

    def _stop(self) -> None:
        if self.stopping:
            return
        self.stopping = True
        self._stopping_since = time.monotonic()
        sdnotify.notify("STOPPING=1")
        self.watch.log.note("stopping: finishing what is under way")
        for generation in self._generations():
            for process in generation.processes.values():
                send_away(process, None)

    def _reload(self) -> None:
        if self.stopping:
            return
        if self._reloading:
            self._again = True  # one reload, or the start, at a time; this one follows
            return
        sdnotify.reloading()
        try:
            self.candidate = self._generation(self.load())
        except (ConfigErrors, OSError) as error:
            self._refuse(f"{error}; the old policy stays in force")
        except Exception as error:  # noqa: BLE001 - whatever a new policy does, the old one serves on
            _log.exception("the new policy could not be read")
            self._refuse(f"{error!r}; the old policy stays in force")

    def _refuse(self, reason: str) -> None:
        self.watch.reloaded(ok=False, reason=reason)
        sdnotify.notify("READY=1", "STATUS=reload refused, see the log")

    def _listener_for(self, policy: Policy) -> socket.socket:
        """The current listener, or a new one where the address has changed, or leads to it no more."""
        assert self.current is not None  # noqa: S101 - a reload follows a start
        new, old = section(policy.settings, self.service.name), self.current
        same = old.listen == new.listen and not sockets.unreachable(old.listener, old.listen)
        return old.listener if same else sockets.listen(new.listen, new.group)

    @property
    def _reloading(self) -> bool:
        return self.candidate is not None or self.replaced is not None

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────

    def _generation(self, policy: Policy, listener: socket.socket | None = None) -> Generation:
        inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        own = section(policy.settings, self.service.name)
        gc.collect()
        gc.freeze()  # the policy's pages stay shared with the workers
        listener = listener or self._listener_for(policy)  # last: a new place where nobody answers shall not be left
        generation = Generation(policy, own.workers, own.listen, listener, inbox)
        all(self._fork(generation, slot) for slot in generation.slots)  # where one has no room, the others go again
        return generation

    def _promote(self) -> None:
        """Put the candidate in force when all of it answers; drop it when it cannot."""
        candidate = self.candidate
        if candidate is None:
            return
        if candidate.ready and not self.stopping:  # else the old workers would hand over to some that go, too
            old, self.current, self.candidate = self.current, candidate, None
            if old is None:
                self.watch.log.started(version=VERSION, listen=str(candidate.listen), **candidate.told)
                self._in_force(candidate)
            else:
                self._retire(old, candidate)
                self.replaced = old
                self.watch.follow(candidate.policy.settings)
        elif self.stopping or candidate.deaths or time.monotonic() - candidate.born > START_LIMIT:
            self.candidate = None
            self._retire(candidate, None if self.stopping else self.current)  # some may have taken connections
            if self.current is not None:
                if not self.stopping:
                    self._refuse("the new workers did not come up; the old policy stays in force")
                if candidate.listener is not self.current.listener:
                    sockets.remove(candidate.listener, candidate.listen)

    def _tell_of_reload(self) -> None:
        """Say that the new policy is in force once no old worker takes a connection any more, or lives (GRACE)."""
        old = self.replaced
        if old is not None and old.closed and self.current is not None:
            self.replaced = None
            if old.listener is not self.current.listener:
                sockets.remove(old.listener, old.listen)
            self.watch.reloaded(ok=True, **self.current.told)
            self._in_force(self.current)

    def _in_force(self, generation: Generation) -> None:
        if not self.stopping:
            sdnotify.notify("READY=1", f"STATUS=answering with policy {generation.policy.fingerprint}")

    def _retire(self, old: Generation, new: Generation | None) -> None:
        for process in old.processes.values():
            send_away(process, new.inbox[1] if new and process.ready else None)
        if old.processes:
            self.leaving.append(old)
        else:
            old.close()
        for earlier in self.leaving[:-MOST_LEAVING]:
            for process in earlier.processes.values():
                send_away(process, None)

    def _turn_away(self) -> None:
        """On a stop, let nobody wait for an answer who will get none: Postfix then says 4xx at once."""
        if self.stopping and self.current is not None and all(each.closed for each in self._generations()):
            sockets.shut(self.current.listener)

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────

    def _fork(self, generation: Generation, slot: int) -> bool:
        """Start the process of a slot; False where the system has no room for it, now."""
        try:
            process = fork(self.service, generation, slot, partial(self._forget, generation))
        except OSError as error:
            _log.error("cannot start a process: %s", error.strerror)
            generation.again_later(slot)
            return False
        generation.processes[process.pid] = process
        self._selector.register(process.control, selectors.EVENT_READ, process)
        return True

    def _forget(self, own: Generation) -> None:
        """In a child of `own`: close what is the supervisor's, lest its sockets stay open because of us."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
        for other in (*self._all(), *own.processes.values()):  # which may be none of the supervisor's generations yet
            other.control.close()
        for generation in self._generations():
            if generation is not own:
                generation.close()  # what is handed to workers that are gone would wait in their inbox for ever

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for generation in self._generations():
                process = generation.processes.pop(pid, None)
                if process is not None:
                    self._died(generation, process, status)

    def _died(self, generation: Generation, process: Process, status: int) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(process.control)
        process.control.close()
        self.watch.ended(status)
        if not generation.processes and (self.stopping or generation in self.leaving):
            self.leaving = [each for each in self.leaving if each is not generation]
            generation.close()  # what was handed to it and not taken is closed, too
        if process.leaving:
            return
        lived = time.monotonic() - process.born
        if lived > SETTLED:
            generation.deaths.pop(process.slot, None)
        pause = generation.again_later(process.slot)
        self.restarts += 1
        self.watch.died(process.slot, how_it_ended(status), lived, pause)

    def _restart(self) -> None:
        generation = self.current
        if generation is None or self.stopping:
            return
        now = time.monotonic()
        for slot, when in list(generation.restart_at.items()):
            if when <= now:
                del generation.restart_at[slot]
                self._fork(generation, slot)

    def _generations(self) -> list[Generation]:
        return [each for each in (self.current, self.candidate, *self.leaving) if each is not None]

    def _all(self) -> list[Process]:
        return [process for generation in self._generations() for process in generation.processes.values()]

    def _report(self) -> None:
        """Write for /readyz how many workers answer, and whether anybody can ask them."""
        generation = self.current or self.candidate
        if generation is None:
            return
        ready = sum(process.ready for process in generation.processes.values() if process.slot != KEEPER)
        newest = self.candidate or generation
        self.watch.status(
            workers=generation.workers,
            ready=ready,
            restarts=self.restarts,
            policy=generation.policy.fingerprint,
            unreachable="" if self.stopping else sockets.unreachable(newest.listener, newest.listen),
        )

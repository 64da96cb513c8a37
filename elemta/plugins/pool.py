"""The pool: which process of a plugin is asked, and when is the plugin left alone?

Up to `processes` of them, started when they are first needed; a question waits its turn within its mail's time, for the
process that is free first: a start takes far longer than most answers.  One that ended, or whose memory grows, is
replaced in the background, so that the next question finds the new one ready.
After `FAILURES` in a row the plugin is left alone: questions then cost microseconds.  After a pause a new process is
started; if it starts, one single question is tried on it; its answer ends the pause, another failure doubles it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from elemta.plugins.process import LEAVE, Process, ProcessError
from elemta.plugins.wire import Json

FAILURES = 3
PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds

_TOO_LATE = "it was not ready in time"

_log = logging.getLogger("elemta.plugins")


class Pool:
    """The processes of one plugin in one worker. Lives on the loop."""

    def __init__(self, name: str, what: Json, processes: int, make: Callable[[str], Process] = Process) -> None:
        """Start nothing yet.

        Args:
            name: the plugin's.
            what: what each process shall be, for `child.py`.
            processes: at most so many.
            make: starts one.
        """
        self._name = name
        self._what = what
        self._make = make
        self._most = processes
        self._slots = asyncio.Semaphore(processes)
        self._idle: list[Process] = []
        self._usable: set[Process] = set()  # idle, asked or starting
        self._starting = 0
        self._wanted: deque[asyncio.Future[Process]] = deque()  # never more than are starting: each will be served
        self._processes: set[Process] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._questions: set[asyncio.Task[Any]] = set()
        self._failures = 0
        self._why = ""
        self._pause = PAUSE
        self._open = self._trial = self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def why(self) -> str:
        """Why the plugin is left alone at present; "" while it is asked, and once a process is ready to be tried."""
        return self._why if self._open and not self._trial else ""

    @property
    def depends(self) -> Mapping[str, str]:
        """What the plugin said lately that it depends on."""
        said: dict[str, str] = {}
        for process in (each for each in self._processes if not each.gone):
            said.update({key: why or said.get(key, "") for key, why in process.depends.items()})
        return said

    def ahead(self) -> asyncio.Task[Any]:
        """Start one process, so that the first question need not wait for it; done when it is ready, or cannot be."""
        return self._background(self._refill())

    async def ask(self, question: Json, body: Callable[[], int | None], until: float) -> Json:
        """The plugin's answer.

        When the caller is cancelled, the process keeps the question until it answers or its time is over.

        Args:
            question: see `Process.ask`.
            body: opens the mail's body, for this question only.
            until: `time.monotonic()` when nobody waits any more. A process may then go on for a while: it has half of
                the time for each question, however late in a burst it gets it, before it is ended for a failure.

        Raises:
            ProcessError: there is none.
            OSError: the question cannot be written down.
        """
        self._refuse_if_open()
        half = (until - time.monotonic()) / 2
        await self._slots.acquire()
        try:
            self._refuse_if_open()
            if self._open:
                self._trial, self._timer = False, None  # this is the one question
            task = self._background(self._ask(question, body, until, half))
        except BaseException:
            self._slots.release()
            raise
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # not our caller was
                raise ProcessError("the worker is ending") from None
            raise

    async def close(self) -> None:
        """Let all processes end; questions under way are answered first, if that is quick."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._questions:
            await asyncio.wait(self._questions, timeout=LEAVE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(process.leave() for process in self._processes))

    async def _ask(self, question: Json, body: Callable[[], int | None], until: float, half: float) -> Json:
        """Ask with a slot taken, and give it back."""
        process: Process | None = None
        trying = self._open
        try:
            process = await self._take()
            if time.monotonic() >= until:  # nobody waits any more: no reason to end a process that has just begun
                raise TimeoutError(_TOO_LATE)
            descriptor = body()
            try:
                answer = await process.ask(question, descriptor, max(until, time.monotonic() + half))
            finally:
                if descriptor is not None:
                    os.close(descriptor)
        except ProcessError as error:
            self._failed(str(error))
            raise
        else:
            self._answered()
            return answer
        finally:
            if process is not None:
                self._put_back(process)
            if trying and self._open and self._timer is None:
                self._trial = True  # nothing was decided
            self._slots.release()

    async def _take(self) -> Process:
        """The process that is free first: idle, given back meanwhile, or newly started."""
        while self._idle:
            process = self._idle.pop()
            if not process.gone:
                return process
            self._dismiss(process)
        if len(self._usable) < self._most:  # else one is starting that nobody waits for
            self._start()
        wanted: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._wanted.append(wanted)
        return await wanted

    def _start(self) -> None:
        try:
            process = self._make(self._name)
        except OSError as error:
            raise ProcessError(f"it cannot be started: {error}") from error
        self._processes.add(process)
        self._usable.add(process)
        self._starting += 1
        self._background(self._get_ready(process))

    async def _get_ready(self, process: Process) -> None:
        try:
            await process.start(self._what)
        except BaseException as error:
            process.kill()
            self._starting -= 1
            self._dismiss(process)
            if len(self._wanted) > self._starting:
                wanted = self._wanted.popleft()
                if not wanted.done():
                    wanted.set_exception(error)  # whose question it is counts the failure
            elif isinstance(error, ProcessError):
                self._failed(str(error))
            raise
        self._starting -= 1
        self._offer(process, 0)

    def _offer(self, process: Process, place: int) -> None:
        """Give it to who has waited longest, or put it at this place among the idle ones."""
        while self._wanted:
            wanted = self._wanted.popleft()
            if not wanted.done():
                wanted.set_result(process)
                return
        self._idle.insert(place, process)

    def _put_back(self, process: Process) -> None:
        if not process.gone and not process.tired:
            self._offer(process, len(self._idle))
            return
        self._dismiss(process)
        if not self._open and not self._closed:
            self._background(self._refill())

    def _dismiss(self, process: Process) -> None:
        """Let it end; it is ours until its exit status is taken."""
        self._usable.discard(process)
        if not self._closed:
            self._background(process.leave()).add_done_callback(lambda _: self._processes.discard(process))

    async def _refill(self) -> None:
        """Have one process ready, unless all are in use."""
        if self._closed:
            return
        if self._slots.locked():
            if self._open:
                self._try_later()
            return
        async with self._slots:
            try:
                self._offer(await self._take(), 0)
            except ProcessError as error:
                self._failed(str(error))
            else:
                self._trial = self._open

    def _background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; nobody else has to

    # ── the breaker ──────────────────────────────────────────────────────────────────────────────────────

    def _refuse_if_open(self) -> None:
        if self._open and not self._trial:
            raise ProcessError(f"it is left alone, after {self._failures} failures in a row: {self._why}")

    def _answered(self) -> None:
        if self._open:
            _log.warning("plugin %s answers again", self._name)
        self._failures, self._why, self._pause, self._open, self._trial = 0, "", PAUSE, False, False

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._why = why
        if self._open:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        elif self._failures < FAILURES:
            _log.warning("plugin %s: %s", self._name, why)
            return
        else:
            _log.error("plugin %s is left alone, after %d failures in a row: %s", self._name, self._failures, why)
        self._open, self._trial = True, False
        self._try_later()

    def _try_later(self) -> None:
        """Have a process ready for one question when the pause is over."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._pause, lambda: self._background(self._refill()))

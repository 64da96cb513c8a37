"""Port: how does a step on a thread of libmilter's reach the engine on the worker's loop, and a decision come back?

Starting and cancelling never wait.  Deciding waits on the calling thread, a little longer than the mail's budget at
most, and lets the MTA know now and then that we are still at work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from elemta.case import Case
from elemta.decision import Decision
from elemta.facts import Envelope, Message
from elemta_milter.bounds import BOUNDS


class Port:
    """The engine, reached from any thread."""

    def __init__(
        self,
        case: Callable[[], Case],
        loop: asyncio.AbstractEventLoop,
        budget: float,
        undone: Callable[[Decision], None],
    ) -> None:
        """Prepare.

        Args:
            case: makes a case.
            loop: the engine lives on it.
            budget: the seconds that one mail may take.
            undone: is told, on the loop, of a decision that came when nobody waited for it any more.
        """
        self._case = case
        self._loop = loop
        self._undone = undone
        self._limit = budget + BOUNDS.margin

    def start(self, envelope: Envelope) -> Case:
        """Begin a mail; early checks run from now on."""
        case = self._case()
        if not case.start_now(envelope):
            self._loop.call_soon_threadsafe(case.start, envelope)
        return case

    def cancel(self, case: Case) -> None:
        """Forget a mail."""
        self._loop.call_soon_threadsafe(case.cancel)

    def decide(self, case: Case | None, message: Message, progress: Callable[[], None]) -> Decision:
        """Wait for the decision on a mail (a new one without `case`), calling `progress` while it takes long.

        Raises:
            TimeoutError: none came within the budget and its margin.
            Exception: of `progress`: the MTA is gone, and nobody decides any more.
        """
        if case is not None and (at_once := case.message_now(message)) is not None:
            return at_once  # no loop, no waiting: the early checks are done and no others are enabled
        judged = case or self._case()
        answered = threading.Lock()  # a lock and a task cost half of run_coroutine_threadsafe and its future
        answered.acquire()
        tasks: list[asyncio.Task[Decision]] = []

        def begin() -> None:
            task = self._loop.create_task(judged.message(message))
            tasks.append(task)
            task.add_done_callback(lambda _: answered.release())

        def give_up() -> None:  # after `begin`, also where that comes as late
            judged.cancel()
            tasks[0].cancel()
            tasks[0].add_done_callback(self._too_late)

        self._loop.call_soon_threadsafe(begin)
        began = time.monotonic()
        deadline = began + self._limit
        try:
            while not answered.acquire(timeout=BOUNDS.progress):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no decision within {self._limit:g} s")  # noqa: TRY301 - given up in one place
                progress()
            if time.monotonic() - began > BOUNDS.patience:
                progress()  # it may have given up meanwhile, and nobody would hear of the decision
        except BaseException:
            self._loop.call_soon_threadsafe(give_up)
            raise
        return tasks[0].result()

    def _too_late(self, task: asyncio.Task[Decision]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._undone(task.result())

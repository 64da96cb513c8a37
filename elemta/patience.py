"""Patience: how long is one thing waited for, at most?

`within` does what `asyncio.timeout` does, for one thing, in a third of its time: it stands on the hot path, and nearly
everything comes in time.  All waits of an event loop share one timer, which is set for whoever is late first and looks
at the others then; to wait and to be served costs two changes of a dictionary.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class _Wait:
    """One thing that is waited for, and by which task."""

    __slots__ = ("late", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.late = False


class _Watch:
    """The waits of one event loop.

    Attributes:
        loop: whose.
        until: by wait, when it is late, on time.monotonic().
    """

    __slots__ = ("_due", "_timer", "loop", "until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.until: dict[_Wait, float] = {}
        self._due = math.inf  # when the timer ends
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, wait: _Wait, seconds: float) -> None:
        """Let `wait` be late in so many seconds."""
        until = self.until[wait] = time.monotonic() + seconds
        if until < self._due:
            self._set(until)

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self.loop.call_later(max(0.0, due - time.monotonic()), self._look)

    def _look(self) -> None:
        """Call off what is late."""
        self._due, self._timer = math.inf, None
        now = time.monotonic()
        for wait in [wait for wait, until in self.until.items() if until <= now]:
            del self.until[wait]
            wait.late = True
            wait.task.cancel()
        if self.until:
            self._set(min(self.until.values()))


class _Here(threading.local):
    """The watch of this thread's event loop."""

    watch: _Watch | None = None


_here = _Here()


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` gives, if it does so in time.

    Args:
        seconds: how long it is waited for; if there are none left, until the loop's next turn.
        work: what is waited for.

    Raises:
        TimeoutError: it was not done, and is cancelled.
        Exception: whatever `work` raises.
    """
    loop = asyncio.get_running_loop()
    watch = _here.watch
    if watch is None or watch.loop is not loop:
        watch = _here.watch = _Watch(loop)
    task: asyncio.Task[Any] = asyncio.current_task(loop)  # type: ignore[assignment]
    cancelled_before, wait = task.cancelling(), _Wait(task)
    watch.begin(wait, seconds)
    try:
        return await work
    except asyncio.CancelledError:
        if wait.late and task.cancelling() <= cancelled_before + 1:
            raise TimeoutError from None
        raise
    finally:
        watch.until.pop(wait, None)
        if wait.late:  # also where `work` gives or raises something else when it is cancelled
            task.uncancel()

"""At once: can this be done here and now, or must somebody wait for the world?

Most mails find every answer of the name system in the cache; then no event loop is needed, and the thread that holds
the mail (libmilter's) can see and judge it by itself.  `at_once` runs a coroutine up to where it would wait; what
would wait without a loop says so by `elsewhere`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T | None:
    """Give what `work` gives; None if it would have to wait: it is then closed, and must be begun anew on the loop.

    Raises:
        Exception: whatever `work` raises.
    """
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    return None


@coroutine
def resumed(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:  # noqa: ANN401 - a future, mostly
    """Go on with `work`, which was run (`work.send(None)`) up to where it waits for `waits_for`."""
    while True:
        try:
            answer = yield waits_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation is for `work` to see
            step = partial(work.throw, error)
        else:
            step = partial(work.send, answer)
        try:
            waits_for = step()
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def eager_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task; where Python can, it begins at once: what need not wait needs no turn of the loop."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


def on_loop() -> bool:
    """Whether an event loop runs on this thread, so that one may wait."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@coroutine
def elsewhere() -> Generator[None, None, None]:
    """Stop here for good: this must wait, and may not on this thread."""
    yield

"""What is waited for too long is called off, at its own time, and nothing else is."""

import asyncio
import threading
import time

import pytest
import uvloop

from elemta.dns import DnsError
from elemta.patience import within

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


def run(work, loop=asyncio.new_event_loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(work)


async def outcome(seconds, nap):
    """How a nap ended of which so many seconds are waited for, and after how many."""
    began = time.monotonic()
    try:
        found = await within(seconds, asyncio.sleep(nap, "done"))
    except TimeoutError:
        found = "late"
    return found, time.monotonic() - began


@LOOPS
def test_each_is_late_at_its_own_time(loop):
    """Whoever comes later may have less patience, or more."""

    async def go():
        return await asyncio.gather(
            outcome(0.2, 60), outcome(0.05, 60), outcome(0.1, 0.02), outcome(0.1, 60), outcome(60, 0.4)
        )

    found = run(go(), loop)
    assert [how for how, _ in found] == ["late", "late", "done", "late", "done"]
    for (_, took), expected in zip(found, (0.2, 0.05, 0.02, 0.1, 0.4), strict=True):
        assert expected - 0.01 <= took < expected + 1.0


@LOOPS
def test_one_is_called_off_after_others_that_came_in_time(loop):
    async def go():
        for _ in range(3):
            assert (await outcome(0.02, 0))[0] == "done"
            await asyncio.sleep(0.03)
            assert (await outcome(0.02, 60))[0] == "late"

    run(go(), loop)


@LOOPS
@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_who_has_no_time_left_gets_what_is_at_hand(seconds, loop):
    async def go():
        assert (await outcome(seconds, 60))[0] == "late"

        async def at_hand():
            return 1

        assert await within(seconds, at_hand()) == 1

    run(go(), loop)


@pytest.mark.parametrize(("outer", "inner", "late"), [(0.02, 60, "outer"), (60, 0.02, "inner"), (0.02, 0.02, "outer")])
def test_of_two_waits_of_one_task_the_late_one_tells(outer, inner, late):
    """Of two that are late together the outer one, as with `asyncio.timeout`."""

    async def nap():
        try:
            return await within(inner, asyncio.sleep(60))
        except TimeoutError:
            return "inner"

    async def go():
        try:
            found = await within(outer, nap())
        except TimeoutError:
            found = "outer"
        assert asyncio.current_task().cancelling() == 0
        return found

    async def together():
        task = asyncio.create_task(go())
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the loop is busy until both are late
        return await task

    assert run(together()) == late


def test_every_loop_has_a_watch_of_its_own():
    """One after the other on a thread, one within the other, and on other threads."""

    def both():
        for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
            assert run(outcome(0.02, 60), loop)[0] == "late"
        found.append(True)

    found = []
    threads = [threading.Thread(target=both) for _ in range(3)]
    for thread in threads:
        thread.start()
    both()
    for thread in threads:
        thread.join(10)
    assert found == [True] * 4


def test_one_that_ends_slowly_is_called_off_once():
    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)

    async def go():
        others = [asyncio.create_task(outcome(seconds, 60)) for seconds in (0.03, 0.04)]
        with pytest.raises(TimeoutError):
            await within(0.02, slow())
        assert [(await other)[0] for other in others] == ["late", "late"]

    run(go())


def test_the_loop_sleeps_until_one_is_late(monkeypatch):
    async def go():
        loop, timers = asyncio.get_running_loop(), []
        later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda *given: timers.append(given) or later(*given))
        assert (await outcome(0.1, 60))[0] == "late"
        assert len(timers) < 5  # one of them is the nap's

    run(go())


def test_who_is_cancelled_is_cancelled():
    async def go():
        task = asyncio.create_task(within(60, asyncio.sleep(60)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())


@pytest.mark.parametrize(("seconds", "outcome"), [(60.0, "itself"), (0.01, "late")])
@pytest.mark.parametrize("answer", ["given", "raised", None])
def test_a_task_is_not_left_as_one_that_somebody_wants_to_end(seconds, outcome, answer):
    """Whatever becomes of what it waited for too long."""

    async def work():
        try:
            await asyncio.sleep(0.01 if seconds > 1 else 60)
        except asyncio.CancelledError:
            if answer == "raised":
                raise DnsError("a.test", "TXT", "late") from None
            if answer is None:
                raise
            return "late"
        return "itself"

    async def go():
        try:
            found = await within(seconds, work())
        except (DnsError, TimeoutError):
            found = "late"
        assert found == outcome
        assert asyncio.current_task().cancelling() == 0

    run(go())

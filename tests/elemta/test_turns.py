"""Calls that take much memory run one at a time, whoever waits for them."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from elemta.check import FEW
from elemta.testing import tools


def test_one_runs_at_a_time():
    running, most = 0, []

    def work(number):
        nonlocal running
        running += 1
        most.append(running)
        threading.Event().wait(0.01)
        running -= 1
        return number

    async def go():
        of = tools()
        return await asyncio.gather(*(of.in_turn(work, number) for number in range(5)))

    assert asyncio.run(go()) == [0, 1, 2, 3, 4]
    assert most == [1] * 5


def test_a_turn_lasts_until_its_thread_is_done():
    finish, order = threading.Event(), []

    def slow():
        finish.wait(10)
        order.append("slow")
        raise OSError("whom nobody hears")

    async def go():
        of = tools()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await of.in_turn(slow)
        other = asyncio.create_task(of.in_turn(order.append, "other"))
        await asyncio.sleep(0.05)
        assert order == []
        finish.set()
        await other
        assert order == ["slow", "other"]

    asyncio.run(go())


def test_what_goes_wrong_is_told_and_the_next_gets_its_turn():
    def broken():
        raise OSError("no disk")

    async def go():
        of = tools()
        with pytest.raises(OSError, match="no disk"):
            await of.in_turn(broken)
        assert await of.in_turn(str, 7) == "7"

    asyncio.run(go())


def test_a_call_for_which_there_is_no_thread_keeps_nobody_from_his_turn():
    class Full(ThreadPoolExecutor):
        def submit(self, *_args, **_options):
            raise RuntimeError("can't start new thread")

    async def go():
        of = tools()
        full = replace(of, threads=Full())
        for call in (full.in_turn, full.in_few):
            for _ in range(2 * FEW):
                with pytest.raises(RuntimeError, match="thread"):
                    await asyncio.wait_for(call(str, 7), 5)
        for call in (replace(full, threads=of.threads).in_turn, replace(full, threads=of.threads).in_few):
            assert await asyncio.wait_for(call(str, 7), 5) == "7"

    asyncio.run(go())


def test_of_calls_that_take_processor_time_few_run_at_a_time():
    running, most = 0, 0

    def work():
        nonlocal running, most
        running += 1
        most = max(most, running)
        threading.Event().wait(0.02)
        running -= 1

    async def go():
        of = replace(tools(), threads=ThreadPoolExecutor(16))
        await asyncio.gather(*(of.in_few(work) for _ in range(16)))

    asyncio.run(go())
    assert 1 < most <= FEW

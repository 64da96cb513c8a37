"""Draining: who was accepted just before and has not said a word yet is waited for."""

import asyncio
import time

from elemta_milter.service import _drain


class Wire:
    """A connection that is counted from `arrives` on and ends when told."""

    def __init__(self):
        self.connections = 0


class Worker:
    """One that must go within so many seconds."""

    def __init__(self, seconds):
        self.deadline = time.monotonic() + seconds


def drained(grace, story):
    async def run():
        wire, worker = Wire(), Worker(grace)
        draining = asyncio.create_task(_drain(wire, worker))
        await story(wire, draining, worker)
        await asyncio.wait_for(draining, 10)

    asyncio.run(run())


def test_a_connection_that_speaks_late_is_served_to_its_end():
    async def story(wire, draining, _worker):
        await asyncio.sleep(0.1)
        wire.connections = 1
        await asyncio.sleep(0.6)
        assert not draining.done()
        wire.connections = 0

    drained(20.0, story)


def test_the_grace_ends_the_wait_for_a_connection_that_does_not_end():
    async def story(wire, _draining, _worker):
        wire.connections = 1

    drained(0.2, story)


def test_a_stop_that_comes_while_a_replaced_worker_finishes_shortens_its_time():
    async def story(wire, draining, worker):
        wire.connections = 1
        await asyncio.sleep(0.5)
        assert not draining.done()
        worker.deadline = time.monotonic()

    drained(600.0, story)

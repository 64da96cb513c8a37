"""The cached resolver: who waits for a question, and what becomes of one that nobody waits for any more."""

import asyncio
import gc
import time
from ipaddress import IPv4Address

import pytest

from elemta.dns import DEADLINE, Answer, CachedResolver, DnsError, Status


class _Silent:
    """A name server that fails when it is told to."""

    def __init__(self):
        self.fail = asyncio.Event()

    async def ask(self, name, rdtype):
        await self.fail.wait()
        raise DnsError(name, rdtype, "SERVFAIL")

    def close(self):
        pass


async def _given_up(resolver):
    waiting = asyncio.create_task(resolver.query("slow.test", "TXT"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _out_of_time(resolver):
    DEADLINE.set(time.monotonic() + 0.01)
    with pytest.raises(DnsError, match="budget is spent"):
        await resolver.query("slow.test", "TXT")


@pytest.mark.parametrize("leave", [_given_up, _out_of_time])
def test_a_failure_that_comes_when_nobody_waits_any_more_is_no_trouble(leave):
    troubles = []

    async def go():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context["message"]))
        exchange = _Silent()
        resolver = CachedResolver(exchange, 0)
        await leave(resolver)
        assert resolver.counts.queries == 1
        exchange.fail.set()
        await asyncio.sleep(0.01)
        gc.collect()
        assert resolver.counts.errors == 1

    asyncio.run(go())
    assert troubles == []


def test_nothing_is_asked_when_the_time_is_over():
    async def go():
        resolver = CachedResolver(_Silent(), 0)
        DEADLINE.set(time.monotonic() - 1)
        with pytest.raises(DnsError, match="budget is spent"):
            await resolver.query("slow.test", "TXT")
        assert resolver.counts.queries == 0

    asyncio.run(go())


def test_whoever_closes_it_does_not_wait_for_answers():
    async def go():
        resolver = CachedResolver(_Silent(), 0)
        waiting = asyncio.create_task(resolver.query("slow.test", "TXT"))
        await asyncio.sleep(0.01)
        await asyncio.wait_for(resolver.close(), 5)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(go())


class _Always:
    """A name server that says the same of every name."""

    def __init__(self, *records):
        self.answer = Answer(Status.OK, records, 300)

    async def ask(self, _name, _rdtype):
        return self.answer

    def close(self):
        pass


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        ([IPv4Address(number) for number in range(256)], True),
        ([IPv4Address(number) for number in range(257)], False),
        ([b"x" * 4096] * 3, True),
        ([b"x" * 16384], False),
        ([(10, "x" * 250)] * 20, True),
        ([(10, "x" * 250)] * 200, False),
        (["x" * 250] * 80, False),
    ],
)
def test_a_huge_answer_is_not_kept(records, kept):
    async def go():
        resolver = CachedResolver(_Always(*records), 10)
        for _ in range(2):
            assert (await resolver.query("a.test", "ANY")).records == tuple(records)
        return resolver.counts.queries

    assert asyncio.run(go()) == (1 if kept else 2)


def test_many_large_answers_take_the_room_of_as_many_usual_ones():
    async def go():
        exchange = _Always(bytes(16_000))
        resolver = CachedResolver(exchange, 1000)
        for number in range(500):
            await resolver.query(f"{number}.test", "TXT")
        return resolver

    resolver = asyncio.run(go())
    octets = sum(len(each.records[0]) for _, each, _ in resolver._kept.values())
    assert 700_000 < octets <= 1_024_000  # it was eight million
    assert ("499.test", "TXT") in resolver._kept

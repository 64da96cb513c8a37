"""The cached resolver: who waits for a question, and what becomes of one that nobody waits for any more."""

import asyncio
import gc
import time

import pytest

from elemta.dns import DEADLINE, CachedResolver, DnsError


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

"""The cached resolver: has this been asked lately, or is it being asked just now?

An answer is kept for its TTL (bounded), a failure for a moment (RFC 9520), and a question that several mails
ask at once goes out once.  A hit never suspends the caller.  The DNS budget of the mail in hand (`DEADLINE`)
bounds every wait.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from elemta.at_once import elsewhere, on_loop
from elemta.config.model import Dns
from elemta.dns.exchange import Exchange, servers_of
from elemta.dns.port import DEADLINE, Answer, DnsError, Record
from elemta.patience import within

LONGEST = 86400.0  # seconds that any answer is kept
LONGEST_NO = 900.0  # seconds that "there is none" is kept
LARGEST = 16384  # octets in memory, about, of an answer that is kept: strangers make as many as they like
USUAL = 1024  # octets in memory for which there is room for each answer: few are larger, and most much smaller
OBJECT = 64  # octets that Python takes for one record, besides its text
FAILURE = 2.0  # seconds that a failure is kept: RFC 9520 section 3.2 wants at least one
_EVICT = 16  # when full, one part in this many makes room

Key = tuple[str, str]


@dataclass(slots=True)
class Counts:
    """What was asked of this resolver, for the metrics."""

    hits: int = 0
    queries: int = 0
    errors: int = 0


class CachedResolver:
    """A `Resolver` with a cache before an `Exchange`. One object a worker; used on its loop only."""

    def __init__(self, exchange: Exchange, capacity: int) -> None:
        """`capacity`: answers kept; 0 = none."""
        self.counts = Counts()
        self._exchange = exchange
        self._capacity = capacity
        self._kept: dict[Key, tuple[float, Answer | DnsError, int]] = {}
        self._octets = 0  # in memory, about, of all that is kept
        self._asking: dict[Key, asyncio.Task[Answer]] = {}

    async def query(self, name: str, rdtype: str) -> Answer:
        """See `Resolver.query`."""
        key = (name.lower().removesuffix("."), rdtype)
        kept = self._kept.get(key)
        if kept is not None and kept[0] > time.monotonic():
            self.counts.hits += 1
            if isinstance(kept[1], Answer):
                return kept[1]
            raise DnsError(name, rdtype, kept[1].reason)
        return await self._wait(key)

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._exchange.close()

    async def _wait(self, key: Key) -> Answer:
        """Ask, or wait for who is asking, as long as the mail's DNS budget lasts."""
        if not on_loop():
            await elsewhere()
        left = DEADLINE.get() - time.monotonic()
        if left <= 0:
            raise DnsError(*key, "the mail's DNS budget is spent")
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key))
            task.add_done_callback(_looked_at)
            self._asking[key] = task
        if left == float("inf"):
            return await asyncio.shield(task)
        try:
            return await within(left, asyncio.shield(task))  # others may be waiting for it too
        except TimeoutError:
            raise DnsError(*key, "the mail's DNS budget is spent") from None

    async def _ask(self, key: Key) -> Answer:
        self.counts.queries += 1
        try:
            answer = await self._exchange.ask(*key)
        except DnsError as error:
            self.counts.errors += 1
            self._keep(key, error, FAILURE)
            raise
        finally:
            del self._asking[key]
        longest = LONGEST if answer.records else LONGEST_NO
        octets = sum(map(_size, answer.records))
        if octets <= LARGEST:
            self._keep(key, answer, min(float(answer.ttl), longest), octets)
        return answer

    def _keep(self, key: Key, answer: Answer | DnsError, seconds: float, octets: int = 0) -> None:
        if not self._capacity or seconds <= 0:
            return
        self._forget(key)
        while len(self._kept) >= self._capacity or (self._kept and self._octets + octets > self._capacity * USUAL):
            for oldest in list(self._kept)[: max(1, len(self._kept) // _EVICT)]:
                self._forget(oldest)
        self._kept[key] = (time.monotonic() + seconds, answer, octets)
        self._octets += octets

    def _forget(self, key: Key) -> None:
        _, _, octets = self._kept.pop(key, (0.0, None, 0))
        self._octets -= octets


def _size(record: Record) -> int:
    """Octets in memory, about."""
    text = record[1] if isinstance(record, tuple) else record
    return OBJECT + (len(text) if isinstance(text, str | bytes) else 0)


def _looked_at(task: asyncio.Task[Answer]) -> None:
    """Take note of a failure that no mail waits for any more; asyncio would log it with a traceback."""
    if not task.cancelled():
        task.exception()


def open_resolver(settings: Dns) -> CachedResolver:
    """The resolver that the settings describe.

    Raises:
        NoServers: none is configured.
    """
    return CachedResolver(Exchange(servers_of(settings.servers), settings.timeout), settings.cache)

"""State in Redis or Valkey (6.2 or newer): for several mail servers that share greylisting, limits, sets and contacts.

One server, a master that sentinels name, or a cluster; see `elemta.config.state_url`.  What is remembered of one thing
is one value: it is read, judged by the same pure functions as in the SQLite store, and written if nobody else has
written meanwhile, else all is done again.  What counts over several keys (`redis_limits`) is a script.  Every key has
an end, told to the server in milliseconds from now on, so that machines whose clocks differ do no harm; `expire` has
only sets to look at.

    elemta:grey:TRIPLET, elemta:net:NETWORK, elemta:pair:PAIR    JSON
    elemta:{sets}:entries:NAME                                   a sorted set, by end; elemta:{sets}:version
    elemta:{limits}:…                                            see `redis_limits`

A call ends within `PATIENCE`.  A server that did not answer in time several times in a row is left alone for a moment,
so that not every mail waits for it.  Nothing is asked when a store is opened: a server that is not there is trouble of
the mail that needs it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha1
from typing import Any, ParamSpec, TypeVar

import msgspec
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as Slow

from elemta.config.state_url import StatePlace
from elemta.store import Grey, GreyTerms, Quota, StoreError, Use, redis_limits
from elemta.store.greylisting import Network, Triplet, attempt
from elemta.store.redis_client import CONNECTIONS, connected

PATIENCE = 5.0  # seconds that a call takes at most
TRIES = 100  # how often others may have been faster
LATE = 3  # times in a row without an answer in time, after which the server is left alone
SOON = 0.2  # seconds after which whoever stops waiting, such as a check with a timeout of its own, had none in time
ALONE = 2.0  # seconds between two calls then

_SWAP = """
    if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
"""
_ADD_TO_SET = """
    if redis.call('ZADD', KEYS[1], 'GT', 'CH', ARGV[1], ARGV[2]) == 0 then return 0 end
    redis.call('SADD', KEYS[3], KEYS[1])
    return redis.call('INCR', KEYS[2])
"""
_REMOVE_FROM_SET = """
    if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
    return redis.call('INCR', KEYS[2])
"""
_VERSION, _NAMES, _ENTRIES = b"elemta:{sets}:version", b"elemta:{sets}:names", b"elemta:{sets}:entries:"

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M")


class RedisStore:
    """The `Store` port on the server, the sentinels or the cluster at `place`."""

    def __init__(self, place: StatePlace) -> None:
        self._name = str(place)
        self._client, self._sentinels = connected(place)
        self._read: Callable[[Sequence[bytes]], Awaitable[list[bytes | None]]] = (
            self._client.mget_nonatomic if place.scheme == "redis+cluster" else self._client.mget
        )
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._late = 0
        self._again = 0.0

    async def greylist(self, triplet: str, network: str, now: float, terms: GreyTerms) -> Grey:
        """Count an attempt; who is known or proven costs a read only."""
        keys = (b"elemta:grey:" + _octets(triplet), b"elemta:net:" + _octets(network))
        return await self._ask(self._count, keys, now, terms)

    async def reserve(self, message: str, quotas: Sequence[Quota], now: float) -> Sequence[Use]:
        """Reserve all or none; see the port."""
        return await self._ask(redis_limits.reserve, self._run, message, quotas, now)

    async def consume(self, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float) -> int:
        """Make final what was reserved; see the port."""
        return await self._ask(redis_limits.consume, self._run, message, queue_id, within, now)

    async def release(self, message: str, part: str | None = None, keys: Sequence[str] = ()) -> int:
        """Reserve nothing any more; see the port."""
        return await self._ask(redis_limits.release, self._run, message, part, keys)

    async def give_back(self, queue_id: str) -> bool:
        """Take back what was made final; see the port."""
        return await self._ask(redis_limits.give_back, self._run, queue_id)

    async def contacts(self, pairs: Sequence[str], now: float) -> Mapping[str, float]:
        """Which pairs are remembered, and since when."""
        if not pairs:
            return {}
        found = {}
        for pair, raw in zip(pairs, await self._ask(self._read, [_pair(pair) for pair in pairs]), strict=True):
            memory = _memory(raw, tuple[float, float])
            if memory is not None and memory[1] > now:
                found[pair] = min(memory[0], now)  # a clock may have been set back
        return found

    async def remember_contacts(self, pairs: Sequence[str], now: float, until: float) -> None:
        """Remember pairs; see the port. A contact is prolonged when a hundredth of its time is used up."""
        if pairs:
            await self._ask(self._remember, [_pair(pair) for pair in pairs], now, until)

    async def add_to_set(self, name: str, entry: str, until: float) -> None:
        """Put `entry` into the set `name`; the later end counts."""
        keys = (_ENTRIES + _octets(name), _VERSION, _NAMES)
        await self._ask(self._run, _ADD_TO_SET, keys, (until or "+inf", _octets(entry)))

    async def remove_from_set(self, name: str, entry: str) -> bool:
        """Take `entry` out; False when it was not there."""
        keys = (_ENTRIES + _octets(name), _VERSION)
        return bool(await self._ask(self._run, _REMOVE_FROM_SET, keys, (_octets(entry),)))

    async def set_entries(self, name: str, now: float) -> Mapping[str, float]:
        """The entries that have not expired, each with its end (0 = none)."""
        key = _ENTRIES + _octets(name)
        found = await self._ask(self._client.zrangebyscore, key, f"({now!r}", "+inf", withscores=True)
        return {
            entry.decode("utf-8", "surrogateescape"): 0.0 if math.isinf(until) else until
            for entry, until in sorted(found)
        }

    async def set_size(self, name: str, now: float) -> int:
        """How many these are."""
        return int(await self._ask(self._client.zcount, _ENTRIES + _octets(name), f"({now!r}", "+inf"))

    async def sets_version(self) -> int:
        """A number that grows with every change of a dynamic set."""
        try:
            return int(await self._ask(self._client.get, _VERSION) or 0)
        except ValueError as error:
            raise StoreError(f"{self._name}: {_VERSION.decode()}: no number") from error

    async def settle(self) -> None:
        """Nothing is left to do: the server writes its own files."""

    async def expire(self, now: float) -> int:
        """Throw away the entries of sets that have expired; the server does all else."""
        gone = 0
        for key in await self._ask(self._client.smembers, _NAMES):
            gone += await self._ask(self._client.zremrangebyscore, key, "-inf", now)
        return gone

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._client, *self._sentinels):
            await client.aclose()

    async def _count(self, keys: tuple[bytes, bytes], now: float, terms: GreyTerms) -> Grey:
        for _ in range(TRIES):
            raw = await self._read(keys)
            triplet, network = _memory(raw[0], Triplet), _memory(raw[1], Network)
            grey, known, proof = attempt(triplet, network, now, terms)  # None for what is over
            if known is None or known is triplet or await self._swap(keys[0], raw[0], known, known.until - now):
                if proof is not None and proof is not network:
                    await self._swap(keys[1], raw[1], proof, proof.until - now)  # passes at once count once
                return grey
        raise StoreError(f"{self._name}: others were faster, {TRIES} times")

    async def _remember(self, keys: Sequence[bytes], now: float, until: float) -> None:
        together = self._client.pipeline(transaction=False)  # a mail may have a thousand recipients
        for key, raw in zip(keys, await self._read(keys), strict=True):
            first, end = _memory(raw, tuple[float, float]) or (now, now)
            if until - end > (until - now) / 100 or first > now:
                first = min(first, now) if end > now else now
                together.eval(_SWAP, 1, key, *_swapping(raw, (first, max(end, until)), until - now))
        for answer in await together.execute(raise_on_error=False):  # what it raises tells the script, too
            if isinstance(answer, Exception):
                raise answer

    async def _swap(self, key: bytes, before: bytes | None, after: object, seconds: float) -> bool:
        """Write a value if it is still what it was; False when somebody was faster."""
        return bool(await self._run(_SWAP, (key,), _swapping(before, after, seconds)))

    async def _run(self, script: str, keys: Sequence[bytes], values: Sequence[bytes | float | str]) -> Any:  # noqa: ANN401
        """Run a script of ours; the server keeps it by its digest."""
        digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._client.evalsha(digest, len(keys), *keys, *values)
        except NoScriptError:
            return await self._client.eval(script, len(keys), *keys, *values)

    async def _ask(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` gives, in time.

        Raises:
            StoreError: the server does not answer, or what is no answer.
        """
        if self._late >= LATE:
            if time.monotonic() < self._again:
                raise StoreError(f"{self._name}: not asked, it did not answer {self._late} times in a row")
            self._again = time.monotonic() + ALONE
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE), self._turns:
                answer = await work(*args, **kwargs)
        except asyncio.CancelledError:
            self._late += time.monotonic() - began >= SOON
            raise
        except (Slow, TimeoutError) as error:
            self._late += 1
            raise StoreError(f"{self._name}: no answer in time") from error
        except (RedisError, RedisClusterException, OSError) as error:
            self._late = 0
            raise StoreError(f"{self._name}: {_told(error)}") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # what redis-py, or we, could not read
            raise StoreError(f"{self._name}: garbage instead of an answer: {error}") from error
        self._late = 0
        return answer


def _told(error: Exception) -> str:
    """What is wrong, in a line; where no sentinel answers, without all that the client knows of each."""
    return str(error).partition(" : <")[0] or type(error).__name__


def _memory(raw: bytes | None, kind: type[M]) -> M | None:
    """What a value remembers; None where there is none, or what nobody can read: then it begins anew."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _swapping(before: bytes | None, after: object, seconds: float) -> tuple[bytes, bytes, int]:
    return before or b"", msgspec.json.encode(after), max(1, math.ceil(seconds * 1000))


def _pair(pair: str) -> bytes:
    return b"elemta:pair:" + _octets(pair)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

"""Limits in Redis: counting within one script, so that of requests that come at once each sees the one before.

All keys begin with `elemta:{limits}`: in a cluster they lie on one node, since one message may ask several limits at
once.  Keys, messages, parts and queue ids stand in them as digests, so that nothing a stranger chose has a meaning.

    :used:KEY          hash: slot -> amount used
    :held:KEY          sorted set, by end: "MESSAGE PART AMOUNT" reserved
    :of:MESSAGE        hash: "KEY PART" -> "AMOUNT WINDOW" that it has reserved
    :spent:MESSAGE     hash: KEY -> "SLOT AMOUNT" that it used, for an hour
    :queued:QUEUE-ID   set of the messages that used something under it

Functions of `run`, which runs a script; see `counting` for what is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from elemta.store import Quota, Use
from elemta.store.counting import KEEP, SLOTS, end, lapse, newest, oldest, wait

Run = Callable[[str, Sequence[bytes], Sequence[bytes | float | str]], Awaitable[Any]]
"""Runs a script with keys and values."""

TAG = b"elemta:{limits}"
WHOLE = "-"
"""The part that is the message as a whole."""
CROWD = 1000
"""Reservations of one key, above which those that have lapsed are looked for."""

_COMMON = f"""
    local tag = KEYS[1]
    local function outlive(key, seconds)
        local wanted = math.max(1, math.ceil(seconds * 1000))
        if redis.call('PTTL', key) < wanted then redis.call('PEXPIRE', key, wanted) end
    end
    local function let_go(message, field, value)
        local key, part = string.match(field, '^(%S+) (%S+)$')
        redis.call('ZREM', tag .. ':held:' .. key, message .. ' ' .. part .. ' ' .. string.match(value, '^%S+'))
        redis.call('HDEL', tag .. ':of:' .. message, field)
    end
    local KEEP, SLOTS, CROWD = {KEEP!r}, {SLOTS}, {CROWD}
"""
_RESERVE = (
    _COMMON
    + """
    local message, now, only_look = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
    local final = redis.call('EXISTS', tag .. ':spent:' .. message) == 1
    local room, told = true, {}
    for i = 4, #ARGV, 8 do
        local key, part, amount, window = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
        local most, first, last = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
        local used, slots, held = 0, {}, {}
        local uses = redis.call('HGETALL', tag .. ':used:' .. key)
        for j = 1, #uses, 2 do
            local slot = tonumber(uses[j])
            if first <= slot and slot <= last then
                used = used + tonumber(uses[j + 1])
                slots[#slots + 1] = {uses[j], uses[j + 1]}
            elseif slot < first and #uses > 8 * SLOTS then
                redis.call('HDEL', tag .. ':used:' .. key, uses[j])
            end
        end
        local others = redis.call('ZRANGEBYSCORE', tag .. ':held:' .. key, '(' .. ARGV[2],
                                  string.format('%.17g', now + 2 * window), 'WITHSCORES')
        for j = 1, #others, 2 do
            local whose, which, much = string.match(others[j], '^(%S+) (%S+) (%S+)$')
            if whose ~= message or (part ~= '-' and which ~= part) then
                used = used + tonumber(much)
                held[#held + 1] = {others[j + 1], much}
            end
        end
        if used + math.max(amount, 1) > most then room = false end
        told[#told + 1] = {string.format('%.0f', used), slots, held}
    end
    if final or not room or only_look then return {(final or room) and 1 or 0, told} end
    for i = 4, #ARGV, 8 do
        local key, part, amount, window, till = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 7]
        local of, held = tag .. ':of:' .. message, tag .. ':held:' .. key
        local before = redis.call('HGETALL', of)
        for j = 1, #before, 2 do
            local which, its = string.match(before[j], '^(%S+) (%S+)$')
            if which == key and (part == '-' or its == part) then let_go(message, before[j], before[j + 1]) end
        end
        redis.call('HSET', of, key .. ' ' .. part, amount .. ' ' .. window)
        redis.call('ZADD', held, till, message .. ' ' .. part .. ' ' .. amount)
        if redis.call('ZCARD', held) > CROWD then redis.call('ZREMRANGEBYSCORE', held, '-inf', now - KEEP) end
        outlive(of, tonumber(till) - now + KEEP)
        outlive(held, tonumber(till) - now + KEEP)
    end
    return {1, told}
"""
)
_CONSUME = (
    _COMMON
    + """
    local message, queued, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
    local within, sums, count = {}, {}, 0
    for i = 4, #ARGV, 3 do within[ARGV[i]] = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])} end
    local mine = redis.call('HGETALL', tag .. ':of:' .. message)
    for i = 1, #mine, 2 do
        local key = string.match(mine[i], '^%S+')
        local amount, window = string.match(mine[i + 1], '^(%S+) (%S+)$')
        local sum = sums[key] or {0, tonumber(window)}
        sums[key] = {sum[1] + tonumber(amount), sum[2]}
        let_go(message, mine[i], mine[i + 1])
    end
    for key, sum in pairs(sums) do
        local amount, window = sum[1], sum[2]
        local bounds = within[key] or {amount, amount}
        local final = string.format('%.0f', math.min(math.max(amount, bounds[1]), bounds[2]))
        local slot = math.floor(now * SLOTS / window)
        local name, used, spent = string.format('%.0f', slot), tag .. ':used:' .. key, tag .. ':spent:' .. message
        redis.call('HINCRBY', used, name, final)
        outlive(used, (slot + 1) * window / SLOTS + window - now)
        redis.call('HSET', spent, key, name .. ' ' .. final)
        outlive(spent, KEEP)
        count = count + 1
    end
    if count > 0 and queued ~= '' then
        redis.call('SADD', tag .. ':queued:' .. queued, message)
        outlive(tag .. ':queued:' .. queued, KEEP)
    end
    return count
"""
)
_RELEASE = (
    _COMMON
    + """
    local message, part, gone, keys = ARGV[1], ARGV[2], 0, {}
    for i = 3, #ARGV do keys[ARGV[i]] = true end
    local mine = redis.call('HGETALL', tag .. ':of:' .. message)
    for i = 1, #mine, 2 do
        local key, its = string.match(mine[i], '^(%S+) (%S+)$')
        if part == '' or its == part or (its == '-' and keys[key]) then
            let_go(message, mine[i], mine[i + 1])
            gone = gone + 1
        end
    end
    return gone
"""
)
_GIVE_BACK = """
    local tag, queued = KEYS[1], KEYS[1] .. ':queued:' .. ARGV[1]
    local count = 0
    for _, message in ipairs(redis.call('SMEMBERS', queued)) do
        local spent = redis.call('HGETALL', tag .. ':spent:' .. message)
        for i = 1, #spent, 2 do
            local slot, amount = string.match(spent[i + 1], '^(%S+) (%S+)$')
            if redis.call('HEXISTS', tag .. ':used:' .. spent[i], slot) == 1 then
                redis.call('HINCRBY', tag .. ':used:' .. spent[i], slot, string.format('%.0f', 0 - amount))  -- never -0
            end
            count = count + 1
        end
        redis.call('DEL', tag .. ':spent:' .. message)
    end
    redis.call('DEL', queued)
    return count
"""


async def reserve(run: Run, message: str, quotas: Sequence[Quota], now: float, *, only_look: bool = False) -> list[Use]:
    """See `Store.reserve`; with `only_look` nothing is reserved."""
    values: list[bytes | float | str] = [_digest(message), repr(float(now)), int(only_look)]
    for quota in quotas:
        window = float(quota.window)
        values += [_digest(quota.key), _digest(quota.part) if quota.part else WHOLE, quota.amount, repr(window)]
        values += [quota.most, oldest(now, window), newest(now, window), repr(lapse(now, window))]
    settled, told = await run(_RESERVE, (TAG,), values)
    return [
        Use(int(used), 0.0 if settled else _wait(quota, int(used), slots, held, now))
        for quota, (used, slots, held) in zip(quotas, told, strict=True)
    ]


def _wait(quota: Quota, used: int, slots: list[list[bytes]], held: list[list[bytes]], now: float) -> float:
    excess = used + max(quota.amount, 1) - quota.most
    if excess <= 0:
        return 0.0
    later = max(0.0, quota.window - (lapse(now, quota.window) - now))  # it will be used, and count for a whole window
    spent = [(end(int(slot), quota.window), int(amount)) for slot, amount in slots]
    spent += [(float(until) + later, int(amount)) for until, amount in held]
    return wait(spent, excess, now, quota.window)


async def consume(run: Run, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float) -> int:
    """See `Store.consume`."""
    values: list[bytes | float | str] = [_digest(message), _digest(queue_id) if queue_id else "", repr(float(now))]
    for key, (low, high) in within.items():
        values += [_digest(key), low, high]
    return int(await run(_CONSUME, (TAG,), values))


async def release(run: Run, message: str, part: str | None, keys: Sequence[str]) -> int:
    """See `Store.release`."""
    which = "" if part is None else _digest(part) if part else WHOLE
    return int(await run(_RELEASE, (TAG,), [_digest(message), which, *map(_digest, keys)]))


async def give_back(run: Run, queue_id: str) -> bool:
    """See `Store.give_back`."""
    return bool(await run(_GIVE_BACK, (TAG,), [_digest(queue_id)])) if queue_id else False


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()

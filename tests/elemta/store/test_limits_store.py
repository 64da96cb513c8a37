"""Limits in the store: never more than the limit in any window, reserved once, final once, across processes."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.store import Quota, Use
from elemta.store.counting import HOLD, KEEP, SLOTS
from harness.redis import shared, why_not
from harness.state import use

HOUR = 3600.0


def quota(amount=1, *, part="", key="anna", window=HOUR, most=5):
    return Quota(key, part, amount, window, most)


async def take(store, message, now, amount=1, **more):
    """Reserve and consume; whether there was room."""
    [use] = await store.reserve(message, [quota(amount, **more)], now)
    if not use.wait:
        await store.consume(message, "", {}, now)
    return not use.wait


def test_so_much_and_no_more(url):
    async def steps(store):
        return [await take(store, f"m{second}", 1000 + second) for second in range(7)]

    assert use(url, steps) == [True] * 5 + [False] * 2


def test_what_is_told(url):
    async def steps(store):
        await store.reserve("elsewhere", [quota(5, key="net")], 900)  # is free again before
        told = [await store.reserve("a", [quota(3)], 1000), await store.reserve("b", [quota(2)], 1001)]
        told.append(await store.reserve("c", [quota(1)], 1002))
        await store.consume("a", "", {}, 1003)
        told.append(await store.reserve("c", [quota(4)], 1004))
        return told

    first, second, third, fourth = use(url, steps)
    assert (first, second) == ([Use(0)], [Use(3)])
    assert third[0].used == 5
    assert third[0].wait == pytest.approx(HOUR - 2)  # "a" will count for an hour from its reservation on
    assert fourth[0].used == 5
    assert HOUR - 5 < fourth[0].wait <= HOUR + HOUR / SLOTS


def test_it_may_be_used_again_when_the_wait_is_over(url):
    async def steps(store):
        assert await take(store, "elsewhere", 500, 5, key="net")  # is free again before
        for second in range(5):
            assert await take(store, f"m{second}", 1000 + second)
        [use] = await store.reserve("late", [quota()], 1010)
        assert not await take(store, "late", 1010 + use.wait - 0.01)
        return await take(store, "late", 1010 + use.wait), use.wait

    again, wait = use(url, steps)
    assert again
    assert HOUR - 10 <= wait <= HOUR + HOUR / SLOTS


def test_what_a_clock_that_was_wrong_left_in_the_future_does_not_count(url):
    year = 365 * 24 * HOUR

    async def steps(store):
        await take(store, "final", year, 3)
        await store.reserve("under way", [quota(2)], year)
        assert [each.used for each in await store.reserve("at that time", [quota(1)], year + 1)] == [5]
        assert [each.used for each in await store.reserve("set right", [quota(5)], 1000)] == [0]
        [full] = await store.reserve("another", [quota(1)], 1001)
        assert full.used == 5
        assert 0 < full.wait <= HOUR * 61 / 60

    use(url, steps)


def test_a_clock_that_is_set_back_gives_nobody_more(url):
    async def steps(store):
        await take(store, "final", 10 * HOUR, 3)
        await store.reserve("under way", [quota(2)], 10 * HOUR)
        assert [each.used for each in await store.reserve("earlier", [quota(1)], 9 * HOUR)] == [5]

    use(url, steps)


def test_all_or_none(url):
    async def steps(store):
        both = [quota(5, key="anna"), quota(3, key="net", most=2)]
        uses = await store.reserve("a", both, 0)
        return uses, await store.reserve("b", [quota(5, key="anna")], 0)

    (anna, net), after = use(url, steps)
    assert anna.wait == 0
    assert net.wait == HOUR  # three never fit into two
    assert after == [Use(0)]


def test_a_part_is_reserved_once(url):
    async def steps(store):
        for amount in (3, 1, 2):  # Postfix asks again after a lost connection
            await store.reserve("a", [quota(amount, part="r1")], 0)
        await store.reserve("a", [quota(part="r2")], 0)
        return await store.reserve("b", [quota(part="r1")], 0)

    assert use(url, steps) == [Use(3)]


def test_the_whole_takes_the_place_of_its_parts(url):
    async def steps(store):
        for part in ("r1", "r2", "r3"):
            await store.reserve("a", [quota(part=part)], 0)
        [whole] = await store.reserve("a", [quota(4)], 0)
        return whole, await store.reserve("b", [quota(part="r1")], 0)

    assert use(url, steps) == (Use(0), [Use(4)])


def test_it_is_final_once(url):
    async def steps(store):
        await store.reserve("a", [quota(2)], 0)
        keys = [await store.consume("a", "", {}, 1) for _ in range(3)]
        return keys, await store.reserve("b", [quota()], 2)

    assert use(url, steps) == ([1, 0, 0], [Use(2)])


@pytest.mark.parametrize(
    ("reserved", "within", "counted"), [(3, (0, 2), 2), (3, (0, 4), 3), (0, (700, 700), 700), (3, (3, 3), 3)]
)
def test_the_whole_message_says_what_it_really_used(url, reserved, within, counted):
    async def steps(store):
        await store.reserve("a", [quota(reserved, most=1000)], 0)
        await store.consume("a", "", {"anna": within}, 1)
        return await store.reserve("b", [quota(most=1000)], 2)

    assert use(url, steps) == [Use(counted)]


def test_an_unknown_amount_needs_some_room(url):
    async def steps(store):
        await take(store, "a", 0, 5)
        return await store.reserve("b", [quota(0)], 1)

    assert use(url, steps)[0].wait > 0


def test_what_is_not_accepted_is_given_up(url):
    async def steps(store):
        await store.reserve("a", [quota(part="r1"), quota(part="r2")], 0)
        await store.release("a", "r1")
        one = await store.reserve("b", [quota()], 0)
        await store.release("a")
        await store.release("b")
        return one, await store.reserve("c", [quota()], 0)

    assert use(url, steps) == ([Use(1)], [Use(0)])


def test_a_reservation_lapses_and_can_be_made_final_all_the_same(url):
    async def steps(store):
        await store.reserve("a", [quota(4)], 0)
        before = await store.reserve("b", [quota(2)], HOLD - 1)
        after = await store.reserve("b", [quota(2)], HOLD)
        await store.release("b")
        await store.consume("a", "", {}, HOLD + 100)  # a long message on a slow line
        return before[0].wait > 0, after, await store.reserve("c", [quota()], HOLD + 101)

    assert use(url, steps) == (True, [Use(0)], [Use(4)])


def test_what_was_refused_in_the_end_is_given_back(url):
    async def steps(store):
        assert await take(store, "later", 120)
        await store.reserve("elsewhere", [quota(5, key="net")], 0)
        await store.consume("elsewhere", "5B4C", {}, 0)
        await store.reserve("a", [quota(4)], 0)
        await store.consume("a", "4F3A", {}, 1)
        told = [await store.give_back("4F3A"), await store.give_back("4F3A"), await store.give_back("other")]
        uses = await store.reserve("b", [quota(4), quota(0, key="net", most=6)], 121)
        return told, uses, await store.give_back("5B4C")

    assert use(url, steps) == ([True, False, False], [Use(1), Use(5)], True)


def test_what_is_given_back_is_all_that_was_used_also_where_that_is_nothing(url):
    async def steps(store):
        await store.reserve("other", [quota(2, key="net")], 0)
        await store.consume("other", "", {}, 1)
        await store.reserve("a", [quota(0), quota(3, key="net"), quota(0, key="octets")], 0)
        await store.consume("a", "4F3A", {}, 1)
        told = [await store.give_back("4F3A"), await store.give_back("4F3A"), await store.give_back("")]
        return told, await store.reserve("b", [quota(0), quota(0, key="net"), quota(0, key="octets")], 2)

    assert use(url, steps) == ([True, False, False], [Use(0), Use(2), Use(0)])


def test_what_counts_no_more_goes(tmp_path):
    async def steps(store):
        for number in range(2500):
            await store.reserve(f"m{number}", [quota(key=f"k{number}")], 0)
            if number % 2:
                await store.consume(f"m{number}", f"q{number}", {}, 0)
        early = await store.expire(KEEP - 1)
        return early, await store.expire(HOUR + HOUR / SLOTS + KEEP + HOLD)

    early, late = use(f"sqlite://{tmp_path}/state.db", steps)
    assert (early, late) == (0, 2500 + 1250)  # use and what it was for; what was reserved only
    with sqlite3.connect(tmp_path / "state.db") as db:
        assert [db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("uses", "reserved", "spent")] == [
            0, 0, 0,
        ]  # fmt: skip
    db.close()


@pytest.mark.parametrize(
    "redis", [False, pytest.param(True, marks=pytest.mark.skipif(bool(why_not()), reason=why_not()))]
)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 4)), min_size=1, max_size=60),
    st.sampled_from([7.0, 60.0, 100.0]),
    st.integers(1, 12),
)
def test_never_more_in_any_window_and_never_idle_for_long(tmp_path_factory, redis, requests, window, most):
    """Of requests at any times, what passes within any window is at most the limit; and what waited as told passes."""
    url = f"sqlite://{tmp_path_factory.mktemp('limit')}/state.db"
    if redis:
        url = shared().url
        shared().plain.flushall()

    async def steps(store):
        now, passed = 1e9, []
        for number, (pause, amount) in enumerate(requests):
            now += pause
            [use] = await store.reserve(f"m{number}", [quota(amount, window=window, most=most)], now)
            if not use.wait:
                await store.consume(f"m{number}", "", {}, now)
                passed.append((now, amount))
            else:
                within = sum(took for at, took in passed if now - window - window / SLOTS <= at)
                assert amount > most or within + amount > most, "refused without need"
        return passed

    passed = use(url, steps)
    for end, _ in passed:
        assert sum(took for at, took in passed if end - window < at <= end) <= most


def hammer(url, seed, together, results):
    async def steps(store):
        together.wait(60)
        chance, taken = random.Random(seed), 0
        for number in range(150):
            message = f"{seed}-{number}"
            taken += await take(store, message, 1000 + number / 100, chance.randint(1, 3), most=400) and 1
        [use] = await store.reserve(f"{seed}-end", [quota(400, most=400)], 1002)
        return use.used, taken

    results.put(use(url, steps))


def test_processes_together_never_exceed_it(url):
    use(url, lambda store: store.sets_version())  # the file is there
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    together = context.Barrier(4)
    processes = [context.Process(target=hammer, args=(url, seed, together, results)) for seed in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    [used] = [use.used for use in use(url, lambda store: store.reserve("last", [quota(400, most=400)], 1002))]
    assert 398 <= used <= 400
    assert len([taken for _, taken in found if taken]) > 1  # they really met


def test_what_is_released_is_told_and_with_it_keys_that_only_that_part_had(url):
    async def steps(store):
        await store.reserve("a", [quota(part="r1"), quota(key="of r1"), quota(key="of both")], 1000)
        await store.reserve("a", [quota(part="r2"), quota(key="of r2"), quota(key="of both")], 1000)
        gone = await store.release("a", "r2", ["of r2"])
        kept = [
            (await store.reserve("b", [quota(key=key)], 1000))[0].used for key in ("anna", "of r1", "of r2", "of both")
        ]
        return gone, kept, await store.release("a"), await store.release("a")

    assert use(url, steps) == (2, [1, 1, 0, 1], 3, 0)

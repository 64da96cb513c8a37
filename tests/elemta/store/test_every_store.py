"""What holds for every state store: greylisting and dynamic sets, also from several processes."""

from __future__ import annotations

import multiprocessing

import pytest

from elemta.store import Grey, GreyTerms
from harness.state import use

TERMS = GreyTerms(delay=300, window=172800, keep=3024000, proven=5)
FORK = multiprocessing.get_context("fork")


def test_a_triplet_waits_passes_and_is_known_after_a_restart(url):
    async def first(store):
        return [await store.greylist("t", "n", now, TERMS) for now in (1000.0, 1100.0, 1300.0)]

    before = use(url, first)
    expected = [(False, 300, 1), (False, 200, 2), (True, 0, 3)]
    assert [(grey.passed, grey.wait, grey.attempts) for grey in before] == expected
    after = use(url, lambda store: store.greylist("t", "n", 1400.0, TERMS))
    assert (after.passed, after.known, after.attempts) == (True, True, 3)


def test_one_network_proves_no_other(url):
    terms = GreyTerms(delay=10, window=1000, keep=5000, proven=1)

    async def work(store):
        for triplet, network, now in (
            ("a", "one", 0), ("a", "one", 10), ("b", "two", 0), ("b", "two", 10), ("c", "one", 20), ("c", "one", 30),
        ):  # fmt: skip
            await store.greylist(triplet, network, now, terms)
        return [(await store.greylist(f"new {network}", network, 40, terms)).passed for network in ("one", "two", "3")]

    assert use(url, work) == [True, False, False]


def test_keys_may_hold_any_octets(url):
    async def work(store):
        for key in ("j\udcf6rg", "täst", "'; DROP TABLE triplets; --", "x" * 100_000):
            assert (await store.greylist(key, key, 0.0, TERMS)).attempts == 1
            assert (await store.greylist(key, key, 1.0, TERMS)).attempts == 2

    use(url, work)


def hammer(url, count, start, out):
    start.wait()

    async def work(store):
        return [(await store.greylist("t", "n", 1000.0, TERMS)).attempts for _ in range(count)]

    out.put(use(url, work))


def test_attempts_of_four_processes_at_once_are_counted_once_each(url):
    start, out = FORK.Event(), FORK.Queue()
    processes = [FORK.Process(target=hammer, args=(url, 500, start, out)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    seen = sorted(attempts for _ in processes for attempts in out.get(timeout=30))
    for process in processes:
        process.join()
    assert seen == list(range(1, 2001))


def test_what_is_over_is_as_if_it_had_never_been_also_before_it_is_thrown_away(url):
    terms = GreyTerms(delay=10, window=1000, keep=5000, proven=1)

    async def work(store):
        async def at(now, triplet):
            return (await store.greylist(triplet, "n", now, terms)).passed

        assert [await at(now, "old") for now in (0, 10)] == [False, True]
        assert [await at(now, "older") for now in (20, 30)] == [False, True]
        assert await at(1000, "proven")
        assert [await at(now, "old") for now in (7000, 7010)] == [False, True]  # its network is over, too
        assert await store.greylist("waits", "n", 7011, terms) == Grey(passed=False, wait=10, attempts=1)
        assert [await at(now, "other") for now in (7020, 7030)] == [False, True]
        assert await at(8500, "waits")  # its own window is over; its network is proven anew

    use(url, work)


def test_sets(url):
    async def work(store):
        version = await store.sets_version()
        await store.add_to_set("frozen", "Bob", 0.0)
        await store.add_to_set("frozen", "j\udcf6rg", 100.0)
        await store.add_to_set("other", "Bob", 50.0)
        assert await store.set_entries("frozen", 10.0) == {"Bob": 0.0, "j\udcf6rg": 100.0}
        assert await store.set_entries("frozen", 100.0) == {"Bob": 0.0}
        assert [await store.set_size(*of) for of in (("frozen", 10.0), ("frozen", 100.0), ("nobody", 0.0))] == [2, 1, 0]
        assert await store.set_entries("nobody", 0.0) == {}
        assert await store.sets_version() == version + 3
        assert await store.remove_from_set("frozen", "Bob")
        assert not await store.remove_from_set("frozen", "Bob")
        assert await store.sets_version() == version + 4

    use(url, work)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [([10, 20], 20), ([20, 10], 20), ([10, 0], 0), ([0, 10], 0), ([10, 10], 10)],
)
def test_the_later_end_of_an_entry_counts(url, ends, expected):
    async def work(store):
        for end in ends:
            await store.add_to_set("s", "e", float(end))
        return await store.set_entries("s", 0.0)

    assert use(url, work) == {"e": expected}


def test_only_a_change_moves_the_version(url):
    async def work(store):
        await store.add_to_set("s", "e", 10.0)
        version = await store.sets_version()
        await store.add_to_set("s", "e", 10.0)
        await store.add_to_set("s", "e", 5.0)
        await store.remove_from_set("s", "x")
        await store.greylist("t", "n", 0.0, TERMS)
        assert await store.sets_version() == version
        await store.add_to_set("s", "e", 11.0)
        assert await store.sets_version() != version

    use(url, work)


def test_another_process_sees_the_change(url):
    async def work(store):
        version = await store.sets_version()
        adding = FORK.Process(target=use, args=(url, lambda other: other.add_to_set("s", "e", 0.0)))
        adding.start()
        adding.join()
        assert await store.sets_version() != version
        assert await store.set_entries("s", 0.0) == {"e": 0.0}

    use(url, work)

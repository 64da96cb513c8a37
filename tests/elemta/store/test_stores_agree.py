"""Whatever is asked of the stores, in whatever order, and whatever the clock does: SQLite and Redis say the same."""

from __future__ import annotations

import asyncio
import tempfile

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from elemta.store import GreyTerms, Quota
from elemta.store.urls import open_store
from harness.redis import shared, why_not

TERMS = [GreyTerms(300, 172800, 3024000, 5), GreyTerms(10, 1000, 5000, 1), GreyTerms(0, 1000, 5000, 0)]
LIMITS = {"k": (3600.0, 6), "l": (60.0, 4)}
"""Window and most, by key."""

names = st.sampled_from("abc")
keys = st.sampled_from(sorted(LIMITS))
parts = st.sampled_from(["", "r1", "r2"])
queue_ids = st.sampled_from(["", "Q1", "Q2"])
entries = st.sampled_from(["x", "j\udcf6rg", "ü"])
seconds = st.one_of(st.floats(-20, 400), st.floats(-4000, 8000), st.sampled_from([60.0, 300.0, 3600.0, -1.0, -3600.0]))
bounds = st.tuples(st.integers(0, 3), st.integers(3, 9))


class Both(RuleBasedStateMachine):
    """Each question is asked of both. No time passes but here, so nothing ends in the server by itself."""

    def __init__(self):
        super().__init__()
        self.now, self.runner, self.directory = 1e6, asyncio.Runner(), tempfile.TemporaryDirectory()
        shared().plain.flushall()

        async def opened():
            return [open_store(url) for url in (f"sqlite://{self.directory.name}/state.db", shared().url)]

        self.stores = self.runner.run(opened())

    def teardown(self):
        async def closed():
            for store in self.stores:
                await store.close()

        self.runner.run(closed())
        self.runner.close()
        self.directory.cleanup()

    def ask(self, what, *args):
        async def asked():
            return [await getattr(store, what)(*args) for store in self.stores]

        sqlite, redis = self.runner.run(asked())
        assert sqlite == redis

    @rule(by=seconds)
    def time_goes_by_or_the_clock_is_set(self, by):
        self.now += by

    @rule(triplet=names, network=names, terms=st.sampled_from(TERMS))
    def greylist(self, triplet, network, terms):
        self.ask("greylist", triplet, network, self.now, terms)

    @rule(message=names, wanted=st.lists(st.tuples(keys, parts, st.integers(0, 5)), min_size=1, max_size=4))
    def reserve(self, message, wanted):
        self.ask("reserve", message, [Quota(key, part, much, *LIMITS[key]) for key, part, much in wanted], self.now)

    @rule(message=names, queue_id=queue_ids, within=st.dictionaries(keys, bounds))
    def consume(self, message, queue_id, within):
        self.ask("consume", message, queue_id, within, self.now)

    @rule(message=names, part=st.none() | parts, of=st.lists(keys, max_size=2))
    def release(self, message, part, of):
        self.ask("release", message, part, of)

    @rule(queue_id=queue_ids)
    def give_back(self, queue_id):
        self.ask("give_back", queue_id)

    @rule(pairs=st.lists(names, max_size=3))
    def contacts(self, pairs):
        self.ask("contacts", pairs, self.now)

    @rule(pairs=st.lists(names, max_size=3), for_seconds=st.sampled_from([500.0, 505.0, 50_000.0]))
    def remember_contacts(self, pairs, for_seconds):
        self.ask("remember_contacts", pairs, self.now, self.now + for_seconds)

    @rule(name=names, entry=entries, for_seconds=st.sampled_from([None, 0.0, 10.0, 1000.0]))
    def add_to_set(self, name, entry, for_seconds):
        self.ask("add_to_set", name, entry, 0.0 if for_seconds is None else self.now + for_seconds)
        self.ask("sets_version")

    @rule(name=names, entry=entries)
    def remove_from_set(self, name, entry):
        self.ask("remove_from_set", name, entry)
        self.ask("sets_version")

    @rule(name=names)
    def what_a_set_holds(self, name):
        self.ask("set_entries", name, self.now)
        self.ask("set_size", name, self.now)


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_both_say_the_same():
    told = settings(max_examples=20, stateful_step_count=40, deadline=None, phases=[Phase.generate], database=None)
    run_state_machine_as_test(Both, settings=told)

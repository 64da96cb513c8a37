"""Contacts in the store: remembered, prolonged, forgotten."""

from harness.state import use

DAY = 86_400.0


def test_what_is_remembered_outlives_a_restart(url):
    use(url, lambda store: store.remember_contacts(["a", "b"], 1000.0, 1000.0 + DAY))

    assert use(url, lambda store: store.contacts(["a", "b", "c"], 2000.0)) == {"a": 1000.0, "b": 1000.0}
    assert use(url, lambda store: store.contacts(["a"], 1000.0 + DAY)) == {}
    assert use(url, lambda store: store.contacts([], 2000.0)) == {}


def test_the_first_time_stays_and_the_end_moves(url):
    async def story(store):
        await store.remember_contacts(["a"], 0.0, 100.0)
        await store.remember_contacts(["a"], 50.0, 150.0)
        middle = await store.contacts(["a"], 120.0)
        await store.remember_contacts(["a"], 60.0, 110.0)  # an earlier end changes nothing
        return middle, await store.contacts(["a"], 149.0), await store.contacts(["a"], 150.0)

    assert use(url, story) == ({"a": 0.0}, {"a": 0.0}, {})


def test_a_clock_that_was_wrong_leaves_nobody_known_since_times_to_come(url):
    async def story(store):
        await store.remember_contacts(["a"], 5000.0, 5500.0)
        before = await store.contacts(["a"], 100.0)
        await store.remember_contacts(["a"], 100.0, 600.0)
        return before, await store.contacts(["a"], 300.0)

    assert use(url, story) == ({"a": 100.0}, {"a": 100.0})


def test_what_was_forgotten_begins_anew(url):
    async def story(store):
        await store.remember_contacts(["a"], 0.0, 100.0)
        await store.remember_contacts(["a"], 200.0, 300.0)
        return await store.contacts(["a"], 250.0)

    assert use(url, story) == {"a": 200.0}


def test_a_mail_soon_after_another_writes_nothing(tmp_path):
    async def story(store):
        await store.remember_contacts(["a"], 0.0, 1000.0)
        before = store._db.total_changes
        await store.remember_contacts(["a"], 5.0, 1005.0)
        between = store._db.total_changes
        await store.remember_contacts(["a"], 50.0, 1050.0)
        return between - before, store._db.total_changes - between

    assert use(f"sqlite://{tmp_path}/state.db", story) == (0, 1)


def test_what_is_forgotten_goes(tmp_path):
    async def story(store):
        await store.remember_contacts([f"{number}" for number in range(2500)], 0.0, 100.0)
        await store.remember_contacts(["a"], 0.0, 500.0)
        gone = await store.expire(200.0)
        return gone, store._db.execute("SELECT count(*) FROM contacts").fetchone()

    assert use(f"sqlite://{tmp_path}/state.db", story) == (2500, (1,))

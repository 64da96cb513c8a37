"""What is written in `state:` opens the store that is meant."""

from __future__ import annotations

import asyncio

import pytest

from elemta.store import StoreError
from elemta.store.redis import RedisStore
from elemta.store.urls import open_store, preload


def test_sqlite(tmp_path):
    store = open_store(f"sqlite://{tmp_path}/state.db")
    asyncio.run(store.close())
    assert (tmp_path / "state.db").exists()


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h", "redis+unix:///run/x", "redis+sentinel://h,g/mail", "redis+cluster://h,g"]
)
def test_redis_asks_nothing_when_it_is_opened(url):
    preload(url)
    store = open_store(url)
    assert isinstance(store, RedisStore)
    asyncio.run(store.close())


def test_what_is_none():
    for doing in (open_store, preload):
        with pytest.raises(ValueError, match="is no kind of state store"):
            doing("mysql://host/db")


def test_a_store_that_does_not_open(tmp_path):
    with pytest.raises(StoreError):
        open_store(f"sqlite://{tmp_path}/missing/state.db")

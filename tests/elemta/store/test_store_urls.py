"""State URLs: what is written in `state:` opens the store that is meant, or says how to write one."""

from __future__ import annotations

import asyncio

import pytest

from elemta.store import StoreError
from elemta.store.urls import open_store, split_url


def test_sqlite(tmp_path):
    store = open_store(f"sqlite://{tmp_path}/state.db")
    asyncio.run(store.close())
    assert (tmp_path / "state.db").exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "write sqlite:///absolute/path.db"),
        ("/var/lib/elemta/state.db", "write sqlite:///absolute/path.db"),
        ("sqlite:/var/lib/state.db", "write sqlite:///absolute/path.db"),
        ("mysql://host/db", "is not a state store"),
        ("sqlite://state.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///var/lib/", "names no file"),
    ],
)
def test_what_is_none(url, told):
    with pytest.raises(ValueError, match=told):
        split_url(url)


def test_a_store_that_does_not_open(tmp_path):
    with pytest.raises(StoreError):
        open_store(f"sqlite://{tmp_path}/missing/state.db")

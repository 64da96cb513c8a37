"""State URLs: which store does `state:` in the configuration name?

What may stand there is told by `elemta.config.state_url`.  A store that is not used is not imported.
"""

from __future__ import annotations

from importlib import import_module

from elemta.config.state_url import StatePlace, state_place
from elemta.store import Store


def open_store(url: str) -> Store:
    """Open the store that `url` names. Call it in the process that uses it, after the fork.

    Raises:
        ValueError: the URL names no store; the text says how to write one.
        StoreError: the store cannot be opened.
    """
    place = state_place(url)
    module = import_module(_module(place))
    store: Store = module.SqliteStore(place.path) if place.scheme == "sqlite" else module.RedisStore(place)
    return store


def open_rehearsal(place: StatePlace) -> Store:
    """A store that reads what is on a server of Redis and changes nothing there."""
    store: Store = import_module("elemta.store.redis_rehearsal").RehearsedStore(place)
    return store


def preload(url: str) -> None:
    """Import what `url` needs, so that a process that has dropped its privileges need not read program files.

    Raises:
        ValueError: the URL names no store.
    """
    import_module(_module(state_place(url)))


def _module(place: StatePlace) -> str:
    return "elemta.store.sqlite" if place.scheme == "sqlite" else "elemta.store.redis"

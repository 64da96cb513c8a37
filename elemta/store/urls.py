"""State URLs: which store does `state:` in the configuration name?

    sqlite:///var/lib/elemta/state.db      an absolute path; the embedded default

A scheme is one line in `_SCHEMES`: the function that opens it, imported only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from elemta.store import Store


def open_store(url: str) -> Store:
    """Open the store that `url` names. Call it in the process that uses it, after the fork.

    Raises:
        ValueError: the URL names no store; the text says how to write one.
        StoreError: the store cannot be opened.
    """
    scheme, place = split_url(url)
    return _SCHEMES[scheme](place)


def split_url(url: str) -> tuple[str, str]:
    """Scheme and place of `url`, so that a configuration can be checked without opening anything.

    Raises:
        ValueError: the URL names no store; the text says how to write one.
    """
    scheme, separator, place = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"{url!r} is not a state store; write sqlite:///absolute/path.db")
    if scheme == "sqlite" and (not place.startswith("/") or "\0" in place or place.endswith("/")):
        raise ValueError(f"{url!r} names no file; write sqlite:///absolute/path.db, with three slashes")
    return scheme, place


def preload(url: str) -> None:
    """Import what `url` needs, so that a process that has dropped its privileges need not read program files.

    Raises:
        ValueError: the URL names no store.
    """
    import_module(_MODULES[split_url(url)[0]])


def _sqlite(place: str) -> Store:
    store: Store = import_module(_MODULES["sqlite"]).SqliteStore(place)  # a store that is not used is not loaded
    return store


_MODULES = {"sqlite": "elemta.store.sqlite"}
_SCHEMES: dict[str, Callable[[str], Store]] = {"sqlite": _sqlite}

"""A state store that is opened for one piece of work: what did it give?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from elemta.store import Store
from elemta.store.urls import open_store

T = TypeVar("T")


def use(url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """What `work` gives, called with the open store that `url` names; then it is closed."""

    async def session() -> T:
        store = open_store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(session())

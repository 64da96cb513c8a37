"""Tools: the world that checks of one process may use: DNS, the state store, the clock, a pool of threads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from elemta.check import Tools
from elemta.config.model import Settings
from elemta.dns import open_resolver
from elemta.store import Store
from elemta.store.urls import open_store

THREADS = 16
"""Blocking calls at once in one worker (scanners, big hashes); more wait their turn within the mail's budget."""


@asynccontextmanager
async def open_tools(settings: Settings, store: Store | None = None) -> AsyncIterator[Tools]:
    """Open what checks need; given back at the end.

    Args:
        settings: which resolvers, which store.
        store: use this one and leave it open (a rehearsal must not change the real one).

    Raises:
        StoreError: the state store cannot be opened.
        NoServers: no name server is configured.
    """
    own = open_store(settings.state) if store is None else None
    threads = ThreadPoolExecutor(THREADS, "elemta")
    resolver = open_resolver(settings.dns)
    try:
        yield Tools(settings.host, resolver, store or own, time.time, threads)  # type: ignore[arg-type]
    finally:
        await resolver.close()
        threads.shutdown(wait=False, cancel_futures=True)
        if own is not None:
            await own.close()

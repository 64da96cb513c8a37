"""Refreshing: are the named sets still what their files and the state store say?

Looks once a second.  A file's new content is read in a thread and exchanged whole; a broken new version is
logged and the old entries stay.  Dynamic sets are taken anew when the store's version moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from elemta.check import Tools
from elemta.rules.kept_file import KeptFile
from elemta.rules.sets import NamedSet, members
from elemta.store import StoreError

_log = logging.getLogger("elemta.rules.sets")
INTERVAL = 1.0  # seconds
_STAY = "dynamic sets stay as they were: %s"


async def first_snapshot(sets: Mapping[str, NamedSet], tools: Tools) -> int:
    """Take the dynamic sets from the store, before the first mail; the version that they are of.

    Sets in files are read again if they changed since the configuration was read: a worker may begin days later.  A
    store that cannot answer is logged, and asked again each second by `refresh_sets`.
    """
    for named in sets.values():
        if named.path is not None:
            await look(named, f"set {named.name}", tools)
    try:
        return await _snapshot([named for named in sets.values() if named.dynamic], tools, -1)
    except StoreError as error:
        _log.error(_STAY, error)
        return -1


async def refresh_sets(sets: Mapping[str, NamedSet], tools: Tools, version: int) -> None:
    """Keep `sets` current until cancelled; the dynamic ones are of `version` now."""
    files = [named for named in sets.values() if named.path is not None]
    dynamic = [named for named in sets.values() if named.dynamic]
    told = False
    while True:
        await asyncio.sleep(INTERVAL)
        for named in files:
            await look(named, f"set {named.name}", tools)
        if dynamic:
            try:
                version = await _snapshot(dynamic, tools, version)
                if told:
                    _log.info("dynamic sets are current again")
                told = False
            except StoreError as error:
                if not told:  # a server that is away for a night is not told of every second
                    _log.error(_STAY, error)
                told = True
            except Exception:  # noqa: BLE001 - and it is logged; who is put into a set must be seen also after it
                _log.exception("dynamic sets stay as they were")


async def follow(kept: KeptFile, what: str, tools: Tools) -> None:
    """Keep what a file says current until cancelled; `what` names it in the log."""
    while True:
        await asyncio.sleep(INTERVAL)
        await look(kept, what, tools)


async def look(kept: KeptFile, what: str, tools: Tools) -> None:
    """Read it again if it changed."""
    try:
        if await tools.in_thread(kept.changed):
            await _reread(kept, what, tools)
    except Exception:  # noqa: BLE001 - and it is logged: a system without room for a thread, say, has some again later
        _log.exception("%s stays as it was", what)


async def _reread(kept: KeptFile, what: str, tools: Tools) -> None:
    try:
        await tools.in_thread(kept.reread)
    except (OSError, ValueError) as error:
        why = f"{kept.path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else error
        _log.error("%s stays as it was: %s", what, why)
    else:
        _log.info("%s read again: %d entries", what, kept.size)


async def _snapshot(dynamic: list[NamedSet], tools: Tools, version: int) -> int:
    """Take the dynamic sets from the store if they changed; entries also end by time, so look each second."""
    now = await tools.store.sets_version()
    for named in dynamic:
        size = await tools.store.set_size(named.name, tools.clock())
        if now != version or size != named.entries:
            entries = await tools.store.set_entries(named.name, tools.clock())
            named.members, named.entries = members(entries, lenient=True), size
    return now

"""The keeper: the process beside the workers that shows how they are and throws away what is old.

One for each daemon, forked by its supervisor.  It serves /metrics (the counts of all processes of both daemons),
/healthz (is each daemon's supervisor alive?) and /readyz (do all workers, and what they depend on, answer?) on
`metrics.listen`, an address that the keepers of both daemons may share; when it is taken by somebody else the keeper
goes on without, and tries again.  Once a minute it expires the journal and the state store, in slices, by the
clock as far as that is believed.  Every other second it waits for the disk, so that workers who write to the state
store need not.  That of the milter also sends DMARC reports, where the configuration has `reports:`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from typing import Any

from elemta import journal
from elemta.clock import believed
from elemta.config.model import Settings
from elemta.daemon import pages
from elemta.daemon.pages import Answer
from elemta.daemon.status import metrics_directory, missing, touch
from elemta.journal import JournalError
from elemta.observe.exposition import CONTENT_TYPE, exposition
from elemta.store import StoreError
from elemta.store.urls import open_store

_log = logging.getLogger("elemta.daemon.keeper")

Work = Callable[[], Coroutine[Any, Any, None]]

AGAIN = 30.0  # seconds until a work that failed is tried again
SOON = 1.0  # seconds until a taken address is tried again
ALIVE = 5.0  # seconds between two signs of life for the supervisor's status
MINUTE = 60.0
REPORT = 300.0  # seconds between two looks at which reports are due
REPORTING = "elemta_milter.reports.office"  # of the milter's package, on which nothing here depends
SLICE = 1000  # decisions in one transaction of expiry: about 40 ms for those who wait to write
HELD = 7 * 86400.0  # seconds that the journal still knows a held mail after its time: to see that it is ours
SETTLE = 2.0  # seconds between two looks at what the state store has left to do
REST = 0.1  # seconds between two slices: writers come first


async def keep(settings: Settings, daemon: str, stopping: asyncio.Event) -> None:
    """Be the keeper of `daemon` until `stopping` is set."""
    directory = metrics_directory(settings)
    works: list[Work] = [
        partial(_serve, settings, directory),
        partial(_live, directory, daemon),
        partial(_expire, "the journal", expire_journal, settings),
        partial(_expire, "the state", expire_store, settings),
        partial(_settle, settings),
    ]
    if daemon == "milter" and settings.reports is not None:
        works.append(partial(_report, settings))
    tasks = [asyncio.create_task(_ever(work)) for work in works]
    try:
        await stopping.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ever(work: Work) -> None:
    """Work on, also after what nobody foresaw: else it would end in silence, and /readyz be gone, say."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - and it is logged
            _log.exception("a work of the keeper failed; again in %g s", AGAIN)
        await asyncio.sleep(AGAIN)


async def _serve(settings: Settings, directory: str) -> None:
    """Answer on the configured address, whenever it becomes ours.

    A unix socket has one keeper at a time: that of the policy before is about to go, that of the other daemon may be.
    """
    complaint, since = _Complaint(), time.monotonic()
    while True:
        try:
            listening = pages.listener(settings.metrics.listen)
        except OSError as error:
            if not isinstance(error, FileExistsError) or time.monotonic() > since + AGAIN:
                complaint.about(f"no metrics on {settings.metrics.listen}: {error.strerror or error}; trying on")
            await asyncio.sleep(SOON)
        else:
            complaint.about("")
            await pages.serve(table(directory), listening)


def table(directory: str) -> dict[str, pages.Page]:
    """The pages, made from what stands in the metrics directory."""
    one_at_a_time = asyncio.Lock()

    async def metrics() -> Answer:
        async with one_at_a_time:
            dead, wrong = missing(directory)
            try:
                body = await asyncio.to_thread(exposition, directory, healthy=not dead, ready=not wrong)
            except (OSError, ValueError) as error:
                return Answer("503 Service Unavailable", f"{error}\n".encode())
        return Answer("200 OK", body, CONTENT_TYPE)

    async def healthz() -> Answer:
        return _health(missing(directory)[0], "alive")

    async def readyz() -> Answer:
        return _health(missing(directory)[1], "ready")

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


def _health(wrong: list[str], well: str) -> Answer:
    if wrong:
        return Answer("503 Service Unavailable", "".join(f"{text}\n" for text in wrong).encode())
    return Answer("200 OK", f"{well}\n".encode())


async def _live(directory: str, daemon: str) -> None:
    while True:
        touch(directory, daemon)
        await asyncio.sleep(ALIVE)


async def _expire(
    what: str, throw_away: Callable[[Settings, float], Coroutine[Any, Any, int]], settings: Settings
) -> None:
    """Throw away what is old, once a minute; the keepers of both daemons not at the same moment."""
    complaint = _Complaint()
    await asyncio.sleep(random.uniform(1.0, MINUTE))  # noqa: S311 - spreads work, keeps no secret
    while True:
        try:
            now = await asyncio.to_thread(believed, settings.journal.path)
            await throw_away(settings, now.time)
        except (JournalError, StoreError, OSError) as error:
            complaint.about(f"nothing expires: {error}")
        else:
            complaint.about(f"{what} expires as if it were {now}" if now.ahead else "")
        await asyncio.sleep(MINUTE)


async def _settle(settings: Settings) -> None:
    """Let the state store come to rest every other second."""
    complaint = _Complaint()
    while True:
        try:
            await _settled(settings, complaint)
        except (StoreError, OSError) as error:
            complaint.about(f"the state is not settled: {error}")
        await asyncio.sleep(SETTLE)


async def _settled(settings: Settings, complaint: _Complaint) -> None:
    store = open_store(settings.state)
    try:
        while True:
            await store.settle()
            complaint.about("")
            await asyncio.sleep(SETTLE)
    finally:
        await store.close()


async def expire_journal(settings: Settings, now: float) -> int:
    """Throw away decisions older than `journal.keep`; how many went.

    Raises:
        JournalError: the journal cannot be changed.
    """
    gone, before, held = 0, now - settings.journal.keep, now - settings.quarantine.longest - HELD
    while True:
        some = await asyncio.to_thread(journal.expire, settings.journal.path, before, SLICE, held=held)
        gone += some
        if some < SLICE:
            return gone
        await asyncio.sleep(REST)


async def expire_store(settings: Settings, now: float) -> int:
    """Throw away what has expired in the state store; how many rows went.

    Raises:
        StoreError: the store cannot be changed.
    """
    store = open_store(settings.state)
    try:
        return await store.expire(now)
    finally:
        await store.close()


async def _report(settings: Settings) -> None:
    """Send the DMARC reports that are due."""
    reporting = import_module(REPORTING)
    complaint = _Complaint()
    while True:
        await asyncio.sleep(random.uniform(0.8, 1.2) * REPORT)  # noqa: S311 - spreads work, keeps no secret
        try:
            told = await reporting.run(settings, settings.reports, time.time())
        except (JournalError, reporting.LedgerError, OSError) as error:
            complaint.about(f"no DMARC reports: {error}")
        else:
            complaint.about("")
            for one in told:
                _log.info("%s", one)


class _Complaint:
    """Says a thing once, until it changes."""

    def __init__(self) -> None:
        self._said = ""

    def about(self, text: str) -> None:
        if text and text != self._said:
            _log.warning("%s", text)
        elif not text and self._said:
            _log.info("mended: %s", self._said)
        self._said = text

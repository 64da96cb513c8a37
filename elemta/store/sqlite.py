"""State in SQLite: the default store, one file that all workers of both daemons and the command line share.

Needs no set-up.  The file is in WAL mode: readers never wait, writers wait for each other for microseconds.
`synchronous=NORMAL`: a killed process loses nothing, a power cut at most the last writes, and neither harms the
file.  Never put it on a network file system.

Each process opens its own store after the fork and uses it from one event loop.  A call does its work on the loop,
since a read takes 10 µs and a transaction 40, which greylisting's attempts of one turn of the loop share.  Where
another process holds the write lock the call sleeps and tries again, so that the loop goes on, and gives up with
`StoreError` after `PATIENCE`.  The disk is waited for by the keepers (`settle`): a sync of the file would hold up
every mail of a worker.

Where the file is damaged, or not the one any more that was opened (deleted, moved away, put back from a backup), it is
opened again in the background, at most once a second; until that succeeds, what still works goes on.

Greylist keys are digests made by the check, sets hold octets; neither is ever part of an SQL text.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from elemta.sqlite_form import beside, identity, opened
from elemta.store import Grey, GreyTerms, Quota, StoreError, Use, sqlite_contacts, sqlite_greylist, sqlite_limits
from elemta.store.sqlite_file import PATIENCE, is_broken, is_busy, leave, open_file, open_other
from elemta.store.sqlite_greylist import Attempt, Key

LOOK = 1.0  # seconds between two looks at the file
SLICE = 1000  # rows looked at in one transaction of `expire`: about a millisecond

_SET_ENTRIES = """
    SELECT CAST(entry AS BLOB), CAST(until AS REAL) FROM sets WHERE name = ? AND (until = 0 OR until > ?) ORDER BY entry
"""  # text, too: so an administrator writes it with the sqlite3 command
_SET_SIZE = "SELECT count(*) FROM sets WHERE name = ? AND (until = 0 OR until > ?)"
_ADD_TO_SET = """
    INSERT INTO sets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until = excluded.until
    WHERE until <> 0 AND (excluded.until = 0 OR excluded.until > until)
"""

_log = logging.getLogger("elemta.store")

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStore:
    """The `Store` port on the SQLite file `path`.

    Raises:
        StoreError: the file cannot be opened, is not ours, is damaged, read-only, or of a newer version.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._db = open_file(path)
        self._files = opened(path)
        self._settled = 0
        self._broken = False
        self._next_look = time.monotonic() + LOOK
        self._opening: asyncio.Task[None] | None = None
        self._told = ""  # of why it cannot be opened again
        self._turn = asyncio.Lock()  # of whoever waits for the lock of another process
        self._attempts: list[tuple[Attempt, asyncio.Future[Grey]]] = []  # to be counted in the loop's next turn
        self._counting: set[asyncio.Task[None]] = set()

    async def greylist(self, triplet: str, network: str, now: float, terms: GreyTerms) -> Grey:
        """Count an attempt; who is known or proven costs a read only."""
        keys = (_key(triplet), _key(network))
        if time.monotonic() >= self._next_look:
            self._look()
        try:
            self._begin_reading()
            grey = sqlite_greylist.look(self._db, keys, now, terms)
        except sqlite3.Error:
            grey = await self._patiently(sqlite_greylist.look, keys, now, terms)
        if grey is not None:
            return grey
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Grey] = loop.create_future()
        if not self._attempts:
            task = loop.create_task(self._count())
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)
        self._attempts.append((Attempt(keys, now, terms), answer))
        return await answer

    def _begin_reading(self) -> None:
        """Read in one transaction until the loop's next turn: to begin and end one for each read is half its time."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
            asyncio.get_running_loop().call_soon(self._end_reading)

    def _end_reading(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it was closed meanwhile
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    async def _count(self) -> None:
        """Count all attempts of this turn of the loop together: a transaction for each costs several times as much."""
        together, self._attempts = self._attempts, []
        try:
            found = await self._patiently(sqlite_greylist.count, [asked for asked, _ in together])
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            for _, answer in together:
                if not answer.done():  # nobody waits any more
                    answer.set_exception(error)
        else:
            for (_, answer), grey in zip(together, found, strict=True):
                if not answer.done():
                    answer.set_result(grey)

    async def reserve(self, message: str, quotas: Sequence[Quota], now: float) -> Sequence[Use]:
        """Reserve all or none; see the port."""
        return await self._patiently(sqlite_limits.reserve, message, quotas, now)

    async def consume(self, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float) -> int:
        """Make final what was reserved; see the port."""
        return await self._patiently(sqlite_limits.consume, message, queue_id, within, now)

    async def release(self, message: str, part: str | None = None, keys: Sequence[str] = ()) -> int:
        """Reserve nothing any more; see the port."""
        return await self._patiently(sqlite_limits.release, message, part, keys)

    async def give_back(self, queue_id: str) -> bool:
        """Take back what was made final; see the port."""
        return bool(queue_id) and await self._patiently(sqlite_limits.give_back, queue_id)

    async def contacts(self, pairs: Sequence[str], now: float) -> Mapping[str, float]:
        """Which pairs are remembered, and since when."""
        return await self._patiently(sqlite_contacts.contacts, pairs, now)

    async def remember_contacts(self, pairs: Sequence[str], now: float, until: float) -> None:
        """Remember pairs; see the port."""
        await self._patiently(sqlite_contacts.remember, pairs, now, until)

    async def add_to_set(self, name: str, entry: str, until: float) -> None:
        """Put `entry` into the set `name`; the later end counts."""
        await self._patiently(_change_sets, _ADD_TO_SET, (name, _octets(entry), until))

    async def remove_from_set(self, name: str, entry: str) -> bool:
        """Take `entry` out; False when it was not there."""
        statement = "DELETE FROM sets WHERE name = ? AND CAST(entry AS BLOB) = ?"
        return await self._patiently(_change_sets, statement, (name, _octets(entry)))

    async def set_entries(self, name: str, now: float) -> Mapping[str, float]:
        """The entries that have not expired, each with its end (0 = none)."""
        rows = await self._patiently(_rows, _SET_ENTRIES, (name, now))
        return {entry.decode("utf-8", "surrogateescape"): until for entry, until in rows}

    async def set_size(self, name: str, now: float) -> int:
        """How many these are; a tenth of the time that it takes to read them."""
        [(size,)] = await self._patiently(_rows, _SET_SIZE, (name, now))
        return int(size)

    async def sets_version(self) -> int:
        """A number that grows with every change of a dynamic set; one read of one row."""
        [(version,)] = await self._patiently(_rows, "SELECT version FROM sets_version", ())
        return int(version)

    async def expire(self, now: float) -> int:
        """Throw away what has expired, a slice at a time, with the loop's other work between the slices."""
        gone = await self._patiently(_change, "DELETE FROM sets WHERE until <> 0 AND until <= ?", (now,))
        for table in ("triplets", "networks"):
            last: Key | None = ""
            while last is not None:
                count, last = await self._patiently(_expire_slice, table, last, now)
                gone += count
                await asyncio.sleep(0)
        for expire in (sqlite_limits.expire, sqlite_contacts.expire):
            while count := await self._patiently(expire, now, SLICE):
                gone += count
                await asyncio.sleep(0)
        return gone

    async def settle(self) -> None:
        """Bring what stands in the write-ahead log into the file, on a thread; nothing else may use this store then.

        Also into one that was moved away: who moved it wants all of it.
        """
        replaced = identity(self._path) != self._files[0]
        if replaced:
            leave(self._path, self._files)
        written = _written(beside(self._path)[0])
        if written == self._settled and not replaced:
            return
        work = asyncio.create_task(asyncio.to_thread(_rows, self._db, "PRAGMA wal_checkpoint(PASSIVE)", ()))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work  # before the file is closed
            raise
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        self._settled = written
        if replaced:
            raise StoreError(f"{self._path}: it was replaced")

    async def close(self) -> None:
        """Close the file."""
        if self._counting:
            await asyncio.wait(self._counting)
        if self._opening is not None:
            await self._opening
        self._db.close()

    def __del__(self) -> None:
        """A store that was forgotten closes its file."""
        with suppress(AttributeError):  # it never opened one
            self._db.close()

    async def _patiently(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do `work` without a pause, again and again while another process has the lock, not holding up the loop.

        Of all that wait for the lock one tries: if thousands did, the loop would have time for nothing else.
        """
        pause, give_up, trying = 0.0005, None, False
        if time.monotonic() >= self._next_look:
            self._look()
        try:
            while True:
                try:
                    self._end_reading()
                    return work(self._db, *args, **kwargs)
                except sqlite3.Error as error:
                    now = time.monotonic()
                    give_up = now + PATIENCE if give_up is None else give_up
                    self._broken = self._broken or is_broken(error)
                    if not is_busy(error) or now > give_up:
                        raise StoreError(f"{self._path}: {error}") from error
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                if trying:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.05)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(give_up - now):
                        trying = await self._turn.acquire()
        finally:
            if trying:
                self._turn.release()

    def _look(self) -> None:
        """For once a second: is the file still the one that is open, and well?"""
        self._next_look = time.monotonic() + LOOK
        renew = self._broken or identity(self._path) != self._files[0]
        if renew and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open_again())

    async def _open_again(self) -> None:
        try:
            renewed = await asyncio.to_thread(open_other, self._path, self._files, broken=self._broken)
        except StoreError as error:
            if not self._broken and str(error) != self._told:  # else whoever asks is told what is wrong
                _log.error("%s; what was open before is used", error)
                self._told = str(error)
            return
        self._db.close()
        self._db, self._files, self._broken, self._told = renewed, opened(self._path), False, ""
        _log.warning("%s: opened again", self._path)


# What the store does with its connection, beside `sqlite_limits` and others; sqlite3.Error rises to `_patiently`.


def _change_sets(db: sqlite3.Connection, statement: str, values: tuple[str | bytes | float, ...]) -> bool:
    db.execute("BEGIN IMMEDIATE")
    changed = db.execute(statement, values).rowcount > 0
    if changed:
        db.execute("UPDATE sets_version SET version = version + 1")
    db.execute("COMMIT")
    return changed


def _expire_slice(db: sqlite3.Connection, table: str, after: Key, now: float) -> tuple[int, Key | None]:
    """Rows thrown away among the next SLICE keys, and the last of these keys; None at the end."""
    ends = _rows(db, f"SELECT key FROM {table} WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?", (after, SLICE - 1))  # noqa: S608
    last = ends[0][0] if ends else None
    upto = "" if last is None else "AND key <= ?"
    values = (after, now) if last is None else (after, now, last)
    return _change(db, f"DELETE FROM {table} WHERE key > ? AND until < ? {upto}", values), last  # noqa: S608


def _change(db: sqlite3.Connection, statement: str, values: tuple[Key | float, ...]) -> int:
    return db.execute(statement, values).rowcount


def _rows(db: sqlite3.Connection, statement: str, values: tuple[str | bytes | float, ...]) -> list[Any]:
    return db.execute(statement, values).fetchall()


def _written(path: str) -> int:
    """When a file was last written, nanoseconds; 0 when there is none."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _key(text: str) -> Key:
    """Text where SQLite can hold it, which it also takes faster than octets."""
    return text if text.isascii() else _octets(text)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

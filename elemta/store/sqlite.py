"""State in SQLite: the default store, one file that all workers of both daemons and the command line share.

Needs no set-up.  The file is in WAL mode: readers never wait, writers wait for each other for microseconds.
`synchronous=NORMAL`: a killed process loses nothing, a power cut at most the last writes, and neither harms the
file.  Never put it on a network file system.

Each process opens its own store after the fork and uses it from one event loop.  A call does its work on the loop,
since a read takes 10 µs and a write 40; where another process holds the write lock the call sleeps and tries
again, so that the loop goes on, and gives up with `StoreError` after `PATIENCE`.  The disk is waited for by the keepers
(`settle`): a sync of the file would hold up every mail of a worker.

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
from typing import Any, ParamSpec, TypeVar

from elemta.sqlite_form import beside, identity, opened
from elemta.store import Grey, GreyTerms, Quota, StoreError, Use, sqlite_contacts, sqlite_limits
from elemta.store.greylisting import Network, Triplet, attempt
from elemta.store.sqlite_file import PATIENCE, is_busy, leave, open_file, open_other

LOOK = 1.0  # seconds between two looks at the file
SLICE = 1000  # rows looked at in one transaction of `expire`: about a millisecond

_READ_GREY = """
    SELECT first, until, attempts, passed FROM triplets WHERE key = ?
    UNION ALL SELECT counted, until, passes, NULL FROM networks WHERE key = ?
"""
_NEW_TRIPLET = "INSERT OR IGNORE INTO triplets (first, until, attempts, passed, key) VALUES (?, ?, ?, ?, ?)"
_SWAP_TRIPLET = """
    UPDATE triplets SET first = ?, until = ?, attempts = ?, passed = ? WHERE key = ? AND attempts = ? AND until = ?
"""
_NEW_NETWORK = "INSERT OR IGNORE INTO networks (passes, counted, until, key) VALUES (?, ?, ?, ?)"
_SWAP_NETWORK = "UPDATE networks SET passes = ?, counted = ?, until = ? WHERE key = ? AND passes = ? AND counted = ?"
_SET_ENTRIES = """
    SELECT CAST(entry AS BLOB), CAST(until AS REAL) FROM sets WHERE name = ? AND (until = 0 OR until > ?) ORDER BY entry
"""  # text, too: so an administrator writes it with the sqlite3 command
_SET_SIZE = "SELECT count(*) FROM sets WHERE name = ? AND (until = 0 OR until > ?)"
_ADD_TO_SET = """
    INSERT INTO sets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until = excluded.until
    WHERE until <> 0 AND (excluded.until = 0 OR excluded.until > until)
"""

_BROKEN = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
})  # fmt: skip
"""Errors that another connection may not have."""

_log = logging.getLogger("elemta.store")

Key = str | bytes
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

    async def greylist(self, triplet: str, network: str, now: float, terms: GreyTerms) -> Grey:
        """Count an attempt; who is known or proven costs a read only."""
        keys = (_key(triplet), _key(network))
        if time.monotonic() >= self._next_look:
            self._look()
        try:
            before = self._read_grey(keys)
        except sqlite3.Error:
            before = await self._patiently(self._read_grey, keys)
        grey, known, proof = attempt(*before, now, terms)  # None for what is over, and `expire` throws away
        if known is not None and (
            known is not before[0] and not await self._patiently(self._swap, keys[0], before[0], known)
        ):
            return await self._patiently(self._count, keys, now, terms)
        if proof is not None and proof is not before[1]:
            await self._patiently(self._prove, keys[1], before[1], proof)
        return grey

    async def reserve(self, message: str, quotas: Sequence[Quota], now: float) -> Sequence[Use]:
        """Reserve all or none; see the port."""
        return await self._patiently(sqlite_limits.reserve, self._db, message, quotas, now)

    async def consume(self, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float) -> int:
        """Make final what was reserved; see the port."""
        return await self._patiently(sqlite_limits.consume, self._db, message, queue_id, within, now)

    async def release(self, message: str, part: str | None = None, keys: Sequence[str] = ()) -> int:
        """Reserve nothing any more; see the port."""
        return await self._patiently(sqlite_limits.release, self._db, message, part, keys)

    async def give_back(self, queue_id: str) -> bool:
        """Take back what was made final; see the port."""
        return bool(queue_id) and await self._patiently(sqlite_limits.give_back, self._db, queue_id)

    async def contacts(self, pairs: Sequence[str], now: float) -> Mapping[str, float]:
        """Which pairs are remembered, and since when."""
        return await self._patiently(sqlite_contacts.contacts, self._db, pairs, now)

    async def remember_contacts(self, pairs: Sequence[str], now: float, until: float) -> None:
        """Remember pairs; see the port."""
        await self._patiently(sqlite_contacts.remember, self._db, pairs, now, until)

    async def add_to_set(self, name: str, entry: str, until: float) -> None:
        """Put `entry` into the set `name`; the later end counts."""
        await self._patiently(self._change_sets, _ADD_TO_SET, (name, _octets(entry), until))

    async def remove_from_set(self, name: str, entry: str) -> bool:
        """Take `entry` out; False when it was not there."""
        statement = "DELETE FROM sets WHERE name = ? AND CAST(entry AS BLOB) = ?"
        return await self._patiently(self._change_sets, statement, (name, _octets(entry)))

    async def set_entries(self, name: str, now: float) -> Mapping[str, float]:
        """The entries that have not expired, each with its end (0 = none)."""
        rows = await self._patiently(self._rows, _SET_ENTRIES, (name, now))
        return {entry.decode("utf-8", "surrogateescape"): until for entry, until in rows}

    async def set_size(self, name: str, now: float) -> int:
        """How many these are; a tenth of the time that it takes to read them."""
        [(size,)] = await self._patiently(self._rows, _SET_SIZE, (name, now))
        return int(size)

    async def sets_version(self) -> int:
        """A number that grows with every change of a dynamic set; one read of one row."""
        [(version,)] = await self._patiently(self._rows, "SELECT version FROM sets_version", ())
        return int(version)

    async def expire(self, now: float) -> int:
        """Throw away what has expired, a slice at a time, with the loop's other work between the slices."""
        gone = await self._patiently(self._change, "DELETE FROM sets WHERE until <> 0 AND until <= ?", (now,))
        for table in ("triplets", "networks"):
            last: Key | None = ""
            while last is not None:
                count, last = await self._patiently(self._expire_slice, table, last, now)
                gone += count
                await asyncio.sleep(0)
        for expire in (sqlite_limits.expire, sqlite_contacts.expire):
            while count := await self._patiently(expire, self._db, now, SLICE):
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
        work = asyncio.create_task(asyncio.to_thread(self._rows, "PRAGMA wal_checkpoint(PASSIVE)", ()))
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
        if self._opening is not None:
            await self._opening
        self._db.close()

    def __del__(self) -> None:
        """A store that was forgotten closes its file."""
        with suppress(AttributeError):  # it never opened one
            self._db.close()

    # What follows runs on the loop without a pause; sqlite3.Error rises to `_patiently`.

    def _read_grey(self, keys: tuple[Key, Key]) -> tuple[Triplet | None, Network | None]:
        triplet = network = None
        for since, until, count, passed in self._db.execute(_READ_GREY, keys):
            if passed is None:
                network = Network(count, since, until)
            else:
                triplet = Triplet(since, until, count, passed == 1)
        return triplet, network

    def _swap(self, key: Key, before: Triplet | None, after: Triplet) -> bool:
        """Write what was judged, in one statement; False when somebody was faster."""
        row = (after.first, after.until, after.attempts, int(after.passed), key)
        if before is None:
            return self._change(_NEW_TRIPLET, row) == 1
        return self._change(_SWAP_TRIPLET, (*row, before.attempts, before.until)) == 1

    def _prove(self, key: Key, before: Network | None, after: Network) -> None:
        """Write what a pass means for the network; not if somebody did at this moment: passes at once count once."""
        row = (after.passes, after.counted, after.until, key)
        if before is None:
            self._change(_NEW_NETWORK, row)
        else:
            self._change(_SWAP_NETWORK, (*row, before.passes, before.counted))

    def _count(self, keys: tuple[Key, Key], now: float, terms: GreyTerms) -> Grey:
        """Read again and write in one transaction: of attempts that come at once each sees the one before."""
        self._db.execute("BEGIN IMMEDIATE")
        before = self._read_grey(keys)
        grey, triplet, network = attempt(*before, now, terms)
        if triplet is not None and triplet is not before[0]:
            row = (keys[0], triplet.first, triplet.until, triplet.attempts, int(triplet.passed))
            self._db.execute("INSERT OR REPLACE INTO triplets VALUES (?, ?, ?, ?, ?)", row)
        if network is not None and network is not before[1]:
            proof = (keys[1], network.passes, network.counted, network.until)
            self._db.execute("INSERT OR REPLACE INTO networks VALUES (?, ?, ?, ?)", proof)
        self._db.execute("COMMIT")
        return grey

    def _change_sets(self, statement: str, values: tuple[str | bytes | float, ...]) -> bool:
        self._db.execute("BEGIN IMMEDIATE")
        changed = self._db.execute(statement, values).rowcount > 0
        if changed:
            self._db.execute("UPDATE sets_version SET version = version + 1")
        self._db.execute("COMMIT")
        return changed

    def _expire_slice(self, table: str, after: Key, now: float) -> tuple[int, Key | None]:
        """Rows thrown away among the next SLICE keys, and the last of these keys; None at the end."""
        ends = self._rows(f"SELECT key FROM {table} WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?", (after, SLICE - 1))  # noqa: S608
        last = ends[0][0] if ends else None
        upto = "" if last is None else "AND key <= ?"
        values = (after, now) if last is None else (after, now, last)
        return self._change(f"DELETE FROM {table} WHERE key > ? AND until < ? {upto}", values), last  # noqa: S608

    def _change(self, statement: str, values: tuple[Key | float, ...]) -> int:
        return self._db.execute(statement, values).rowcount

    def _rows(self, statement: str, values: tuple[str | bytes | float, ...]) -> list[Any]:
        return self._db.execute(statement, values).fetchall()

    async def _patiently(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work`, again and again while another process has the lock, without holding up the loop."""
        pause, give_up = 0.0005, None
        if time.monotonic() >= self._next_look:
            self._look()
        while True:
            try:
                return work(*args, **kwargs)
            except sqlite3.Error as error:
                now = time.monotonic()
                give_up = now + PATIENCE if give_up is None else give_up
                self._broken = self._broken or (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BROKEN
                if not is_busy(error) or now > give_up:
                    raise StoreError(f"{self._path}: {error}") from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _look(self) -> None:
        """For once a second: is the file still the one that is open, and well?"""
        self._next_look = time.monotonic() + LOOK
        renew = self._broken or identity(self._path) != self._files[0]
        if renew and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open_again())

    async def _open_again(self) -> None:
        try:
            renewed = await asyncio.to_thread(open_other, self._path, self._files)
        except StoreError as error:
            if not self._broken:  # else whoever asks is told what is wrong
                _log.error("%s; what was open before is used", error)
            return
        self._db.close()
        self._db, self._files, self._broken = renewed, opened(self._path), False
        _log.warning("%s: opened again", self._path)


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

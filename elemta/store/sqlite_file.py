"""The SQLite state file: is it ours, whole, writable, and of the schema that this version speaks?

Opens or creates the file and brings its schema up to date, once, whichever process comes first.  Every way in which
that can fail is a `StoreError` that names the file and says what is wrong with it.

The file is in WAL mode with `synchronous=NORMAL` (see `sqlite.py`), readable by owner and group only: it names
accounts.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from elemta.sqlite_form import File, Form, legible, make, part
from elemta.store import StoreError
from elemta.store.sqlite_contacts import SCHEMA as CONTACTS
from elemta.store.sqlite_limits import SCHEMA as LIMITS

LOG_PAGES = 16_000
"""Pages (64 MB) of the write-ahead log at which whoever writes must bring them into the file itself, and wait for the
disk; `SqliteStore.settle` does it long before, in a process that answers no mail."""
PATIENCE = 5.0  # seconds to wait for other processes that write; below the budget of a mail and of a request

_SCRIPTS = (  # see Form
    """
    CREATE TABLE triplets (
        key BLOB PRIMARY KEY, first REAL NOT NULL, until REAL NOT NULL, attempts INTEGER NOT NULL,
        passed INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE networks (
        key BLOB PRIMARY KEY, passes INTEGER NOT NULL, counted REAL NOT NULL, until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE sets (name TEXT, entry BLOB, until REAL NOT NULL, PRIMARY KEY (name, entry)) WITHOUT ROWID;
    CREATE TABLE sets_version (version INTEGER NOT NULL);
    INSERT INTO sets_version VALUES (0);
    """,
    LIMITS,
    CONTACTS,
)
_FORM = Form(0x456C6D74, _SCRIPTS, "state", StoreError)  # "Elmt"

_BROKEN = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
})  # fmt: skip
"""Errors that another connection may not have."""


def open_file(path: str) -> sqlite3.Connection:
    """Open `path`, in autocommit mode, without a busy time-out. Blocks for PATIENCE at most.

    Raises:
        StoreError: no such directory, no right to write, damaged, another program's, of a newer version.
    """
    if not Path(path).parent.is_dir():
        raise StoreError(f"{path}: there is no directory {Path(path).parent}")
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            make(path)
            return _connect(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > give_up:
                raise StoreError(_told(path, error)) from error
        time.sleep(0.01)  # another process changes the file to WAL mode, for which SQLite does not wait


def open_other(path: str, before: tuple[File | None, ...], *, broken: bool) -> sqlite3.Connection:
    """Open what stands now at `path`, in the place of what was open; see `leave` and `open_file`.

    Where that was `broken`, something is written, too: that a disk takes nothing shows only then.
    """
    leave(path, before)
    db = open_file(path)
    if broken:
        try:
            _write(db)
        except sqlite3.Error as error:
            if is_broken(error):
                db.close()
                raise StoreError(_told(path, error)) from error
    return db


def _write(db: sqlite3.Connection) -> None:
    """Write to the file, and change nothing in it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for change in (1, -1):  # what is set to what it is SQLite does not write
            db.execute("UPDATE sets_version SET version = version + ?", (change,))
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def leave(path: str, before: tuple[File | None, ...]) -> None:
    """Let nothing of the file that was open come into the one that stands there now; see `part`.

    Raises:
        StoreError: no right to do so.
    """
    try:
        part(path, before)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def is_busy(error: sqlite3.Error) -> bool:
    """Another process holds a lock; trying again will do."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_broken(error: sqlite3.Error) -> bool:
    """Another connection may do."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def _told(path: str, error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return f"{path}: damaged ({error}); move it and its -wal and -shm files away, the daemons then begin a new one"
    return f"{path}: {error}"


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        _FORM.recognise(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -8000")  # KiB
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        _FORM.migrate(db)  # taking the lock also finds a file that we may not write
        with legible():
            for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                db.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()  # noqa: S608 - damage shows here, not at a mail
        db.execute("PRAGMA busy_timeout = 0")  # from here on the store waits, without blocking
    except BaseException:
        db.close()
        raise
    return db

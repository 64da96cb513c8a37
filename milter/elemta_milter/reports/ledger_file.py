"""The ledger's file: is it ours, and of the form that this version writes?

SQLite beside the journal: counts until they are reported, reports with what became of them, addresses that take none.
One writer at a time; whoever waits longer than PATIENCE is told so.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from elemta.sqlite_form import Form, make

PATIENCE = 10.0  # seconds to wait for another process that is writing

_SCRIPTS = (  # see Form
    """
    CREATE TABLE mark (number INTEGER NOT NULL, id TEXT NOT NULL);
    INSERT INTO mark VALUES (0, '');
    CREATE TABLE policies (
        number INTEGER PRIMARY KEY, domain TEXT NOT NULL, record TEXT NOT NULL, method TEXT NOT NULL,
        UNIQUE (domain, record, method)
    );
    CREATE TABLE counts (
        domain TEXT NOT NULL, hour INTEGER NOT NULL, policy INTEGER NOT NULL, line TEXT NOT NULL,
        mails INTEGER NOT NULL, last REAL NOT NULL, PRIMARY KEY (domain, hour, policy, line)
    ) WITHOUT ROWID;
    CREATE TABLE unlisted (
        domain TEXT NOT NULL, hour INTEGER NOT NULL, mails INTEGER NOT NULL, PRIMARY KEY (domain, hour)
    ) WITHOUT ROWID;
    CREATE TABLE reports (
        domain TEXT NOT NULL, begin INTEGER NOT NULL, end INTEGER NOT NULL, mails INTEGER NOT NULL,
        state TEXT NOT NULL, note TEXT NOT NULL, tried REAL NOT NULL, PRIMARY KEY (domain, begin)
    ) WITHOUT ROWID;
    CREATE TABLE deliveries (
        token TEXT PRIMARY KEY, domain TEXT NOT NULL, begin INTEGER NOT NULL, address TEXT NOT NULL,
        at REAL NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX deliveries_report ON deliveries (domain, begin);
    CREATE TABLE bounces (
        token TEXT PRIMARY KEY, address TEXT NOT NULL, at REAL NOT NULL, note TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE suppressed (address TEXT PRIMARY KEY, at REAL NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE failures (
        domain TEXT NOT NULL, source TEXT NOT NULL, alignment TEXT NOT NULL, hour INTEGER NOT NULL,
        incidents INTEGER NOT NULL, detail TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (domain, source, alignment, hour)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE secret (octets BLOB NOT NULL);
    INSERT INTO secret VALUES (randomblob(32));
    """,
)


class LedgerError(Exception):
    """The ledger of reports cannot be used; the text says why."""


_FORM = Form(0x454C5231, _SCRIPTS, "reports.file", LedgerError)  # "ELR1"


class LedgerFile:
    """The file at `path`, opened; every method may raise LedgerError."""

    def __init__(self, path: str) -> None:
        """Open it; it is made where it is missing.

        Raises:
            LedgerError: it may not be opened, is damaged, another program's, or of a newer version.
        """
        self.path = path
        self._database = _open(path)

    def close(self) -> None:
        """Give it back."""
        self._database.close()

    def __del__(self) -> None:
        """One that was forgotten gives it back too."""
        with suppress(AttributeError):  # it never had one
            self._database.close()

    def all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows."""
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def one(self, query: str, *values: object) -> tuple[Any, ...]:
        """The first row, which is there unless the file is damaged."""
        found = self.all(query, *values)
        if not found:
            raise self._damaged("a row is missing")
        return found[0]

    @contextmanager
    def legible(self) -> Iterator[None]:
        """Read what stands in columns as JSON."""
        try:
            yield
        except (ValueError, TypeError) as error:  # msgspec's errors are of the first kind; a number is no text
            raise self._damaged(f"a row cannot be read: {error}") from error

    def _damaged(self, how: str) -> LedgerError:
        return LedgerError(f"{self.path}: damaged ({how}); move it away, a new one is then begun")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; other processes' changes come before or after it."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error


def _open(path: str) -> sqlite3.Connection:
    directory = Path(path).parent
    if not directory.is_dir():
        raise LedgerError(f"{path}: there is no directory {directory}")
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            make(path)
            return _connect(path)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise LedgerError(f"{path}: {error}") from error
        time.sleep(0.01)  # another process changes the file to WAL mode, for which SQLite does not wait


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        _FORM.recognise(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # a report that is noted as sent is never sent again
        _FORM.migrate(database)
    except BaseException:
        database.close()
        raise
    return database

"""Journal schema: what stands in the file, and may this Elemta use it?

One row of `decisions` for each decision: what is searched for in columns, the rest (findings, facts that rules
asked for, rules read, timings, actions) as JSON in `detail`, so that the sqlite3 command can read it too.
`recipients` leads from an address to its decisions.  `policies` keeps the words of every policy that judged, so that
an old decision can be explained after the policy has changed.  `acts` says what was done with a held mail later.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from elemta.sqlite_form import Form, make, uri

PAGES_IN_MEMORY = -4000  # KiB of SQLite's cache, per connection
TOUCH = 3600.0  # seconds after which a policy is marked again as in use
CHECKPOINT = 4000  # pages of write-ahead log between two checkpoints: a quarter faster than SQLite's 1000
WAL_KEPT = 32 << 20  # octets of write-ahead log left on disk after a checkpoint

_SCRIPTS = (  # see Form
    """
    CREATE TABLE decisions (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL, stage TEXT NOT NULL,
        queue_id TEXT NOT NULL, instance TEXT NOT NULL, class TEXT NOT NULL,
        disposition TEXT NOT NULL, rule TEXT NOT NULL, reply TEXT NOT NULL,
        client TEXT NOT NULL, client_name TEXT NOT NULL, helo TEXT NOT NULL, login TEXT NOT NULL,
        sender TEXT NOT NULL COLLATE NOCASE, recipients TEXT NOT NULL, size INTEGER NOT NULL,
        message_id TEXT NOT NULL, header_from TEXT NOT NULL, seconds REAL NOT NULL,
        policy TEXT NOT NULL, detail TEXT NOT NULL
    );
    CREATE INDEX decisions_id ON decisions (id);
    CREATE INDEX decisions_at ON decisions (at);
    CREATE INDEX decisions_queue_id ON decisions (queue_id) WHERE queue_id != '';
    CREATE INDEX decisions_instance ON decisions (instance) WHERE instance != '';
    CREATE INDEX decisions_sender ON decisions (sender, at);
    CREATE INDEX decisions_client ON decisions (client, at);
    CREATE INDEX decisions_rule ON decisions (rule, at) WHERE rule != '';
    CREATE TABLE recipients (
        address TEXT NOT NULL COLLATE NOCASE, number INTEGER NOT NULL, PRIMARY KEY (address, number)
    ) WITHOUT ROWID;
    CREATE TABLE policies (fingerprint TEXT PRIMARY KEY, last REAL NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE acts (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL, deed TEXT NOT NULL, who TEXT NOT NULL
    );
    CREATE INDEX acts_id ON acts (id);
    CREATE INDEX acts_at ON acts (at);
    """,
)


class JournalError(Exception):
    """The journal cannot be used; the text says why, and what to do."""


FORM = Form(0x454C4A31, _SCRIPTS, "journal.path", JournalError)  # "ELJ1"


def connect(path: str, *, write: bool = False, patience: float = 5.0) -> sqlite3.Connection:
    """Open the journal; with `write` it is made where it is missing and brought to this form where it is older.

    Args:
        path: the file.
        write: also make and change it.
        patience: seconds to wait for another process that is writing.

    Raises:
        JournalError: there is none, it is none, it is damaged, it is newer than this Elemta, or it may not be opened.
    """
    if not write:
        _is_there(path)
    if write and not Path(path).parent.is_dir():
        raise JournalError(f"{path}: its directory does not exist; make it, owned by the daemons' user")
    try:
        if write:
            with suppress(OSError, ValueError):  # SQLite tells what is wrong
                make(path)
        database = sqlite3.connect(
            uri(path, "rwc" if write else "rw"),
            uri=True, timeout=patience, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
    except sqlite3.Error as error:
        raise JournalError(explained(path, error)) from error
    try:
        version = FORM.recognise(database, path)
        if write:
            _prepare(database)
            if version < len(FORM.scripts):
                FORM.migrate(database)
        else:
            database.execute("PRAGMA query_only = ON")
            _usable(version, path)
    except sqlite3.Error as error:
        database.close()
        raise JournalError(explained(path, error)) from error
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")  # readers and the one writer do not wait for each other
    # A commit outlives kill -9; a power cut may cost the last ones, never the file.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
    database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
    database.execute(f"PRAGMA cache_size = {PAGES_IN_MEMORY}")


def _usable(version: int, path: str) -> None:
    """Refuse a file that a writer must make or bring up to date first."""
    if version == 0:
        raise JournalError(f"{path}: an empty file, no journal of Elemta; has a daemon run?")
    if version < len(FORM.scripts):
        raise JournalError(f"{path}: of an older Elemta (form {version}); start a daemon once, it updates the file")


def _is_there(path: str) -> None:
    try:
        os.stat(path)  # noqa: PTH116 - a path of any user's making, only looked at
    except PermissionError:
        raise JournalError(f"{path}: you may not look there; ask as root or as the daemons' user") from None
    except (OSError, ValueError):
        raise JournalError(f"{path}: no journal here; is journal.path right, and has a daemon judged a mail?") from None


def damaged(path: str, words: str) -> str:
    """What to do about a file of which something cannot be read."""
    return f"{path}: damaged ({words}); move it and its -wal and -shm files away, the daemons then begin a new one"


def explained(path: str, error: sqlite3.Error) -> str:
    """SQLite's words, and what to do about them."""
    words = str(error)
    if "not a database" in words or "malformed" in words:
        return damaged(path, words)
    if "unable to open" in words or "readonly" in words:
        return f"{path}: cannot be opened ({words}); read and write permission on the file and its directory is needed"
    if "locked" in words:
        return f"{path}: another process keeps it locked"
    if "full" in words:
        return f"{path}: the disk is full"
    return f"{path}: {words}"

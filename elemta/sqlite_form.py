"""SQLite form: is this file ours, and of the form that this version writes?

A file names its owner in its header (application_id), and how many of our scripts have made it what it is
(user_version).  The state store, the journal and the ledger of reports each have a form; how they open their file, and
what they say where that fails, is theirs.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

File = tuple[int, int]
"""A file, whatever its name: device and inode."""


@dataclass(frozen=True, slots=True)
class Form:
    """What stands in one kind of file.

    Attributes:
        application: four letters as a number, which tell our file from any other.
        scripts: each brings the file from the version that is its index to the next; never change one that was
            released, append.
        setting: what names the file in the configuration, for people.
        error: what is raised; its text says what is wrong with the file.
    """

    application: int
    scripts: tuple[str, ...]
    setting: str
    error: type[Exception]

    def recognise(self, database: sqlite3.Connection, path: str) -> int:
        """The file's version, 0 for an empty one; nothing is written.

        Raises:
            error: it is something else's, or newer than this Elemta.
            sqlite3.Error: it cannot be read.
        """
        with legible():
            application, version, tables = self._head(database)
        if application != self.application and tables:
            raise self.error(f"{path}: a database of something else; let {self.setting} name a file of its own")
        if version > len(self.scripts):
            known = f"form {version}, known is {len(self.scripts)}"
            raise self.error(f"{path}: of a newer Elemta ({known}); update this one")
        return version

    def _head(self, database: sqlite3.Connection) -> tuple[int, int, int]:
        """Whose the file is, its version, and how many tables and indexes it has."""
        database.execute("BEGIN")  # one view of the file: another process may be making it
        try:
            [application] = database.execute("PRAGMA application_id").fetchone()
            [version] = database.execute("PRAGMA user_version").fetchone()
            [tables] = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        return int(application), int(version), int(tables)

    def migrate(self, database: sqlite3.Connection) -> None:
        """Bring a file that was recognised up to date, in one transaction; many processes may do so at once.

        Raises:
            sqlite3.Error: it cannot be changed, also where there is nothing to change.
        """
        database.execute("BEGIN IMMEDIATE")
        try:
            [version] = database.execute("PRAGMA user_version").fetchone()
            for script in self.scripts[version:]:
                for statement in script.split(";"):
                    database.execute(statement)
            if version < len(self.scripts):
                database.execute(f"PRAGMA user_version = {len(self.scripts)}")
                database.execute(f"PRAGMA application_id = {self.application}")
            database.execute("COMMIT")
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")


@contextmanager
def legible() -> Iterator[None]:
    """Names in a damaged file may be no text, which Python's module does not tell as an error of SQLite.

    Raises:
        sqlite3.DatabaseError: that is so.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        damage = sqlite3.DatabaseError("database disk image is malformed, a name in it is no text")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error


def uri(path: str, mode: str) -> str:
    """The name of a file for `sqlite3.connect(..., uri=True)`; `mode` is "ro", "rw" or "rwc".

    With an empty authority: SQLite takes what follows two slashes for one, and a path may begin with two.
    """
    return f"file://{quote(os.path.abspath(path))}?mode={mode}"  # noqa: PTH100


def make(path: str) -> None:
    """Make the file if it is missing, readable by owner and group only: what is in it names people.

    One made by root belongs to whom the directory belongs, that is, the daemons.

    Raises:
        OSError: it cannot be made, or we may not write to it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        if Path(path).is_dir() or not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # which tells why not
        return  # else it is not opened: to close it again would end every lock of this process on it (fcntl)
    if os.geteuid() == 0:
        owner = Path(path).parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    os.close(descriptor)


def identity(path: str) -> File | None:
    """Which file this is; None for none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a path of any user's making, only looked at
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened(path: str) -> tuple[File | None, ...]:
    """Which files a database is that was just opened: it, its write-ahead log, and the index of that."""
    return tuple(identity(each) for each in (path, *beside(path)))


def beside(path: str) -> tuple[str, str]:
    """Where a database has its write-ahead log, and the index of that: by the file that a symbolic link leads to."""
    file = os.path.realpath(path)
    return f"{file}-wal", f"{file}-shm"


def part(path: str, before: tuple[File | None, ...]) -> None:
    """Where another file stands now at `path`, or none: take away what the one before has left beside it.

    SQLite would take that log for the new file's, which damages it, and share its index with those who have the old
    one open.  Call it before the new one is opened, and the old one closed: no other file is like one that is open.

    Args:
        path: of the database.
        before: what `opened` gave.

    Raises:
        OSError: it cannot be taken away.
    """
    left = beside(path)
    directory = os.open(Path(left[0]).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # else one process might take away what another has just made
        if identity(path) == before[0]:
            return
        for name, file in zip(left, before[1:], strict=True):
            if file is not None and identity(name) == file:
                os.unlink(name)  # noqa: PTH108
    finally:
        os.close(directory)

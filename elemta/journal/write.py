"""Journal writer: how do rows get into the file, whatever happens to the file?

`take` only appends to a queue.  A thread writes the queue to SQLite every half second, or as soon as 500 decisions
wait.  In a daemon this runs in a process of its own, to which `courier.py` brings the rows.

When the file cannot be written (disk full, locked, read-only, damaged, gone) mail is judged on: the writer reports it,
tries again each second with a fresh connection, and keeps the newest 20,000 decisions meanwhile.  Beyond them the
oldest are dropped and counted: what an administrator looks for then is what happens now, and the log has a line for
each.  Nothing here raises to who brings them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec

from elemta.journal.entry import COLUMNS, Row
from elemta.journal.schema import TOUCH, JournalError, connect, explained
from elemta.sqlite_form import File, identity, opened, part

INTERVAL = 0.5  # seconds between two writes
BATCH = 500  # decisions in one transaction; as many waiting wake the thread early
BOUND = 20_000  # decisions kept in memory, about 3 KB each, while the file cannot be written
PATIENCE = 2.0  # seconds to wait for a lock in one attempt
RETRY = 1.0  # seconds between attempts while there is trouble
REMIND = 60.0  # seconds between reports of the same trouble

_MARKS = ",".join("?" * len(COLUMNS))
_DECISION = f"INSERT INTO decisions (number, {', '.join(COLUMNS)}) VALUES (?, {_MARKS})"  # noqa: S608 - constants
_RECIPIENTS = "INSERT OR IGNORE INTO recipients SELECT value, ? FROM json_each(?)"
_POLICY = """INSERT INTO policies VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last
             WHERE last < excluded.last - ?"""
_ID, _AT, _RECIPIENT_LIST = (COLUMNS.index(name) for name in ("id", "at", "recipients"))


class Writer:
    """Keeps decisions.

    Attributes:
        written: decisions that stand in the file.
        failures: attempts to write that failed.
        trouble: why the file cannot be written now, "" when it can.
    """

    def __init__(
        self,
        path: str,
        report: Callable[[str], None],
        *,
        interval: float = INTERVAL,
        bound: int = BOUND,
        clock: Callable[[], float] = time.monotonic,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """Make it; nothing is opened yet.

        Args:
            path: the file.
            report: is told of trouble in words, from the writer's thread; at most once a minute.
            interval: seconds between two writes.
            bound: decisions to keep in memory.
            clock: seconds, for the reports.
            settled: called from the writer's thread after each attempt to write.
        """
        self.path = path
        self.written = 0
        self.failures = 0
        self.trouble = ""
        self._report = report
        self._interval = interval
        self._clock = clock
        self._reported = 0.0
        self._settled = settled
        self._offered = 0  # counted by who brings rows only
        self._taken = 0  # counted by the thread only
        self._lost = 0
        self._unmade = 0  # counted by who brings rows only
        self._queue: deque[Row] = deque(maxlen=bound)
        self._rows: list[Row] = []  # taken from the queue, not yet committed; the writer's thread only
        self._doubtful: set[object] = set()  # ids that may stand in the file already
        self._policies: dict[str, str] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._database: sqlite3.Connection | None = None
        self._files: tuple[File | None, ...] = ()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start to write."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def words(self, fingerprint: str, text: str) -> None:
        """Keep the words of a policy (`in_words`) beside the decisions that it made."""
        self._policies = {**self._policies, fingerprint: text}  # a new one: the thread may be reading the old

    def take(self, rows: Iterable[Row], *, again: bool = False) -> None:
        """Keep rows; `again`: they may stand in the file already."""
        queue = self._queue
        for columns in rows:
            if again:
                self._doubtful.add(columns[_ID])
            queue.append(columns)  # drops the oldest when it is full
            self._offered += 1
        if len(queue) >= BATCH:
            self._wake.set()

    def lose(self, why: str) -> None:
        """Count a decision of which no row can be made; called by who brings rows."""
        self._unmade += 1
        self._report(why)
        self._settled()

    def flush(self) -> None:
        """Write soon, not only at the next interval."""
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Decisions that do not stand in the file yet."""
        return len(self._queue) + len(self._rows)

    @property
    def dropped(self) -> int:
        """Decisions that will never stand in the file."""
        gone = self._offered - len(self._queue) - self._taken  # in this order it is never too many, on either thread
        return max(0, gone) + self._lost + self._unmade

    def close(self, grace: float = 5.0) -> int:
        """Write what waits, for at most `grace` seconds; the number of decisions that are lost."""
        self._deadline = time.monotonic() + grace
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(grace + PATIENCE)
        lost = self.waiting
        if lost:
            self._lost += lost
            self._queue.clear()
            self._taken = self._offered
            self._report(f"journal: stopped with {lost} decisions unwritten: {self.trouble or 'out of time'}")
        return lost

    def _run(self) -> None:
        while not self._stopping.is_set() or self.waiting:
            if not self._stopping.is_set():
                self._wake.wait(self._interval)
                self._wake.clear()
            while self.waiting and self._attempt():
                pass
            if self.trouble:
                if time.monotonic() > self._deadline:
                    break
                if not self._stopping.wait(RETRY):
                    continue
                time.sleep(RETRY / 10)  # the stop does not wait long; try more often
        self._disconnect()

    def _attempt(self) -> bool:
        """Write one batch; False when that failed."""
        self._fill()
        try:
            self._commit()
        except (sqlite3.Error, OSError, JournalError) as error:
            self._failed(error)
            return False
        except Exception as error:  # noqa: BLE001 - a thread that ends here would lose all that follow
            self._lost += len(self._rows)
            self._doubtful.difference_update(columns[_ID] for columns in self._rows)
            self._rows = []
            self._disconnect()
            self._report(f"journal: a batch of decisions is lost: {error!r}")
            self._settled()
            return True
        self.written += len(self._rows)
        self._doubtful.difference_update(columns[_ID] for columns in self._rows)
        self._rows = []
        if self.trouble:
            self._report(f"journal: written again; {self.dropped} decisions were dropped so far")
            self.trouble = ""
        self._settled()
        return True

    def _fill(self) -> None:
        """Take the head of the queue."""
        while self._queue and len(self._rows) < BATCH:
            self._taken += 1  # before it goes, or it would count as dropped for a moment
            self._rows.append(self._queue.popleft())

    def _commit(self) -> None:
        database = self._connected()
        database.execute("BEGIN IMMEDIATE")  # where this does not come to its end, the connection is closed
        number = database.execute("SELECT coalesce(max(number), 0) FROM decisions").fetchone()[0]
        numbered = list(enumerate(self._new(database), number + 1))
        database.executemany(_DECISION, [(place, *columns) for place, columns in numbered])
        database.executemany(_RECIPIENTS, [(place, columns[_RECIPIENT_LIST]) for place, columns in numbered])
        if self._rows:
            last = self._rows[-1][_AT]
            database.executemany(_POLICY, [(name, last, text, TOUCH) for name, text in self._policies.items()])
        database.execute("COMMIT")

    def _new(self, database: sqlite3.Connection) -> Iterable[Row]:
        """The rows that do not stand in the file yet."""
        if not self._doubtful:
            return self._rows
        asked = "SELECT 1 FROM decisions WHERE id = ?"
        return [
            each
            for each in self._rows
            if each[_ID] not in self._doubtful or database.execute(asked, (each[_ID],)).fetchone() is None
        ]

    def _connected(self) -> sqlite3.Connection:
        """The connection, made anew when somebody moved the file away."""
        if self._database is not None:
            if identity(self.path) == self._files[0]:
                return self._database
            with suppress(sqlite3.Error):  # what stands in its log yet: who moved it wants all of it
                self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            part(self.path, self._files)
            self._disconnect()
        self._database = connect(self.path, write=True, patience=PATIENCE)
        self._files = opened(self.path)
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        try:
            self._disconnect()
        except sqlite3.Error:
            self._database = None
        text = explained(self.path, error) if isinstance(error, sqlite3.Error) else str(error)
        now = self._clock()
        if not self.trouble or now - self._reported >= REMIND:
            self._reported = now
            counts = f"{self.waiting} waiting, {self.dropped} dropped"
            self._report(f"journal: cannot be written, trying on: {text}; {counts}")
        self.trouble = text
        self._settled()


def in_words(document: Mapping[str, object]) -> str:
    """The words of a policy as they stand in the journal."""
    return msgspec.json.encode(document, enc_hook=str).decode()

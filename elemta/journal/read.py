"""Journal reader: which decisions were made about this mail, this sender, by this rule?

Opens the file for reading only, beside the daemons that write it.  Throws away old decisions for the keeper, in slices
so short that no writer has to wait.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from elemta.journal.acts import acts_on
from elemta.journal.entry import COLUMNS, UNREADABLE, Entry, entry
from elemta.journal.schema import TOUCH, JournalError, connect, damaged, explained

CRITERIA: Mapping[str, str] = {
    "id": "id", "queue_id": "queue_id", "stage": "stage", "klass": "class", "disposition": "disposition",
    "rule": "rule", "client": "client", "login": "login", "sender": "sender", "recipient": "recipient",
    "header_from": "header_from", "message_id": "message_id",
}  # fmt: skip
SLICE = 500  # decisions read at once; SQLite takes 999 numbers in a statement, or more
SESSION = 3600.0  # seconds between RCPT TO and the end of the message, at most
MOST_RECIPIENTS = 100  # whose decisions at RCPT TO are looked for
Mark = tuple[int, str]
"""How far the journal was read: number and id of the last decision."""
BEGINNING: Mark = (0, "")

_STAGE = COLUMNS.index("stage")
_MISREAD = str.maketrans("OILU", "011V")  # Crockford's base 32: what people read for 0, 1 and V
_SELECT = f"""SELECT {", ".join("d." + name for name in COLUMNS)}, p.document
              FROM decisions d LEFT JOIN policies p ON p.fingerprint = d.policy"""  # noqa: S608 - constants
_NEWEST_FIRST = "ORDER BY d.at DESC, d.number DESC"
_FIND = f"""{_SELECT} WHERE d.number IN (
    SELECT number FROM decisions WHERE id = :reference
    UNION SELECT number FROM decisions WHERE queue_id = :queue_id AND queue_id != ''
    UNION SELECT number FROM decisions WHERE instance != '' AND instance IN (
        SELECT instance FROM decisions WHERE queue_id = :queue_id AND queue_id != '')
) ORDER BY d.at, d.number LIMIT 1000"""  # noqa: S608 - constants
_BEFORE = f"""{_SELECT} WHERE d.sender = ? AND d.at BETWEEN ? AND ? AND d.client = ? AND d.stage = 'recipient'
    AND d.queue_id = '' AND d.number IN (SELECT number FROM recipients WHERE address = ?)
    ORDER BY d.at DESC LIMIT 1"""  # noqa: S608 - constants
_WITHOUT_EMPTY = frozenset({"queue_id", "rule"})  # their indexes leave out empty values
_OLD = """SELECT number FROM decisions WHERE at < ? AND (disposition != 'quarantine' OR at < ?)
          ORDER BY at LIMIT ?"""
_RECIPIENTS_OF = """SELECT j.value, d.number FROM decisions d, json_each(d.recipients) j
    WHERE d.number IN ({numbers})"""
_EXPIRE_RECIPIENT = "DELETE FROM recipients WHERE address = ? AND number = ?"
"""One by one: of `(address, number) IN (SELECT …)` SQLite looks up the address alone, and reads all its decisions."""


class Reader:
    """Reads the journal. Every method may raise JournalError."""

    def __init__(self, path: str) -> None:
        """Open the file at `path`.

        Raises:
            JournalError: see `connect`.
        """
        self.path = path
        self._database = connect(path)

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def __del__(self) -> None:
        """A reader that was forgotten gives it back too."""
        with suppress(AttributeError):  # it never had one
            self._database.close()

    def find(self, reference: str) -> list[Entry]:
        """The decision with this reference id, or all about the message with this queue id; oldest first.

        A reference id may be given in any case and with the signs that are easily taken for others (O for 0).  To a
        queue id belong also the decisions about its recipients that were made before Postfix had given it: those of
        the same message instance, else the last one before it of the same client, sender and recipient.
        """
        words = reference.strip()
        with self._asked():
            wanted = {"reference": words.upper().translate(_MISREAD), "queue_id": words}
            found = self._database.execute(_FIND, wanted).fetchall()
            entries = [entry(columns, document) for *columns, document in found]
            messages = [each for each in entries if each.stage == "message" and each.queue_id == words]
            known = {recipient for each in entries if each.stage == "recipient" for recipient in each.recipients}
            for message in messages[:1]:
                unknown = [each for each in message.recipients[:MOST_RECIPIENTS] if each not in known]
                entries += [before for each in unknown for before in self._before(message, each)]
            return sorted(self._with_acts(entries), key=lambda each: each.at)

    def _before(self, message: Entry, recipient: str) -> list[Entry]:
        """The last decision at RCPT TO about `recipient` that fits `message`."""
        values = (message.sender, message.at - SESSION, message.at, message.client, recipient)
        found = self._database.execute(_BEFORE, values).fetchall()
        return [entry(columns, document) for *columns, document in found]

    def search(
        self, *, since: float | None = None, until: float | None = None, limit: int = 50, **criteria: str
    ) -> list[Entry]:
        """The newest decisions that meet all criteria, newest first; see `each`."""
        return list(self.each(since=since, until=until, limit=limit, **criteria))

    def each(
        self, *, since: float | None = None, until: float | None = None, limit: int = 50, **criteria: str
    ) -> Iterator[Entry]:
        """The same, a few hundred at a time: years need little memory, and between them no writer is held up.

        Args:
            since: not before, seconds since 1970.
            until: before.
            limit: at most so many.
            criteria: of CRITERIA; "*" in a value stands for any text. Addresses compare without case.

        Raises:
            JournalError: the file cannot be read.
            TypeError: there is no such criterion.
        """
        conditions, values = ["1"], list[str | float]()
        for name, wanted in criteria.items():
            if name not in CRITERIA:
                raise TypeError(f"no criterion {name!r}; there are {', '.join(CRITERIA)}")
            test, value = _test(wanted)
            if name == "recipient":
                conditions.append(f"d.number IN (SELECT number FROM recipients WHERE address {test})")  # noqa: S608
            else:
                conditions.append(f"d.{CRITERIA[name]} {test}")
                if name in _WITHOUT_EMPTY and wanted:  # else SQLite cannot know that the index has what is wanted
                    conditions.append(f"d.{CRITERIA[name]} != ''")
            values.append(value)
        for bound, test in ((since, ">="), (until, "<")):
            if bound is not None:
                conditions.append(f"d.at {test} ?")
                values.append(bound)
        with self._asked():  # the numbers first: SQLite would look for all that meets the criteria again for each slice
            query = f"SELECT d.number FROM decisions d WHERE {' AND '.join(conditions)} {_NEWEST_FIRST} LIMIT ?"  # noqa: S608
            numbers = array("q", (number for (number,) in self._database.execute(query, (*values, limit))))
        for place in range(0, len(numbers), SLICE):
            some = numbers[place : place + SLICE]
            with self._asked():
                query = f"{_SELECT} WHERE d.number IN ({', '.join('?' * len(some))}) {_NEWEST_FIRST}"
                found = self._database.execute(query, some).fetchall()
                entries = self._with_acts([entry(columns, document) for *columns, document in found])
            yield from entries

    def follow(self, mark: Mark, limit: int = 1000) -> tuple[list[Entry], Mark]:
        """The complete messages kept after `mark`, in the order of keeping, and the mark to go on from.

        An equal mark means that there is nothing more.  Where the file was moved away and a new one begun, it is read
        from its beginning.  The entries are without `rules`.

        Args:
            mark: what the last call gave, or BEGINNING.
            limit: decisions looked at.
        """
        with self._asked():
            number = mark[0] if self._knows(mark) else 0
            query = f"SELECT number, {', '.join(COLUMNS)} FROM decisions WHERE number > ? ORDER BY number LIMIT ?"  # noqa: S608
            found = self._database.execute(query, (number, limit)).fetchall()
            entries = [entry(columns) for _, *columns in found if columns[_STAGE] == "message"]
        if not found:
            return [], mark
        return entries, (found[-1][0], found[-1][1])

    def mark_before(self, at: float) -> Mark:
        """The mark from which `follow` gives what was decided since `at`, and perhaps a little that is older."""
        with self._asked():
            newer = self._database.execute("SELECT min(number) FROM decisions WHERE at >= ?", (at,)).fetchone()[0]
            newest = self._database.execute("SELECT max(number) FROM decisions").fetchone()[0] or 0
            number = newest if newer is None else newer - 1
            found = self._database.execute("SELECT id FROM decisions WHERE number = ?", (number,)).fetchone()
        return number, found[0] if found else ""

    def _with_acts(self, entries: list[Entry]) -> list[Entry]:
        done = acts_on(self._database, [each.id for each in entries])
        return [replace(each, acts=done[each.id]) if each.id in done else each for each in entries]

    def _knows(self, mark: Mark) -> bool:
        """Whether the decision at the mark stands here, or stood here until it was thrown away for its age."""
        number, reference = mark
        found = self._database.execute("SELECT id FROM decisions WHERE number = ?", (number,)).fetchone()
        if found is not None:
            return bool(found[0] == reference)
        newest = self._database.execute("SELECT max(number) FROM decisions").fetchone()[0]
        return newest is not None and newest > number

    def oldest(self) -> float | None:
        """When the oldest decision was made, seconds since 1970; None in an empty journal."""
        with self._asked():
            found: float | None = self._database.execute("SELECT min(at) FROM decisions").fetchone()[0]
            return found

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(explained(self.path, error)) from error
        except UNREADABLE as error:
            raise JournalError(damaged(self.path, f"a decision in it cannot be read: {error}")) from error


def expire(path: str, before: float, slice_: int = 1000, *, held: float | None = None) -> int:
    """Throw away up to `slice_` decisions made before `before`, in one short transaction; how many were thrown away.

    Call it again while it gives `slice_`.  When no old decision is left, policies that nothing refers to any more go.

    Args:
        path: the file.
        before: seconds since 1970.
        slice_: at most so many.
        held: those that put a mail on hold stay unless they were made before this; default: `before`.

    Raises:
        JournalError: the file cannot be changed.
    """
    oldest = before if held is None else min(before, held)
    database = connect(path, write=True)
    try:
        database.execute("BEGIN IMMEDIATE")
        old = [number for (number,) in database.execute(_OLD, (before, oldest, slice_))]
        numbers = ",".join(map(str, old))
        database.executemany(_EXPIRE_RECIPIENT, database.execute(_RECIPIENTS_OF.format(numbers=numbers)).fetchall())
        database.execute(f"DELETE FROM decisions WHERE number IN ({numbers})")  # noqa: S608 - whole numbers of our own
        if len(old) < slice_:
            database.execute("DELETE FROM policies WHERE last < ?", (oldest - TOUCH,))
            database.execute("DELETE FROM acts WHERE at < ?", (oldest,))
        database.execute("COMMIT")
    except sqlite3.Error as error:
        raise JournalError(explained(path, error)) from error
    else:
        return len(old)
    finally:
        database.close()


def _test(wanted: str) -> tuple[str, str]:
    """The comparison for a criterion, and its value."""
    if "*" not in wanted:
        return "= ?", wanted
    for sign in "\\%_":
        wanted = wanted.replace(sign, "\\" + sign)
    return "LIKE ? ESCAPE '\\'", wanted.replace("*", "%")

"""Counts: how many mails of which kind came in which hour?

Each decision of the journal is counted once: how far it was read is kept in the same transaction as the counts.  Mails
that differ in nothing a report tells share a row; beyond LINES rows of one domain and day, or OCTETS in them, they are
only counted, but for the first of each hour.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from elemta.journal import Mark
from elemta_milter.reports.counting import Published, Row
from elemta_milter.reports.ledger_file import LedgerFile
from elemta_milter.reports.windows import DAY, HOUR, NEVER, Gap, Window

LINES = 50_000  # different rows kept of one domain and day
OCTETS = 8 << 20
"""Octets of all of these: also where they pack badly, the report's mail keeps within Postfix's default size limit
(message_size_limit = 10240000)."""

_Key = tuple[Published, int, Row]
_Listed = dict[tuple[str, int], tuple[int, int]]  # of a domain and day: rows, and octets in them


@dataclass(frozen=True, slots=True)
class Counted:
    """One mail, counted.

    Attributes:
        at: seconds since 1970.
        published: the policy.
        row: what to add one to.
    """

    at: float
    published: Published
    row: Row


class Counts:
    """The counts in a ledger. Every method may raise LedgerError."""

    def __init__(self, file: LedgerFile, lines: int = LINES, octets: int = OCTETS) -> None:
        self._file = file
        self._lines = lines
        self._octets = octets

    def mark(self) -> Mark:
        """How far the journal was read."""
        number, reference = self._file.one("SELECT number, id FROM mark")
        return number, reference

    def add(self, database: sqlite3.Connection, before: Mark, after: Mark, mails: Sequence[Counted]) -> bool:
        """Add mails that were read between two marks; False when another process has read them meanwhile.

        Args:
            database: of `LedgerFile.changing`: what else was read between the marks is kept in the same transaction.
            before: the mark that reading began from.
            after: the mark that it came to.
            mails: those that count.
        """
        if self.mark() != before:
            return False
        number: Counter[_Key] = Counter()
        last: dict[_Key, float] = {}
        for mail in mails:
            key = (mail.published, int(mail.at // HOUR) * HOUR, mail.row)
            number[key] += 1
            last[key] = max(last.get(key, 0.0), mail.at)
        database.execute("UPDATE mark SET number = ?, id = ?", after)
        listed: _Listed = {}
        for key, times in number.items():
            self._add(database, key, times, last[key], listed)
        return True

    def _add(self, database: sqlite3.Connection, key: _Key, mails: int, last: float, listed: _Listed) -> None:
        published, hour, row = key
        domain, day = published.domain, hour - hour % DAY
        place = (domain, hour, _policy(database, published), _line(row))
        more = "UPDATE counts SET mails = mails + ?, last = max(last, ?) WHERE (domain, hour, policy, line) = (?,?,?,?)"
        if database.execute(more, (mails, last, *place)).rowcount:
            return
        if (domain, day) not in listed:
            query = """SELECT count(*), coalesce(sum(length(CAST(line AS BLOB))), 0) FROM counts
                WHERE domain = ? AND hour >= ? AND hour < ?"""
            listed[domain, day] = database.execute(query, (domain, day, day + DAY)).fetchone()
        lines, octets = listed[domain, day]
        more_octets = octets + len(place[-1].encode())
        room = lines < self._lines and more_octets <= self._octets
        if room or self._is_first(database, domain, hour):
            listed[domain, day] = lines + 1, more_octets
            database.execute("INSERT INTO counts VALUES (?,?,?,?,?,?)", (*place, mails, last))
        else:
            statement = "INSERT INTO unlisted VALUES (?,?,?) ON CONFLICT DO UPDATE SET mails = mails + excluded.mails"
            database.execute(statement, (domain, hour, mails))

    @staticmethod
    def _is_first(database: sqlite3.Connection, domain: str, hour: int) -> bool:
        """Whether nothing of this hour is listed: a report about it alone needs a record (RFC 9990 section 3.1.1.2)."""
        query = "SELECT 1 FROM counts WHERE (domain, hour) = (?,?) LIMIT 1"
        return database.execute(query, (domain, hour)).fetchone() is None

    def first_hours(self, domain: str | None = None) -> list[tuple[str, int, Gap]]:
        """For each domain the first hour that is in no report, and the gap between reports that it lies in."""
        query = """SELECT first.domain, first.hour, first.reported,
                coalesce((SELECT min(begin) FROM reports WHERE domain = first.domain AND begin > first.hour), ?)
            FROM (SELECT domain, min(hour) AS hour, reported FROM (
                SELECT DISTINCT domain, hour, coalesce((SELECT end FROM reports r
                    WHERE r.domain = c.domain AND r.begin <= c.hour ORDER BY begin DESC LIMIT 1), 0) AS reported
                FROM counts c WHERE domain = coalesce(?, domain))
            WHERE hour >= reported GROUP BY domain) AS first"""
        found = self._file.all(query, NEVER, domain)
        return [(name, hour, (reported, until)) for name, hour, reported, until in found]

    def published(self, of: Window) -> Published | None:
        """The policy that was seen last in a window (RFC 9990 section 3.1); None when nothing is counted in it."""
        query = """SELECT p.domain, p.record, p.method FROM counts c JOIN policies p ON p.number = c.policy
            WHERE c.domain = ? AND c.hour >= ? AND c.hour < ? ORDER BY c.last DESC LIMIT 1"""
        found = self._file.all(query, of.domain, of.begin, of.end)
        return Published(*found[0]) if found else None

    def rows(self, of: Window) -> Iterator[tuple[Row, int]]:
        """The rows of a window, each with its number of mails; in an order that is always the same."""
        query = """SELECT line, sum(mails) FROM counts WHERE domain = ? AND hour >= ? AND hour < ?
            GROUP BY line ORDER BY line"""
        for line, mails in self._file.all(query, of.domain, of.begin, of.end):
            with self._file.legible():
                row = _row(line)
            yield row, mails

    def unlisted(self, of: Window) -> int:
        """Mails of a window that no row tells of."""
        query = "SELECT coalesce(sum(mails), 0) FROM unlisted WHERE domain = ? AND hour >= ? AND hour < ?"
        return int(self._file.one(query, of.domain, of.begin, of.end)[0])

    def mails(self, of: Window) -> int:
        """All mails of a window."""
        query = "SELECT coalesce(sum(mails), 0) FROM counts WHERE domain = ? AND hour >= ? AND hour < ?"
        return int(self._file.one(query, of.domain, of.begin, of.end)[0]) + self.unlisted(of)

    def forget(self, before: float) -> None:
        """Throw away what was counted before."""
        with self._file.changing() as database:
            database.execute("DELETE FROM counts WHERE hour < ?", (before,))
            database.execute("DELETE FROM unlisted WHERE hour < ?", (before,))
            database.execute("DELETE FROM policies WHERE number NOT IN (SELECT policy FROM counts)")


def _policy(database: sqlite3.Connection, published: Published) -> int:
    words = (published.domain, published.record, published.method)
    database.execute("INSERT OR IGNORE INTO policies (domain, record, method) VALUES (?,?,?)", words)
    query = "SELECT number FROM policies WHERE (domain, record, method) = (?,?,?)"
    return int(database.execute(query, words).fetchone()[0])


def _line(row: Row) -> str:
    """A row's values in the order of its fields: `Row` may get more at its end."""
    return msgspec.json.encode([getattr(row, name) for name in Row.__slots__]).decode()


def _row(line: str) -> Row:
    values: list[Any] = msgspec.json.decode(line)
    return msgspec.convert(dict(zip(Row.__slots__, values, strict=False)), Row)

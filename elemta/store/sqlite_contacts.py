"""Contacts in SQLite: who has written to whom, as digests.

Functions of an open connection: they do not wait, and `sqlite3.Error` rises.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

SCHEMA = """
    CREATE TABLE contacts (key TEXT PRIMARY KEY, first REAL NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX contacts_by_end ON contacts (until);
"""

_KNOWN = "SELECT key, min(first, :now) FROM contacts WHERE key = :key AND until > :now"  # a clock may be set back
_REMEMBER = """
    INSERT INTO contacts VALUES (:key, :now, :end)
    ON CONFLICT DO UPDATE
        SET first = CASE WHEN until > :now THEN min(first, :now) ELSE :now END, until = max(until, :end)
    WHERE :end - until > (:end - :now) / 100 OR first > :now
"""
"""A contact is prolonged when a hundredth of its time is used up, not with every mail."""


def contacts(db: sqlite3.Connection, pairs: Sequence[str], now: float) -> dict[str, float]:
    """See `Store.contacts`."""
    found: dict[str, float] = {}
    for pair in pairs:
        found.update(db.execute(_KNOWN, {"key": pair, "now": now}).fetchall())
    return found


def remember(db: sqlite3.Connection, pairs: Sequence[str], now: float, until: float) -> None:
    """See `Store.remember_contacts`."""
    db.execute("BEGIN IMMEDIATE")
    db.executemany(_REMEMBER, [{"key": pair, "now": now, "end": until} for pair in pairs])
    db.execute("COMMIT")


def expire(db: sqlite3.Connection, now: float, most: int) -> int:
    """Throw away what is forgotten, at most so many rows; how many went."""
    old = "SELECT key FROM contacts WHERE until <= ? LIMIT ?"
    return db.execute(f"DELETE FROM contacts WHERE key IN ({old})", (now, most)).rowcount  # noqa: S608 - the text above

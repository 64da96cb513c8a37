"""Limits in SQLite: counting within one transaction, so that of requests that come at once each sees the one before.

`uses` holds what was used, by slot; `reserved` what messages under way may use; `spent` for an hour what each message
used, so that it is counted once however often Postfix asks, and can be given back.  Functions of an open connection:
they do not wait, and `sqlite3.Error` rises.  See `counting` for what is counted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from elemta.store import Quota, Use
from elemta.store.counting import KEEP, end, lapse, newest, oldest, slot, wait

SCHEMA = """
    CREATE TABLE uses (
        key TEXT, slot INTEGER, amount INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (key, slot)
    ) WITHOUT ROWID;
    CREATE TABLE reserved (
        message TEXT, key TEXT, part TEXT, amount INTEGER NOT NULL, window REAL NOT NULL, until REAL NOT NULL,
        PRIMARY KEY (message, key, part)
    ) WITHOUT ROWID;
    CREATE INDEX reserved_by_key ON reserved (key, until, amount);
    CREATE TABLE spent (
        message TEXT, key TEXT, slot INTEGER NOT NULL, amount INTEGER NOT NULL, queue_id TEXT NOT NULL,
        until REAL NOT NULL, PRIMARY KEY (message, key)
    ) WITHOUT ROWID;
    CREATE INDEX spent_by_queue_id ON spent (queue_id);
    CREATE INDEX uses_by_end ON uses (until);
    CREATE INDEX spent_by_end ON spent (until);
"""

_USED = """
    SELECT (SELECT coalesce(sum(amount), 0) FROM uses WHERE key = :key AND slot BETWEEN :oldest AND :newest)
         + (SELECT coalesce(sum(amount), 0) FROM reserved WHERE key = :key AND until > :now AND until <= :latest)
         - (SELECT coalesce(sum(amount), 0) FROM reserved
                WHERE message = :message AND key = :key AND until > :now AND until <= :latest
                AND (:part = '' OR part = :part))
"""
_IS_FINAL = "SELECT 1 FROM spent WHERE message = ?"
_ADD = """
    INSERT INTO uses VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount
"""


def reserve(db: sqlite3.Connection, message: str, quotas: Sequence[Quota], now: float) -> list[Use]:
    """See `Store.reserve`."""
    db.execute("BEGIN IMMEDIATE")
    used = [_used(db, message, quota, now) for quota in quotas]
    if db.execute(_IS_FINAL, (message,)).fetchone():
        found = [Use(before) for before in used]  # it has had its share
    elif all(before + max(quota.amount, 1) <= quota.most for quota, before in zip(quotas, used, strict=True)):
        for quota in quotas:
            if not quota.part:
                db.execute("DELETE FROM reserved WHERE message = ? AND key = ?", (message, quota.key))
            row = (message, quota.key, quota.part, quota.amount, quota.window, lapse(now, quota.window))
            db.execute("INSERT OR REPLACE INTO reserved VALUES (?, ?, ?, ?, ?, ?)", row)
        found = [Use(before) for before in used]
    else:
        found = [
            Use(before, _wait(db, message, quota, before, now)) for quota, before in zip(quotas, used, strict=True)
        ]
    db.execute("COMMIT")
    return found


def _used(db: sqlite3.Connection, message: str, quota: Quota, now: float) -> int:
    """What others used and reserved, and this message for its other parts."""
    window = quota.window
    asked = {
        "key": quota.key, "message": message, "part": quota.part, "now": now, "latest": now + 2 * window,
        "oldest": oldest(now, window), "newest": newest(now, window),
    }  # fmt: skip
    [(used,)] = db.execute(_USED, asked).fetchall()
    return int(used)


def _wait(db: sqlite3.Connection, message: str, quota: Quota, used: int, now: float) -> float:
    excess = used + max(quota.amount, 1) - quota.most
    if excess <= 0:
        return 0.0
    counts = (quota.key, oldest(now, quota.window), newest(now, quota.window))
    slots = db.execute("SELECT slot, amount FROM uses WHERE key = ? AND slot BETWEEN ? AND ?", counts)
    spent = [(end(number, quota.window), amount) for number, amount in slots]
    theirs = """
        SELECT until, amount FROM reserved
        WHERE key = ? AND until > ? AND until <= ? AND NOT (message = ? AND ? IN ('', part))
    """
    later = max(0.0, quota.window - (lapse(now, quota.window) - now))  # it will be used, and count for a whole window
    for until, amount in db.execute(theirs, (quota.key, now, now + 2 * quota.window, message, quota.part)):
        spent.append((until + later, amount))
    return wait(spent, excess, now, quota.window)


def consume(
    db: sqlite3.Connection, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float
) -> int:
    """See `Store.consume`."""
    db.execute("BEGIN IMMEDIATE")
    sums = "SELECT key, window, sum(amount) FROM reserved WHERE message = ? GROUP BY key, window"
    rows = db.execute(sums, (message,)).fetchall()
    for key, window, amount in rows:
        low, high = within.get(key, (amount, amount))
        final, number = min(max(amount, low), high), slot(now, window)
        db.execute(_ADD, (key, number, final, end(number, window)))
        row = (message, key, number, final, queue_id, now + KEEP)
        db.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?, ?, ?)", row)
    db.execute("DELETE FROM reserved WHERE message = ?", (message,))
    db.execute("COMMIT")
    return len(rows)


def release(db: sqlite3.Connection, message: str, part: str | None, keys: Sequence[str]) -> int:
    """See `Store.release`."""
    db.execute("BEGIN IMMEDIATE")
    mine = "DELETE FROM reserved WHERE message = ? AND part = coalesce(?, part)"
    gone = db.execute(mine, (message, part)).rowcount
    for key in keys:
        gone += db.execute("DELETE FROM reserved WHERE message = ? AND key = ? AND part = ''", (message, key)).rowcount
    db.execute("COMMIT")
    return gone


def give_back(db: sqlite3.Connection, queue_id: str) -> bool:
    """See `Store.give_back`."""
    db.execute("BEGIN IMMEDIATE")
    rows = db.execute("SELECT amount, key, slot FROM spent WHERE queue_id = ?", (queue_id,)).fetchall()
    db.executemany("UPDATE uses SET amount = amount - ? WHERE key = ? AND slot = ?", rows)
    db.execute("DELETE FROM spent WHERE queue_id = ?", (queue_id,))
    db.execute("COMMIT")
    return bool(rows)


def expire(db: sqlite3.Connection, now: float, most: int) -> int:
    """Throw away what counts no more, at most so many rows of each table; how many went."""
    gone = 0
    for table, before in (("uses", now), ("reserved", now - KEEP), ("spent", now)):
        key = {"uses": "key, slot", "reserved": "message, key, part", "spent": "message, key"}[table]
        old = f"SELECT {key} FROM {table} WHERE until <= ? LIMIT ?"  # noqa: S608 - of the three names above
        gone += db.execute(f"DELETE FROM {table} WHERE ({key}) IN ({old})", (before, most)).rowcount  # noqa: S608
    return gone

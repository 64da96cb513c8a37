"""Greylisting in SQLite: what is remembered of triplets and client networks.

Functions of an open connection: they do not wait, and `sqlite3.Error` rises.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple, TypeGuard, TypeVar

from elemta.store import Grey, GreyTerms
from elemta.store.greylisting import Network, Triplet, attempt

Key = str | bytes
Keys = tuple[Key, Key]  # of a triplet and of its network
Remembered = TypeVar("Remembered", Triplet, Network)

_READ = """
    SELECT first, until, attempts, passed FROM triplets WHERE key = ?
    UNION ALL SELECT counted, until, passes, NULL FROM networks WHERE key = ?
"""
_WRITE_TRIPLET = "INSERT OR REPLACE INTO triplets VALUES (?, ?, ?, ?, ?)"
_WRITE_NETWORK = "INSERT OR REPLACE INTO networks VALUES (?, ?, ?, ?)"


class Attempt(NamedTuple):
    """An attempt to be counted: of what, when, and on what terms it is judged."""

    keys: Keys
    now: float
    terms: GreyTerms


def look(db: sqlite3.Connection, keys: Keys, now: float, terms: GreyTerms) -> Grey | None:
    """The answer to an attempt that leaves nothing to write, as of who is known; else None."""
    triplet, network = _read(db, keys)
    grey, triplet_after, network_after = attempt(triplet, network, now, terms)
    return None if _is_new(triplet_after, triplet) or _is_new(network_after, network) else grey


def count(db: sqlite3.Connection, attempts: Iterable[Attempt]) -> list[Grey]:
    """Count attempts in one transaction: of those that come at once each sees the one before."""
    answers = []
    db.execute("BEGIN IMMEDIATE")
    for asked in attempts:
        before = _read(db, asked.keys)
        grey, triplet, network = attempt(*before, asked.now, asked.terms)
        if _is_new(triplet, before[0]):
            row = (asked.keys[0], triplet.first, triplet.until, triplet.attempts, int(triplet.passed))
            db.execute(_WRITE_TRIPLET, row)
        if _is_new(network, before[1]):
            db.execute(_WRITE_NETWORK, (asked.keys[1], network.passes, network.counted, network.until))
        answers.append(grey)
    db.execute("COMMIT")
    return answers


def _read(db: sqlite3.Connection, keys: Keys) -> tuple[Triplet | None, Network | None]:
    triplet = network = None
    for since, until, amount, passed in db.execute(_READ, keys):
        if passed is None:
            network = Network(amount, since, until)
        else:
            triplet = Triplet(since, until, amount, passed == 1)
    return triplet, network


def _is_new(after: Remembered | None, before: Remembered | None) -> TypeGuard[Remembered]:
    """Whether there is something to write; what is over (None) is left to `expire`."""
    return after is not None and after is not before

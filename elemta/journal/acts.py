"""Acts: what was done with a mail after its decision?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from elemta.journal.schema import JournalError, connect, explained


class Deed(StrEnum):
    """What was done: with a held mail, or, `UNDONE`, not done with any."""

    RELEASED = "released"
    REQUEUED = "requeued"  # released as a new message, with a new queue id
    DELETED = "deleted"
    EXPIRED = "expired"  # deleted since its time was over
    UNDONE = "undone"  # the decision could not be carried out: the client was told to come again


@dataclass(frozen=True, slots=True)
class Act:
    """One deed.

    Attributes:
        id: the reference id of the decision.
        at: seconds since 1970.
        deed: see `Deed`.
        who: the user or daemon that did it.
    """

    id: str
    at: float
    deed: Deed
    who: str


def record(path: str, acts: Iterable[Act]) -> None:
    """Keep `acts` in the journal at `path`.

    Raises:
        JournalError: the file cannot be changed.
    """
    rows = [(act.id, act.at, act.deed.value, act.who) for act in acts]
    if not rows:
        return
    database = connect(path, write=True)
    try:
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO acts (id, at, deed, who) VALUES (?, ?, ?, ?)", rows)
        database.execute("COMMIT")
    except sqlite3.Error as error:
        raise JournalError(explained(path, error)) from error
    finally:
        database.close()


def acts_on(database: sqlite3.Connection, ids: Sequence[str]) -> dict[str, tuple[Act, ...]]:
    """What was done with the mails of these decisions, in order."""
    found: dict[str, tuple[Act, ...]] = {}
    for id_ in ids:
        for at, deed, who in database.execute("SELECT at, deed, who FROM acts WHERE id = ? ORDER BY number", (id_,)):
            found[id_] = (*found.get(id_, ()), Act(id_, at, Deed(deed), who))
    return found

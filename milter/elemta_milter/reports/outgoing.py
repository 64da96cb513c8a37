"""Outgoing: which reports are due, to whom did they go, and who takes no more of them?

Each window of a domain becomes one report, and each address is written to at most once for it: it is claimed before the
mail is handed over, and only an answer that nothing was taken gives the claim back.  So neither two processes nor a
restart send twice; a process that is killed between the two leaves a claim behind, and that report unsent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elemta_milter.reports.ledger_file import LedgerFile
from elemta_milter.reports.return_path import new_token
from elemta_milter.reports.windows import Window

OPEN, DONE = "open", "done"
CLAIMED, SENT, REFUSED, REJECTED, POSTPONED = "claimed", "sent", "refused", "rejected", "postponed"
BOUNCES_KEPT = 30 * 86400  # seconds in which bounces add up
LONGEST_NOTE = 300  # characters
GIVEN_UP = "given up after two days"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One report to one address.

    Attributes:
        address: whose.
        at: when it was claimed.
        state: "claimed", "sent", "refused" (the address) or "rejected" (the mail).
        note: what the server said.
    """

    address: str
    at: float
    state: str
    note: str


@dataclass(frozen=True, slots=True)
class Due:
    """A report whose window is over.

    Attributes:
        window: what it speaks of.
        mails: how many.
        state: "open" while some address may still get it, "done".
        note: for people.
        tried: when sending was last tried without an end, 0 = not yet.
        deliveries: to whom it went.
    """

    window: Window
    mails: int
    state: str
    note: str
    tried: float = 0.0
    deliveries: tuple[Delivery, ...] = ()


class Outgoing:
    """The reports of a ledger. Every method may raise LedgerError; times are seconds since 1970."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────────

    def close_windows(self, windows: Sequence[tuple[Window, int]]) -> int:
        """Make reports of these windows, each with its number of mails; how many were not reports before."""
        with self._file.changing() as database:
            statement = "INSERT OR IGNORE INTO reports VALUES (?,?,?,?,?,'',0)"
            return sum(
                database.execute(statement, (each.domain, each.begin, each.end, mails, OPEN)).rowcount
                for each, mails in windows
            )

    def reports(self, *, state: str | None = None, domain: str | None = None) -> list[Due]:
        """All reports, or those in this state and about this domain; those about most mail first."""
        query = """SELECT domain, begin, end, mails, state, note, tried FROM reports
            WHERE state = coalesce(?, state) AND domain = coalesce(?, domain) ORDER BY mails DESC, domain, begin"""
        found = self._file.all(query, state, domain)
        return [
            Due(Window(name, begin, end), mails, now, note, tried, self._deliveries(name, begin))
            for name, begin, end, mails, now, note, tried in found
        ]

    def _deliveries(self, domain: str, begin: int) -> tuple[Delivery, ...]:
        query = "SELECT address, at, state, note FROM deliveries WHERE domain = ? AND begin = ? ORDER BY address"
        return tuple(Delivery(*each) for each in self._file.all(query, domain, begin))

    def finish(self, of: Window, note: str) -> None:
        """Nothing more will be done about this report."""
        with self._file.changing() as database:
            statement = "UPDATE reports SET state = ?, note = ? WHERE domain = ? AND begin = ?"
            database.execute(statement, (DONE, note[:LONGEST_NOTE], of.domain, of.begin))

    def give_up(self, before: float) -> None:
        """Nothing more will be done about reports whose window ended before; with many, not all were ever tried."""
        with self._file.changing() as database:
            statement = "UPDATE reports SET state = ?, note = ? WHERE state = ? AND end < ?"
            database.execute(statement, (DONE, GIVEN_UP, OPEN, before))

    def postpone(self, of: Window, now: float) -> None:
        """Some address could not be served: try it again later."""
        with self._file.changing() as database:
            statement = "UPDATE reports SET tried = ? WHERE domain = ? AND begin = ?"
            database.execute(statement, (now, of.domain, of.begin))

    # ── deliveries ───────────────────────────────────────────────────────────────────────────────────────

    def token(self, report: str, address: str) -> str:
        """The token of the report with this id to this address: always the same, and nobody else can tell it.

        A Report-ID is made of what everybody knows.
        """
        return new_token(self._file.one("SELECT octets FROM secret")[0], report, address)

    def claim(self, token: str, of: Window, address: str, now: float) -> bool:
        """Take it upon us to write to this address; False when somebody has done so before."""
        with self._file.changing() as database:
            row = (token, of.domain, of.begin, address, now, CLAIMED, "")
            return database.execute("INSERT OR IGNORE INTO deliveries VALUES (?,?,?,?,?,?,?)", row).rowcount == 1

    def claimed(self, token: str) -> bool:
        """Whether somebody has taken this upon him, or done it."""
        return bool(self._file.all("SELECT 1 FROM deliveries WHERE token = ?", token))

    def settle(self, token: str, state: str, note: str) -> None:
        """Say what became of a claim: "sent", "refused" or "rejected"; "postponed" gives it back."""
        with self._file.changing() as database:
            if state == POSTPONED:
                database.execute("DELETE FROM deliveries WHERE token = ?", (token,))
            else:
                row = (state, note[:LONGEST_NOTE], token)
                database.execute("UPDATE deliveries SET state = ?, note = ? WHERE token = ?", row)

    def sent(self, since: float, now: float) -> int:
        """Mails handed over since then; none that a clock which was wrong put into times to come."""
        return int(self._file.one("SELECT count(*) FROM deliveries WHERE at BETWEEN ? AND ?", since, now)[0])

    # ── addresses that take none ─────────────────────────────────────────────────────────────────────────

    def bounced(self, token: str, now: float, limit: int, note: str = "", author: str = "") -> str:
        """Note that a report came back; one report counts once.

        Args:
            token: see `return_path`; one that we never gave is no bounce.
            now: the time.
            limit: reports that may come back within BOUNCES_KEPT before the address gets no more.
            note: what the other side said.
            author: From of what came; one that the report went to has answered, and is alive (RFC 3834 section 3.1.1).

        Returns:
            the address, where it gets no more from now on; else "".
        """
        with self._file.changing() as database:
            found = database.execute("SELECT address FROM deliveries WHERE token = ?", (token,)).fetchone()
            if found is None or found[0] in author.lower():
                return ""
            row = (token, found[0], now, note[:LONGEST_NOTE])
            if not database.execute("INSERT OR IGNORE INTO bounces VALUES (?,?,?,?)", row).rowcount:
                return ""
            query = "SELECT count(*) FROM bounces WHERE address = ? AND at > ?"
            [times] = database.execute(query, (found[0], now - BOUNCES_KEPT)).fetchone()
            if times < limit:
                return ""
            reason = f"{times} report{'s' if times > 1 else ''} came back" + (f": {note}" if note else "")
            statement = "INSERT OR IGNORE INTO suppressed VALUES (?,?,?)"
            added = database.execute(statement, (found[0], now, reason[:LONGEST_NOTE])).rowcount
            return str(found[0]) if added else ""

    def suppressed(self) -> Mapping[str, tuple[float, str]]:
        """Addresses that get no reports: since when, and why."""
        return {address: (at, why) for address, at, why in self._file.all("SELECT * FROM suppressed ORDER BY address")}

    def suppress(self, address: str, now: float, reason: str) -> None:
        """Send this address no more reports."""
        with self._file.changing() as database:
            row = (address.lower(), now, reason[:LONGEST_NOTE])
            database.execute("INSERT OR REPLACE INTO suppressed VALUES (?,?,?)", row)

    def allow(self, address: str) -> bool:
        """Send this address reports again and forget its bounces; False when it was not suppressed."""
        with self._file.changing() as database:
            database.execute("DELETE FROM bounces WHERE address = ?", (address.lower(),))
            return database.execute("DELETE FROM suppressed WHERE address = ?", (address.lower(),)).rowcount > 0

    def forget(self, before: float) -> None:
        """Throw away old reports and bounces; addresses stay suppressed until they are allowed again."""
        with self._file.changing() as database:
            database.execute("DELETE FROM reports WHERE end < ?", (before,))
            database.execute("DELETE FROM deliveries WHERE at < ?", (before,))
            database.execute("DELETE FROM bounces WHERE at < ?", (before,))

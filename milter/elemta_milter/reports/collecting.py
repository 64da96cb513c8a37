"""Collecting: what has come into the journal since we last looked?

Reads the journal on from where it was read last and adds to the ledger: counts for aggregate reports, failures where
they are wanted, and bounces of reports that we sent.  The journal is written off the mail's way and only once; reading
it costs about 0.1 ms a decision in the process that reports, and none in those that judge mail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elemta.config.model import Reports, Settings
from elemta.journal import BEGINNING, Entry, Reader
from elemta_milter.reports.counting import Terms, published, row
from elemta_milter.reports.counts import Counted, Counts
from elemta_milter.reports.failures import Failure, Failures, failure
from elemta_milter.reports.ledger_file import LedgerFile
from elemta_milter.reports.outgoing import BOUNCES_KEPT, Outgoing
from elemta_milter.reports.return_path import ReturnPath
from elemta_milter.reports.windows import DAY

SLICE = 1000  # decisions read and counted in one transaction
OLDEST = 2 * DAY  # seconds: days that ended before are not reported any more, older reports not tried any more


@dataclass(frozen=True, slots=True)
class Ledger:
    """The parts of one ledger."""

    file: LedgerFile
    counts: Counts
    outgoing: Outgoing
    failures: Failures

    @classmethod
    def open(cls, path: str) -> Ledger:
        """Open the ledger at `path`.

        Raises:
            LedgerError: it cannot be used.
        """
        file = LedgerFile(path)
        return cls(file, Counts(file), Outgoing(file), Failures(file))

    def forget(self, now: float) -> None:
        """Throw away what is old."""
        self.counts.forget(now - OLDEST - DAY)
        self.failures.forget(now - OLDEST)
        self.outgoing.give_up(now - OLDEST)
        self.outgoing.forget(now - BOUNCES_KEPT)


def terms(settings: Settings, reports: Reports, mailboxes: Iterable[str] = ()) -> Terms:
    """What is counted; `mailboxes` are more addresses to which others send their reports."""
    options = settings.checks.get("dmarc") or {}
    return Terms(
        method="psl" if options.get("discovery") == "suffix-list" else "treewalk",
        own=reports.from_.rpartition("@")[2],
        silent=frozenset((reports.from_, *reports.mailboxes, *mailboxes)),
        return_path=ReturnPath(reports.return_path or reports.from_),
        classes=None if reports.classes is None else frozenset(reports.classes),
        envelope_to=reports.envelope_to,
    )


def collect(journal: str, ledger: Ledger, of: Terms, reports: Reports, now: float) -> list[str]:
    """Read the journal to its end; the addresses that get no more reports because of what was read.

    Raises:
        JournalError, LedgerError: the files cannot be used; what was counted is counted.
    """
    if not Path(journal).exists():
        return []  # no mail has come yet
    reader = Reader(journal)
    silenced: list[str] = []
    try:
        while True:
            before = ledger.counts.mark()
            start = before if before != BEGINNING else reader.mark_before(now - OLDEST - DAY)
            entries, after = reader.follow(start, SLICE)
            if after == start:
                return silenced
            recent = [entry for entry in entries if (entry.at // DAY + 1) * DAY > now - OLDEST]  # whole days only
            mails, failed = _read(recent, of, failures=reports.failures > 0)
            with ledger.file.changing() as database:
                if not ledger.counts.add(database, before, after, mails):
                    continue  # another process was faster
                for one in failed:
                    ledger.failures.add(one)
            silenced += _bounces(recent, ledger, of, reports)
    finally:
        reader.close()


def _read(entries: Sequence[Entry], of: Terms, *, failures: bool) -> tuple[list[Counted], list[Failure]]:
    mails: list[Counted] = []
    failed: list[Failure] = []
    for entry in entries:
        policy = published(entry, of)
        record = policy.read() if policy is not None else None
        if policy is None or record is None or not (record.rua or record.ruf):
            continue
        line = row(entry, of)
        if record.rua:
            mails.append(Counted(entry.at, policy, line))
        one = failure(entry, policy, line) if failures else None
        if one is not None:
            failed.append(one)
    return mails, failed


def _bounces(entries: Sequence[Entry], ledger: Ledger, of: Terms, reports: Reports) -> list[str]:
    """Mail from the null sender to a return path of ours (RFC 5321 section 4.5.5) is a report that came back.

    Unless the address itself writes: that is an automatic answer, such as that of a ticket system.
    """
    silenced = []
    for entry in entries:
        for recipient in () if entry.sender else entry.recipients:
            token = of.return_path.token(recipient)
            if token:
                note = f"a notification from {entry.client_name or entry.client}"
                silenced.append(ledger.outgoing.bounced(token, entry.at, reports.bounces, note, entry.header_from))
    return [address for address in silenced if address]

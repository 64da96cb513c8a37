"""Failures: what may a domain's owner hear about single mails that failed?

Off by default.  Like failures (same domain, client and mechanisms) of one hour are one report with a number of
incidents.  Nothing personal leaves: of the mail the domains in From and MAIL FROM and the Message-ID; no recipient, no
subject, no body, and instead of every local part the word "redacted".

RFC 9991; RFC 6591 (auth-failure); RFC 5965 (feedback report); RFC 6590 (redaction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate

import msgspec

from elemta.addresses import is_near, is_within
from elemta.findings import Result
from elemta.journal import Entry
from elemta_milter.reports.counting import Published, Row
from elemta_milter.reports.document import Reporter
from elemta_milter.reports.ledger_file import LedgerFile
from elemta_milter.reports.mail import Header, Part, text_part
from elemta_milter.reports.windows import HOUR

KINDS = 1000  # different failures kept of one hour
LONGEST = 200  # characters of a Message-ID
WAITING, BEGUN, DONE, UNTOLD = "waiting", "begun", "done", "untold"


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures of one kind in one hour.

    Attributes:
        published: the policy that asked.
        row: as it is counted for the aggregate report.
        at: when the first one came, seconds since 1970.
        message_id: of the first one, printable ASCII; "" for none.
        incidents: how many.
    """

    published: Published
    row: Row
    at: float
    message_id: str
    incidents: int = 1

    @property
    def hour(self) -> int:
        """Seconds since 1970."""
        return int(self.at // HOUR) * HOUR

    @property
    def alignment(self) -> str:
        """Identity-Alignment (RFC 9991): the mechanisms that did not give an aligned identifier."""
        missing = [name for name, passed in (("dkim", self.row.dkim), ("spf", self.row.spf)) if not passed]
        return ", ".join(missing) or "none"

    @property
    def result(self) -> str:
        """What DMARC said: fo=1 also asks about mail that passes by one mechanism alone."""
        return "pass" if self.row.dkim or self.row.spf else "fail"

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What like failures have in common."""
        return self.published.domain, self.row.source, self.alignment, self.hour


def failure(entry: Entry, published: Published, row: Row) -> Failure | None:
    """The failure, where the owner asks for a report of it (RFC 9989 section 4.7, fo); else None."""
    record = published.read()
    if record is None or not record.ruf or record.psd == "y":  # RFC 9991: never for public suffixes
        return None
    options = record.fo.split(":")
    [result] = [each.result for each in entry.findings if each.check == "dmarc"]
    if result is Result.TEMPERROR:  # RFC 9989 section 5.3.6: neither passed nor failed
        return None
    if not (("0" in options and result is Result.FAIL) or ("1" in options and not (row.dkim and row.spf))):
        return None
    message_id = "".join(char for char in entry.message_id if "!" <= char <= "~")[:LONGEST]
    return Failure(published, row, entry.at, message_id)


class Failures:
    """The failures of a ledger that wait to be told. Every method may raise LedgerError."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def add(self, one: Failure) -> None:
        """Add to the failures of its kind; call it within `LedgerFile.changing`."""
        more = """UPDATE failures SET incidents = incidents + 1 WHERE (domain, source, alignment, hour) = (?,?,?,?)
            RETURNING 1"""
        if self._file.all(more, *one.key):
            return
        if self._file.one("SELECT count(*) FROM failures WHERE hour = ?", one.hour)[0] < KINDS:
            row = (*one.key, msgspec.json.encode(one).decode(), one.at, WAITING)
            self._file.all("INSERT INTO failures VALUES (?,?,?,?,1,?,?,?)", *row)

    def waiting(self, now: float) -> list[Failure]:
        """Those of hours that are over: first those that somebody has got and others wait for, then the oldest."""
        query = "SELECT incidents, detail FROM failures WHERE state IN (?,?) AND hour <= ? ORDER BY state, hour, at"
        found = self._file.all(query, WAITING, BEGUN, now - HOUR)
        with self._file.legible():
            return [replace(msgspec.json.decode(detail, type=Failure), incidents=number) for number, detail in found]

    def told(self, since: float, now: float) -> int:
        """Reports that went to somebody since then, also those that others still wait for."""
        query = "SELECT count(*) FROM failures WHERE state IN (?,?) AND at BETWEEN ? AND ?"
        return int(self._file.one(query, BEGUN, DONE, since, now)[0])

    def begin(self, one: Failure, now: float) -> None:
        """Somebody has got it."""
        with self._file.changing() as database:
            statement = """UPDATE failures SET state = ?, at = ? WHERE (domain, source, alignment, hour) = (?,?,?,?)
                AND state = ?"""
            database.execute(statement, (BEGUN, now, *one.key, WAITING))

    def finish(self, one: Failure) -> None:
        """Nothing more will be done about this one."""
        with self._file.changing() as database:
            statement = """UPDATE failures SET state = CASE state WHEN ? THEN ? ELSE ? END
                WHERE (domain, source, alignment, hour) = (?,?,?,?)"""
            database.execute(statement, (BEGUN, DONE, UNTOLD, *one.key))

    def forget(self, before: float) -> None:
        """Throw away what is old."""
        with self._file.changing() as database:
            database.execute("DELETE FROM failures WHERE hour < ?", (before,))


def parts(one: Failure, reporter: Reporter, spf_record: str = "") -> Sequence[Part]:
    """The three parts of a feedback report (RFC 5965 section 2).

    Args:
        one: the failure.
        reporter: who reports.
        spf_record: what SPF's domain publishes, "" where it is not wanted.
    """
    row = one.row
    text = (
        f"Mail in the name of {row.header_from} from {row.source} came to {reporter.host} with dmarc={one.result}\n"
        f"and without an aligned pass of {one.alignment}:\n"
        f"first on {formatdate(one.at)}, {one.incidents} time{'s' if one.incidents > 1 else ''} in that hour.\n"
    )
    feedback = Part((("Content-Type", "message/feedback-report"),), _lines(_feedback(one, reporter, spf_record)))
    header: list[tuple[str, str]] = [("From", f"redacted@{row.header_from}")]
    if one.message_id:
        header.append(("Message-ID", one.message_id))
    return text_part(text), feedback, Part((("Content-Type", "text/rfc822-headers"),), _lines(header))


def _feedback(one: Failure, reporter: Reporter, spf_record: str) -> Header:
    row = one.row
    sender = f"redacted@{row.envelope_from}" if row.envelope_from else ""
    fields = [
        ("Feedback-Type", "auth-failure"),
        ("User-Agent", reporter.generator.replace(" ", "/")),
        ("Version", "1"),
        ("Auth-Failure", "dmarc"),
        ("Authentication-Results", f"{reporter.host}; dmarc={one.result} header.from={row.header_from}"),
        ("Identity-Alignment", one.alignment),
        ("Original-Mail-From", f"<{sender}>"),
        ("Arrival-Date", formatdate(one.at)),
        ("Source-IP", row.source),
        ("Reported-Domain", row.header_from),
        ("Incidents", str(one.incidents)),
    ]
    for domain, selector, result in row.signatures:
        if result != Result.PASS and _aligned(one, domain):
            fields += [("DKIM-Domain", domain), ("DKIM-Identity", f"@{domain}"), ("DKIM-Selector", selector)]
            break
    if spf_record:
        fields.append(("SPF-DNS", f'txt : {row.spf_domain} : "{spf_record}"'))  # RFC 6591 section 3.2.6
    return fields


def wants_spf_record(one: Failure) -> bool:
    """Whether the report tells what SPF's domain publishes (RFC 9991: SPF failed for an aligned domain)."""
    row = one.row
    return row.spf_result != Result.PASS and _aligned(one, row.spf_domain)


def _aligned(one: Failure, domain: str) -> bool:
    """Whether a domain may be of the author's organization, as what is below the policy's domain is (RFC 9991)."""
    return bool(domain) and (is_near(domain, one.row.header_from) or is_within(domain, one.published.domain))


def _lines(fields: Header) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("ascii", "replace") + b"\r\n"

"""Sending: who gets which report now?

Makes every report whose window is over, verifies its addresses, and hands one mail for each to the local Postfix.  An
address without an answer from the DNS, and a Postfix that does not take mail, are tried again at the next run, for two
days.  What was done and what was not, and why, is kept in the ledger and told to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from elemta.dns import DnsError, Resolver
from elemta.printable import clean
from elemta_milter.mailauth.dmarc_discovery import OrgDomain
from elemta_milter.reports import failures
from elemta_milter.reports.collecting import Ledger
from elemta_milter.reports.counting import Published
from elemta_milter.reports.destinations import Destination, destinations
from elemta_milter.reports.document import Report, Reporter, document
from elemta_milter.reports.failures import Failure
from elemta_milter.reports.mail import Part, Sender, gzip_part, mail, text_part
from elemta_milter.reports.outgoing import CLAIMED, POSTPONED, REFUSED, SENT, Due
from elemta_milter.reports.return_path import ReturnPath
from elemta_milter.reports.submission import Submission
from elemta_milter.reports.windows import DAY, HOUR, Window, leaves_at, window

T = TypeVar("T")

RETRY = HOUR  # seconds until what was postponed is tried again
UNDER_WAY = 600.0  # seconds that handing one mail over may take
MAILS_A_DAY = 10_000  # handed over at most: somebody may own many domains


@dataclass(frozen=True, slots=True)
class Office:
    """What reporting needs.

    Attributes:
        ledger: counts and memory.
        resolver: the DNS.
        reporter: who reports.
        sender: who writes.
        return_path: where bounces come to.
        submission: the SMTP server.
        hour: from when on reports about a whole day leave, o'clock UTC.
        shortest: seconds between reports that we grant at most.
        bounces: reports that may come back before an address gets no more.
        failures: reports of single failures in an hour at most.
        org_domain: a suffix list; None for the tree walk.
    """

    ledger: Ledger
    resolver: Resolver
    reporter: Reporter
    sender: Sender
    return_path: ReturnPath
    submission: Submission
    hour: int
    shortest: float
    bounces: int
    failures: int = 0
    org_domain: OrgDomain | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be sent, to whomever.

    Attributes:
        window: of the report.
        reference: its id.
        subject: of the mail.
        parts: of the mail.
        kind: "report" or "failure report".
        file_name: the attachment's, "" where there is none.
    """

    window: Window
    reference: str
    subject: str
    parts: tuple[Part, ...]
    kind: str = "report"
    file_name: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one address of one report.

    Attributes:
        parcel: what was to be sent.
        address: whose, or the URI that is none.
        state: "sent", "refused", "rejected", "postponed", "claimed", "not sent".
        note: why, or what the server said.
    """

    parcel: Parcel
    address: str
    state: str
    note: str

    def __str__(self) -> str:
        about = self.parcel.window.domain
        return clean(f"{self.parcel.kind} about {about} to {self.address}: {self.state}, {self.note}")


def close_windows(office: Office, now: float) -> int:
    """Make reports of all windows that are over; how many."""
    closed = 0
    while True:
        over = [each for each in windows(office) if leaves_at(each, office.hour) <= now]
        if not over:
            return closed
        closed += office.ledger.outgoing.close_windows([(each, office.ledger.counts.mails(each)) for each in over])


def windows(office: Office, domain: str | None = None) -> Iterator[Window]:
    """For each domain the first window that is not a report yet, whether it is over or not."""
    for name, hour, gap in office.ledger.counts.first_hours(domain):
        day = window(name, hour, DAY, office.shortest, gap)
        policy = office.ledger.counts.published(day)  # what was seen last decides how often
        record = policy.read() if policy is not None else None
        yield window(name, hour, record.ri if record is not None else DAY, office.shortest, gap)


def report(office: Office, of: Window) -> Report | None:
    """The report of a window; None when nothing is counted in it, or nobody asks."""
    policy = office.ledger.counts.published(of)
    record = policy.read() if policy is not None else None
    if policy is None or record is None or not record.rua:
        return None
    unlisted = office.ledger.counts.unlisted(of)
    error = f"{unlisted} messages are not listed: there were too many different ones" if unlisted else ""
    return Report(office.reporter, of, policy, record, error)


async def send(
    office: Office, now: float, *, domain: str | None = None, day: float | None = None, retry: float = RETRY
) -> list[Told]:
    """Send all reports that may leave.

    Args:
        office: what reporting needs.
        now: seconds since 1970.
        domain: only those about this one.
        day: only those that begin on this UTC day; its first second.
        retry: not what was postponed within so many seconds.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    told: list[Told] = []
    outgoing = office.ledger.outgoing
    sent = outgoing.sent(now - DAY, now)
    for due in outgoing.reports(state="open", domain=domain):
        # those of hours leave before any of a day: they shall not take all that may leave
        most = MAILS_A_DAY if due.window.end - due.window.begin == DAY else MAILS_A_DAY // 2
        tried_lately = abs(now - due.tried) < retry  # in times to come by a clock that was wrong: not lately
        if sent < most and not tried_lately and (day is None or day <= due.window.begin < day + DAY):
            told += await _send(office, due, now)
            sent = outgoing.sent(now - DAY, now)
    verified: dict[Published, list[Destination]] = {}
    for one in office.ledger.failures.waiting(now) if office.failures and day is None else ():
        if office.ledger.failures.told(now - HOUR, now) >= office.failures:
            break
        if domain in (None, one.published.domain):
            told += await _send_failure(office, one, now, verified)
    return told


async def in_thread(work: Callable[..., T], *given: object) -> T:
    """Let a thread work; who is cancelled meanwhile goes when it is done.

    It has the ledger and the SMTP session in its hands, and nothing half sent shall be left behind.
    """
    task = asyncio.create_task(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _send(office: Office, due: Due, now: float) -> list[Told]:
    outgoing = office.ledger.outgoing
    made = await in_thread(report, office, due.window)
    if made is None:
        outgoing.finish(due.window, "nobody asks for it any more")
        return []
    packed = await in_thread(parcel, office, made)
    # by an earlier run; a fresh claim is of a process that is sending just now, and may yet give it back
    settled = {each.address for each in due.deliveries if each.state != CLAIMED or now - each.at > UNDER_WAY}
    told = [
        await in_thread(_deliver, office, packed, destination, now)
        for destination in await addresses(office, made)
        if destination.address not in settled
    ]
    if all(each.state != POSTPONED for each in told):
        outgoing.finish(due.window, "; ".join(f"{each.address}: {each.state}, {each.note}" for each in told))
    else:
        outgoing.postpone(due.window, now)
    return told


async def addresses(office: Office, made: Report) -> list[Destination]:
    """The addresses that the record asks to be told, with what speaks against each."""
    domain = made.published.domain
    return _all_checked(office, await destinations(office.resolver, domain, made.record, "rua", office.org_domain))


def _all_checked(office: Office, found: Sequence[Destination]) -> list[Destination]:
    suppressed = office.ledger.outgoing.suppressed()
    return [_checked(office, each, suppressed) for each in found]


def _checked(office: Office, one: Destination, suppressed: Mapping[str, tuple[float, str]]) -> Destination:
    """Neither to those who take none, nor to ourselves: a report about reports could follow."""
    if one.refusal:
        return one
    if one.address in suppressed:
        return replace(one, refusal=f"suppressed: {suppressed[one.address][1]}")
    if one.address == office.sender.address or office.return_path.token(one.address) is not None:
        return replace(one, refusal="is where our own reports come from")
    return one


def parcel(office: Office, made: Report) -> Parcel:
    """The report with its document, ready for any address."""
    text = (
        f"This is a DMARC aggregate report about {made.window.domain}\n"
        f"from {office.reporter.host}, in the attached file.\n\n"
        f"The record at _dmarc.{made.published.domain} asks for it.\n"
    )
    attached = gzip_part(made.file_name, document(made, office.ledger.counts.rows(made.window)))
    return Parcel(made.window, made.id, made.subject, (text_part(text), attached), file_name=made.file_name)


def letter(office: Office, packed: Parcel, address: str, now: float) -> bytes:
    """The whole mail for one address."""
    kind = "mixed" if packed.kind == "report" else "report; report-type=feedback-report"
    return mail(office.sender, address, packed.subject, packed.reference, packed.parts, now=now, kind=kind)


def objection(destination: Destination, size: int) -> str:
    """Why this address does not get a mail of so many octets; "" when it does."""
    if destination.limit is not None and size > destination.limit:  # RFC 9990 section 3.5
        return f"the mail has {size} octets, and the address takes {destination.limit}"
    return ""


def _deliver(office: Office, packed: Parcel, destination: Destination, now: float) -> Told:
    """Claim, hand over, settle. Blocks."""
    told = Told(packed, destination.address or destination.uri, "not sent", destination.refusal)
    if destination.refusal:
        return replace(told, state=POSTPONED if destination.later else told.state)
    written = letter(office, packed, destination.mailbox, now)
    against = objection(destination, len(written))
    if against:
        return replace(told, note=against)
    outgoing = office.ledger.outgoing
    token = outgoing.token(packed.reference, destination.address)
    if not outgoing.claim(token, packed.window, destination.address, now):
        return replace(told, state=POSTPONED, note="another process has begun to send it")
    state, words = office.submission.send(office.return_path.address(token), destination.mailbox, written)
    outgoing.settle(token, state, words)
    if state == REFUSED:
        outgoing.bounced(token, now, office.bounces, words)
    return replace(told, state=state, note=words)


async def _send_failure(
    office: Office, one: Failure, now: float, verified: dict[Published, list[Destination]]
) -> list[Told]:
    """`verified`: what this run knows of other failures' addresses: a thousand of one domain are one question."""
    record = one.published.read()
    if record is None:
        return []
    of, outgoing = one.published, office.ledger.outgoing
    if of not in verified:
        verified[of] = await destinations(office.resolver, of.domain, record, "ruf", office.org_domain)
    found = _all_checked(office, verified[of])
    wanted = failures.wants_spf_record(one) and not all(each.refusal for each in found)
    spf_record = await _spf_record(office.resolver, one) if wanted else ""
    packed = Parcel(
        Window(f"{one.published.domain} (failure)", one.hour, one.hour + HOUR),
        outgoing.token(" ".join(map(str, one.key)), office.reporter.host),
        f"DMARC failure of mail in the name of {one.row.header_from}",
        tuple(failures.parts(one, office.reporter, spf_record)),
        kind="failure report",
    )
    told = [
        await in_thread(_deliver, office, packed, destination, now)
        for destination in found
        if not outgoing.claimed(outgoing.token(packed.reference, destination.address))  # by an earlier run
    ]
    if any(each.state in (SENT, CLAIMED) for each in told):
        office.ledger.failures.begin(one, now)
    if all(each.state != POSTPONED for each in told):
        office.ledger.failures.finish(one)
    return told


async def _spf_record(resolver: Resolver, one: Failure) -> str:
    try:
        answer = await resolver.query(one.row.spf_domain, "TXT")
    except DnsError:
        return ""
    texts = (txt.decode("ascii", "replace") for txt in answer.records if isinstance(txt, bytes))
    found = next((text for text in texts if text.lower().startswith("v=spf1")), "")
    return "".join(char for char in found if " " <= char <= "~" and char not in '"\\')[:500]

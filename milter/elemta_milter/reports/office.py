"""Office: what do the settings make of reporting?

Opens everything that reports need and gives it back; `run` is what the keeper does every few minutes: read the journal
on, close the windows that are over, send, throw away what is old.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from elemta.addresses import is_within
from elemta.clock import believed
from elemta.config.model import Reports, Settings
from elemta.dns import Resolver, open_resolver
from elemta.version import VERSION
from elemta_milter import signing
from elemta_milter.mailauth.dmarc_discovery import OrgDomain, Walker, discover
from elemta_milter.mailauth.signing import SigningKey
from elemta_milter.reports.collecting import OLDEST, Ledger, collect, terms
from elemta_milter.reports.destinations import address_of
from elemta_milter.reports.document import Reporter
from elemta_milter.reports.ledger_file import LedgerError
from elemta_milter.reports.mail import Sender
from elemta_milter.reports.return_path import ReturnPath
from elemta_milter.reports.sending import Office, Told, close_windows, in_thread, send
from elemta_milter.reports.submission import Submission


def ledger_path(settings: Settings, reports: Reports) -> str:
    """Where the ledger is."""
    return reports.file or str(Path(settings.journal.path).parent / "reports.db")


@asynccontextmanager
async def open_office(settings: Settings, reports: Reports, resolver: Resolver | None = None) -> AsyncIterator[Office]:
    """Open what reporting needs; given back at the end.

    Args:
        settings: all of them.
        reports: the section; it is there.
        resolver: the DNS; None for that of the settings.

    Raises:
        LedgerError: the ledger or a key of `sign` cannot be used.
        OSError: no resolver is configured.
    """
    own = None if resolver is not None else open_resolver(settings.dns)
    asked = resolver or own
    assert asked is not None  # noqa: S101 - one of them is there
    ledger = Ledger.open(ledger_path(settings, reports))
    try:
        with Submission(reports.smtp, settings.host) as submission:
            yield Office(
                ledger=ledger,
                resolver=asked,
                reporter=Reporter(
                    host=settings.host,
                    organization=reports.organization or settings.host,
                    email=reports.from_,
                    contact=reports.contact,
                    generator=f"Elemta {VERSION}",
                ),
                sender=Sender(reports.organization or settings.host, reports.from_, keys(settings, reports.from_)),
                return_path=ReturnPath(reports.return_path or reports.from_),
                submission=submission,
                hour=reports.hour,
                shortest=reports.shortest,
                bounces=reports.bounces,
                failures=reports.failures,
                org_domain=suffix_list(settings),
            )
    finally:
        ledger.file.close()
        if own is not None:
            await own.close()


async def read_journal(office: Office, settings: Settings, reports: Reports, now: float) -> list[str]:
    """Count what is new in the journal; the addresses that get no more reports because of what was read.

    Raises:
        JournalError, LedgerError: the files cannot be used.
    """
    of = terms(settings, reports, await mailboxes(office, reports))
    return await in_thread(collect, settings.journal.path, office.ledger, of, reports, now)


async def leapt(settings: Settings) -> str:
    """Why the clock is not to be gone by, for people; "" where it is.

    A leap beyond what is reported would throw away all that waits, and end days that have only begun.
    """
    now = await in_thread(believed, settings.journal.path)
    return f"it seems to be {now}" if now.ahead > OLDEST else ""


async def run(settings: Settings, reports: Reports, now: float) -> list[Told]:
    """All that is to be done now; what became of each address.

    Raises:
        JournalError, LedgerError: the files cannot be used; the clock leapt.
        OSError: no resolver is configured.
    """
    wait = await leapt(settings)
    if wait:
        raise LedgerError(wait)
    async with open_office(settings, reports) as office:
        await read_journal(office, settings, reports, now)
        close_windows(office, now)
        told = await send(office, now)
        office.ledger.forget(now)
        return told


async def mailboxes(office: Office, reports: Reports) -> list[str]:
    """Where we have the reports of others sent to: mail that comes there is not reported about."""
    found = await discover(Walker(office.resolver, office.org_domain), reports.from_.rpartition("@")[2])
    uris = (*found.record.rua, *found.record.ruf) if found.record is not None else ()
    return [address for address in map(address_of, uris) if address]


def keys(settings: Settings, author: str) -> tuple[SigningKey, ...]:
    """The keys of `sign` that make mail of this author pass DMARC (RFC 9990 section 3.5.2).

    Raises:
        LedgerError: one cannot be used; a report is rather late than unsigned.
    """
    domain = author.rpartition("@")[2]
    table, problems = signing.part(settings)
    if problems:
        raise LedgerError(f"reports cannot be signed: {problems[0].message}")
    every = (key for signer in (table.signers if table is not None else ()) for key in signer.keys)
    found = {key.record_name: key for key in every if is_within(domain, key.domain)}
    return tuple(found.values())


def suffix_list(settings: Settings) -> OrgDomain | None:
    """The suffix list where the check dmarc uses one."""
    if (settings.checks.get("dmarc") or {}).get("discovery") != "suffix-list":
        return None
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - half a megabyte that others do not need

    found: OrgDomain = PublicSuffixList().privatesuffix
    return found


__all__ = [
    "LedgerError",
    "keys",
    "leapt",
    "ledger_path",
    "mailboxes",
    "open_office",
    "read_journal",
    "run",
    "suffix_list",
]

"""Command: what do `elemta dmarc report`, `suppress` and `bounce` do?

They work on the same ledger as the keeper, beside it: what one has sent the other does not send again.
"""

from __future__ import annotations

import asyncio
import email
import os
import re
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message

from elemta.cli import fail
from elemta.config.load import load
from elemta.config.model import Reports, Settings
from elemta.journal import JournalError
from elemta.printable import clean
from elemta_milter.reports.collecting import Ledger
from elemta_milter.reports.document import xml
from elemta_milter.reports.ledger_file import LedgerError
from elemta_milter.reports.office import leapt, ledger_path, open_office, read_journal
from elemta_milter.reports.outgoing import Due
from elemta_milter.reports.return_path import ReturnPath
from elemta_milter.reports.sending import (
    Office,
    addresses,
    close_windows,
    letter,
    objection,
    parcel,
    report,
    send,
    windows,
)
from elemta_milter.reports.windows import DAY, Window, leaves_at

LARGEST = 1 << 20
"""Octets of a bounce that are read: what it says stands on top."""
_OF_THE_MAIL = re.compile(r"5\.(?:1\.[78]|2\.3|3\.4|6\.\d+|7\.\d+)\b|5\.0\.0 smtp; ?55[24]\b", re.IGNORECASE)
"""What says nothing of the address: sender, size, content, policy (RFC 3463 sections 3.2 to 3.8; RFC 5321 4.2.2)."""


def run(args: Namespace) -> int:
    """Carry out `elemta dmarc …`; the exit status."""
    settings = load(args.config).settings
    if settings.reports is None:
        return fail("elemta dmarc: the configuration has no section reports:", os.EX_CONFIG)
    try:
        return asyncio.run(_run(args, settings, settings.reports))
    except (LedgerError, JournalError) as error:
        # pipe(8) throws a notification away unless it is told to come again
        return fail(f"elemta dmarc: {error}", os.EX_TEMPFAIL if args.dmarc_command == "bounce" else os.EX_NOINPUT)


async def _run(args: Namespace, settings: Settings, reports: Reports) -> int:
    if args.dmarc_command == "report":
        async with open_office(settings, reports) as office:
            now = time.time()
            wait = await leapt(settings)
            if wait:  # nothing is counted or sent, and what is counted can be looked at
                status = fail(f"elemta dmarc: {wait}", os.EX_TEMPFAIL if args.send else os.EX_OK)
                return status or await _report(office, args, now)
            await read_journal(office, settings, reports, now)
            return await _report(office, args, now)
    ledger = Ledger.open(ledger_path(settings, reports))  # whatever becomes of keys and the DNS
    try:
        if args.dmarc_command == "suppress":
            return _suppress(ledger, args)
        return _bounce(ledger, reports, sys.stdin.buffer.read(LARGEST))
    finally:
        ledger.file.close()


# ── report ────────────────────────────────────────────────────────────────────────────────────────────────


async def _report(office: Office, args: Namespace, now: float) -> int:
    if args.send:
        close_windows(office, now)
        told = await send(office, now, domain=args.domain, day=args.day, retry=0.0)
        _out(str(one) for one in told)
        return os.EX_TEMPFAIL if any(one.state == "postponed" for one in told) else os.EX_OK
    found = sorted(_due(office, args), key=lambda due: (due.window.begin, due.window.domain))
    if not found:
        fail("nothing is counted that asks for a report", os.EX_OK)
    elif args.dry_run:
        for due in found:
            await _dry_run(office, due, now)
    elif args.domain is not None:
        for due in found:
            _print_xml(office, due.window)
    else:
        _out(_line(office, due) for due in found)
    return os.EX_OK


def _due(office: Office, args: Namespace) -> Iterator[Due]:
    """Reports that are or will be."""
    every = office.ledger.outgoing.reports(domain=args.domain)
    every += [Due(of, office.ledger.counts.mails(of), "counting", "") for of in windows(office, args.domain)]
    for due in every:
        if (args.day is None or args.day <= due.window.begin < args.day + DAY) and (
            not args.dry_run or due.state != "done"
        ):
            yield due


def _line(office: Office, due: Due) -> str:
    at = leaves_at(due.window, office.hour)
    state = f"leaves at {_time(at)}" if due.state == "counting" else due.state
    went = "; ".join(f"{each.address}: {each.state}, {each.note}" for each in due.deliveries) or due.note
    return f"{_span(due.window)}  {due.window.domain}  {_mails(due)}  {state}" + (f"  {went}" if went else "")


async def _dry_run(office: Office, due: Due, now: float) -> None:
    made = report(office, due.window)
    if made is None:
        _out([f"{_span(due.window)}  {due.window.domain}: nobody asks for it any more"])
        return
    packed = parcel(office, made)
    _out([f"{_span(due.window)}  {packed.file_name}  {_mails(due)}"])
    gone = {each.address: f"{each.state}, {each.note}" for each in due.deliveries}
    for each in await addresses(office, made):
        size = 0 if each.refusal else len(letter(office, packed, each.address, now))
        told = gone.get(each.address) or each.refusal or objection(each, size) or f"would get {size} octets"
        _out([f"  {each.address or each.uri}: {told}"])


def _print_xml(office: Office, of: Window) -> None:
    made = report(office, of)
    if made is None:
        counted = office.ledger.counts.mails(of)
        why = "nobody asks for it any more" if counted else "what was counted is thrown away after three days"
        fail(f"{_span(of)}  {of.domain}: {why}", os.EX_OK)
        return
    for part in xml(made, office.ledger.counts.rows(of)):
        sys.stdout.write(part.decode())


def _mails(due: Due) -> str:
    return "1 mail" if due.mails == 1 else f"{due.mails} mails"


def _span(of: Window) -> str:
    return f"{_time(of.begin)} to {_time(of.end)}"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%MZ}"


# ── addresses that take none ──────────────────────────────────────────────────────────────────────────────


def _suppress(ledger: Ledger, args: Namespace) -> int:
    outgoing = ledger.outgoing
    if args.address is None and args.remove:
        return fail("elemta dmarc suppress: --remove needs an ADDRESS", os.EX_USAGE)
    if args.address is None:
        _out(f"{address}  since {_time(at)}  {why}" for address, (at, why) in outgoing.suppressed().items())
        return os.EX_OK
    if not args.remove:
        outgoing.suppress(args.address, time.time(), args.reason)
        return os.EX_OK
    return os.EX_OK if outgoing.allow(args.address) else fail(f"{args.address} is not suppressed", os.EX_DATAERR)


def _bounce(ledger: Ledger, reports: Reports, octets: bytes) -> int:
    """Read one delivery status notification (RFC 3464); whatever else it is, it is taken and forgotten."""
    try:
        message = email.message_from_bytes(octets)
        words = _failed(message)
    except RecursionError:  # of parts within each other, as no mail server writes them
        return os.EX_OK
    return_path = ReturnPath(reports.return_path or reports.from_)
    for name in ("X-Original-To", "Delivered-To", "To"):
        for value in message.get_all(name, []):
            token = return_path.token(str(value).strip().strip("<>"))
            if token and words is not None:
                silenced = ledger.outgoing.bounced(token, time.time(), reports.bounces, words)
                _out([f"{silenced} gets no more reports"] if silenced else [])
                return os.EX_OK
    return os.EX_OK


def _failed(message: Message) -> str | None:
    """What the notification says of an address that was given up (RFC 3464 section 2.3.3); None for any other.

    A report that is too big, or not wanted, is no fault of its address: somebody's own domain, with such reports, would
    keep all others' from it.
    """
    for part in message.walk():
        blocks = part.get_payload() if part.get_content_type() == "message/delivery-status" else ()
        for block in blocks:
            if isinstance(block, Message) and str(block.get("Action", "")).strip().lower() == "failed":
                status = str(block.get("Status", ""))
                words = " ".join(str(block.get("Diagnostic-Code", status)).split())
                return None if _OF_THE_MAIL.match(f"{status.strip()} {words}") else clean(words)
    return None


def _out(lines: Iterator[str] | list[str]) -> None:
    for line in lines:
        sys.stdout.write(clean(line) + "\n")

"""`elemta dmarc`: which reports do other domains get from us?

elemta dmarc report                          what is counted, what was sent to whom
elemta dmarc report --show example.com       the XML
elemta dmarc report --dry-run                who would get what, and who not, and why
elemta dmarc report --send                   send what is due now; the milter's keeper does so every few minutes
elemta dmarc suppress [--remove] ADDRESS     this address gets no more reports; without ADDRESS: list them
elemta dmarc bounce < notification           for pipe(8): count a report that came back
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from elemta.addresses import a_label, split
from elemta.cli import config_argument

NAME = "dmarc"
HELP = "look at and send the DMARC reports that other domains ask for"
COMMAND = "elemta_milter.reports.command"  # of the milter's package, on which nothing here depends


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta dmarc` takes."""
    commands = parser.add_subparsers(dest="dmarc_command", metavar="COMMAND", required=True)
    report = commands.add_parser("report", help="show reports, or send those that are due")
    report.add_argument("domain", nargs="?", metavar="DOMAIN", type=_domain, help="only those about this domain")
    report.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help="only those that begin on this day, UTC")
    which = report.add_mutually_exclusive_group()
    which.add_argument("--show", action="store_true", help="what is counted and what was sent; with DOMAIN the XML")
    which.add_argument("--dry-run", action="store_true", help="who would get what, who would not, and why")
    which.add_argument("--send", action="store_true", help="send what is due")
    suppress = commands.add_parser("suppress", help="list addresses that get no reports, add one or remove one")
    suppress.add_argument("address", nargs="?", metavar="ADDRESS", type=_address, help="the address")
    suppress.add_argument("--remove", action="store_true", help="send it reports again")
    suppress.add_argument("--reason", default="by hand", metavar="TEXT", help="why, for the list")
    bounce = commands.add_parser("bounce", help="read a delivery status notification from standard input")
    for command in (report, suppress, bounce):
        config_argument(command)


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta dmarc …`; the exit status."""
    command: Any = import_module(COMMAND)
    status: int = command.run(args)
    return status


def _domain(text: str) -> str:
    """A domain as A-labels, as reports name it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    name = a_label(text)
    if name is None:
        raise argparse.ArgumentTypeError(f'"{text}" is no domain such as example.com')
    return name


def _address(text: str) -> str:
    """An address in lower case, its domain as A-labels, as reports are sent to it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    local, domain = split(text)
    name = a_label(domain)
    if not local or name is None:
        raise argparse.ArgumentTypeError(f'"{text}" is no address such as dmarc@example.com')
    return f"{local}@{name}".lower()


def _day(text: str) -> float:
    """The first second of a day, seconds since 1970.

    Raises:
        argparse.ArgumentTypeError: it is no day.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no day such as 2026-11-23') from None

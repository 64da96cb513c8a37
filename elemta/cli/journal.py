"""`elemta journal`: which mails were decided lately, from whom, to whom, by which rule?

elemta journal --since 1h --disposition reject
elemta journal --sender '*@example.net' --since 2026-11-23 --json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

from elemta import explain
from elemta.cli import _terminal, config_argument, fail
from elemta.cli._despite import journal_path
from elemta.config.types import duration
from elemta.facts import parse_ip
from elemta.journal import Entry, JournalError, Reader
from elemta.verdict import Disposition

NAME = "journal"
HELP = "list decisions, newest first"
CRITERIA = (
    "sender", "recipient", "header_from", "message_id", "client",
    "rule", "disposition", "klass", "login", "queue_id", "stage",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta journal` takes."""
    config_argument(parser)
    at = "an age such as 1h or 7d, or a local time such as 2026-11-23 or 2026-11-23T18:20"
    parser.add_argument("--since", type=_moment, metavar="WHEN", help=at)
    parser.add_argument("--until", type=_moment, metavar="WHEN", help="the same")
    parser.add_argument("--sender", metavar="ADDRESS", help="MAIL FROM; * stands for anything, here and below")
    parser.add_argument("--recipient", metavar="ADDRESS", help="RCPT TO")
    parser.add_argument("--header-from", metavar="TEXT", help="a part of From, as it stands in the mail")
    parser.add_argument("--message-id", metavar="ID", help="Message-ID, with or without its angle brackets")
    parser.add_argument("--client", type=_client, metavar="IP", help="the client's address, or 192.0.2.*")
    parser.add_argument("--rule", metavar="ID", help="the deciding rule")
    parser.add_argument("--disposition", choices=[each.value for each in Disposition], help="what happened")
    parser.add_argument("--class", dest="klass", metavar="CLASS", help="the class of the mail")
    parser.add_argument("--login", metavar="NAME", help="the SASL login")
    parser.add_argument("--queue-id", metavar="ID", help="Postfix's queue id")
    parser.add_argument("--stage", choices=("recipient", "message"), help="at RCPT TO, or complete messages")
    parser.add_argument(
        "--limit", type=_limit, default=50, metavar="N", help="at most so many, the newest (default: 50)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with everything that explains it")


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta journal`; 0, also when nothing was found."""
    path = journal_path(args.config)
    criteria = {name: _as_kept(name, getattr(args, name)) for name in CRITERIA if getattr(args, name) is not None}
    try:
        with closing(Reader(path)) as reader:
            limit = args.limit if args.json else args.limit + 1  # is there one more, to be told of?
            entries = reader.each(since=args.since, until=args.until, limit=limit, **criteria)
            return _tell(entries, args.limit, as_json=args.json)
    except JournalError as error:
        return fail(f"elemta journal: {error}", os.EX_NOINPUT)


def _tell(found: Iterator[Entry], limit: int, *, as_json: bool) -> int:
    if as_json:
        for entry in found:
            _terminal.out(json.dumps(explain.data(entry)) + "\n")
    elif entries := list(found):
        _terminal.out(explain.table(entries[:limit], width=_terminal.width(), colour=_terminal.colour()))
        if len(entries) > limit:
            fail(f"(the newest {limit}; --limit shows more)", os.EX_OK)
    else:
        fail("no decision meets these criteria", os.EX_OK)
    return os.EX_OK


def _as_kept(name: str, wanted: str) -> str:
    """A criterion as the journal has it: mail addresses without <>, message ids with."""
    if name in ("sender", "recipient"):
        return wanted.removeprefix("<").removesuffix(">")
    if name == "header_from":
        return f"*{wanted}*"
    if name == "message_id":
        return wanted if wanted[:1] in ("<", "*", "") else f"<{wanted}>"
    return wanted


def _client(text: str) -> str:
    """An address in the one form that the journal has, or a pattern; "" is a client without one.

    Raises:
        argparse.ArgumentTypeError: it is neither, such as a network or a name: nothing would ever be found.
    """
    if text and "*" not in text and parse_ip(text) is None:
        raise argparse.ArgumentTypeError(f'"{text}" is no IP address; write 192.0.2.1, or 192.0.2.* for several')
    return str(parse_ip(text) or text)


def _limit(text: str) -> int:
    """A number from 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) < 10**9:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of decisions; write 1 or more')
    return int(text)


def _moment(text: str) -> float:
    """Seconds since 1970.

    Raises:
        argparse.ArgumentTypeError: it is neither an age nor a time.
    """
    try:
        return time.time() - duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        words = f'"{text}" is neither an age such as 1h nor a time such as 2026-11-23T18:20'
        raise argparse.ArgumentTypeError(words) from None

"""`elemta explain`: why did this mail get this verdict, or what would happen to that one?

elemta explain 7K2M9QX1RD            the decision with this reference id
elemta explain 4F3A1B2C3D            all decisions about the message with this queue id
elemta explain --mail FILE --client 192.0.2.1 --helo mx.example.net --from a@example.net --rcpt b@example.org
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import closing
from pathlib import Path

from elemta import explain
from elemta.addresses import mailbox, returned_to
from elemta.cli import _terminal, config_argument, fail
from elemta.cli._despite import journal_path
from elemta.config.load import loaded_and
from elemta.explain.rehearsal import read_mail, rehearse
from elemta.facts import Client, Message, parse_ip
from elemta.journal import Entry, JournalError, Reader
from elemta.journal.entry import of_decision
from elemta.policy import Policy
from elemta.store import StoreError
from elemta.verdict import Disposition

NAME = "explain"
HELP = "say why a mail got its verdict, or judge a mail file without sending it"
ABOUT_A_MAIL = ("client", "name", "helo", "sender", "rcpt", "login")  # arguments that only a rehearsal takes


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta explain` takes."""
    parser.add_argument("reference", nargs="?", metavar="ID", help="a reference id, or Postfix's queue id")
    config_argument(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    mail = parser.add_argument_group("to judge a mail without sending it")
    mail.add_argument("--mail", type=Path, metavar="FILE", help="the message; `-` is standard input")
    mail.add_argument("--client", metavar="IP", help="the client's address; default: a local submission")
    mail.add_argument("--name", metavar="NAME", help="the client's verified name; default: looked up as Postfix does")
    mail.add_argument("--helo", metavar="NAME", default="", help="its HELO name")
    mail.add_argument("--from", dest="sender", metavar="ADDRESS", help="MAIL FROM; default: Return-Path, or From")
    mail.add_argument("--rcpt", action="append", default=[], metavar="ADDRESS", help="RCPT TO; may be repeated")
    mail.add_argument("--login", metavar="NAME", default="", help="the SASL login")


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta explain`; 0, or 1 when nothing was found."""
    if bool(args.reference) == (args.mail is not None):
        return fail("elemta explain: give a reference id or queue id, or --mail FILE", os.EX_USAGE)
    if args.mail is None and any(getattr(args, each) for each in ABOUT_A_MAIL):
        return fail(
            "elemta explain: what happened cannot be changed; --client and the like go with --mail", os.EX_USAGE
        )
    return _stored(args) if args.mail is None else _rehearsed(args)


def _stored(args: argparse.Namespace) -> int:
    if Path(args.reference).is_file():
        file = args.reference
        return fail(f"elemta explain: {file} is a file; to judge the mail in it, write --mail {file}", os.EX_USAGE)
    path = journal_path(args.config)
    try:
        with closing(Reader(path)) as reader:
            entries, oldest = reader.find(args.reference), reader.oldest()
    except JournalError as error:
        return fail(f"elemta explain: {error}", os.EX_NOINPUT)
    if not entries:
        since = f"; it goes back to {_terminal.when(oldest)}" if oldest else ", which is empty"
        return fail(f'elemta explain: no decision with reference or queue id "{args.reference}" in {path}{since}', 1)
    _tell(entries, args.json)
    return os.EX_OK


def _rehearsed(args: argparse.Namespace) -> int:
    address = parse_ip(args.client) if args.client else None
    if args.client and address is None:
        return fail(f'elemta explain: --client "{args.client}" is no IP address', os.EX_USAGE)
    mail = sys.stdin.buffer.read() if str(args.mail) == "-" else args.mail.read_bytes()
    policy = loaded_and(Policy.compile, args.config)
    sender = _sender(mail) if args.sender is None else _as_asked(args.sender)
    recipients = [mailbox(each) for each in args.rcpt]
    client = Client(address, args.name or "", args.name or "", helo=args.helo, login=args.login)
    try:
        outcome = asyncio.run(rehearse(policy, client, sender, recipients, mail))
    except StoreError as error:
        return fail(f"elemta explain: {error}", os.EX_NOINPUT)
    if not args.json:
        _terminal.out("A rehearsal: nothing was sent, kept or changed.\n")
        if outcome.nobody:
            _terminal.out("Every recipient would be refused; the message is judged as if all were accepted.\n")
        if any(each.verdict.disposition is Disposition.DISCARD for each in outcome.recipients):
            _terminal.out("All of it would be discarded at RCPT TO; the message is judged as if it were not.\n")
        _terminal.out("\n")
    words = policy.describe()
    _tell([of_decision(each, words) for each in (*outcome.recipients, outcome.message)], args.json)
    return os.EX_OK


def _sender(mail: bytes) -> str:
    """The address in Return-Path, else the one author in From, else the null sender."""
    message = Message(headers=read_mail(mail)[0])
    for value in message.header("return-path"):
        return _as_asked(value.decode("utf-8", "surrogateescape"))
    mailboxes = message.authors.mailboxes
    return f"{mailboxes[0].local}@{mailboxes[0].domain}" if len(mailboxes) == 1 else ""


def _as_asked(sender: str) -> str:
    """The sender as the daemons read what stands in MAIL FROM."""
    return returned_to(mailbox(sender.strip()))


def _tell(entries: list[Entry], as_json: bool) -> None:
    if as_json:
        _terminal.out(json.dumps({"decisions": [explain.data(entry) for entry in entries]}, indent=2) + "\n")
        return
    width, colour = _terminal.width(), _terminal.colour()
    if len(entries) > 1:
        _terminal.out(explain.table(entries, width=width, colour=colour) + "\n")
    rule = "-" * min(width, explain.WIDTH) + "\n"
    _terminal.out(rule.join(explain.story(entry, width=width, colour=colour) for entry in entries))

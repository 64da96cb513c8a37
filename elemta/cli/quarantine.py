"""`elemta quarantine`: which mails are on hold, why, and what shall become of them?

elemta quarantine list --rule dmarc-quarantine --newer 1d
elemta quarantine show 4jYKBx3MzfzJXXG            why, and the header; --body: the mail itself
elemta quarantine release 4jYKBx3MzfzJXXG         Postfix delivers it; it is not judged again
elemta quarantine delete --sender '*@example.net' --yes
elemta quarantine expire                          deletes what was kept long enough; for a timer

A mail may also be named by its reference id.  Mail that somebody else put on hold is listed with --all, and never
released or deleted here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from elemta import explain
from elemta.cli import _terminal, argument, config_argument, fail
from elemta.clock import believed
from elemta.config.load import load
from elemta.config.model import Settings
from elemta.config.types import duration
from elemta.journal import Deed, JournalError, Reader, record
from elemta.printable import clean
from elemta.quarantine import Choice, Held, HoldQueue, QueueError, held
from elemta.quarantine.acting import acts, delete, release
from elemta.quarantine.holding import fits
from elemta.quarantine.telling import data, subject_of, told

NAME = "quarantine"
HELP = "list, show, release and delete mail on hold"
_NONE = "nothing on hold meets these criteria"
_DONE = {Deed.RELEASED: "released", Deed.REQUEUED: "released as a new message", Deed.DELETED: "deleted"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta quarantine` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what is on hold, and why; oldest first")
    listing.add_argument("--all", action="store_true", help="also what somebody else put on hold")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    show = actions.add_parser("show", help="why a mail is on hold, and its header")
    show.add_argument("id", metavar="ID", help="Postfix's queue id, or a reference id")
    show.add_argument("--body", action="store_true", help="print the mail itself, header and body, and nothing else")
    letting = actions.add_parser("release", help="let mails go; Postfix delivers them as they were judged")
    deleting = actions.add_parser("delete", help="delete mails for ever")
    expire = actions.add_parser("expire", help="delete the mails that were kept long enough")
    expire.add_argument("--dry-run", action="store_true", help="only say which")
    for action in (letting, deleting):
        action.add_argument("ids", nargs="*", metavar="ID", help="Postfix's queue id, or a reference id")
        action.add_argument("--yes", action="store_true", help="do it to all that meet the criteria, without an ID")
    for action in (listing, letting, deleting):
        _criteria(action)
    for action in (listing, show, letting, deleting, expire):
        config_argument(action)
        of = "the directory of main.cf of another Postfix; default: quarantine.postfix"
        action.add_argument("--postfix", metavar="DIR", help=of)


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta quarantine`; 1 when a mail that was named is not there or not ours."""
    settings = load(args.config).settings
    try:
        hold = _Hold(settings, HoldQueue(args.postfix or settings.quarantine.postfix), time.time())
        action: Callable[[_Hold, argparse.Namespace], int] = _ACTIONS[args.action]
        return action(hold, args)
    except QueueError as error:
        return fail(f"elemta quarantine: {error}", error.status)
    except JournalError as error:
        return fail(f"elemta quarantine: {error}", os.EX_NOINPUT)


@dataclass(frozen=True, slots=True)
class _Hold:
    """What all actions work on."""

    settings: Settings
    queue: HoldQueue
    now: float

    def held(self) -> list[Held]:
        """Everything on hold. The journal is opened first: without it nothing is known to be ours."""
        with closing(Reader(self.settings.journal.path)) as reader:
            return list(held(self.queue.mails(), reader, self.settings.quarantine))

    def named(self, name: str, among: Sequence[Held]) -> Held | None:
        """The mail on hold with this queue id, or this reference id as `elemta explain` reads it."""
        for each in among:
            if each.mail.queue_id == name:
                return each
        with closing(Reader(self.settings.journal.path)) as reader:
            entries = reader.find(name)
        return next((each for each in among for entry in entries if each.told_by(entry)), None)

    def subjects(self, mails: Sequence[Held]) -> dict[str, str]:
        """Subjects by queue id; none where we may not read the mails."""
        known = {each.mail.queue_id: each.decision.values.get("subject") for each in mails if each.decision}
        asked = [each.mail.queue_id for each in mails if not isinstance(known.get(each.mail.queue_id), str)]
        try:
            headers = self.queue.headers(asked)
        except QueueError as error:
            if error.status != os.EX_NOPERM:
                raise
            headers = {}
        found = {queue_id: subject for queue_id, subject in known.items() if isinstance(subject, str)}
        return found | {queue_id: subject_of(header) for queue_id, header in headers.items()}


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────


def _list(hold: _Hold, args: argparse.Namespace) -> int:
    choice = _choice(args)
    found = hold.held()
    mails = [each for each in found if (args.all or each.decision) and choice.fits(each, hold.now)]
    _tell(hold, mails, as_json=args.json)
    others = 0 if args.all else sum(each.decision is None for each in found)
    if not mails and not args.json and (choice or not others):
        fail(_NONE if choice else "nothing is on hold", os.EX_OK)
    if others:
        more = f"{others}{' more' if mails else ''} {'was' if others == 1 else 'were'}"
        fail(f"({more} put on hold by somebody else; --all shows them)", os.EX_OK)
    return os.EX_OK


def _tell(hold: _Hold, mails: Sequence[Held], *, as_json: bool = False) -> None:
    subjects, width = hold.subjects(mails), _terminal.width()
    for each in mails:
        subject = subjects.get(each.mail.queue_id, "")
        if as_json:
            _terminal.out(json.dumps(data(each, subject, hold.now)) + "\n")
        else:
            _terminal.out(told(each, subject, hold.now, width=width))


def _show(hold: _Hold, args: argparse.Namespace) -> int:
    each = hold.named(args.id, hold.held())
    if each is None:
        return fail(_absent(args.id), 1)
    if args.body:
        for line in hold.queue.read(each.mail.queue_id, body=True):
            if sys.stdout.isatty():  # what a stranger wrote must not steer the terminal
                _terminal.out(_plain(line) + "\n")
            else:
                sys.stdout.buffer.write(line)
        return os.EX_OK
    _tell(hold, [each])
    width, colour = _terminal.width(), _terminal.colour()
    with closing(Reader(hold.settings.journal.path)) as reader:
        entries = [entry for entry in reader.find(each.mail.queue_id) if fits(each.mail, entry)]
    for entry in entries or ([each.decision] if each.decision else []):
        _terminal.out("\n" + explain.story(entry, width=width, colour=colour))
    _terminal.out("\nHeader\n")
    for line in hold.queue.read(each.mail.queue_id, body=False):
        _terminal.out(f"  {_plain(line)}\n")
    return os.EX_OK


def _plain(line: bytes) -> str:
    return clean(line.decode("utf-8", "backslashreplace").rstrip("\r\n").expandtabs())


# ── acting ────────────────────────────────────────────────────────────────────────────────────────────────


def _release(hold: _Hold, args: argparse.Namespace) -> int:
    return _act(hold, args, lambda mails: release(hold.queue, mails, hold.now))


def _delete(hold: _Hold, args: argparse.Namespace) -> int:
    return _act(hold, args, lambda mails: delete(hold.queue, mails))


def _act(hold: _Hold, args: argparse.Namespace, do: Callable[[Sequence[Held]], dict[str, Deed]]) -> int:
    choice, verb = _choice(args), f"{args.action}d"
    if bool(args.ids) == bool(choice):
        text = f"name the mails to {args.action}, or choose them by criteria; not both"
        return fail(f"elemta quarantine {args.action}: {text}", os.EX_USAGE)
    found, status = hold.held(), os.EX_OK
    if args.ids:
        mails: dict[str, Held] = {}
        for name in args.ids:
            each = hold.named(name, found)
            if each is None or each.decision is None:
                status = fail(_absent(name) if each is None else _not_ours(each, args.action), 1)
            else:
                mails[each.mail.queue_id] = each
        chosen = list(mails.values())
    else:
        chosen = [each for each in found if each.decision and choice.fits(each, hold.now)]
        if not chosen:
            return fail(_NONE, os.EX_OK)
        if not args.yes:
            _tell(hold, chosen)
            these = "this one" if len(chosen) == 1 else f"these {len(chosen)}"
            return fail(f"nothing was {verb}: {these} would be; say so with --yes", os.EX_USAGE)
    return max(status, _done(hold, chosen, do(chosen)))


def _expire(hold: _Hold, args: argparse.Namespace) -> int:
    held, now = hold.held(), believed(hold.settings.journal.path)
    over = [each for each in held if each.expires is not None and each.expires <= now.time]
    if now.ahead and any(each.expires is not None and now.time < each.expires <= hold.now for each in held):
        fail(f"elemta quarantine: some mails are kept, as if it were {now}", os.EX_OK)
    if args.dry_run:
        _tell(hold, over)
        return os.EX_OK
    return _done(hold, over, delete(hold.queue, over, Deed.EXPIRED))


def _done(hold: _Hold, mails: Sequence[Held], done: dict[str, Deed]) -> int:
    """Have the journal say what was done, and say it; the journal first, since nobody may be reading any more."""
    status, trouble = os.EX_OK, ""
    try:
        record(hold.settings.journal.path, acts(mails, done, hold.now))
    except JournalError as error:
        trouble = str(error)
    for each in mails:
        deed = done.get(each.mail.queue_id)
        if deed is None:
            status = fail(f"{each.mail.queue_id}: somebody else was faster, it is not on hold any more", 1)
        else:
            what = _DONE.get(deed, "deleted")
            who = f"from {each.mail.sender or '<>'} to {', '.join(each.mail.recipients)}"
            _terminal.out(clean(f"{each.mail.queue_id}  {what}  {who}") + "\n")
    return fail(f"elemta quarantine: done, but not noted: {trouble}", os.EX_IOERR) if trouble else status


def _absent(name: str) -> str:
    return f"elemta quarantine: {name} is not on hold; `elemta explain {name}` may tell what became of it"


def _not_ours(each: Held, action: str) -> str:
    option = {"release": "-H", "delete": "-d"}[action]
    queue_id = each.mail.queue_id
    return (
        f"elemta quarantine: {queue_id} was put on hold by somebody else; if you mean it: postsuper {option} {queue_id}"
    )


_ACTIONS = {"list": _list, "show": _show, "release": _release, "delete": _delete, "expire": _expire}


# ── criteria ──────────────────────────────────────────────────────────────────────────────────────────────


def _criteria(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rule", metavar="ID", help="the rule that decided; * stands for anything, here and below")
    parser.add_argument("--class", dest="klass", metavar="CLASS", help="the class of the mail")
    parser.add_argument("--sender", metavar="ADDRESS", help="the envelope sender")
    parser.add_argument("--recipient", metavar="ADDRESS", help="one of the recipients")
    why = "a check behind the verdict, or some words of its reason"
    parser.add_argument("--reason", "--finding", metavar="TEXT", help=why)
    parser.add_argument(
        "--older", type=argument(duration), metavar="TIME", help="on hold for so long at least, such as 2h or 7d"
    )
    parser.add_argument("--newer", type=argument(duration), metavar="TIME", help="on hold for so long at most")


def _choice(args: argparse.Namespace) -> Choice:
    sender, recipient = _bare(args.sender), _bare(args.recipient)
    return Choice(args.rule, args.klass, sender, recipient, args.reason, args.older, args.newer)


def _bare(address: str | None) -> str | None:
    """Without the <> that lists and logs show around it; `<>` is the null sender."""
    return None if address is None else address.removeprefix("<").removesuffix(">")

"""`elemta sets`: who is in a dynamic set, and who shall be?

elemta sets list                                    the dynamic sets of the policy, and how many entries each has
elemta sets list frozen_logins --json
elemta sets add frozen_logins bob --ttl 1h          seen by every worker within a second
elemta sets remove frozen_logins bob

Only dynamic sets can be changed: the others are in the configuration or in a file.  What is wrong with those, or with
another section, does not matter here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from datetime import UTC, datetime

from elemta.cli import _terminal, argument, config_argument, fail
from elemta.cli._despite import settings_despite
from elemta.config.model import DynamicSet, Settings
from elemta.config.problems import Path
from elemta.config.types import duration
from elemta.rules.sets import meant, members
from elemta.store import Store, StoreError
from elemta.store.urls import open_store

NAME = "sets"
HELP = "list and change the dynamic sets"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta sets` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the dynamic sets, or the entries of one")
    listing.add_argument("name", nargs="?", metavar="NAME", help="the set")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    add = actions.add_parser("add", help="put an entry into a set")
    remove = actions.add_parser("remove", help="take an entry out of a set")
    for action in (add, remove):
        action.add_argument("name", metavar="NAME", help="the set")
        action.add_argument("entry", metavar="ENTRY", help="an address, a domain, a network, a login, a word")
    stay = "how long it stays, such as 1h (default: for ever)"
    add.add_argument("--ttl", type=argument(duration), default=0.0, metavar="TIME", help=stay)
    for action in (listing, add, remove):
        config_argument(action)


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta sets`; 1 when there was nothing to remove."""
    settings = settings_despite(args.config, lambda path: _matters(path, args.name))
    if args.name is not None and not isinstance(settings.sets.get(args.name), DynamicSet):
        return fail(f"elemta sets: {_not_dynamic(settings, args.name)}", os.EX_DATAERR)
    try:
        return asyncio.run(_act(args, settings))
    except StoreError as error:
        return fail(f"elemta sets: {error}", os.EX_UNAVAILABLE)


async def _act(args: argparse.Namespace, settings: Settings) -> int:
    store = open_store(settings.state)
    try:
        if args.action == "list":
            return await _list(store, settings, args)
        if args.action == "add":
            return await _add(store, args)
        return await _remove(store, args)
    finally:
        await store.close()


async def _list(store: Store, settings: Settings, args: argparse.Namespace) -> int:
    now = time.time()
    if args.name is not None:
        for entry, until in (await store.set_entries(args.name, now)).items():
            end = _terminal.when(until) if until else ""
            text = f"{entry}\tuntil {end}" if end else entry
            _terminal.out((json.dumps({"entry": entry, "until": _iso(until)}) if args.json else text) + "\n")
        return os.EX_OK
    for each in _dynamic(settings):
        count = await store.set_size(each, now)
        _terminal.out((json.dumps({"set": each, "entries": count}) if args.json else f"{each}\t{count}") + "\n")
    return os.EX_OK


async def _add(store: Store, args: argparse.Namespace) -> int:
    if not args.entry.strip() or not args.entry.isprintable():
        return fail("elemta sets: an entry is one word on one line", os.EX_DATAERR)
    try:
        meant(args.entry)
        members([args.entry])  # 10.0.0.1/8 is no network: better said here than in every worker's log
    except ValueError as error:
        return fail(f"elemta sets: {error}", os.EX_DATAERR)
    await store.add_to_set(args.name, args.entry, time.time() + args.ttl if args.ttl else 0.0)
    return os.EX_OK


async def _remove(store: Store, args: argparse.Namespace) -> int:
    """Sets do not tell upper from lower case; rules may have added either."""
    entries = await store.set_entries(args.name, time.time())
    found = [entry for entry in entries if entry.lower() == args.entry.lower()]
    for entry in found:
        await store.remove_from_set(args.name, entry)
    return os.EX_OK if found else fail(f"elemta sets: {args.entry} is not in {args.name}", 1)


def _matters(path: Path, name: str | None) -> bool:
    """Whether a mistake at `path` keeps us from working: in the state store, or in the set that is asked for."""
    match path:
        case ("sets", other, *_) if name is not None:
            return other == name
        case ("sets", _, "file", *_):
            return False  # no dynamic set
    return path[0] in ("state", "sets")


def _iso(until: float) -> str | None:
    """When an entry ends, as RFC 3339 writes it; None for one that stays."""
    return datetime.fromtimestamp(min(until, _terminal.LAST), UTC).isoformat(timespec="seconds") if until else None


def _dynamic(settings: Settings) -> list[str]:
    return [name for name, model in settings.sets.items() if isinstance(model, DynamicSet)]


def _not_dynamic(settings: Settings, name: str) -> str:
    if name in settings.sets:
        return f"{name} is not dynamic: change it where it is written, in the configuration or its file"
    known = ", ".join(_dynamic(settings)) or "none"
    return f"the configuration has no set {name}; its dynamic sets: {known}"

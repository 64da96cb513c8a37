"""`elemta dkim`: what shall be done with the keys?  Its words stand in `elemta.cli.dkim`.

Needs no configuration that can be used: the first keys are made before it names them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from elemta.cli import fail
from elemta_milter import keyfiles
from elemta_milter.keyring import zone
from elemta_milter.keyring.duties import duty
from elemta_milter.keyring.making import KINDS, directory_for, make, owner_of
from elemta_milter.keyring.publication import Publication, Seen
from elemta_milter.keyring.ring import STATES, WAITING, Key, Ring, RingError, State, locked, read, write
from elemta_milter.keyring.rotation import NAMED, Step, noticed, retired, stopped, switched
from elemta_milter.keyring.shop import Shop
from elemta_milter.mailauth.signing import SigningError, SigningKey

NOT_YET = os.EX_TEMPFAIL
WRONG = 1
"""Exit status where the DNS publishes something else than it should."""


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta dkim …`; the exit status.

    Raises:
        OSError: a file cannot be read or written, or no resolver is configured.
    """
    shop = Shop(args)
    try:
        return _ACTIONS[args.action](shop, args)
    except (RingError, SigningError) as error:
        return fail(f"elemta dkim: {error}", os.EX_DATAERR)


def _new(shop: Shop, args: argparse.Namespace) -> int:
    kinds = KINDS if args.type == "both" else (args.type,)
    if args.selector and len(kinds) > 1:
        return fail("elemta dkim new: one selector cannot name two keys; add --type rsa or --type ed25519", os.EX_USAGE)
    if "." not in args.domain:  # before a directory is made (RFC 6376 section 3.5)
        return fail(
            f"elemta dkim new: {args.domain} has one label; no verifier takes d= with fewer than two", os.EX_DATAERR
        )
    directory = directory_for(shop.directory(args.domain), shop.settings.user)
    with locked(directory):
        ring = read(directory) if (directory / STATES).exists() else Ring(directory, args.domain)
        ring, made = _made(ring, kinds, shop.now, args.bits, args.selector or "")
    _print_records(ring, made)
    fail(f"Publish this, then run: elemta dkim rotate {ring.domain}", os.EX_OK)
    return os.EX_OK


def _made(ring: Ring, kinds: Iterable[str], at: float, bits: int = 2048, selector: str = "") -> tuple[Ring, list[Key]]:
    """Make keys and write the ring."""
    made = []
    for kind in kinds:
        ring, key = make(ring, kind, at, bits=bits, selector=selector)
        made.append(key)
        try:
            write(ring, owner_of(ring.directory))
        except OSError:
            ring.path(key).unlink(missing_ok=True)  # nobody would know of it, and its selector were taken
            raise
    return ring, made


def _list(shop: Shop, args: argparse.Namespace) -> int:
    rows = [
        {
            "domain": ring.domain,
            "selector": key.selector,
            "type": key.kind,
            "state": key.state.value,
            "days": int(key.age(shop.now) // 86400),
            "to do": duty(ring, key, shop.now, shop.in_use(ring)),
        }
        for ring in shop.rings(args.domain)
        for key in ring.keys
    ]
    if args.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif rows:
        _print_table([list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)])
    else:
        return _no_keys(shop)
    return os.EX_OK


def _no_keys(shop: Shop) -> int:
    return fail(f"there are no keys below {shop.parent}; make some with `elemta dkim new DOMAIN`", os.EX_OK)


def _dns(shop: Shop, args: argparse.Namespace) -> int:
    for ring in shop.rings(args.domain):
        live = [key for key in ring.keys if key.state is not State.RETIRED]
        _print_records(ring, [ring.find(args.selector)] if args.selector else live)
    return os.EX_OK


def _check(shop: Shop, args: argparse.Namespace) -> int:
    rings = shop.rings(args.domain)
    if not rings:
        return _no_keys(shop)
    published = shop.published(rings)
    rows, statuses = [], {os.EX_OK}
    for before in rings:
        ring = _change(before.directory, lambda ring: noticed(ring, _by_selector(ring, published), shop.now)).ring
        for key in ring.keys:
            if ring.name(key) not in published:
                continue  # made meanwhile by another command
            said = published[ring.name(key)]
            if key.state is State.RETIRED:
                text = "" if said.seen is not Seen.PUBLISHED else "may go"
            else:
                text = said.reason
                statuses.add(_STATUS.get(said.seen, WRONG))
            rows.append([ring.name(key), key.state.value, said.seen.value, text])
    _print_table([["name", "state", "dns", "about it"], *rows])
    return WRONG if WRONG in statuses else max(statuses)


_STATUS = {Seen.PUBLISHED: os.EX_OK, Seen.UNKNOWN: NOT_YET}


def _by_selector(ring: Ring, published: dict[str, Publication]) -> dict[str, Publication]:
    return {key.selector: published[ring.name(key)] for key in ring.keys if ring.name(key) in published}


def _rotate(shop: Shop, args: argparse.Namespace) -> int:
    directory = shop.directory(args.domain)
    _change(directory, lambda ring: retired(ring, shop.now, named=shop.in_use(ring)))
    ring = read(directory)
    if not ring.of(*WAITING):
        return _begin(shop, ring, args.if_older)
    published = _by_selector(ring, shop.published([ring]))
    for key in _change(directory, lambda ring: noticed(ring, published, shop.now)).ring.of(*WAITING):
        _load(ring, key, shop.settings.user)
    step = _change(directory, lambda ring: switched(ring, published, shop.now))
    if step.missing:
        for key, said in step.missing:
            fail(f"{ring.name(key)} is not published yet: {said.reason}", os.EX_OK)
        return fail(f"Nothing changed. The records: elemta dkim dns {ring.domain}", NOT_YET)
    sys.stdout.write("Now: systemctl reload elemta-milter\n")
    return os.EX_OK


def _load(ring: Ring, key: Key, user: str) -> None:
    """Load a key as the daemon will.

    Raises:
        RingError: it could not: its reload would be refused, and its next start too.
    """
    try:
        private = keyfiles.load(str(ring.path(key)), user)
    except keyfiles.KeyFileError as error:
        raise RingError(f"{error}; nothing changed") from None
    if SigningKey(ring.domain, key.selector, private).record != key.record:
        raise RingError(f"{ring.path(key)} holds another key than the one that is published; nothing changed")


def _begin(shop: Shop, ring: Ring, older: float) -> int:
    """Make the keys that will follow."""
    active = ring.of(State.ACTIVE)
    if older and active and not any(key.age(shop.now) >= older for key in active):
        return os.EX_OK
    kinds = dict.fromkeys(key.kind for key in active) or KINDS
    with locked(ring.directory):
        ring = read(ring.directory)
        made = list(ring.of(*WAITING))  # by another command, just now
        if not made:
            ring, made = _made(ring, kinds, shop.now)
    _print_records(ring, made)
    fail(f"Publish this, then run again: elemta dkim rotate {ring.domain}", os.EX_OK)
    return NOT_YET


def _retire(shop: Shop, args: argparse.Namespace) -> int:
    directory = shop.directory(args.domain)
    if not args.selector:
        if args.now:
            return fail("elemta dkim retire: --now needs a SELECTOR", os.EX_USAGE)
        if not _change(directory, lambda ring: retired(ring, shop.now, named=shop.in_use(ring))).done:
            sys.stdout.write("No key has been out of use for long enough.\n")
        return os.EX_OK
    if args.selector in shop.in_use(read(directory)):
        raise RingError(f"{args.selector}: {NAMED}")
    done = _change(directory, lambda ring: stopped(ring, args.selector, shop.now)).done
    if args.now:
        step = _change(directory, lambda ring: retired(ring, shop.now, args.selector))
        key = step.ring.find(args.selector)
        sys.stdout.write("To revoke it, publish in the place of its record (RFC 6376 section 3.6.1):\n")
        sys.stdout.write(zone.lines(step.ring.name(key), f"v=DKIM1; k={key.kind}; p="))
    elif not done:
        key = read(directory).find(args.selector)
        more = "" if key.state is State.RETIRED else "; --now retires it before its time"
        sys.stdout.write(f"{key.selector} is {key.state.value} already{more}\n")
        return os.EX_OK
    sys.stdout.write("Now: systemctl reload elemta-milter\n")
    return os.EX_OK


def _change(directory: Path, step: Callable[[Ring], Step]) -> Step:
    """Take one step of the ring, write it, destroy the files of keys that are retired by it, and tell."""
    read(directory)  # where there is no ring this says so, which a lock cannot
    with locked(directory):
        before = read(directory)
        taken = step(before)
        if taken.ring != before:
            write(taken.ring, owner_of(directory))
        for key in taken.ring.of(State.RETIRED):  # also one that a command left which was killed in between
            if taken.ring.path(key).exists():  # or nothing is touched, where nothing may be written
                taken.ring.path(key).unlink()
    for line in taken.done:
        sys.stdout.write(f"{before.domain}: {line}\n")
    return taken


def _print_records(ring: Ring, keys: Iterable[Key]) -> None:
    for key in keys:
        name = ring.name(key)
        sys.stdout.write(zone.lines(name, key.record))
        sys.stdout.write(f"; in one piece, for web forms: {name}\n; {key.record}\n")


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


_ACTIONS: dict[str, Callable[[Shop, argparse.Namespace], int]] = {
    "new": _new,
    "list": _list,
    "dns": _dns,
    "check": _check,
    "rotate": _rotate,
    "retire": _retire,
}

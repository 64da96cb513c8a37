"""Rotation: what may follow, given how far each key has come and what the DNS says?

Pure: takes a ring, what was seen in the DNS and the time; gives the ring as it should be and what to tell.  Makes no
key, deletes no file.  A key signs only after its record was seen, and keeps its record while mail that it proves may
still be on its way.

RFC 6376 section 3.1 (selectors are for this); RFC 5321 section 4.5.4.1 (mail is tried for four or five days).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from elemta_milter.keyring.publication import Publication, Seen
from elemta_milter.keyring.ring import WAITING, Key, Ring, RingError, State

GRACE = 7 * 86400.0
"""Seconds from the last signature until the record may go: Postfix gives up after five days."""
NAMED = "`sign:` or `seal:` names its file; write another key there first, and reload"


@dataclass(frozen=True, slots=True)
class Step:
    """What happened.

    Attributes:
        ring: as it should be now.
        done: one line for people for each thing that changed.
        missing: keys that wait for the DNS, with what it says.
    """

    ring: Ring
    done: tuple[str, ...] = ()
    missing: tuple[tuple[Key, Publication], ...] = ()


def noticed(ring: Ring, published: Mapping[str, Publication], at: float) -> Step:
    """Note which new keys are published, by selector; and which are no more."""
    keys, done = [], []
    for key in ring.keys:
        said = published.get(key.selector)
        if key.state is State.NEW and said is not None and said.seen is Seen.PUBLISHED:
            keys.append(key.now(State.PUBLISHED, at))
            done.append(f"{key.selector} is published")
        elif key.state is State.PUBLISHED and said is not None and said.seen not in (Seen.PUBLISHED, Seen.UNKNOWN):
            keys.append(key.now(State.NEW, at))
            done.append(f"{key.selector} is not published any more")
        else:
            keys.append(key)
    return Step(replace(ring, keys=tuple(keys)), tuple(done))


def switched(ring: Ring, published: Mapping[str, Publication], at: float) -> Step:
    """Let the waiting keys sign, if the DNS shows all of them now; else change nothing.

    They take the place of those of their kind: an Ed25519 key, which many verifiers do not know, never that of RSA.

    Raises:
        RingError: no key is waiting.
    """
    waiting = ring.of(*WAITING)
    if not waiting:
        raise RingError(f"{ring.domain} has no key that waits to be used")
    unseen = [(key, published.get(key.selector, Publication(Seen.UNKNOWN, "not looked at"))) for key in waiting]
    missing = tuple(each for each in unseen if each[1].seen is not Seen.PUBLISHED)
    if missing:
        return Step(ring, (), missing)
    kinds = {key.kind for key in waiting}
    keys, done = [], []
    for key in ring.keys:
        if key.state in WAITING:
            keys.append(key.now(State.ACTIVE, at))
            done.append(f"{key.selector} signs from the next reload on")
        elif key.state is State.ACTIVE and key.kind in kinds:
            keys.append(key.now(State.RETIRING, at))
            done.append(f"{key.selector} signs no more; leave its record in the DNS")
        else:
            keys.append(key)
    return Step(replace(ring, keys=tuple(keys)), tuple(done))


def stopped(ring: Ring, selector: str, at: float) -> Step:
    """Let a key sign no more.

    Raises:
        RingError: there is no such key, it is not in use, or no other of the ring would sign.
    """
    key = ring.find(selector)
    if key.state in (State.RETIRING, State.RETIRED):
        return Step(ring)
    if key.state is State.ACTIVE and len(ring.of(State.ACTIVE)) == 1:
        raise RingError(
            f"{selector} is the only key that signs for {ring.domain}: mail would go unsigned; "
            "`elemta dkim rotate` first, or take the domain out of `sign:`"
        )
    never = key.state in WAITING
    after = key.now(State.RETIRED if never else State.RETIRING, at)
    told = f"{selector} never signed and is retired" if never else f"{selector} signs no more; leave its record"
    left = _with(ring, after)
    return Step(left, (told, *_without_rsa(left)) if key.state is State.ACTIVE else (told,))


def _without_rsa(ring: Ring) -> tuple[str, ...]:
    """What to tell where no RSA key signs: `rotate` would go on with keys of the other kind only."""
    if any(key.kind == "rsa" for key in ring.of(State.ACTIVE)):
        return ()
    more = f"elemta dkim new {ring.domain} --type rsa"
    return (f"only Ed25519 keys sign now, and many verifiers do not know them; make another with `{more}`",)


def retired(ring: Ring, at: float, selector: str = "", named: Collection[str] = ()) -> Step:
    """Retire keys that have not signed for `GRACE` seconds; with `selector` that one, however short it was.

    Those of `named` stay: without their files the daemon would not start.
    """
    done, missing = [], ring
    for key in ring.of(State.RETIRING):
        if key.selector == selector or (not selector and key.age(at) >= GRACE):
            if key.selector in named:
                done.append(f"{key.selector} stays, and its record: {NAMED}")
                continue
            missing = _with(missing, key.now(State.RETIRED, at))
            done.append(f"{key.selector} is retired; its record may go: {ring.name(key)}")
    return Step(missing, tuple(done))


def _with(ring: Ring, key: Key) -> Ring:
    return replace(ring, keys=tuple(key if each.selector == key.selector else each for each in ring.keys))

"""Greylisting: what does one more attempt of a triplet mean, given what is remembered of it?

Takes the remembered `Triplet` and `Network` (None when nothing is) and the terms; gives the answer and what to
remember next.  A pure function without clock or I/O, so that every store that can read and write in one
transaction shares it, and a table tests it.

After RFC 6647 section 2 and postgrey: an attempt starts the clock; a retry that is too early does not start it
again; one after `window` does.  Who passed once is known for `keep` after the last mail.  A client network is
proven when, after its first triplet, `proven` more have passed; passes within `delay` of each other count once, so
that one burst proves nothing.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from elemta.store import Grey, GreyTerms

REFRESH = 500  # a memory is prolonged when 1/500 of `keep` is used up (100 minutes of 35 days), not with every mail


class Triplet(Struct, frozen=True):
    """What is remembered of a triplet.

    Attributes:
        first: when it was first seen, seconds since 1970.
        until: when to forget it.
        attempts: attempts until it passed.
        passed: it has passed.
    """

    first: float
    until: float
    attempts: int
    passed: bool


class Network(Struct, frozen=True):
    """What is remembered of a client network.

    Attributes:
        passes: triplets of it that passed.
        counted: when the last of them was counted, seconds since 1970.
        until: when to forget it.
    """

    passes: int
    counted: float
    until: float


Memory = TypeVar("Memory", Triplet, Network)


def attempt(
    triplet: Triplet | None, network: Network | None, now: float, terms: GreyTerms
) -> tuple[Grey, Triplet | None, Network | None]:
    """Judge one attempt at `now`.

    Returns:
        The answer; the triplet and the network to remember from now on. The very object that was given
        means that nothing need be written.
    """
    if triplet is not None and triplet.until < now:
        triplet = None
    if network is not None and network.until < now:
        network = None
    if triplet is not None and triplet.passed:
        known = _prolonged(triplet, now, terms)
        return Grey(passed=True, known=True, attempts=triplet.attempts), known, network
    if network is not None and terms.proven and network.passes > terms.proven:
        return Grey(passed=True, proven=True), triplet, _prolonged(network, now, terms)
    first = min(triplet.first, now) if triplet is not None else now  # a clock set back must not lengthen the wait
    attempts = triplet.attempts + 1 if triplet is not None else 1
    wait = first + terms.delay - now
    if wait > 0:
        waiting = Triplet(first, first + terms.window, attempts, passed=False)
        return Grey(passed=False, wait=wait, attempts=attempts), waiting, network
    passed = Triplet(first, now + terms.keep, attempts, passed=True)
    return Grey(passed=True, attempts=attempts), passed, _counted(network, now, terms)


def _counted(network: Network | None, now: float, terms: GreyTerms) -> Network:
    if network is None:
        return Network(1, now, now + terms.keep)
    if abs(now - network.counted) < terms.delay:
        return network
    return Network(network.passes + 1, now, now + terms.keep)


def _prolonged(memory: Memory, now: float, terms: GreyTerms) -> Memory:
    until = now + terms.keep
    return replace(memory, until=until) if until - memory.until > terms.keep / REFRESH else memory

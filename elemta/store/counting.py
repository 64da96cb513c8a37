"""Counting: how much of a limit is used up, and for how long still?

A limit's window slides: time is cut into slots of a sixtieth of it, and a slot counts until all of it is older than the
window.  So what is counted is never less than what was used within the window just past: a limit is never exceeded,
whatever span of that length one looks at.  It may be more, by what was used in the oldest slot: who used all at once
waits at most a sixtieth longer.

A reservation counts like use until it is made final, given back, or lapses.  A pure module, so that every store that
can read and write in one transaction shares it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import floor

SLOTS = 60
"""Of a window."""
HOLD = 300.0
"""Seconds that a reservation lasts at most: Postfix waits as long for a client (smtpd_timeout)."""
KEEP = 3600.0
"""Seconds in which use can be given back, and reservations that have lapsed be made final."""


def slot(now: float, window: float) -> int:
    """The slot in which `now` is."""
    return floor(now * SLOTS / window)


def oldest(now: float, window: float) -> int:
    """The oldest slot that counts: a part of it is within the window."""
    return slot(now, window) - SLOTS


def newest(now: float, window: float) -> int:
    """The last slot that counts: a clock may be set back by a window; what is later is of one that was wrong."""
    return slot(now, window) + SLOTS


def end(number: int, window: float) -> float:
    """When a slot counts no more, seconds since 1970."""
    return (number + 1) * window / SLOTS + window


def lapse(now: float, window: float) -> float:
    """When a reservation of `now` lapses, seconds since 1970."""
    return now + min(window, HOLD)


def wait(spent: Iterable[tuple[float, int]], excess: int, now: float, window: float) -> float:
    """Seconds until `excess` is free again.

    Args:
        spent: when something is free again, and how much; in any order.
        excess: how much there is too much of it.
        now: seconds since 1970.
        window: what is told where waiting does not help: the request is bigger than the limit.
    """
    for until, amount in sorted(spent):
        excess -= amount
        if excess <= 0:
            return max(until - now, 0.0)
    return window

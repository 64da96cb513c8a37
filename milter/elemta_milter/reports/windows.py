"""Windows: from when to when does a report speak, and when may it leave?

Windows lie on the UTC day: one day, or as many hours as divide it where the domain asks for more reports (`ri`,
RFC 7489 section 6.3; RFC 9989 has dropped it).  They never overlap, also when a domain changes its mind in mid-day.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR = 3600
DAY = 24 * HOUR
SETTLE = 600  # seconds after the end in which the journal may still be writing, and we may still be reading
NEVER = 1 << 62
"""The begin of a report that does not follow."""
_LENGTHS = (24, 12, 8, 6, 4, 3, 2, 1)  # hours


Gap = tuple[int, int]
"""The end of the report before, 0 for none, and the begin of the one after, NEVER for none."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """What one report speaks of.

    Attributes:
        domain: the policy domain.
        begin: seconds since 1970, on the hour.
        end: the first second that is no more in it.
    """

    domain: str
    begin: int
    end: int


def window(domain: str, hour: int, interval: int, shortest: float, gap: Gap) -> Window:
    """The window in which `hour` (its first second) lies.

    Args:
        domain: the policy domain.
        hour: seconds since 1970.
        interval: the domain's `ri`, seconds.
        shortest: seconds: what we grant at most.
        gap: what no report speaks of, around `hour`.
    """
    wanted = max(interval, shortest)
    length = next((hours * HOUR for hours in _LENGTHS if hours * HOUR <= wanted), HOUR)
    begin = hour - hour % length
    return Window(domain, max(begin, gap[0]), min(begin + length, gap[1]))


def leaves_at(of: Window, hour: int) -> int:
    """When the report may leave: that of a whole day from `hour` o'clock UTC on, others when all is counted."""
    return of.end + max(SETTLE, hour * HOUR if of.end - of.begin == DAY else 0)

"""Piecewise: where does a pattern match in many octets, while other threads go on?

Nothing else of a process runs while a regular expression looks for what is not there; so it looks at a piece at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from elemta_milter.archives.stream import Octets

PIECE = 1 << 18  # octets; some milliseconds, at worst


def matches(
    pattern: re.Pattern[bytes], data: Octets, longest: int, goes_on: Callable[[], bool] = lambda: True
) -> Iterator[re.Match[bytes]]:
    """What `pattern.finditer` gives.

    Args:
        pattern: what to look for.
        data: where.
        longest: octets of the longest match, with all that it looks at behind it.
        goes_on: asked at each piece; False ends it.
    """
    place = 0
    while place < len(data) and goes_on():
        end = after = place + PIECE
        for match in pattern.finditer(data, place, end + longest):
            if match.start() >= end:  # it comes again
                break
            yield match
            after = max(end, match.end())
        place = after

"""Overdue: which processes of ours do not go in time, or hang? They are made to go.

A worker says ALIVE every BEAT seconds from its event loop.  One that says nothing for HUNG seconds serves nobody, also
where it has not come up yet, and who came to it waits in vain: it is asked where it stands (SIGUSR1: the stack of all
its threads on standard error), then killed, and the supervisor starts another.  Postfix says 4xx for what was in its
hands.

Time in which the supervisor itself stood still (a suspended machine, a paused container, a long reload) is nobody's
fault and not counted.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

from elemta.daemon.birth import GRACE
from elemta.daemon.generation import KEEPER, Process

HUNG = 60.0
"""Seconds without a sign of life; twice the time of all checks of a mail, as it is without a setting."""
STILL = 5.0
"""Seconds between two looks from which on the supervisor stood still itself."""
LAST_WORDS = 1.0
"""Seconds in which the system writes where a hung process stands."""

_log = logging.getLogger("elemta.daemon.overdue")


class Overdue:
    """Looks at all processes, again and again."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def end(self, processes: Iterable[Process]) -> None:
        """Kill who is overdue now."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        for process in processes:
            if passed > STILL:
                process.heard = now
                process.until += passed
            elif _hangs(process, now):
                _log.error(
                    "worker %d (process %d) has said nothing for %.0f s: it hangs, and is killed; where it stood:",
                    process.slot,
                    process.pid,
                    now - process.heard,
                )
                _send(process, signal.SIGUSR1)
                process.until = now + LAST_WORDS
            elif now > process.until:
                if process.leaving:
                    _log.error("process %d did not finish within %.0f s: killed", process.pid, now - process.leaving)
                _send(process, signal.SIGKILL)
                process.until = now + GRACE


def _hangs(process: Process, now: float) -> bool:
    """Whether it does, and nothing was done about it: who was told to go has a time of its own."""
    told = process.leaving or process.until < math.inf
    return process.slot != KEEPER and not told and now - process.heard > HUNG


def _send(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)

"""Clock: what time is it, for whoever throws away what is old?

A clock that leaps ahead, as that of a machine that starts with an empty battery, makes all that is kept look old: the
journal, the state, mail on hold.  Such a leap is not believed until it has stood for a day of the machine's own time,
that of later starts among it.  Nothing else goes by this: checks take the clock as it is.  A small file beside the
journal says up to where the clock was believed, also for the next start of the machine.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

AHEAD = 3600.0  # seconds by which the clock may be ahead: it was set, or the machine was off for a while
STANDS = 86400.0  # seconds after which a leap is believed
NOTED = 600.0  # seconds between two changes of the file
LONGEST = 400  # octets of the file that are read
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at the clock.

    Attributes:
        time: seconds since 1970; where the clock was not believed, what it should have been.
        uptime: seconds since the machine started, those that it slept among them.
        boot: which start of the machine that was; "" where we may not know.
        stood: seconds for which the clock has been seen ahead of that; None where it was believed.
    """

    time: float
    uptime: float
    boot: str
    stood: float | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """What time it is.

    Attributes:
        time: seconds since 1970, as far as they are believed.
        ahead: seconds by which the clock has leapt ahead of that; 0 when it is believed.
    """

    time: float
    ahead: float

    def __str__(self) -> str:
        """What people are told where the clock is not believed; the same for all of a day."""
        day, hours = datetime.fromtimestamp(self.time).astimezone().date(), self.ahead / 3600
        return f"{day}, since the clock leapt {hours:.0f} hours ahead; it is believed when that stood for a day"


def look() -> Moment:
    """The machine's clocks."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        boot = ""  # most of /proc may be hidden; that the machine was started anew is then told by a lesser uptime
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot)


def believed(journal: str, moment: Moment | None = None) -> Now:
    """What time it is, by the clock and by what the file beside this journal says of it."""
    path, moment = Path(f"{journal}-clock"), moment or look()
    noted = _read(path)
    now = follow(noted or moment, moment)
    if (
        noted is None
        or (now.boot, now.stood is None) != (noted.boot, noted.stood is None)
        or abs(now.time - noted.time) >= NOTED
    ):
        _write(path, now)
    return Now(now.time, moment.time - now.time)


def follow(last: Moment, moment: Moment) -> Moment:
    """What is believed: this moment, or, where the clock leapt ahead, the last one and the time that passed since.

    How long a machine was off only the clock can tell, so a longer rest counts as a leap, too.
    """
    same = moment.boot == last.boot and moment.uptime >= last.uptime
    passed = moment.uptime - last.uptime if same else 0.0
    stood = 0.0 if last.stood is None else last.stood + passed
    if moment.time <= last.time + passed + AHEAD or stood >= STANDS:
        return moment
    return Moment(last.time + passed, moment.uptime, moment.boot, stood)


def _read(path: Path) -> Moment | None:
    try:
        with path.open("rb") as file:
            at, uptime, boot, stood = json.loads(file.read(LONGEST))
        moment = Moment(float(at), float(uptime), str(boot), None if stood is None else float(stood))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return moment if moment.time >= 0 and math.isfinite(moment.time + moment.uptime + (moment.stood or 0)) else None


def _write(path: Path, moment: Moment) -> None:
    """Note it; where that cannot be done, what was noted before stays true."""
    with suppress(OSError):
        file, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            os.write(file, json.dumps([moment.time, moment.uptime, moment.boot, moment.stood]).encode())
            os.fchmod(file, 0o644)  # root may write it, for the daemons to read
            os.fsync(file)
            Path(name).rename(path)
        except OSError:
            Path(name).unlink()
        finally:
            os.close(file)

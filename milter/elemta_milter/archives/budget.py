"""Budget: how much of an archive may be unpacked, and how much has been?

A bound that is passed is never an exception: it is written down in `excess`, in words, and what asked for more is told
to stop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

FLOOR = 1 << 20
"""Octets. What unpacks to less is no bomb, whatever its ratio: a page of blanks shrinks to a thousandth."""


class BrokenError(ValueError):
    """It is not what it says it is; the text says what is wrong."""


class EncryptedError(ValueError):
    """Not even the names can be read without the password."""


class UnreadableError(ValueError):
    """It is lawful, but made in a way that is not read here; the text says what it is."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is looked at, in all archives of one mail together.

    Attributes:
        depth: archives within each other that are opened; 1 opens an attached archive and none in it.
        entries: files in archives.
        octets: unpacked in all.
        ratio: unpacked to packed octets, of one file and of an attachment as a whole.
        seconds: of processor time.
        programs: times that a program is started for an archive that is not read here.
        name: characters of a name.
        held: octets of files in archives that are held at once; an archive that is not read from beginning to end
            (zip, 7z, rar) and lies in another is opened up to this size.
    """

    depth: int = 5
    entries: int = 2000
    octets: int = 256 << 20
    ratio: int = 100
    seconds: float = 1.0
    programs: int = 10
    name: int = 255
    held: int = 48 << 20


@dataclass
class Budget:
    """What has been used.

    Attributes:
        bounds: see `Bounds`.
        until: `time.monotonic()` at which nobody waits any more.
        entries: files in archives so far.
        octets: unpacked so far.
        ratio: the highest ratio of anything that unpacked to more than `FLOOR`.
        excess: bounds that were passed, in words.
        over: no more may be looked at.
        holding: octets that are held at present.
    """

    bounds: Bounds
    until: float = float("inf")
    entries: int = 0
    octets: int = 0
    ratio: float = 0.0
    excess: dict[str, None] = field(default_factory=dict)
    over: bool = False
    holding: int = 0
    _charged: float = 0.0
    _programs: int = 0
    _packed: int = 0
    _before: int = 0
    _began: float = field(default_factory=time.thread_time)

    @contextmanager
    def attachment(self, packed: int) -> Iterator[None]:
        """An attachment of so many octets is opened, perhaps within another: its ratio as a whole counts by itself."""
        around = self._packed, self._before
        self._packed, self._before = max(packed, 1), self.octets
        yield
        self._packed, self._before = around

    def entry(self) -> bool:
        """Whether another file may be looked at."""
        if self.entries >= self.bounds.entries:
            return self._stop(f"{self.bounds.entries} files in archives")
        self.entries += 1
        return self.goes_on()

    def program(self) -> bool:
        """Whether a program may be started."""
        self._programs += 1
        if self._programs > self.bounds.programs:
            return self._stop(f"{self.bounds.programs} archives for a program")
        return self.goes_on()

    def charge(self, seconds: float) -> None:
        """A program has worked so long."""
        self._charged += seconds

    def unpacked(self, octets: int) -> bool:
        """Whether, after these octets, more may be unpacked."""
        self.octets += octets
        if self.octets > self.bounds.octets:
            return self._stop(f"{self.bounds.octets} octets unpacked")
        return self.ratio_kept(self.octets - self._before, self._packed) or self._stop("")

    def ratio_kept(self, unpacked: int, packed: int) -> bool:
        """Whether `packed` octets may unpack to `unpacked`."""
        if unpacked <= FLOOR:
            return True
        self.ratio = max(self.ratio, unpacked / max(packed, 1))
        if self.ratio <= self.bounds.ratio or unpacked <= self.bounds.ratio * packed:
            return True
        self.excess[f"ratio {self.bounds.ratio}"] = None
        return False

    def goes_on(self) -> bool:
        """Whether there is time left."""
        if not self.over and time.thread_time() - self._began + self._charged > self.bounds.seconds:
            return self._stop(f"{self.bounds.seconds:g} s of processor time")
        if not self.over and time.monotonic() > self.until:
            return self._stop("the time that the mail may take")
        return not self.over

    def _stop(self, bound: str) -> bool:
        self.over = True
        if bound:
            self.excess[bound] = None
        return False

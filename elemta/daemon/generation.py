"""A generation: the processes that serve one policy, as their supervisor knows them."""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass, field

from elemta.config.types import Listen
from elemta.policy import Policy
from elemta.printable import signal_name

KEEPER = -1
"""The slot of the keeper process."""
BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the first, second … restart in a row."""


@dataclass
class Process:
    """A forked worker or keeper."""

    pid: int
    slot: int
    control: socket.socket
    born: float
    heard: float = field(init=False)  # when it last said something, or was born
    ready: bool = False
    closed: bool = False  # it takes no connection any more
    leaving: float = 0.0  # when it was told to go; 0 = it was not
    until: float = math.inf  # when it is killed
    patience: float = math.inf  # so much later, once it takes no connection any more

    def __post_init__(self) -> None:
        self.heard = self.born

    def goes(self, seconds: float, patience: float = 0.0) -> None:
        """Note that it was told to go within so many seconds, and so many more for what is under way.

        One that hangs takes connections still: whoever comes to it waits in vain, and the reload is not over.
        """
        now = time.monotonic()
        self.leaving = self.leaving or now
        self.until = min(self.until, now + seconds)
        self.patience = min(self.patience, patience)

    def takes_none(self) -> None:
        """Note that it takes no connection any more."""
        self.closed = True
        self.until += self.patience


@dataclass
class Generation:
    """Workers of one policy, with the keeper beside them."""

    policy: Policy
    workers: int
    listen: Listen
    listener: socket.socket
    inbox: tuple[socket.socket, socket.socket]
    born: float = field(default_factory=time.monotonic)
    processes: dict[int, Process] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)  # in a row, by slot
    restart_at: dict[int, float] = field(default_factory=dict)

    @property
    def slots(self) -> range:
        """The workers' slots and the keeper's."""
        return range(KEEPER, self.workers)

    @property
    def ready(self) -> bool:
        """Every worker answers."""
        running = {process.slot for process in self.processes.values() if process.ready}
        return running >= set(self.slots)

    @property
    def closed(self) -> bool:
        """No worker takes a connection any more."""
        return all(process.closed or process.slot == KEEPER for process in self.processes.values())

    @property
    def told(self) -> dict[str, str | int]:
        """What the log says of it."""
        return {"policy": self.policy.fingerprint, "workers": self.workers}

    def again_later(self, slot: int) -> float:
        """Let a slot be filled again; after how many seconds."""
        deaths = self.deaths[slot] = self.deaths.get(slot, 0) + 1
        pause = BACK_OFF[min(deaths, len(BACK_OFF)) - 1]
        self.restart_at[slot] = time.monotonic() + pause
        return pause

    def close(self) -> None:
        """Close what only this generation used."""
        for end in self.inbox:
            end.close()


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"signal {signal_name(os.WTERMSIG(status))}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"

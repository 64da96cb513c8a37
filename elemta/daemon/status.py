"""Status: is every process of each daemon alive, and does what it depends on answer?

Each process that has something to say writes a small JSON file into the metrics directory, which both daemons share:
the supervisor "milter.status", a worker "milter-3.status".  It counts while it is fresh: workers write theirs again
every ten seconds, the keeper touches its supervisor's, and makes it old when it sees that the supervisor is gone.  A
daemon that stops on purpose removes its own; so one that is there and not fresh is that of a daemon that was killed.
A worker whose own is not fresh was killed too, unless it still holds the lock of its counts: then it hangs, or it
cannot write here.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from elemta.config.model import Settings

FRESH = 30.0  # seconds
REPEAT = 10.0  # seconds after which a worker writes its own again


def metrics_directory(settings: Settings) -> str:
    """Where the processes of both daemons share their counts, and say how they are."""
    return settings.metrics.directory or str(Path(settings.journal.path).parent / "metrics")


def write_status(directory: str, name: str, told: Mapping[str, object] | None) -> None:
    """Say how `name` is; readers see the old words or the new ones, never half of them.

    Args:
        directory: the metrics directory.
        name: "milter" for a supervisor, "milter-3" for a worker.
        told: of a supervisor `workers`, `ready` (numbers), `unreachable` (why nobody can connect) and anything else; of
            a worker `trouble` (texts). None removes it: stopped on purpose.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(directory) / f"{name}.status"
    if told is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(told))
    draft.replace(path)


class WorkerStatus:
    """What a worker says of what it depends on; written when it changes and every ten seconds."""

    def __init__(self, directory: str, name: str) -> None:
        """`name`: see `write_status`."""
        self._directory = directory
        self._name = name
        self._told: Sequence[str] | None = None
        self._next = 0.0

    def tell(self, trouble: Sequence[str]) -> None:
        """`trouble`: one text for each thing that does not answer. Where it cannot be written, that shows, too."""
        now = time.monotonic()
        if trouble == self._told and now < self._next:
            return
        self._told, self._next = trouble, now + REPEAT
        try:
            write_status(self._directory, self._name, {"trouble": list(trouble)})
        except OSError:
            self._next = now + 1.0
            with suppress(OSError):
                os.utime(Path(self._directory) / f"{self._name}.status", (0, 0))  # a full disk takes that, too

    def gone(self) -> None:
        """The worker ends."""
        with suppress(OSError):
            write_status(self._directory, self._name, None)


def touch(directory: str, daemon: str) -> None:
    """Keep the supervisor's status fresh: it lives."""
    try:
        os.utime(Path(directory) / f"{daemon}.status")
    except OSError:  # not written yet, or removed: stopping
        return


def abandon(directory: str, daemon: str, pid: int) -> None:
    """Make the status of the supervisor `pid` old: it was killed. That of one started since stays."""
    path = Path(directory) / f"{daemon}.status"
    try:
        if json.loads(path.read_text()).get("pid") == pid:
            os.utime(path, (0, 0))
    except (OSError, ValueError):  # removed meanwhile
        return


def lives(directory: str, name: str) -> bool:
    """Whether a process holds the lock under which `name` counts (`elemta.observe.metrics`)."""
    try:
        with (Path(directory) / f"{name}.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False


def missing(directory: str) -> tuple[list[str], list[str]]:
    """What is not alive, and what is not ready; both empty when all is well.

    Returns:
        texts for /healthz (a supervisor that was killed) and for /readyz (these, workers that do not answer yet, and
        what workers say of their dependencies).
    """
    dead, waiting = list[str](), list[str]()
    now = time.time()
    for path in sorted(Path(directory).glob("*.status")):
        try:
            age = now - path.stat().st_mtime
            told = json.loads(path.read_text())
        except (OSError, ValueError):  # removed meanwhile
            continue
        name = path.stem
        if "trouble" in told:
            if age < FRESH:
                waiting += [f"{name}: {text}" for text in told["trouble"]]
            elif lives(directory, name):
                waiting.append(f"{name}: no news of it; it hangs, or cannot write to {directory}")
        elif age >= FRESH:
            dead.append(f"{name}: the daemon is gone; start it again, or remove {path} if it is not wanted")
        elif told.get("unreachable"):
            waiting.append(f"{name}: {told['unreachable']}")
        elif told.get("ready", 0) < told.get("workers", 1):
            waiting.append(f"{name}: {told.get('ready', 0)} of {told.get('workers', 1)} workers answer")
    return dead, dead + waiting

"""Descriptors: does a process that lives for months gather them, or get those of others at birth?"""

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from harness.daemon import Daemon

WRONG = "rules: {recipient: [{id: no, then: rejct}]}"


def opened(pid):
    """How many files without a name a process has open, by kind: sockets, pipes, pollers."""
    found = Counter()
    for each in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(FileNotFoundError):
            found[str(each.readlink()).partition(":")[0]] += 1
    return {kind: count for kind, count in found.items() if not kind.startswith("/")}


def links(pid):
    return [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").glob("[0-9]*")]


def pipes(pid):
    return {each for each in links(pid) if each.startswith("pipe:")}


def of_all(daemon):
    """Those of the supervisor and of its children, the oldest first, once nothing has changed for half a second."""
    deadline, before = time.monotonic() + 20, None
    while True:
        found = [opened(pid) for pid in (daemon.process.pid, *sorted(daemon.children()))]
        if (found == before and len(found) == 4) or time.monotonic() > deadline:
            return found
        before = found
        time.sleep(0.5)


def test_they_are_as_many_after_reloads_and_deaths_as_before():
    with Daemon("policyd", workers=2) as daemon:
        supervisor, _, first, second = before = of_all(daemon)
        assert supervisor == {"socket": 6, "anon_inode": 1, "pipe": 2}  # the listener, two of the inbox, three controls
        assert first == second
        assert not pipes(daemon.process.pid) & pipes(daemon.worker_pids()[0])
        assert links(daemon.worker_pids()[0]).count("anon_inode:[eventpoll]") == 1  # its own, not the supervisor's
        daemon.reload(WRONG, ok=False)
        for _ in range(2):
            daemon.reload("")
        assert of_all(daemon) == before
        for number, pid in enumerate(daemon.children(), 1):
            os.kill(pid, signal.SIGKILL)
            daemon.wait_for("worker_died", number)
        assert of_all(daemon) == before

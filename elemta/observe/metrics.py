"""Metrics: how much of what happens in this process?

Counts in plain dictionaries (`counted.py`) and hands the sums to prometheus_client once a second: adding to one of its
counters across processes costs 1.3 us, to a histogram 3 us, and a mail has some twenty of them.  Each process keeps its
counts in files of its own below one directory, which both daemons share; `exposition.py` adds them up.

A process takes the lowest number that no living process of its daemon holds, so a restarted worker goes on in the files
of the one before it and the directory does not grow.  Every name, label and meaning stands in docs/monitoring.md.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import threading
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

import prometheus_client
from prometheus_client import values as prometheus_values

from elemta.decision import Decision
from elemta.observe import room
from elemta.observe.counted import Counted, Labels

FLUSH = 1.0  # seconds between two hand-overs
CHILDREN = 2000  # label sets of one metric; those beyond are counted under "other"
LABELS = 100  # different words of rules' `label`, which templates may make without end
DECISION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)
CHECK_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
SILENT_AFTER = 5  # answers in a row that did not come make a check's dependency one that does not answer
SILENT_FOR = 60.0
"""Seconds that this is told after the last one: a host that gets no mail since it is not ready gets some."""
OTHER = "other"


def prepare(directory: str, daemon: str) -> None:
    """Make the directory and remove what an earlier run of this daemon counted.

    For the supervisor, after it became the daemons' user and before it forks.

    Raises:
        OSError: the directory cannot be made or written.
    """
    Path(directory).mkdir(mode=0o755, parents=True, exist_ok=True)
    for old in _of_the_dead(directory, daemon, "*"):
        old.unlink(missing_ok=True)


def bury(directory: str, daemon: str) -> None:
    """Empty the gauges of dead processes of this daemon, which nobody else changes again; their room stays taken.

    Raises:
        OSError: the directory cannot be written.
    """
    for old in _of_the_dead(directory, daemon, "gauge_*"):
        room.empty(old)


def _of_the_dead(directory: str, daemon: str, kinds: str) -> Iterator[Path]:
    for lock in Path(directory).glob(f"{daemon}-*.lock"):
        with lock.open("a") as file:
            if _locked(file):  # no living process counts there
                yield from Path(directory).glob(f"{kinds}_{lock.stem}.db")


class Metrics:
    """Counts for one process. Open it after the fork, on the process's loop."""

    def __init__(self, directory: str, daemon: str, role: str = "") -> None:
        """Take a number below `directory` and start from what stands there under it.

        Args:
            directory: see `prepare`.
            daemon: "milter" or "policyd".
            role: of a process that is no worker, its name instead of a number: the first worker is number 0.

        Raises:
            OSError: the directory cannot be written, or the disk has no room.
        """
        self.daemon = daemon
        self.silent: tuple[str, ...] = ()
        """Checks whose dependency does not answer: none of the last five or more runs had an answer, one just now."""
        self.identity, self._claim = _claim(directory, daemon, role)
        # By themselves they would count across processes only if this had been set before the import, by process id.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        try:
            room.use(directory, self.identity)
        except OSError:
            self._claim.close()
            raise
        prometheus_values.ValueClass = prometheus_values.MultiProcessValue(lambda: self.identity)  # type: ignore[no-untyped-call]
        self._counting = threading.Lock()
        self._counted = Counted(Tally())
        self._troubled_at: dict[str, float] = {}
        self._each_second: list[Callable[[], None]] = []
        self._followed: list[tuple[Any, Callable[[], float], bool]] = []
        self._last: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._define()
        before = room.kept(directory, self.identity)
        for family in (each for each in vars(self).values() if isinstance(each, _Family)):
            family.follow(before.get(family.name, ()))

    def _define(self) -> None:
        daemon = self.daemon
        self.decisions = _counter("decisions", "Judgements.", "stage", "class", "disposition", "rule")
        self.decision_seconds = _histogram("decision_seconds", "Time of a judgement.", DECISION_BUCKETS, "stage")
        self.findings = _counter("findings", "Findings of checks.", "check", "result")
        self.check_seconds = _histogram("check_seconds", "Time of a check.", CHECK_BUCKETS, "check")
        self.trouble = _counter("trouble", "Runs of a check that could not answer.", "check")
        self.shadow = _counter("shadow_matches", "Matches of shadow rules.", "rule")
        self.labels = _counter("labels", "Labels given by rules.", "label", most=LABELS)
        self.journal_queue = _gauge("journal_queue", "Decisions that do not stand in the journal yet.", "sum", "daemon")
        self.journal_written = _counter("journal_written", "Decisions written to the journal.", "daemon")
        self.journal_dropped = _counter("journal_dropped", "Decisions that never reached the journal.", "daemon")
        self.journal_failures = _counter("journal_failures", "Attempts to write the journal that failed.", "daemon")
        self.log_dropped = _counter("log_dropped", "Lines of the log that were dropped.", "daemon")
        self.dns_hits = _counter("dns_cache_hits", "DNS answers taken from the cache.", "daemon")
        self.dns_queries = _counter("dns_queries", "DNS queries sent.", "daemon")
        self.dns_errors = _counter("dns_errors", "DNS queries that nobody answered.", "daemon")
        self.connections = _gauge("connections", "Open connections from Postfix.", "sum", "daemon")
        self.dependency_up = _gauge(
            "dependency_up",
            "1 while what a check depends on answers, 0 while it is left alone.",
            "min",
            "daemon",
            "check",
            "dependency",
        )
        self.dkim_key_age = _gauge("dkim_key_age_seconds", "How long the oldest key has been in use.", "max", "domain")
        self.dkim_keys_waiting = _gauge("dkim_keys_waiting", "DKIM keys that do not sign yet.", "max", "domain")
        self.dkim_keys_unpublished = _gauge(
            "dkim_keys_unpublished", "DKIM keys that sign without a record in the DNS.", "max", "domain"
        )
        self.restarts = _counter("worker_restarts", "Workers that died and were started again.", "daemon")
        self.reloads = _counter("reloads", "Configurations read again.", "daemon", "outcome")
        self.build = _gauge("build_info", "Always 1; the labels tell what runs.", "max", "daemon", "version", "python")
        self.build.child(daemon, _version(), platform.python_version()).set(1)
        for gauge in (self.journal_queue, self.connections):
            gauge.child(daemon).set(0)  # what a worker that was killed left behind
        for counter in (self.restarts, self.journal_dropped, self.journal_failures, self.log_dropped):
            counter.child(daemon).inc(0)  # an alert on an increase needs a beginning
        for outcome in ("ok", "refused"):
            self.reloads.child(daemon, outcome).inc(0)

    def open(self) -> None:
        """Hand over every second from now on."""
        self._loop = asyncio.get_running_loop()
        self._tick()

    def close(self) -> None:
        """Hand over the rest, and the number."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        for gauge in (self.journal_queue, self.connections):
            gauge.child(self.daemon).set(0)
        for dependency in self.dependency_up.children():
            dependency.set(1)  # the least of all processes is shown, and this one asks nobody any more
        self._claim.close()

    def decided(self, decision: Decision) -> None:
        """Count it; one or two microseconds."""
        with self._counting:
            self._counted.add(decision)

    def count(self, metric: _Family, total: Callable[[], float]) -> None:
        """Let a counter follow a number that only grows, such as `journal.written`; asked once a second."""
        self._followed.append((metric.child(self.daemon), total, True))

    def gauge(self, metric: _Family, value: Callable[[], float]) -> None:
        """Let a gauge show a number, such as `journal.waiting`; asked once a second."""
        self._followed.append((metric.child(self.daemon), value, False))

    def each_second(self, call: Callable[[], None]) -> None:
        """Call this after every hand-over."""
        self._each_second.append(call)

    def restarted(self) -> None:
        """A worker died and is started again (the supervisor)."""
        self.restarts.child(self.daemon).inc()

    def reloaded(self, *, ok: bool) -> None:
        """The configuration was read again, or refused (the supervisor)."""
        self.reloads.child(self.daemon, "ok" if ok else "refused").inc()

    def depends(self, states: Mapping[tuple[str, str], str]) -> None:
        """Show what checks depend on: `Engine.dependencies`."""
        for (check, dependency), why in states.items():
            self.dependency_up.child(self.daemon, check, dependency).set(0 if why else 1)

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        now = time.monotonic()
        with self._counting:
            counted, self._counted = self._counted, Counted(self._counted.in_a_row)
            silent = [name for name, times in counted.in_a_row.items() if times >= SILENT_AFTER]
        self._troubled_at.update(dict.fromkeys(counted.troubled, now))
        self.silent = tuple(sorted(name for name in silent if now - self._troubled_at[name] < SILENT_FOR))
        self.decisions.add(counted.decisions)
        self.findings.add({tuple(key.split("=")): times for key, times in counted.found.items()})
        for family, tally in (
            (self.trouble, counted.troubled),
            (self.shadow, counted.shadowed),
            (self.labels, counted.labelled),
        ):
            family.add({(name,): times for name, times in tally.items()})
        for histogram, amounts in (
            (self.decision_seconds, counted.decision_seconds),
            (self.check_seconds, counted.check_seconds),
        ):
            for label, several in amounts.items():
                histogram.child(label).add(several)
        for place, (child, ask, grows) in enumerate(self._followed):
            value = ask()
            if grows:
                before = self._last.get(place, 0.0)
                self._last[place] = max(before, value)
                child.inc(max(0.0, value - before))
            else:
                child.set(value)
        for call in self._each_second:
            call()

    def _tick(self) -> None:
        self.flush()
        if self._loop is not None:
            self._timer = self._loop.call_later(FLUSH, self._tick)


class _Family:
    """A metric with its children by label values, of which there are at most so many."""

    def __init__(self, metric: Any, most: int = CHILDREN) -> None:  # noqa: ANN401 - counter, gauge or histogram
        self.metric = metric
        self.name: str = metric._name  # noqa: SLF001 - it tells nobody
        self._most = most
        self._children: dict[Labels, Any] = {}
        self._before = frozenset[Labels]()

    def follow(self, before: Iterable[Mapping[str, str]]) -> None:
        """Let those count as children that a process had which counted in the same files."""
        names = self.metric._labelnames  # noqa: SLF001
        self._before = frozenset(tuple(labels.get(name, "") for name in names) for labels in before)

    def child(self, *labels: str) -> Any:  # noqa: ANN401
        """The child for these labels; the one for "other" when there are too many."""
        found = self._children.get(labels)
        if found is None:
            if labels not in self._before and len(self._before.union(self._children)) >= self._most:
                labels = (OTHER,) * len(labels)
            found = self._children[labels] = self.metric.labels(*labels)
        return found

    def children(self) -> Iterable[Any]:
        """Those that there are."""
        return self._children.values()

    def add(self, tally: Mapping[Labels, int]) -> None:
        """Add to counters."""
        for labels, times in tally.items():
            self.child(*labels).inc(times)


class _Histogram(prometheus_client.Histogram):
    """A histogram that takes many observations at once."""

    def add(self, amounts: list[float]) -> None:
        """The same as `observe` for each amount, with one write for each bucket that grows."""
        self._sum.inc(sum(amounts))
        for bucket, times in Tally(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[bucket].inc(times)


def _counter(name: str, help_: str, *labels: str, most: int = CHILDREN) -> _Family:
    return _Family(prometheus_client.Counter(f"elemta_{name}", help_, labels, registry=None), most)


def _gauge(name: str, help_: str, mode: Any, *labels: str) -> _Family:  # noqa: ANN401 - one of prometheus_client's words
    return _Family(prometheus_client.Gauge(f"elemta_{name}", help_, labels, multiprocess_mode=mode, registry=None))


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> _Family:
    return _Family(_Histogram(f"elemta_{name}", help_, labels, buckets=buckets, registry=None))


def _version() -> str:
    try:
        return version("elemta")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def _claim(directory: str, daemon: str, role: str) -> tuple[str, IO[str]]:
    """The role, else the lowest number, that no living process holds, as "milter-0", with the lock until it ends."""
    for own in chain((role,) if role else (), count()):
        file = (Path(directory) / f"{daemon}-{own}.lock").open("a")
        if _locked(file):
            return f"{daemon}-{own}", file
        file.close()
    raise AssertionError  # `count` does not end


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

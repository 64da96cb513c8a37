"""Exposition: what do the metrics of all processes together say?"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(directory: str) -> bytes:
    """The page that Prometheus reads: the sums over all processes that count below `directory`.

    Raises:
        ValueError: there is no such directory, or a file of it is damaged.
        OSError: a file of it cannot be read.
    """
    if not Path(directory).is_dir():
        raise ValueError(f"{directory}: no such directory")
    registry = CollectorRegistry()
    registry.register(_Files(directory))
    try:
        return generate_latest(registry)
    except (struct.error, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"{directory}: a file is damaged: {error}") from error


class _Files(Collector):
    """The files of our processes only: other databases may stand beside them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        paths = Path(self._directory).glob("*_*-*.db")  # an empty one was begun by a process that was killed
        files = [str(path) for path in paths if path.name.startswith(_TYPES) and path.stat().st_size]
        return MultiProcessCollector.merge(files)  # type: ignore[no-any-return, no-untyped-call]


_TYPES = ("counter_", "gauge_", "histogram_")

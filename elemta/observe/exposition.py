"""Exposition: what do the metrics of all processes together say?"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(directory: str, *, healthy: bool = True, ready: bool = True) -> bytes:
    """The page that Prometheus reads: the sums over all processes that count below `directory`.

    Args:
        directory: the metrics directory.
        healthy: what /healthz says, for alerts.
        ready: what /readyz says.

    Raises:
        ValueError: there is no such directory, or a file of it is damaged.
        OSError: a file of it cannot be read.
    """
    if not Path(directory).is_dir():
        raise ValueError(f"{directory}: no such directory")
    registry = CollectorRegistry()
    registry.register(_Files(directory))
    registry.register(_Health({"healthy": ("/healthz", healthy), "ready": ("/readyz", ready)}))
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


class _Health(Collector):
    """Whether all is well."""

    def __init__(self, told: Mapping[str, tuple[str, bool]]) -> None:
        self._told = told

    def collect(self) -> Iterable[Metric]:
        for name, (page, well) in self._told.items():
            yield GaugeMetricFamily(f"elemta_{name}", f"1 while {page} answers 200.", float(well))


_TYPES = ("counter_", "gauge_", "histogram_")

"""Exposition: what do the metrics of all processes together say?"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(directory: str) -> bytes:
    """The page that Prometheus reads: the sums over all processes that count below `directory`.

    Raises:
        ValueError: there is no such directory.
        OSError: a file of it cannot be read.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    return generate_latest(registry)

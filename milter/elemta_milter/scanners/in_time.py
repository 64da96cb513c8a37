"""In time: how does an HTTP request end at its deadline, however slowly the other side takes and gives?

The limits that requests and urllib3 know hold for each single read: a server that sends an octet a second passes them
for ever.  Mounted on a session, `InTime` lets every read and write take no longer than is left until `UNTIL`.
"""

from __future__ import annotations

import http.client
import io
import time
from contextvars import ContextVar
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from elemta.servers import ServerError

UNTIL: ContextVar[float] = ContextVar("request_until")
"""`time.monotonic()` at which the request must be done; set by whoever makes it."""


def left() -> float:
    """Seconds that are left, a day where there is no deadline.

    Raises:
        ServerError: none.
    """
    seconds = UNTIL.get() - time.monotonic()
    if seconds <= 0:
        raise ServerError("no answer in time")
    return min(seconds, 86400.0)  # a socket takes no infinite time


class InTime(HTTPAdapter):
    """An adapter whose requests end at `UNTIL`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as HTTPAdapter calls it
        """Make the pools, with our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class _Reader(io.RawIOBase):
    """What a socket gives until the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: Any) -> None:  # noqa: ANN401 - a socket, or one of ssl
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - whatever takes octets
        self._sock.settimeout(left())
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as http.client calls it
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _Response

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client calls it
        _hurry(self)
        super().send(data)


class _TlsConnection(HTTPSConnection):
    response_class = _Response

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client calls it
        _hurry(self)
        super().send(data)


def _hurry(connection: HTTPConnection) -> None:
    """Let the next octets take no longer than there is time."""
    seconds = left()
    if connection.sock is not None:
        connection.sock.settimeout(seconds)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

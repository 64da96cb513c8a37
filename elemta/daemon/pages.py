"""Pages: a very small HTTP server for Prometheus and health checks.

Answers GET and HEAD for a table of paths, one request a connection, and nothing else.  Every bound is here: the size
of a request, the time it may take, and how many may be open.  It knows neither metrics nor health.
RFC 9112 sections 3 and 6.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from elemta.config.types import Listen

REQUEST = 8192  # octets of request line and header
TIME = 5.0  # seconds for one request, its answer included
OPEN = 32  # connections; more are closed at once
BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says.

    Attributes:
        status: "200 OK".
        body: octets.
        content_type: its media type.
    """

    status: str
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Page = Callable[[], Awaitable[Answer]]


async def serve(pages: Mapping[str, Page], listening: socket.socket) -> None:
    """Answer on `listening` until cancelled; then close it and all connections."""
    connections = set[_Connection]()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(pages, connections), sock=listening)
    try:
        await asyncio.get_running_loop().create_future()  # nobody sets it
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await asyncio.sleep(0)  # their sockets close in the loop's next turn


def listener(listen: Listen) -> socket.socket:
    """A listening socket; several processes of one user may share a TCP address.

    Raises:
        OSError: the address is taken by somebody else, or not ours to use.
    """
    if listen.path:
        return _unix_listener(listen.path)
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((listen.host, listen.port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _unix_listener(path: str) -> socket.socket:
    """A listener at `path`, unless somebody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:  # left behind by a process that was killed
            Path(path).unlink(missing_ok=True)
        else:
            raise FileExistsError(f"another process listens on {path}")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
        os.chmod(path, 0o660)  # noqa: PTH101 - a socket's path
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


class _Connection(asyncio.Protocol):
    """One request and its response."""

    transport: asyncio.Transport

    def __init__(self, pages: Mapping[str, Page], connections: set[_Connection]) -> None:
        self._pages = pages
        self._connections = connections
        self._received = b""
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(TIME, self.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if len(self._connections) >= OPEN:
            self.abort()
        else:
            self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._task is not None:
            return  # one request only
        self._received += data
        if b"\r\n\r\n" in self._received[:REQUEST]:
            self._task = asyncio.get_running_loop().create_task(self._answer())
        elif len(self._received) >= REQUEST:
            self._send(Answer("431 Request Header Fields Too Large", b"too long\n"))

    def eof_received(self) -> bool:
        """Who has asked and sends no more (`nc -N`) still waits for the answer."""
        return self._task is not None

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._timer.cancel()
        self._connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """Cut it off."""
        self.transport.abort()

    async def _answer(self) -> None:
        words = self._received.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._send(Answer("400 Bad Request", b"not HTTP\n"))
        elif words[0] not in (b"GET", b"HEAD"):
            self._send(Answer("405 Method Not Allowed", b"GET only\n"), "Allow: GET, HEAD\r\n")
        else:
            page = self._pages.get(words[1].partition(b"?")[0].decode("ascii", "replace"))
            known = "".join(f"{path}\n" for path in self._pages).encode()
            answer = Answer("404 Not Found", b"there is only:\n" + known) if page is None else await page()
            self._send(answer, head=words[0] == b"HEAD")

    def _send(self, answer: Answer, more: str = "", *, head: bool = False) -> None:
        self.transport.write(_response(answer, more, head=head))
        self.transport.close()


def _response(answer: Answer, more: str = "", *, head: bool = False) -> bytes:
    header = (
        f"HTTP/1.1 {answer.status}\r\nContent-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n{more}\r\n"
    )
    return header.encode() + (b"" if head else answer.body)

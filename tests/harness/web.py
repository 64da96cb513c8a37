"""An HTTP server that does as it is told: what does a client make of answers that no sane server gives?

with server(send(OK % (5, b"hello"))) as there:
    ... ask there.url, look at there.requests ...
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"


class Server:
    """Takes connections, keeps what it is told, and lets `talk(link, server)` answer; None reads nothing, ever.

    Attributes:
        url: its address.
        requests: (first line, fields in order, body) of each.
        over: set when the test is over.
    """

    def __init__(self, talk: Callable[[socket.socket, Server], None] | None, tls: ssl.SSLContext | None) -> None:
        self.talk, self.tls = talk, tls
        self.requests: list[tuple[str, list[tuple[str, str]], bytes]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.listener.getsockname()[1]}"
        self.over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(link,), daemon=True).start()

    def _one(self, link: socket.socket) -> None:
        try:
            if self.tls:
                link = self.tls.wrap_socket(link, server_side=True)
            with link:
                if self.talk is None:
                    self.over.wait(20)
                else:
                    self.requests.append(_read(link))
                    self.talk(link, self)
        except OSError:  # the client has gone
            link.close()


@contextmanager
def server(talk: Callable[[socket.socket, Server], None] | None, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server on a port of its own."""
    made = Server(talk, tls)
    try:
        yield made
    finally:
        made.over.set()
        made.listener.close()


def send(*pieces: bytes, pause: float = 0.0, close: bool = True) -> Callable[[socket.socket, Server], None]:
    """Answer with these octets, `pause` seconds after each, and hang up or not."""

    def talk(link: socket.socket, there: Server) -> None:
        for piece in pieces:
            link.sendall(piece)
            if pause:
                there.over.wait(pause)
        if not close:
            there.over.wait(20)

    return talk


def _read(link: socket.socket) -> tuple[str, list[tuple[str, str]], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += link.recv(65536) or b"\r\n\r\n"
    head, _, start = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("utf-8").split("\r\n")
    fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    body = bytearray(start)
    length = int(dict(fields).get("Content-Length", 0))
    while len(body) < length and (got := link.recv(1 << 16)):
        body += got
    return first, fields, bytes(body)

"""Proxies before a real server: how does a program meet one that refuses, hangs, drips, talks nonsense or breaks off?

    with Proxy("127.0.0.1", rspamd.port) as proxy:          # or Proxy(path="/run/clamd.ctl")
        ... a client of 127.0.0.1, port proxy.port ...
        proxy.how = How.CUT                                  # from the next connection on
    with Datagrams("127.0.0.1", dns.port) as proxy: ...      # the same for UDP

The server behind is asked in all cases but REFUSE and SILENT, so that what comes late, in drops or in half is its own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from enum import Enum
from typing import Self

JUNK = b"\x16\xff\xfe this is nobody's answer \x00\r\n\r\n{]"
REPLY = 1 << 20  # octets of a reply that are read, where it must be had whole


class How(Enum):
    """What becomes of a question."""

    PASS = "pass"
    REFUSE = "refuse"  # nobody listens
    SILENT = "silent"  # all is taken, nothing is answered
    DRIP = "drip"  # the reply comes an octet every `pause` seconds; a datagram after `pause` seconds
    GARBAGE = "garbage"
    CUT = "cut"  # the first half of the reply, then the end


class Proxy:
    """Takes connections on 127.0.0.1 and carries them to `host` and `port`, or to the unix socket `path`.

    Attributes:
        port: where it listens; kept while nobody listens there.
        pause: see `How.DRIP`.
    """

    def __init__(self, host: str = "", port: int = 0, *, path: str = "", pause: float = 0.2) -> None:
        self._behind = path or (host, port)
        self._lock = threading.Lock()
        self._how = How.PASS
        self._open: set[socket.socket] = set()
        self._over = threading.Event()
        self.pause = pause
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End, connections included."""
        self._over.set()
        self._refuse()
        self._drop()

    @property
    def how(self) -> How:
        """What becomes of questions; connections that are open are closed when it changes."""
        return self._how

    @how.setter
    def how(self, how: How) -> None:
        self._how = how
        if how is How.REFUSE:
            self._refuse()
        elif self._listener is None:
            self._listen()
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            for link in self._open:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _refuse(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with self._lock:
            self._open.add(link)
        try:
            with link, contextlib.suppress(OSError):
                self._carry(link, self._how)
                link.shutdown(socket.SHUT_RDWR)  # a thread that still reads it would keep it open
        finally:
            with self._lock:
                self._open.discard(link)

    def _carry(self, link: socket.socket, how: How) -> None:
        if how is How.SILENT:
            while link.recv(1 << 16):
                pass
            return
        if how is How.GARBAGE:
            link.recv(1 << 16)
            link.sendall(JUNK)
            link.shutdown(socket.SHUT_WR)
            while link.recv(1 << 16):  # what is not read would turn our end into a reset
                pass
            return
        family = socket.AF_UNIX if isinstance(self._behind, str) else socket.AF_INET
        with socket.socket(family) as server:
            server.connect(self._behind)
            threading.Thread(target=_copy, args=(link, server), daemon=True).start()
            if how is How.PASS:
                _copy(server, link)
                return
            reply = _whole(server)
            if how is How.CUT:
                link.sendall(reply[: len(reply) // 2])
                return
            for octet in reply:
                link.sendall(bytes([octet]))
                if self._over.wait(self.pause):
                    return


class Datagrams:
    """The same for UDP: takes datagrams on 127.0.0.1, port `listen` (0: a free one), and has `host`, `port` answer."""

    def __init__(self, host: str, port: int, *, listen: int = 0, pause: float = 0.2) -> None:
        self._behind = (host, port)
        self._how = How.PASS
        self.pause = pause
        self.port = listen
        self._socket: socket.socket | None = None
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._refuse()

    @property
    def how(self) -> How:
        """What becomes of questions."""
        return self._how

    @how.setter
    def how(self, how: How) -> None:
        self._how = how
        if how is How.REFUSE:
            self._refuse()
        elif self._socket is None:
            self._listen()

    def _listen(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.settimeout(0.05)  # closing does not wake a thread that reads
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, args=(self._socket,), daemon=True)
        self._thread.start()

    def _refuse(self) -> None:
        mine, self._socket = self._socket, None
        if mine is not None:
            self._thread.join()
            mine.close()

    def _serve(self, mine: socket.socket) -> None:
        while self._socket is mine:
            try:
                question, asker = mine.recvfrom(4096)
            except TimeoutError:
                continue
            if self._how is not How.SILENT:
                threading.Thread(target=self._answer, args=(mine, question, asker), daemon=True).start()

    def _answer(self, mine: socket.socket, question: bytes, asker: object) -> None:
        how = self._how
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.settimeout(5)
            server.sendto(question, self._behind)
            reply = server.recv(65536)
            if how is How.DRIP:
                time.sleep(self.pause)
            if how is How.GARBAGE:
                reply = question[:2] + JUNK  # the number of the question, or it would not even be looked at
            mine.sendto(reply[: len(reply) // 2] if how is How.CUT else reply, asker)  # type: ignore[arg-type]


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _whole(server: socket.socket) -> bytes:
    """What the server says until it hangs up or says no more."""
    reply = bytearray()
    with contextlib.suppress(TimeoutError):
        while len(reply) < REPLY and (data := server.recv(1 << 16)):
            reply += data
            server.settimeout(0.1)
    return bytes(reply)

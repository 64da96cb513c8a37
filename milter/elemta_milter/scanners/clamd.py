"""clamd: does ClamAV know something bad in this mail?

Blocking, one connection for each question, done by a given `time.monotonic()` whatever the other side does.  Over a
unix socket clamd gets the descriptor of a file in memory that holds the mail (FILDES), elsewhere the octets (INSTREAM).
The clamd package is used where it is sound: it keeps its socket on the object, waits for ever while it connects, sends
1,024 octets at a time, knows no IPv6 and loses the reply when clamd hangs up early, so those parts are our own.

Only a complete and clear "OK" is clean.  What clamd says of one mail ("cannot scan this") is `Declined`: the server is
well, and another may be able to.  All else is a `ServerError`.

The name of a server is looked up by the system's resolver, which knows no deadline: where that hangs, it holds up its
thread, not the mail.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedWriter
from typing import Literal

import clamd

from elemta.facts import Message
from elemta.servers import Declined, ServerError
from elemta_milter.body import SpooledBody
from elemta_milter.scanners import head

Mode = Literal["auto", "fildes", "instream"]

TOO_LARGE = "INSTREAM size limit exceeded."
"""clamd's word for a mail over its StreamMaxLength."""
CHUNK = 256 << 10  # octets sent at once
LONGEST_REPLY = 4096  # octets
PATIENCE = 300.0  # seconds, where nobody says until when

_REPLY = re.compile(  # of one line; a hash and a size stand after the name with ExtendedDetectionInfo
    r"(?:stream|fd\[[0-9]{1,10}\]): (?:(?P<ok>OK)|(?P<virus>[^\0-\x1f\x7f]+?)(?:\([0-9a-f]{32,64}:[0-9]{1,20}\))? FOUND"
    r"|(?P<error>[^\0-\x1f\x7f]+) ERROR)\0"
)
_NO_FILDES = re.compile(
    r"(?:No file descriptor received\.|UNKNOWN COMMAND|fd\[[0-9]{1,10}\]: (?:Can't access file|Can't get file status"
    r"|Not a regular file\.)) ERROR\0"
)
_ILL = re.compile(r"temporary|create|write|duplicate")  # no mail does this to clamd: its disk or its limits are full


class NoFildes(ServerError):  # noqa: N818 - it says what there is not
    """This server cannot take a descriptor: it is in another container, behind a proxy, or not allowed to read it."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a server said of a mail.

    Attributes:
        virus: the name of what was found; "" for nothing.
        server: who said so.
    """

    virus: str = ""
    server: str = ""


class Scanner:
    """Asks servers, and remembers which of them cannot take a descriptor."""

    def __init__(self, mode: Mode = "auto") -> None:
        """`mode`: how a unix socket is used; "auto": a descriptor where that works."""
        self._mode = mode
        self._without: set[str] = set()

    def scan(self, address: str, message: Message, until: float) -> Scan:
        """Ask the server at `address`, "unix:/path" or "inet:host:port".

        Raises:
            Declined: it cannot scan this mail.
            ServerError, OSError: it gave no clear answer until `until`.
        """
        if self._mode != "instream" and address.startswith("unix:") and address not in self._without:
            try:
                return _of(address, _Connection(address, until).fildes(message))
            except NoFildes:
                if self._mode == "fildes":
                    raise
                self._without.add(address)
        return _of(address, _Connection(address, until).instream(message))

    def ping(self, address: str, until: float) -> None:
        """Ask for a sign of life.

        Raises:
            ServerError, OSError: there was none until `until`.
        """
        try:
            reply = _Connection(address, until).ping()
        except clamd.ClamdError as error:
            raise ServerError(f"no answer to PING: {error}") from error
        if reply != "PONG":
            raise ServerError(f"PING was answered by {reply[:80]!r}")


def read_reply(raw: bytes) -> Scan:
    """Read all that came, the final NUL included.

    Raises:
        NoFildes: it cannot take a descriptor.
        Declined: it cannot scan this mail.
        ServerError: anything that is not one clear answer about the mail.
    """
    text = raw.decode("utf-8", "replace")
    match = _REPLY.fullmatch(text)
    if _NO_FILDES.fullmatch(text):
        raise NoFildes(f"it takes no descriptor: {text[:-1]}")
    if match is None:
        if text == f"{TOO_LARGE} ERROR\0":
            raise Declined(f"it cannot scan this mail: {TOO_LARGE}")
        raise ServerError(f"no clear reply: {text[:200]!r}" if raw else "it hung up without a reply")
    if match["error"]:
        if _ILL.search(match["error"]):
            raise ServerError(f"{match['error']} ERROR")
        raise Declined(f"it cannot scan this mail: {match['error']}")
    return Scan(match["virus"] or "")


def _of(address: str, raw: bytes) -> Scan:
    return replace(read_reply(raw), server=address)


class _Connection(clamd.ClamdNetworkSocket):  # type: ignore[misc] # the package has no types
    """One connection for one question."""

    def __init__(self, address: str, until: float) -> None:
        super().__init__(address)
        self._until = min(until, time.monotonic() + PATIENCE)

    def fildes(self, message: Message) -> bytes:
        """Send the descriptor of a file in memory that holds the mail; what was answered."""
        queue_id = message.envelope.queue_id[:64]
        # its name stands in clamd's log
        with os.fdopen(os.memfd_create(queue_id if queue_id.isalnum() else "mail"), "wb") as file:
            _fill(file, message)
            self._init_socket()
            try:
                # the octet after the command carries the descriptor, clamd(8)
                socket.send_fds(self.clamd_socket, [b"zFILDES\0\0"], [file.fileno()])
                return self._reply()
            finally:
                self._close_socket()

    def instream(self, message: Message) -> bytes:
        """Send the mail in chunks; what was answered."""
        self._init_socket()
        try:
            whole = True
            try:
                for part in _framed(message):
                    self._limit()
                    self.clamd_socket.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                whole = False  # it hung up, over its StreamMaxLength for one, and said why before
            reply = self._reply()
            if not whole and reply.endswith(b": OK\0"):
                raise ServerError("it says OK of a mail that it did not read to the end")
            return reply
        finally:
            self._close_socket()

    def _init_socket(self) -> None:
        """Connect; to the first address of a name that answers."""
        self.clamd_socket: socket.socket
        if self.host.startswith("unix:"):
            self._connect(socket.AF_UNIX, self.host.removeprefix("unix:"))
            return
        host, _, port = self.host.removeprefix("inet:").rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for place, (family, *_, endpoint) in enumerate(found):
            try:
                self._connect(family, endpoint)
            except OSError:
                if place == len(found) - 1:
                    raise
            else:
                self.clamd_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return

    def _connect(self, family: int, endpoint: str | tuple[object, ...]) -> None:
        self.clamd_socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._limit()
            self.clamd_socket.connect(endpoint)
        except BaseException:
            self._close_socket()
            raise

    def _limit(self) -> None:
        """Let the next call wait no longer than there is time."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.clamd_socket.settimeout(left)

    def _send_command(self, cmd: str, *args: str) -> None:
        self._limit()
        self.clamd_socket.sendall(f"z{cmd}\0".encode())

    def _recv_response(self) -> str:
        return self._reply().removesuffix(b"\0").decode("utf-8", "replace")

    def _reply(self) -> bytes:
        """What comes until a NUL, the end, or more than any reply has."""
        got = bytearray()
        while len(got) <= LONGEST_REPLY:
            self._limit()
            piece = self.clamd_socket.recv(LONGEST_REPLY + 1 - len(got))
            got += piece
            if not piece or 0 in piece:
                break
        return bytes(got)


def _framed(message: Message) -> Iterator[bytearray]:
    """INSTREAM, the mail in chunks, each behind its length, and the chunk of no octets that ends it."""
    waiting = bytearray(b"zINSTREAM\0")
    for piece in _pieces(message):
        for at in range(0, len(piece), CHUNK):
            waiting += struct.pack("!L", min(CHUNK, len(piece) - at))
            waiting += memoryview(piece)[at : at + CHUNK]
            if len(waiting) >= CHUNK:
                yield waiting
                waiting = bytearray()
    yield waiting + bytes(4)


def _pieces(message: Message) -> Iterator[bytes]:
    yield message.once(head)
    yield from message.body.chunks()


def _fill(file: BufferedWriter, message: Message) -> None:
    """Write the mail. A spooled body gets there without passing through Python."""
    body = message.body
    file.write(message.once(head))
    if not isinstance(body, SpooledBody):
        file.writelines(body.chunks())
    file.flush()
    if isinstance(body, SpooledBody):
        done = 0
        while done < body.size:
            sent = os.sendfile(file.fileno(), body.file.descriptor, done, body.size - done)
            if not sent:
                raise OSError("the spooled body is shorter than it was")
            done += sent
    file.seek(0)

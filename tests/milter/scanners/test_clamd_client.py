"""The client of clamd beside a server that does what no clamd should; the real one is in live/test_clamav_live.py."""

import contextlib
import os
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from elemta.servers import Declined, ServerError
from elemta.testing import envelope, message
from elemta_milter.body import Spool
from elemta_milter.scanners import head
from elemta_milter.scanners.clamd import CHUNK, LONGEST_REPLY, TOO_LARGE, NoFildes, Scan, Scanner
from harness.daemon import free_port

SOON = 0.3  # seconds that the client is given where it must run out of time
LONG = b"A line of a mail.\r\n" * 80_000  # 1.5 MB: more than a socket holds, so the sender has to wait


class Server:
    """Takes connections, and does with each what `behave(connection)` does. `got`: what FILDES and INSTREAM brought."""

    def __init__(self, address, behave, family=socket.AF_UNIX):
        self.got: list[tuple[str, bytes]] = []
        self.behave = behave
        self.listener = socket.socket(family)
        self.listener.bind(address)
        self.listener.listen(64)
        self.threads = ThreadPoolExecutor(16)
        self.threads.submit(self._serve)

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(20)
                self.threads.submit(self._one, connection)

    def _one(self, connection):
        with connection, contextlib.suppress(OSError):
            self.behave(connection)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads.shutdown()

    def says(self, reply):
        """Read a whole question, then say this."""

        def behave(connection):
            self.got.append(question(connection))
            connection.sendall(reply if isinstance(reply, bytes) else reply(*self.got[-1]))

        self.behave = behave


def question(connection):
    """One command and the mail that comes with it."""
    start, descriptors, _, _ = socket.recv_fds(connection, 64, 2)
    if start.startswith(b"zFILDES\0"):
        if not descriptors:
            return "FILDES", b""
        with os.fdopen(descriptors[0], "rb") as file:
            return "FILDES", file.read()
    command, _, rest = start.partition(b"\0")
    if command != b"zINSTREAM":
        return command.decode(), b""
    with connection.makefile("rb") as stream:
        left = rest

        def read(octets):
            nonlocal left
            while len(left) < octets:
                more = stream.read(octets - len(left))
                assert more
                left += more
            given, left = left[:octets], left[octets:]
            return given

        mail = b""
        while size := struct.unpack("!L", read(4))[0]:
            assert size <= CHUNK
            mail += read(size)
    return "INSTREAM", mail


@pytest.fixture
def server(tmp_path):
    made = Server(str(tmp_path / "s"), None)
    made.address = f"unix:{tmp_path}/s"
    yield made
    made.close()


def spooled(of, data):
    spool = Spool("/tmp", memory=100)
    spool.append(data[:50])
    spool.append(data[50:])
    return replace(of, body=spool.finish())


def scan(address, mail=None, mode="auto", seconds=20.0, scanner=None):
    return (scanner or Scanner(mode)).scan(address, mail or message(), time.monotonic() + seconds)


@pytest.mark.parametrize("mode", ["fildes", "instream"])
@pytest.mark.parametrize("body", [b"", b"hello\r\n", b"\0\xff.\r\n", LONG, b"x" * (CHUNK - 1), b"x" * CHUNK])
@pytest.mark.parametrize("where", ["memory", "spool"])
def test_the_mail_arrives_as_it_came(server, mode, body, where):
    server.says(b"stream: OK\0")
    mail = message(headers=[("From", "a@b.test"), ("X-Folded", "one\r\n\ttwo"), ("Subject", "ü")], body=body)
    if where == "spool":
        mail = spooled(mail, body)
    assert scan(server.address, mail, mode) == Scan(server=server.address)
    start = b"From: a@b.test\r\nX-Folded: one\r\n\ttwo\r\nSubject: \xc3\xbc\r\n\r\n"
    assert head(mail) == start
    assert server.got == [(mode.upper(), start + body)]


def test_clamds_log_names_the_queue_id(server):
    names = []

    def behave(connection):
        _, descriptors, _, _ = socket.recv_fds(connection, 64, 2)
        names.append(str(Path(f"/proc/self/fd/{descriptors[0]}").readlink()))
        os.close(descriptors[0])
        connection.sendall(b"fd[1]: OK\0")

    server.behave = behave
    for queue_id in ("4F3A1B2C3D", "odd/\0", "x" * 1000):
        scan(server.address, message(envelope(queue_id=queue_id)))
    assert [name.split()[0] for name in names] == ["/memfd:4F3A1B2C3D", "/memfd:mail", "/memfd:" + "x" * 64]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_over_tcp_the_octets_are_sent(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = Server((host, free_port(host)), None, family)
    port = server.listener.getsockname()[1]
    server.says(b"stream: Eicar FOUND\0")
    try:
        address = f"inet:[{host}]:{port}" if ":" in host else f"inet:{host}:{port}"
        assert scan(address) == Scan("Eicar", server=address)
        assert server.got[0][0] == "INSTREAM"
    finally:
        server.close()


def test_of_a_names_addresses_the_first_that_answers_is_taken(monkeypatch):
    server = Server(("127.0.0.1", 0), None, socket.AF_INET)
    server.says(b"stream: OK\0")
    port = server.listener.getsockname()[1]
    dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port))
    alive = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    try:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [dead, alive])
        assert scan(f"inet:clamav:{port}").server == f"inet:clamav:{port}"
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [dead, dead])
        with pytest.raises(ConnectionRefusedError):
            scan(f"inet:clamav:{port}")
    finally:
        server.close()


def test_a_server_that_takes_no_descriptor_gets_the_octets_from_then_on(server):
    server.says(lambda command, _: b"No file descriptor received. ERROR\0" if command == "FILDES" else b"stream: OK\0")
    scanner = Scanner()
    for _ in range(3):
        assert scan(server.address, scanner=scanner) == Scan(server=server.address)
    assert [command for command, _ in server.got] == ["FILDES", "INSTREAM", "INSTREAM", "INSTREAM"]
    with pytest.raises(NoFildes):
        scan(server.address, mode="fildes")


def test_what_is_said_before_hanging_up_in_the_middle_is_heard(server):
    def behave(connection):
        connection.recv(100_000)
        connection.sendall(b"INSTREAM size limit exceeded. ERROR\0")

    server.behave = behave
    with pytest.raises(Declined, match=TOO_LARGE):
        scan(server.address, message(body=LONG), "instream")


@pytest.mark.parametrize("reply", [b"", b"stream: O", b"stream: OK", b"\0", b"garbage\0", b"x" * 100_000])
@pytest.mark.parametrize("mode", ["fildes", "instream"])
def test_half_replies_and_garbage_are_trouble(server, reply, mode):
    server.says(reply)
    with pytest.raises(ServerError):
        scan(server.address, mode=mode)


def test_hanging_up_in_the_middle_is_trouble(server):
    server.behave = lambda connection: connection.recv(10)
    with pytest.raises((ServerError, ConnectionResetError)):
        scan(server.address, message(body=LONG), "instream")


@pytest.mark.parametrize("mode", ["fildes", "instream"])
@pytest.mark.parametrize("how", ["silent", "deaf", "dripping", "endless"])
def test_time_runs_out(server, mode, how):
    over = threading.Event()

    def behave(connection):
        if how != "deaf":  # deaf: what is sent is not even read
            question(connection)
        while how == "dripping" and not over.wait(SOON / 20):
            connection.sendall(b"x")
        while how == "endless":
            connection.sendall(b"x" * LONGEST_REPLY)
        over.wait(20)

    server.behave = behave
    began = time.monotonic()
    with pytest.raises(OSError):
        scan(server.address, message(body=LONG), mode, SOON)
    over.set()
    assert time.monotonic() - began < 10


def test_no_time_at_all_and_no_server_at_all(server, tmp_path):
    with pytest.raises(TimeoutError):
        scan(server.address, seconds=-1.0)
    with pytest.raises(FileNotFoundError):
        scan(f"unix:{tmp_path}/nobody")
    server.listener.close()
    with pytest.raises(ConnectionError):  # refused, or reset if the thread that accepts was just about to
        scan(server.address)


def test_every_scan_has_a_connection_of_its_own(server):
    server.says(lambda _, mail: b"stream: " + mail.rpartition(b"\r\n\r\n")[2] + b" FOUND\0")
    scanner = Scanner()
    with ThreadPoolExecutor(8) as threads:
        mails = [message(body=b"Virus%d" % number) for number in range(80)]
        found = list(threads.map(lambda mail: scan(server.address, mail, scanner=scanner).virus, mails))
    assert found == [f"Virus{number}" for number in range(80)]


def test_ping(server):
    server.says(b"PONG\0")
    Scanner().ping(server.address, time.monotonic() + 20)
    assert server.got == [("zPING", b"")]
    for reply in (b"", b"PONG2\0", b"UNKNOWN COMMAND ERROR\0"):
        server.says(reply)
        with pytest.raises(ServerError):
            Scanner().ping(server.address, time.monotonic() + 20)
    server.behave = lambda connection: connection.recv(100) and connection.recv(100)
    with pytest.raises(TimeoutError):
        Scanner().ping(server.address, time.monotonic() + SOON)


def test_no_descriptor_stays_open(server):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    server.says(b"garbage\0")
    with pytest.raises(ServerError):
        scan(server.address)
    before = opened()
    for mode in ("fildes", "instream") * 5:
        with pytest.raises(ServerError):
            scan(server.address, spooled(message(), LONG), mode)
        with pytest.raises(TimeoutError):
            scan(server.address, mode=mode, seconds=-1)
    deadline = time.monotonic() + 10
    while opened() > before + 2:  # the server's own ends are closed by its threads
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_ok_before_the_mail_was_read_is_none(server):
    def behave(connection):
        connection.recv(20)
        connection.sendall(b"stream: OK\0")
        connection.shutdown(socket.SHUT_RD)

    server.behave = behave
    with pytest.raises(ServerError, match="did not read to the end"):
        scan(server.address, message(body=b"x" * (64 << 20)), "instream")

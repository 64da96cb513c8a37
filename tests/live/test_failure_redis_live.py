"""A state store that is a server: it fails in every way a server can, and several mail servers share it."""

import signal
import socket
import threading
from contextlib import closing, contextmanager

import pytest

from elemta.cli import main
from harness.daemon import Daemon, free_port
from harness.postfix import PrivatePostfix
from harness.postfix import why_not as why_no_postfix
from harness.redis import PrivateRedis, why_not
from harness.watching import CLASSES, TROUBLE, Watch, by_policyd, wait_until

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

CHECKS = ("greylist", "limits")
POLICY = f"""
{CLASSES}
checks:
  greylist: {{delay: 1s, {TROUBLE}}}
  limits: {{each: {{key: sender, windows: {{1h: 100}}}}, {TROUBLE}}}
rules:
  recipient:
    - {{id: new, when: {{greylist: fail}}, label: new}}
    - {{id: full, when: {{limits: fail}}, then: defer}}
"""

SHARED = """
sets: {frozen: {dynamic: true}}
checks: {greylist: {delay: 1s}}
rules:
  recipient:
    - {id: frozen, when: {sender: {in: frozen}}, then: reject}
    - {id: new, when: {greylist: fail}, then: defer}
"""


@pytest.fixture(scope="module")
def server():
    with PrivateRedis() as redis:
        yield redis


@pytest.fixture(scope="module")
def watch(server):
    with Daemon("policyd", POLICY, workers=1, metrics=free_port(), state=server.url) as daemon:
        watch = Watch(daemon, by_policyd)
        well(watch)
        yield watch


def well(watch):
    watch.answers_again(*CHECKS)
    assert watch.finding(watch.entry(watch.carry("defer.test").sender), "greylist").fields["attempts"] == 1


def fails(watch, told, within):
    watch.cell(CHECKS, told, within)
    watch.carry("accept.test")
    wait_until(lambda: all(f"check {check} does not answer" in watch.ready() for check in CHECKS))


def test_killed_and_started_again(watch, server):
    server.stop()
    fails(watch, r"redis://127\.0\.0\.1:\d+: .*(refused|Connect call failed)", 2.0)
    server.start()
    well(watch)


def test_hangs(watch, server):
    server.signal(signal.SIGSTOP)
    try:
        fails(watch, r"no answer in time|not asked, it did not answer \d+ times in a row", 6.0)
        assert watch.carry("accept.test").seconds < 6.0
    finally:
        server.signal(signal.SIGCONT)
    well(watch)


def test_somebody_else_listens_there(watch, server):
    server.stop()
    with liar(server.port):
        fails(watch, r"redis://127\.0\.0\.1:\d+: ", 6.0)
    server.start()
    well(watch)


@contextmanager
def liar(port):
    """It answers everything with the same garbage."""
    with closing(socket.create_server(("127.0.0.1", port))) as listening:

        def serve(connection):
            with closing(connection):
                try:
                    while connection.recv(65536):
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                except OSError:
                    pass

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(bool(why_no_postfix()), reason=why_no_postfix())
def test_what_one_mail_server_learned_the_other_knows(watch, server, capsys):
    client = {"addr": "192.0.2.9", "name": "mx.new.test"}
    with PrivatePostfix(policyd=True) as first, PrivatePostfix(policyd=True) as second:
        daemons = [
            Daemon("policyd", SHARED, listen=f"unix:{each.sockets}/policyd.sock", state=server.url)
            for each in (first, second)
        ]
        with daemons[0], daemons[1]:

            def code(postfix, sender="a@new.test"):
                return postfix.send(sender, "r@example.org", "Subject: x\r\n\r\nx\r\n", xclient=client).final.code

            assert code(first) == 451
            wait_until(lambda: code(second) == 250)
            assert code(first) == 250
            assert main(["sets", "add", "frozen", "a@new.test", "--config", str(daemons[0].policy)]) == 0
            wait_until(lambda: code(second) == 550)
            wait_until(lambda: code(first) == 550)
            capsys.readouterr()
            of = ["--client", "192.0.2.9", "--helo", "mx.new.test", "--from", "a@new.test", "--rcpt", "r@example.org"]
            mail = daemons[0].directory / "mail"
            mail.write_bytes(b"From: a@new.test\nSubject: x\n\nx\n")
            main(["explain", "--mail", str(mail), *of, "--config", str(daemons[0].policy)])
            told = capsys.readouterr().out
            assert "frozen" in told
            assert "reject" in told

"""A full disk: do the daemons go on answering, tell of it, and are well again when there is room?"""

import contextlib
import os
import signal
import time
import urllib.error
import urllib.request

import pytest

from harness.daemon import Daemon, free_port
from harness.disk import small_disk

LABELS = 'rules: {recipient: [{id: count, when: {sender: {glob: "*@*"}}, label: "{sender}"}]}\n'
REQUEST = (
    "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\nsender=user{}@{}.test\n"
    "recipient=b@here.test\ninstance={}\n\n"
)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path, megabytes=3):
        yield tmp_path


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until(daemon, port, status, told="", seconds=60):
    """Ask, each time about another sender, which is another label, until /readyz says so."""
    deadline = time.monotonic() + seconds
    number = 0
    while True:
        for _ in range(50):
            number += 1
            with contextlib.closing(daemon.connect()) as connection:
                connection.sendall(REQUEST.format(number, "x" * 220, number).encode())
                assert connection.recv(4096) == b"action=DUNNO\n\n"
        found, text = page(port, "/readyz")
        if found == status and told in text:
            return
        assert time.monotonic() < deadline, text
        time.sleep(0.5)


def test_the_daemon_answers_while_there_is_no_room_for_counts_journal_and_status(disk):
    port = free_port()
    daemon = Daemon("policyd", LABELS, workers=2, metrics=port)
    policy = daemon.policy.read_text()
    for kept in ("journal.db", "metrics"):
        policy = policy.replace(f"{daemon.directory}/{kept}", f"{disk}/{kept}")
    daemon.policy.write_text(policy)
    with daemon:
        until(daemon, port, 200)
        filling = disk / "filling"
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        daemon.wait_for("worker_died")
        until(daemon, port, 503, ": no news of it; it hangs, or cannot write to")
        assert page(port, "/healthz") == (200, "alive\n")
        assert page(port, "/metrics")[0] == 200
        filling.unlink()
        until(daemon, port, 200)
        assert daemon.log().count("worker_died") == 1
        assert daemon.log().count("/readyz is not told") <= 1

"""Open connections: does /metrics tell how many there are, also when a worker with some of them is killed?"""

import os
import re
import resource
import signal
import socket
import time
import urllib.request

import pytest

from harness.daemon import Daemon, free_port
from harness.mta import Mta


def becomes(daemon, port, number):
    deadline = time.monotonic() + 15
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        [found] = re.findall(rf'^elemta_connections{{daemon="{daemon.name}"}} (\S+)', text, re.MULTILINE)
        if float(found) == number:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.parametrize("name", ["policyd", "milter"])
def test_they_are_counted_while_they_are_open(name):
    port = free_port()
    with Daemon(name, metrics=port) as daemon:
        daemon.reload("")  # the new workers have the numbers 2 and 3, so a third is number 0
        opened = [Mta(daemon.address).sock if name == "milter" else daemon.connect() for _ in range(7)]
        becomes(daemon, port, 7)
        opened.pop().close()
        becomes(daemon, port, 6)
        for worker in daemon.worker_pids():
            os.kill(worker, signal.SIGKILL)
        becomes(daemon, port, 0)
        for each in opened:
            each.close()


@pytest.mark.parametrize("name", ["policyd", "milter"])
def test_more_are_served_than_the_files_that_a_process_begins_with(name):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("not so many files may be open here")
    daemon = Daemon(name, workers=1)
    few = len(os.listdir("/proc/self/fd")) + 100  # noqa: PTH208 - tests before this one may have left some open
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = []
    try:
        for _ in range(few + 100):
            opened.append(socket.socket(socket.AF_UNIX))
            opened[-1].settimeout(10)
            opened[-1].connect(daemon.address.removeprefix("unix:"))
        last = opened[-1]
        if name == "milter":
            last.sendall(b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff")
            assert last.recv(5)[4:] == b"O"
        else:
            last.sendall(
                b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@b.test\nrecipient=c@d.test\ninstance=1\n\n"
            )
            assert last.recv(4096) == b"action=DUNNO\n\n"
        assert "Too many open files" not in daemon.log()
    finally:
        for each in opened:
            each.close()
        daemon.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

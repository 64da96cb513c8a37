"""Open connections: does /metrics tell how many there are, also when a worker with some of them is killed?"""

import os
import re
import signal
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

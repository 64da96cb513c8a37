"""systemd: is it told what it asks for, and nobody troubled where it asks for nothing?"""

import os
import socket
import time

import pytest

from elemta.daemon import sdnotify


@pytest.fixture
def manager(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # Linux gives it an abstract name, as systemd has in containers
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + listening.getsockname()[1:].decode())
        yield listening


def test_each_assignment_is_a_line(manager):
    sdnotify.notify("READY=1", "STATUS=answering")
    assert manager.recv(100) == b"READY=1\nSTATUS=answering"


@pytest.mark.parametrize("where", ["", "/nowhere/notify"])
def test_where_nobody_listens_nothing_happens(monkeypatch, where):
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    sdnotify.notify("READY=1")


def test_a_reload_begins_at_a_time_of_the_clock_that_systemd_reads(manager):
    before = time.monotonic_ns() // 1000
    sdnotify.reloading()
    first, _, number = manager.recv(100).decode().partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(number) <= time.monotonic_ns() // 1000


def beats(monkeypatch, manager, seconds, **environment):
    """Signs of life within so many seconds, asked for ten times in each."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watchdog, count = sdnotify.Watchdog(), 0
    for _ in range(seconds * 10):
        watchdog.alive()
        now[0] += 0.1
        try:
            count += manager.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            continue
    return count


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ({"WATCHDOG_USEC": "4000000"}, 5),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 5),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({}, 0),
    ],
)
def test_signs_of_life_come_twice_in_the_watchdogs_time(monkeypatch, manager, told, count):
    assert beats(monkeypatch, manager, 10, **told) == count

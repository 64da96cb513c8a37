"""Outlet: a log that nobody reads holds nobody up, loses as little as can be, and says what it lost."""

import logging
import os
import resource
import socket
import threading
import time

import pytest

from elemta.observe import Log, outlet
from elemta.observe.outlet import PATIENCE, Outlet, detach

LINE = b"x" * 999 + b"\n"


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        os.close(fd)


@pytest.fixture
def log():
    """Make logs; what they took over is given back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Log
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("elemta").setLevel(logging.NOTSET)


def everything(fd):
    os.set_blocking(fd, False)
    found = b""
    try:
        while more := os.read(fd, 1 << 20):
            found += more
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)
    return found


def fill(out, times=400):
    began = time.monotonic()
    for _ in range(times):
        out.put(LINE)
    assert out.dropped
    assert time.monotonic() - began < PATIENCE + 1


def test_a_pipe_that_nobody_reads_is_waited_for_once(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    made = Outlet(write)
    fill(made)
    assert everything(read) == LINE * (400 - made.dropped), "what got out is whole"
    assert made.put(LINE), "the first one after those that were dropped"
    assert not made.put(LINE)
    assert everything(read) == LINE * 2


def test_a_socket_that_nobody_reads_is_waited_for_once():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Outlet(ours.fileno())
        assert ours.getblocking(), "it may be somebody else's, too"
        fill(made, 4000)
        theirs.setblocking(False)
        whole = everything(theirs.fileno())
        assert whole.count(b"\n") == 4000 - made.dropped
        assert set(whole.split(b"\n")) == {LINE[:-1], b""}
        assert made.put(LINE)
        assert everything(theirs.fileno()).lstrip(b"\n") == LINE


def test_a_slow_reader_loses_nothing(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    made, long = Outlet(write), b"y" * 100_000 + b"\n"
    found = []

    def slowly():
        while sum(map(len, found)) < len(long) * 5:
            time.sleep(0.01)
            found.append(os.read(read, 20_000))

    reader = threading.Thread(target=slowly)
    reader.start()
    for _ in range(5):
        made.put(long)
    reader.join(10)
    assert made.dropped == 0
    assert b"".join(found) == long * 5


def test_a_line_that_was_cut_does_not_run_into_the_next(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    made = Outlet(write)
    made.put(b"y" * 100_000 + b"\n")
    assert made.dropped == 1
    cut = everything(read)
    assert cut == b"y" * len(cut)
    assert made.put(LINE)
    assert everything(read) == b"\n" + LINE


def test_of_several_lines_in_one_call_those_are_counted_that_did_not_get_out(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    made = Outlet(write)
    made.put(LINE * 400)
    out = everything(read)
    assert made.dropped == 400 - out.count(b"\n")
    made.put(LINE * 2)
    fill(made)
    before = made.dropped
    made.put(LINE * 3)
    assert made.dropped == before + 3


def test_a_line_that_finds_too_little_room_after_others_that_found_none_is_cut_too(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    made = Outlet(write)
    fill(made)
    dropped = made.dropped
    os.read(read, 8192)
    assert not made.put(b"y" * 100_000 + b"\n")
    assert made.dropped == dropped + 1
    assert everything(read).endswith(b"y")
    assert made.put(LINE)
    assert everything(read) == b"\n" + LINE


def test_a_pipe_is_opened_anew_and_the_giver_s_is_left_as_it_is(pipe, monkeypatch):
    monkeypatch.setattr(outlet, "_detached", {})
    read, write = pipe
    detach(write)
    made = Outlet(write)
    fill(made)
    assert os.get_blocking(write)
    assert everything(read) == LINE * (400 - made.dropped)
    os.close(outlet._detached[write])


def test_files_and_what_is_closed_are_left_alone(tmp_path):
    with (tmp_path / "log").open("ab") as file:
        detach(file.fileno())
        assert os.get_blocking(file.fileno())
        Outlet(file.fileno()).put(LINE)
    assert (tmp_path / "log").read_bytes() == LINE
    detach(-1)
    assert not Outlet(-1).put(LINE)


def test_lines_are_counted_that_nobody_can_read_or_find_no_room_on_the_disk():
    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    for fd in (write, full):
        made = Outlet(fd)
        assert not any(made.put(LINE) for _ in range(3))
        assert made.dropped == 3
        os.close(fd)


def test_a_line_that_a_full_disk_has_cut_does_not_run_into_the_next(tmp_path):
    with (tmp_path / "log").open("ab") as file:
        made = Outlet(file.fileno())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))  # Python ignores SIGXFSZ
        try:
            for _ in range(3):
                made.put(LINE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert made.dropped == 2
        assert made.put(LINE)
    assert (tmp_path / "log").read_bytes() == LINE + LINE[:500] + b"\n" + LINE


def test_the_log_says_how_many_lines_it_lost(pipe, log):
    read, write = pipe
    os.set_blocking(write, False)
    told = log(fd=write)
    for _ in range(400):
        told.note("x" * 999)
    lost = told.dropped
    assert lost
    everything(read)
    told.note("again")
    told.note("and again")
    lines = everything(read).decode().splitlines()
    assert ["note text=again" in lines[0], f"{lost} lines of this log were dropped" in lines[1]] == [True, True]
    assert "and again" in lines[2]
    assert len(lines) == 3

"""A process that has just been forked: is it told to go when its supervisor is?"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from elemta.daemon import birth
from elemta.daemon.generation import KEEPER, Process
from elemta.daemon.worker import PATIENCE, RETIRE


def test_a_stop_in_the_moment_of_birth_is_not_lost(monkeypatch):
    real = os.fork

    def fork():
        pid = real()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    monkeypatch.setattr(os, "fork", fork)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as a supervisor has, for itself
    try:
        process = birth.fork(None, None, 0, lambda: os._exit(7))
    finally:
        signal.signal(signal.SIGTERM, before)
    process.control.close()
    _, status = os.waitpid(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_was_printed_and_nobody_takes_keeps_no_process_from_being_started(monkeypatch):
    with Path("/dev/full").open("w") as full, Path(os.devnull).open("w") as null:
        full.write("of a plugin")
        monkeypatch.setattr(sys, "stdout", full)
        process = birth.fork(None, None, 0, lambda: os._exit(7))
        monkeypatch.undo()
        process.control.close()
        assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 7
        os.dup2(null.fileno(), full.fileno())  # to be closed in peace


def test_one_that_fails_before_it_works_says_so_and_ends():
    def forget():
        os.dup2(unread.fileno(), 2)
        raise RuntimeError("a mistake")

    with Path(os.devnull).open("w") as unread:
        process = birth.fork(None, None, 0, forget)
    process.control.close()
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == os.EX_SOFTWARE


def test_without_room_for_a_process_nothing_stays_open(monkeypatch):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    made = []
    monkeypatch.setattr(socket, "socketpair", lambda *kind, pair=socket.socketpair: made.extend(pair(*kind)) or made)
    with pytest.raises(BlockingIOError):
        birth.fork(None, None, 0, lambda: None)
    assert [each.fileno() for each in made] == [-1, -1]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_was_printed_before_is_not_printed_by_the_child_too(monkeypatch, tmp_path):
    with (tmp_path / "printed").open("w") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        printed.write("once")
        process = birth.fork(None, None, 0, printed.flush)
        monkeypatch.undo()
    process.control.close()
    os.waitpid(process.pid, 0)
    assert (tmp_path / "printed").read_text() == "once"


def test_only_workers_hand_over_and_may_be_patient_about_it(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        worker, keeper, stopped = [Process(pid, slot, ours, 0.0) for pid, slot in ((7, 0), (8, KEEPER), (9, 0))]
        for process, to in ((worker, inbox), (keeper, inbox), (stopped, None)):
            birth.send_away(process, to)
        word, [descriptor], *_ = socket.recv_fds(theirs, 100, 2)
        os.close(descriptor)
        assert word == RETIRE
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    assert sent == [(8, signal.SIGTERM), (9, signal.SIGTERM)]
    assert [each.patience for each in (worker, keeper, stopped)] == [PATIENCE, 0.0, 0.0]
    assert all(0 < each.until - time.monotonic() < birth.GRACE for each in (worker, keeper, stopped))


def test_one_that_cannot_hand_over_its_connections_is_told_to_go_all_the_same(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()  # as if it were about to die
    with ours, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        birth.send_away(Process(7, 0, ours, 0.0), inbox)
    assert sent == [(7, signal.SIGTERM)]

"""A process that has just been forked: is it told to go when its supervisor is?"""

import os
import signal
import sys
from pathlib import Path

from elemta.daemon import birth


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

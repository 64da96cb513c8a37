"""A worker that is told to go: how much time has it?"""

import asyncio
import socket
import time
from types import SimpleNamespace

import pytest

from elemta.daemon.generation import Process
from elemta.daemon.worker import PATIENCE, RETIRE, Worker


@pytest.fixture
def told():
    """Tell a worker something; when it must have finished."""

    async def run(say):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs, inbox[0], inbox[1]:
            worker = Worker(0, None, None, SimpleNamespace(), theirs, inbox[0], None)
            say(worker, ours, inbox[1])
            assert worker.stopping.is_set()
            if worker._outbox is not None:
                worker._outbox.close()
            return worker.deadline

    return lambda say: asyncio.run(run(say))


def replace(worker, control, inbox):
    socket.send_fds(control, [RETIRE], [inbox.fileno()])
    worker.obey()


def left(deadline):
    return deadline - time.monotonic()


def test_whose_place_others_have_taken_may_finish_long_mails(told):
    assert left(told(replace)) == pytest.approx(PATIENCE, abs=20)


def test_a_stop_leaves_the_grace(told):
    assert left(told(lambda worker, *_: worker.go(worker.grace))) == pytest.approx(30, abs=20)


def test_a_stop_after_a_reload_leaves_the_grace(told):
    def say(worker, *ends):
        replace(worker, *ends)
        worker.go(worker.grace)

    assert left(told(say)) == pytest.approx(30, abs=20)


def test_so_does_a_reload_after_a_stop(told):
    def say(worker, *ends):
        worker.go(worker.grace)
        replace(worker, *ends)

    assert left(told(say)) == pytest.approx(30, abs=20)


def test_the_supervisor_kills_at_the_nearest_time_that_it_gave():
    process = Process(1, 0, None, 0.0)
    process.goes(600.0)
    first = process.leaving
    process.goes(35.0)
    process.goes(600.0)
    assert process.leaving == first
    assert left(process.until) == pytest.approx(35, abs=20)


def test_one_that_takes_connections_long_after_it_was_told_not_to_hangs_and_is_killed():
    process = Process(1, 0, None, 0.0)
    process.goes(35.0, patience=600.0)
    assert left(process.until) == pytest.approx(35, abs=20)
    process.takes_none()
    assert left(process.until) == pytest.approx(635, abs=20)
    process.goes(35.0)
    assert left(process.until) == pytest.approx(35, abs=20)


def test_no_patience_is_given_again():
    process = Process(1, 0, None, 0.0)
    process.goes(35.0)
    process.goes(35.0, patience=600.0)
    process.takes_none()
    assert left(process.until) == pytest.approx(35, abs=20)

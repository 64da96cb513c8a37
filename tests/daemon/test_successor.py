"""Another daemon comes while the one before has not ended, or was killed: who has the place, and who hears of it?"""

import signal
import time
from pathlib import Path

import pytest

from harness.daemon import Daemon, free_port, lives
from harness.mta import Mta


def until(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def open_mail():
    """A milter in the middle of a mail, and the MTA's side of it."""
    with Daemon("milter", workers=3) as daemon:
        mta = Mta(daemon.address)
        mta.hello()
        mta.envelope()
        yield daemon, mta
        mta.sock.close()


def refused(daemon):
    try:
        daemon.connect()
    except ConnectionRefusedError:
        return True
    return False


def test_one_that_ends_late_leaves_its_successors_socket(open_mail):
    daemon, mta = open_mail
    daemon.signal(signal.SIGTERM)
    until(lambda: refused(daemon))
    with Daemon("milter", listen=daemon.listen) as successor:
        mta.sock.close()
        daemon.process.wait(20)
        Mta(successor.address).sock.close()


@pytest.mark.parametrize("listen", ["", "inet:127.0.0.1:{}"])
def test_a_killed_one_turns_newcomers_away_ends_its_mail_and_leaves_the_place(listen):
    daemon = Daemon("milter", listen=listen.format(free_port()) if listen else "", workers=3)
    daemon.start()
    mta = Mta(daemon.address)
    mta.hello()
    children = daemon.children()
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: sum(map(lives, children)) == 1 and refused(daemon))
    with Daemon("milter", listen=daemon.listen) as successor:
        Mta(successor.address).sock.close()
        assert mta.carry()[-1][0] == "c"
        mta.sock.close()
        until(lambda: not any(map(lives, children)))
    daemon.stop()


def test_after_a_reload_to_another_address_that_one_is_taken_away_in_the_end():
    daemon = Daemon("policyd")
    daemon.start()
    moved = daemon.directory / "moved.sock"
    daemon.listen = f"unix:{moved}"
    daemon.reload("")
    with Daemon("policyd", listen=daemon.address):
        assert daemon.stop() == 0
        assert not moved.exists()
        assert Path(daemon.address.removeprefix("unix:")).exists()

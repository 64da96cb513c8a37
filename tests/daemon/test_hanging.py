"""A worker that hangs: is it seen, does it say where, and is there another soon?"""

import os
import signal
import time
from pathlib import Path

import pytest

from elemta.daemon.birth import GRACE
from elemta.daemon.generation import KEEPER, Process
from elemta.daemon.overdue import HUNG, STILL, Overdue
from harness.daemon import Daemon

HANGING = """
import pathlib, time
import elemta.daemon.overdue, elemta.engine, elemta_policyd.translate

elemta.daemon.overdue.HUNG = 8.0
known = elemta_policyd.translate.parse_ip
first = elemta.engine.Engine.open

async def opened(engine):
    if pathlib.Path("{directory}/once").exists():
        pathlib.Path("{directory}/once").unlink()
        time.sleep(1000)
    await first(engine)

elemta.engine.Engine.open = opened

def hanging(address):
    if address == "192.0.2.66":
        time.sleep(1000)
    return known(address)

elemta_policyd.translate.parse_ip = hanging
"""
"""What Python runs first in the daemon: one client's address holds up the event loop, and so does one start."""


PLUGIN = '''
from elemta import Check, Envelope, Result

class Quiet(Check[Envelope]):
    """Does it say anything?"""

    name = "quiet"

    async def run(self, facts, seen):
        return self.finding(Result.NONE)
'''


def started_by(pid):
    """The writer of the journal, and the process of the plugin."""
    return [int(each) for of in Path(f"/proc/{pid}/task").glob("*/children") for each in of.read_text().split()]


def catches(pid, number):
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return int(caught, 16) >> (number - 1) & 1


def request(client):
    return (
        b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@sender.test\nrecipient=b@here.test\n"
        b"client_address=%s\ninstance=1\n\n" % client.encode()
    )


def ask(daemon, client):
    connection = daemon.connect()
    connection.sendall(request(client))
    return connection


@pytest.fixture
def daemon(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HANGING.replace("{directory}", str(tmp_path)))
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    with Daemon("policyd", workers=1, environment={"PYTHONPATH": path}) as daemon:
        yield daemon


def test_a_worker_that_hangs_says_where_and_another_takes_its_place(daemon):
    before = daemon.worker_pids()
    hung = ask(daemon, "192.0.2.66")
    log = daemon.wait_for("worker_died", seconds=30)
    assert hung.recv(100) == b""  # closed: Postfix says 4xx, or asks again
    assert ask(daemon, "192.0.2.1").recv(100) == b"action=DUNNO\n\n"
    assert daemon.worker_pids() != before
    assert f"worker 0 (process {before[0]}) has said nothing for" in log
    assert "in hanging" in log  # the stack


def test_so_does_one_whose_start_hangs(daemon, tmp_path):
    (before,) = daemon.worker_pids()
    (tmp_path / "once").touch()
    os.kill(before, signal.SIGKILL)
    log = daemon.wait_for("worker_died", times=2, seconds=30)
    assert "in opened" in log
    assert ask(daemon, "192.0.2.1").recv(100) == b"action=DUNNO\n\n"


def test_a_worker_that_says_where_it_stands_works_on(daemon):
    (worker,) = daemon.worker_pids()
    os.kill(worker, signal.SIGUSR1)
    daemon.wait_for("(most recent call first)")
    assert ask(daemon, "192.0.2.1").recv(100) == b"action=DUNNO\n\n"
    assert daemon.worker_pids() == [worker]


def test_so_do_the_supervisor_and_the_keeper(daemon):
    pids = [daemon.process.pid, *daemon.children()]
    for pid in pids:
        os.kill(pid, signal.SIGUSR1)
    daemon.wait_for("(most recent call first)", times=len(pids))
    assert ask(daemon, "192.0.2.1").recv(100) == b"action=DUNNO\n\n"
    assert [daemon.process.pid, *daemon.children()] == pids


def test_so_does_whatever_they_have_started(tmp_path):
    (tmp_path / "quiet.py").write_text(PLUGIN)
    rules = "rules: {recipient: [{id: never, when: {quiet: fail}, then: reject}]}"
    with Daemon("policyd", f"plugins: {{folder: {tmp_path}}}\nchecks: {{quiet: }}\n{rules}", workers=1) as daemon:
        assert ask(daemon, "192.0.2.1").recv(100) == b"action=DUNNO\n\n"
        (worker,) = daemon.worker_pids()
        writer, plugin = pids = started_by(worker)
        for pid in pids:
            late = time.monotonic() + 20
            while not catches(pid, signal.SIGUSR1) and time.monotonic() < late:  # nobody waits until they are up
                time.sleep(0.05)
            os.kill(pid, signal.SIGUSR1)
        daemon.wait_for("(most recent call first)", times=len(pids))
        assert started_by(worker) == [writer, plugin]


@pytest.fixture
def looked(monkeypatch):
    """Look at a process again and again, so many seconds apart; the signals that it gets."""
    now = [1000.0]
    sent = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    overdue = Overdue()

    def look(process, seconds, step):
        for _ in range(round(seconds / step)):
            now[0] += step
            overdue.end([process])
        return sent

    return look


def process(slot=0, **told):
    return Process(1, slot, None, 1000.0, **{"ready": True, **told})


@pytest.mark.parametrize("ready", [True, False], ids=["up", "not up yet"])
def test_one_that_says_nothing_is_asked_then_killed(looked, ready, caplog):
    assert looked(process(ready=ready), HUNG + 3.0, 0.5) == [signal.SIGUSR1, signal.SIGKILL]
    [told] = caplog.messages
    assert told.startswith("worker 0 (process 1) has said nothing for 60 s")


def test_one_that_does_not_go_in_time_is_killed_until_it_is_gone(looked, caplog):
    one = process(leaving=1000.0, until=1035.0)
    assert looked(one, 34.5, 0.5) == []
    assert looked(one, 2 * GRACE, 0.5) == [signal.SIGKILL] * 2
    assert caplog.messages[0] == "process 1 did not finish within 36 s: killed"


@pytest.mark.parametrize("told", [{"leaving": 1000.0}, {"slot": KEEPER}], ids=["told to go", "the keeper"])
def test_others_have_times_of_their_own(looked, told):
    assert looked(process(**told), 3 * HUNG, 0.5) == []


@pytest.mark.parametrize("told", [{}, {"leaving": 1000.0, "until": 1035.0}], ids=["at work", "told to go"])
def test_time_in_which_the_supervisor_stood_still_does_not_count(looked, told):
    one = process(**told)
    looked(one, 10 * HUNG, STILL + 1.0)
    assert looked(one, 30.0, 0.5) == []

"""The supervisor: what if the system has no room, if it is told too early, if it is told to move?"""

import os
import signal
import time
from itertools import count

import pytest

from harness.daemon import Daemon
from harness.mta import Mta

FAILING = """
import gc, os, time
import elemta.engine
fork, collect, first, count = os.fork, gc.collect, elemta.engine.Engine.open, 0

def failing_fork():
    global count
    count += 1
    if os.path.exists({flag!r} + "/fork"):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    pid = fork()
    while pid == 0 and os.path.exists({flag!r} + "/slow"):
        time.sleep(0.05)
    fails = pid == 0 and os.path.exists({flag!r} + f"/{{count}}")
    while fails and os.path.exists({flag!r} + f"/{{count}}"):
        time.sleep(0.05)
    return pid if not fails else os._exit(1)

def failing_collect():
    if os.path.exists({flag!r} + "/collect"):
        raise MemoryError
    return collect()

async def failing_open(engine):
    if os.path.exists({flag!r} + "/open"):
        raise RuntimeError("a mistake")
    await first(engine)

os.fork, gc.collect, elemta.engine.Engine.open = failing_fork, failing_collect, failing_open
"""
"""What Python runs first in the daemon: where a file of that name is, there is no room for a process or for memory, a
worker makes a mistake when it opens its engine, a process that was started takes its time, or the one of that number
waits, and fails when the file is taken away.
"""
IMPATIENT = """
import os, signal
import elemta.daemon.sockets
listen = elemta.daemon.sockets.listen

def told_meanwhile(*where):
    os.kill(os.getpid(), signal.SIGHUP)
    return listen(*where)

elemta.daemon.sockets.listen = told_meanwhile
"""
REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@sender.test\nrecipient=b@here.test\n"
    b"client_address=192.0.2.1\ninstance=1\n\n"
)
REJECT = 'rules: {recipient: [{id: no, then: reject, reply: "550 5.7.1 no"}]}'


def ask(daemon):
    connection = daemon.connect()
    connection.sendall(REQUEST)
    return connection.recv(4096)


@pytest.fixture
def narrow(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FAILING.format(flag=str(tmp_path)))
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    with Daemon("policyd", environment={"PYTHONPATH": path}) as daemon:
        yield daemon, tmp_path


def test_a_worker_for_which_there_is_no_room_is_started_later(narrow):
    daemon, flags = narrow
    (flags / "fork").touch()
    before = daemon.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    daemon.wait_for("cannot start a process", 3)
    assert ask(daemon) == b"action=DUNNO\n\n"
    (flags / "fork").unlink()
    until(lambda: len(daemon.worker_pids()) == len(before))


def test_a_worker_that_fails_at_its_start_says_why_and_is_started_later(narrow):
    daemon, flags = narrow
    (flags / "open").touch()
    before = daemon.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    log = daemon.wait_for('how="exit status 70"')
    assert "worker 0 of policyd failed" in log
    assert "RuntimeError: a mistake" in log
    (flags / "open").unlink()
    until(lambda: len(daemon.worker_pids()) == len(before))
    assert ask(daemon) == b"action=DUNNO\n\n"


@pytest.mark.parametrize("what", ["fork", "collect"])
def test_a_reload_for_which_there_is_no_room_is_refused(narrow, what):
    daemon, flags = narrow
    (flags / what).touch()
    daemon.reload(REJECT, ok=False)
    assert ask(daemon) == b"action=DUNNO\n\n"
    (flags / what).unlink()
    daemon.reload(REJECT)
    assert ask(daemon) == b"action=550 5.7.1 no\n\n"


@pytest.mark.parametrize("what", ["fork", "collect"])
def test_a_reload_to_another_address_that_fails_leaves_nothing_there(narrow, what):
    daemon, flags = narrow
    (flags / what).touch()
    moved = move(daemon)
    daemon.wait_for("the old policy stays in force")
    assert not moved.exists()
    assert ask(daemon) == b"action=DUNNO\n\n"


def test_nor_does_one_in_the_midst_of_which_the_daemon_is_stopped(narrow):
    daemon, flags = narrow
    (flags / "slow").touch()
    moved = move(daemon)
    until(moved.exists)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("stopping:")
    (flags / "slow").unlink()
    assert daemon.process.wait(10) == 0
    assert not moved.exists()


def test_who_was_answered_by_new_workers_of_which_one_fails_is_answered_by_the_old_ones(narrow):
    daemon, flags = narrow
    old = daemon.worker_pids()
    (flags / "6").touch()  # the last of the new ones, where a keeper and two workers were started before
    daemon.write(REJECT)
    daemon.signal(signal.SIGHUP)
    until(lambda: len(daemon.children()) == 6)
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    connection = daemon.connect()
    connection.sendall(REQUEST)
    assert connection.recv(100) == b"action=550 5.7.1 no\n\n"
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    (flags / "6").unlink()
    daemon.wait_for("the new workers did not come up; the old policy stays in force")
    instances = count(2)

    def answer():
        connection.sendall(REQUEST.replace(b"instance=1", b"instance=%d" % next(instances)))
        return connection.recv(100)

    until(lambda: answer() == b"action=DUNNO\n\n")  # a worker that was told to go may answer once more


def move(daemon):
    """Ask for a reload to another address; its socket."""
    daemon.listen = f"unix:{daemon.directory}/moved.sock"
    daemon.write(REJECT)
    daemon.signal(signal.SIGHUP)
    return daemon.directory / "moved.sock"


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_reloads_in_a_row_follow_each_other_and_leave_no_socket_of_the_first():
    with Daemon("policyd", workers=1) as daemon:
        [old] = daemon.worker_pids()
        before = set(daemon.children())
        os.kill(old, signal.SIGSTOP)  # so the first is not over before the second
        move(daemon)
        until(lambda: len(set(daemon.children()) - before) == 2)
        time.sleep(0.5)  # the new ones answer
        daemon.listen = f"unix:{daemon.directory}/again.sock"
        daemon.write(REJECT)
        daemon.signal(signal.SIGHUP)
        time.sleep(0.3)
        os.kill(old, signal.SIGCONT)
        daemon.wait_for("reloaded daemon=policyd ok=true", 2, seconds=60)
        time.sleep(1.0)
        assert daemon.log().count("reloaded ") == 2
        assert [path.name for path in daemon.directory.glob("*.sock")] == ["again.sock"]


def test_who_asks_twice_for_the_end_or_for_a_reload_then_gets_one_end():
    with Daemon("milter", workers=1) as daemon:
        mta = Mta(daemon.address)
        mta.hello()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            daemon.signal(number)
            daemon.wait_for("stopping:")
            time.sleep(0.3)
        assert mta.carry()[-1][0] == "c"
        mta.sock.close()
        assert daemon.process.wait(10) == 0
        assert daemon.log().count("stopping:") == 1
        assert "reloaded" not in daemon.log()


def test_a_reload_that_is_asked_for_during_the_start_follows_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    daemon = Daemon("policyd", environment={"PYTHONPATH": path})
    daemon.start(wait=False)
    daemon.wait_for("reloaded daemon=policyd ok=true")
    assert daemon.stop() == 0


def test_a_reload_to_another_directory_of_metrics_takes_the_status_along_and_makes_what_is_missing():
    with Daemon("policyd") as daemon:
        there = daemon.directory / "there"
        text = daemon.policy.read_text()
        for kept in ("journal.db", "metrics", "spool"):
            text = text.replace(f"{daemon.directory}/{kept}", f"{there}/{kept}")
        daemon.policy.write_text(text + "log: {format: json}\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('"event":"reloaded"')
        assert (there / "spool").is_dir()
        deadline = time.monotonic() + 10
        while not (there / "metrics" / "policyd.status").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not (daemon.directory / "metrics" / "policyd.status").exists()


def test_who_is_answered_while_the_daemon_ends_after_a_reload_is_not_left_waiting_for_workers_that_are_gone():
    with Daemon("policyd", workers=1) as daemon:
        [old] = daemon.worker_pids()
        first, second = daemon.connect(), daemon.connect()
        for each in first, second:
            each.sendall(REQUEST[:20])
        time.sleep(0.3)  # the worker has them, and waits for the rest
        daemon.reload(REJECT)
        daemon.signal(signal.SIGTERM)
        until(lambda: daemon.children() == [old])
        first.sendall(REQUEST[20:])
        assert first.recv(100) == b"action=DUNNO\n\n"
        first.settimeout(5)
        assert first.recv(100) == b""  # Postfix asks elsewhere, or says 4xx
        second.close()
        assert daemon.process.wait(10) == 0

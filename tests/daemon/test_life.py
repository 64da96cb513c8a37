"""The daemons' life: start, refuse, reload all or nothing, restart the dead, drain; on real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from elemta.journal import Reader
from elemta.observe.exposition import exposition
from harness.daemon import Daemon, free_port, lives

REQUEST = (
    "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=h.test\nqueue_id=\n"
    "sender=a@sender.test\nrecipient=b@here.test\nclient_address=192.0.2.1\nclient_name=unknown\ninstance={}\n\n"
)
ACCEPT = ""
REJECT = 'rules: {recipient: [{id: no, then: reject, reply: "550 5.7.1 no"}]}'


def ask(connection, instance="1.1", state="RCPT"):
    request = REQUEST.format(instance)
    if state != "RCPT":
        request = (
            request.replace("=RCPT", f"={state}").replace("=b@here.test", "=").replace("queue_id=", "queue_id=4aB")
        )
    connection.sendall(request.encode())
    answer = b""
    while not answer.endswith(b"\n\n"):
        data = connection.recv(4096)
        if not data:
            return "closed"
        answer += data
    return answer.decode().strip().removeprefix("action=")


def gone(pids):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(map(lives, pids)):
        time.sleep(0.05)
    assert not any(map(lives, pids))


@pytest.mark.parametrize("listen", ["", "inet:127.0.0.1:{}", "inet:[::1]:{}"])
def test_policyd_answers_on_unix_and_inet(listen):
    host = "::1" if "::" in listen else "127.0.0.1"
    with Daemon("policyd", listen=listen.format(free_port(host)) if listen else "") as daemon:
        assert ask(daemon.connect()) == "DUNNO"


def test_the_bare_minimum_starts_and_stops_cleanly():
    daemon = Daemon("policyd")
    daemon.start()
    assert ask(daemon.connect()) == "DUNNO"

    assert daemon.stop() == 0
    assert not (daemon.directory / "policyd.sock").exists()


def test_the_socket_is_for_the_group_only():
    with Daemon("policyd") as daemon:
        assert (daemon.directory / "policyd.sock").stat().st_mode & 0o777 == 0o660


def test_wrong_configuration_is_told_and_78():
    daemon = Daemon("milter", "checks: {spv: }")
    daemon.start(wait=False)

    assert daemon.process.wait(20) == os.EX_CONFIG
    assert 'checks: there is no check "spv"; did you mean "spf"?' in daemon.log()


def test_a_missing_file_is_66():
    program = Path(sys.executable).parent / "elemta-milter"
    done = subprocess.run(
        [program, "--config", "/nowhere/x.yaml"], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == os.EX_NOINPUT
    assert "/nowhere/x.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_daemon_on_a_living_socket_is_refused_and_a_stale_one_is_replaced():
    with Daemon("policyd") as daemon:
        second = Daemon("policyd", listen=daemon.listen)
        second.start(wait=False)
        assert second.process.wait(20) == os.EX_OSERR
        assert "another process listens" in second.log()

        children = daemon.children()
        daemon.process.kill()
        daemon.process.wait()
        gone(children)
        second.start()
        assert ask(second.connect()) == "DUNNO"
        second.stop()


@pytest.mark.parametrize("name", ["policyd", "milter"])
def test_a_socket_that_was_taken_away_is_missed_and_a_reload_makes_it_anew(name):
    port = free_port()
    with Daemon(name, metrics=port) as daemon:
        place = Path(daemon.listen[5:])
        place.unlink()
        daemon.wait_for(f"nobody can connect, {place} was taken away")
        with pytest.raises(urllib.error.HTTPError, match="503") as found:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10)
        assert f"{name}: nobody can connect" in found.value.read().decode()

        daemon.reload("")
        daemon.connect()
        assert "ready" in urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).read().decode()
        assert daemon.log().count("nobody can connect") == 1
        daemon.stop()
        assert not place.exists()


def test_a_socket_that_was_touched_is_the_same():
    with Daemon("policyd") as daemon:
        place = Path(daemon.listen[5:])
        os.utime(place, (1, 1))
        daemon.reload(REJECT)
        assert ask(daemon.connect()) == "550 5.7.1 no"
        assert "nobody can connect" not in daemon.log()
        daemon.stop()
        assert not place.exists()


def test_reload_is_all_or_nothing():
    with Daemon("policyd", ACCEPT) as daemon:
        daemon.reload(REJECT)
        assert ask(daemon.connect()) == "550 5.7.1 no"

        daemon.reload("rules: {recipient: [{id: no, then: rejct}]}", ok=False)
        assert ask(daemon.connect()) == "550 5.7.1 no"
        assert "the old policy stays in force" in daemon.log()


@pytest.mark.parametrize("name", ["policyd", "milter"])
def test_a_reload_is_told_when_no_old_worker_takes_a_connection_any_more(name):
    with Daemon(name, ACCEPT, workers=1) as daemon:
        [old] = daemon.worker_pids()
        before = set(daemon.children())
        os.kill(old, signal.SIGSTOP)
        daemon.write(REJECT)
        daemon.signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while len(set(daemon.children()) - before) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)  # the new worker answers long before
        assert "reloaded" not in daemon.log()

        os.kill(old, signal.SIGCONT)
        daemon.wait_for("reloaded ")


def test_reload_drops_no_connection_of_the_policy_service():
    """A connection that is open before the reload goes on after it, under the new policy."""
    with Daemon("policyd", ACCEPT) as daemon:
        connections = [daemon.connect() for _ in range(30)]
        assert {ask(each) for each in connections} == {"DUNNO"}

        daemon.reload(REJECT)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and len(daemon.children()) > 3:
            time.sleep(0.05)

        assert [ask(each, f"2.{number}") for number, each in enumerate(connections)] == ["550 5.7.1 no"] * 30


def test_a_mail_whose_recipients_were_accepted_before_a_reload_is_not_judged_again_without_them():
    policy = """
checks: {limits: {each: {key: sender, count: recipients, windows: {1h: 5}}}}
rules: {recipient: [
  {id: full, when: {limits: fail}, then: defer},
  {id: ours, when: {recipient.domain: here.test}, then: accept},
  {id: rest, then: reject, reply: "550 5.7.1 not ours"}]}
"""
    with Daemon("policyd", policy) as daemon:
        connection = daemon.connect()
        assert ask(connection, "1.1") == "DUNNO"
        old = daemon.worker_pids()
        daemon.reload(policy.replace("5}", "1}"))
        gone(old)
        assert ask(connection, "1.1", "DATA") == "DUNNO"
        assert ask(connection, "1.1", "END-OF-MESSAGE") == "DUNNO"
        assert ask(connection, "1.2").startswith("451 4.7.1 Not now")  # the first one counts


def test_requests_during_reloads_are_all_answered():
    answers, stop = [], threading.Event()

    def keep_asking():
        with daemon.connect() as connection:
            while not stop.is_set():
                answers.append(ask(connection, f"{threading.get_ident()}.{len(answers)}"))

    with Daemon("policyd", ACCEPT) as daemon:
        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        for policy in (REJECT, ACCEPT, REJECT):
            daemon.reload(policy)
        stop.set()
        for thread in threads:
            thread.join(20)

    assert set(answers) == {"DUNNO", "550 5.7.1 no"}
    assert "closed" not in answers


def test_who_is_answered_after_a_second_reload_is_not_left_waiting_for_workers_that_are_gone():
    with Daemon("policyd", workers=1) as daemon:
        connection = daemon.connect()
        assert ask(connection) == "DUNNO"
        begin, rest = REQUEST.format("1.2").encode().split(b"\n", 1)
        connection.sendall(begin)
        time.sleep(0.3)  # the first worker has it, and waits for the rest
        daemon.reload(ACCEPT)
        daemon.reload(REJECT)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and len(daemon.children()) > 3:  # the first worker, the last with its keeper
            time.sleep(0.05)

        connection.sendall(b"\n" + rest)
        assert connection.recv(100) == b"action=DUNNO\n\n"
        connection.settimeout(5)
        assert connection.recv(100) == b""  # Postfix then asks over a new one
        assert ask(daemon.connect()) == "550 5.7.1 no"


def test_a_reload_to_another_address_moves_there():
    with Daemon("policyd", ACCEPT) as daemon:
        old = Path(daemon.listen[5:])
        daemon.listen = daemon.address = f"unix:{daemon.directory}/other.sock"
        daemon.reload(REJECT)

        assert ask(daemon.connect()) == "550 5.7.1 no"
        assert not old.exists()


def test_nobody_listens_at_the_old_address_after_a_reload_to_another_port():
    before, after = (f"inet:127.0.0.1:{free_port()}" for _ in range(2))
    with Daemon("policyd", ACCEPT, listen=before) as daemon:
        daemon.listen = daemon.address = after
        daemon.reload(REJECT)
        assert ask(daemon.connect()) == "550 5.7.1 no"

        daemon.address = before
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        daemon.listen = before
        daemon.reload(ACCEPT)
        assert ask(daemon.connect()) == "DUNNO"


@pytest.mark.parametrize(("number", "told"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 3, "SIGRTMIN+3")])
def test_a_dead_worker_is_replaced(number, told):
    with Daemon("policyd", workers=1) as daemon:
        [worker] = daemon.worker_pids()
        os.kill(worker, number)
        daemon.wait_for("worker_died")

        deadline = time.monotonic() + 15
        answer = ""
        while answer != "DUNNO" and time.monotonic() < deadline:
            try:
                answer = ask(daemon.connect())
            except OSError:
                time.sleep(0.05)
        assert answer == "DUNNO"
        assert f'how="signal {told}"' in daemon.log()


def test_the_first_worker_has_the_number_0_for_readyz_as_in_the_log():
    with Daemon("policyd", workers=1) as daemon:
        told = {path.name for path in (daemon.directory / "metrics").glob("*.status")}
    assert told == {"policyd.status", "policyd-0.status"}


def test_numbers_are_numbers_in_the_json_log():
    daemon = Daemon("policyd", "log: {format: json}", workers=1)
    daemon.start(wait=False)
    try:
        daemon.wait_for('"event":"started"')
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        daemon.wait_for('"event":"worker_died"')
    finally:
        daemon.stop()
    told = {line["event"]: line for line in map(json.loads, daemon.log().splitlines())}
    assert told["started"]["workers"] == 1
    numbers = [told["worker_died"][key] for key in ("slot", "lived", "next_try")] + [told["stopped"]["seconds"]]
    assert all(isinstance(number, (int, float)) for number in numbers), numbers
    assert told["stopped"]["seconds"] < 60  # not since the machine was started


def test_nothing_that_was_decided_is_lost_at_a_stop_and_no_status_is_left():
    daemon = Daemon("policyd", REJECT, workers=1)
    daemon.start()
    connection = daemon.connect()
    for number in range(30):
        assert ask(connection, f"{number}.1") == "550 5.7.1 no"
    assert daemon.stop() == 0
    assert len(list(Reader(f"{daemon.directory}/journal.db").search(limit=100))) == 30
    assert daemon.log().count('reply="550 5.7.1 no"') == 30
    metrics = daemon.directory / "metrics"
    told = exposition(str(metrics), healthy=True, ready=True).decode()
    assert sum(map(int, re.findall(r"^elemta_decisions_total\{.*\} (\d+)", told, re.MULTILINE))) == 30
    assert list(metrics.glob("*.status")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_to_all_of_them_only_the_supervisor_obeys(number):
    with Daemon("policyd") as daemon:
        children = daemon.children()
        for pid in children:
            os.kill(pid, number)
        time.sleep(0.5)
        assert ask(daemon.connect()) == "DUNNO"
        assert daemon.children() == children
        assert "worker_died" not in daemon.log()


def test_workers_end_when_their_supervisor_is_killed():
    daemon = Daemon("policyd")
    daemon.start()
    children = daemon.children()
    daemon.process.kill()
    daemon.process.wait()

    gone(children)


def test_systemd_is_told(tmp_path):
    where = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(where))
        manager.settimeout(20)
        daemon = Daemon("policyd", environment={"NOTIFY_SOCKET": str(where)})
        daemon.start()
        assert manager.recv(1000).startswith(b"READY=1\n")
        daemon.reload(REJECT)
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(1000).startswith(b"READY=1\n")
        daemon.stop()
        assert manager.recv(1000) == b"STOPPING=1"


def test_systemds_watchdog_gets_signs_of_life(tmp_path):
    where = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(where))
        manager.settimeout(20)
        with Daemon("policyd", environment={"NOTIFY_SOCKET": str(where), "WATCHDOG_USEC": "2000000"}):
            heard = [manager.recv(1000) for _ in range(4)]
            began = time.monotonic()
            heard += [manager.recv(1000) for _ in range(3)]
            took = time.monotonic() - began
        assert heard.count(b"WATCHDOG=1") == 6
        assert took > 1.5  # one a second


def test_both_daemons_start():
    for name in ("milter", "policyd"):
        with Daemon(name) as daemon:
            assert daemon.connect()
        assert daemon.process.returncode == 0, daemon.log()

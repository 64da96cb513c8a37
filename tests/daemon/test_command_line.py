"""The daemons' command line and what monitoring sees of a daemon that was killed; on real processes."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from elemta.daemon import start
from harness.daemon import Daemon, free_port

BESIDE = Path(sys.executable).parent


def run(name, *arguments, **environment):
    return subprocess.run(
        [BESIDE / name, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", ["elemta-milter", "elemta-policyd"])
@pytest.mark.parametrize("arguments", [["--bogus"], ["--config"], ["policy.yaml"]], ids=" ".join)
def test_what_cannot_stand_on_the_command_line_is_64(name, arguments):
    done = run(name, *arguments)

    assert done.returncode == os.EX_USAGE
    assert done.stderr.startswith(f"usage: {name} ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_obstacle(closed):
    daemon = Daemon("policyd")
    script = f'exec "{BESIDE}/elemta-policyd" --config "{daemon.policy}" {closed}'
    with subprocess.Popen(["/bin/sh", "-c", script]) as process:
        status = daemon.directory / "metrics" / "policyd.status"  # it has its socket, and listens
        while not status.exists() and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None
        with daemon.connect() as connection:
            connection.sendall(b"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=a@b.test\n\n")
            assert connection.recv(100) == b"action=DUNNO\n\n"
        process.terminate()
        assert process.wait(20) == 0


def test_an_empty_variable_names_no_file(monkeypatch):
    monkeypatch.setenv("ELEMTA_CONFIG", "")
    monkeypatch.setattr(sys, "argv", ["elemta-milter"])
    # not as a process: where Elemta is installed, that would be one more milter of the real mail server
    assert start._arguments(SimpleNamespace(name="milter")).config == "/etc/elemta/elemta.yaml"
    assert "default: $ELEMTA_CONFIG, or /etc/elemta/elemta.yaml" in " ".join(
        run("elemta-milter", "--help").stdout.split()
    )


@pytest.mark.parametrize("key", ["spool: {}", "journal: {{path: {}/journal.db}}", "state: sqlite://{}/state.db"])
def test_a_place_that_cannot_be_written_is_told_with_what_to_do(key):
    daemon = Daemon("policyd")
    place = "/sys/elemta"  # where nobody makes a directory, root included
    kept = [line for line in daemon.policy.read_text().splitlines() if line.split(":")[0] != key.split(":")[0]]
    daemon.policy.write_text("\n".join([*kept, key.format(place), ""]))
    daemon.start(wait=False)

    assert daemon.process.wait(20) == os.EX_OSERR
    [told] = daemon.log().splitlines()
    assert told.startswith(f"{place}: ")
    assert "name other places: state, journal, spool, metrics, listen" in told


def health(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:  # who took the question ended; another keeper answers the next
        return 0, repr(error)


def test_a_killed_supervisor_is_missed_at_once_and_its_successor_is_alive():
    port = free_port()
    milter = Daemon("milter", metrics=port)
    with Daemon("policyd", metrics=port) as policyd, contextlib.ExitStack() as stack:
        milter.directory = policyd.directory  # one directory of metrics, as in every installation
        milter.write("")
        milter.start()
        stack.callback(milter.stop)
        policyd.process.kill()
        policyd.process.wait()
        assert health_becomes(port, 503).startswith("policyd: the daemon is gone")

        policyd.start(wait=False)
        policyd.wait_for(" started ", 2)
        assert health_becomes(port, 200) == "alive\n"


def health_becomes(port, status):
    """Wait until /healthz answers with this status; its text."""
    begin = time.monotonic()
    while (found := health(port))[0] != status:
        assert time.monotonic() - begin < 15, found
        time.sleep(0.05)
    return found[1]


def test_a_damaged_state_file_is_told_with_what_to_do_and_no_traceback():
    daemon = Daemon("policyd")
    (daemon.directory / "state.db").write_bytes(b"This is not SQLite at all, but long enough." * 100)
    daemon.start(wait=False)

    assert daemon.process.wait(20) == os.EX_SOFTWARE
    assert "state.db: damaged (file is not a database); move it and its -wal and -shm files away" in daemon.log()
    assert 'how="exit status 69"' in daemon.log()
    assert "Traceback" not in daemon.log()

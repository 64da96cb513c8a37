"""A daemon started without standard input, output or error: does it serve, with no socket in their place?"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.daemon import Daemon

REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=1\nclient_address=192.0.2.7\n"
    b"sender=a@b.test\nrecipient=r@example.org\n\n"
)


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_is_nobodys(closed):
    daemon = Daemon("policyd", "checks: {}\n", workers=1)
    program = Path(sys.executable).parent / "elemta-policyd"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", program, "--config", daemon.policy]
    with daemon.log_file.open("wb") as log:
        daemon.process = subprocess.Popen(command, stderr=log)
    try:
        reading = _connected(daemon)
        reading.sendall(REQUEST)
        assert reading.recv(999) == b"action=DUNNO\n\n"
        for pid in (daemon.process.pid, *daemon.children()):
            for number, word in enumerate(("<&-", ">&-", "2>&-")):
                if word in closed.split():
                    assert Path(f"/proc/{pid}/fd/{number}").readlink() == Path(os.devnull)
    finally:
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log()


def _connected(daemon):
    """A connection as soon as there is one, since the log may say nothing."""
    listens = daemon.directory / "metrics" / "policyd.status"  # it has its socket before it can be connected to
    for _ in range(400):
        assert daemon.process.poll() is None, daemon.log()
        if listens.exists():
            return daemon.connect()
        time.sleep(0.05)
    raise AssertionError(daemon.log())

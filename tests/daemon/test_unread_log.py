"""A log that nobody reads: does mail go on, and is what was lost told?"""

import os
import subprocess
import sys
import time
from pathlib import Path

from harness.daemon import Daemon

REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=%d\nclient_address=192.0.2.7\n"
    b"sender=a@b.test\nrecipient=r@example.org\n\n"
)


def test_a_full_pipe_holds_up_no_mail():
    daemon = Daemon("policyd", "checks: {}\n", workers=1)
    read, write = os.pipe()
    program = Path(sys.executable).parent / "elemta-policyd"
    daemon.process = subprocess.Popen([program, "--config", daemon.policy], stderr=write, stdin=subprocess.DEVNULL)
    try:
        text = b""
        while b" started " not in text:
            text += os.read(read, 65536)
        client = daemon.connect()
        began = time.monotonic()
        for number in range(2000):
            client.sendall(REQUEST % number)
            assert client.recv(999) == b"action=DUNNO\n\n"
        assert time.monotonic() - began < 10
        assert os.get_blocking(write), "it is ours, and stays as it was"
        text = os.read(read, 1 << 20)  # while it reads, the daemon may find room and tell
        client.sendall(REQUEST % 2000)
        client.recv(999)
        while b"lines of this log were dropped" not in text:
            text += os.read(read, 65536)
        assert daemon.stop() == 0
    finally:
        os.close(read)
        os.close(write)
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()

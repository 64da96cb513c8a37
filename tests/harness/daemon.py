"""A daemon of ours as a real process: does it start, answer, reload, drain and end as it should?

with Daemon("milter", "checks: {spf: }", dns=server) as daemon:
    client = daemon.connect()
    daemon.reload("checks: {}")
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import Self
from unittest import SkipTest

_POLICY = """
host: mx1.example.org
user: {user}
state: {state}
journal: {{path: {directory}/journal.db}}
spool: {directory}/spool
metrics: {{listen: "127.0.0.1:{metrics}", directory: {directory}/metrics}}
{dns}
{section}: {{listen: "{listen}", workers: {workers}{own}}}
"""


class Daemon:
    """elemta-milter or elemta-policyd in the foreground, its files in a directory of its own.

    Attributes:
        directory: where everything is; `policy`, `log` and the socket are in it.
        address: "unix:/…" or "inet:127.0.0.1:port", as a client of the daemon writes it.
    """

    def __init__(
        self,
        name: str,
        policy: str = "",
        *,
        dns: object = None,
        listen: str = "",
        workers: int = 2,
        metrics: int = 0,
        own: str = "",
        state: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"elemta-{name}-"))
        self.directory.chmod(0o755)
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        self.listen = listen or f"unix:{self.directory}/{name}.sock"
        self.address = self.listen
        self.workers = workers
        self.metrics = metrics
        self.own = f", {own}" if own else ""  # more of the daemon's own section: "budget: 3s"
        self.state = state or f"sqlite://{self.directory}/state.db"
        self.policy = self.directory / "policy.yaml"
        self.log_file = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = environment or {}
        self._connections: list[socket.socket] = []
        self._dns = f'dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 1s}}' if dns is not None else ""  # type: ignore[attr-defined]
        self.write(policy)

    def write(self, policy: str) -> None:
        """Write the policy file: the fixed part and `policy`."""
        fixed = _POLICY.format(
            user="root" if os.geteuid() == 0 else "elemta",
            directory=self.directory,
            state=self.state,
            metrics=self.metrics,
            dns=self._dns,
            section=self.name,
            listen=self.listen,
            workers=self.workers,
            own=self.own,
        )
        self.policy.write_text(fixed + policy, encoding="utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it answers."""
        before = self.log().count(" started ")
        program = Path(sys.executable).parent / f"elemta-{self.name}"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [program, "--config", self.policy],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )
        if wait:
            self.wait_for(" started ", before + 1)

    def wait_for(self, text: str, times: int = 1, seconds: float = 20) -> str:
        """Wait until the log holds `text` so many times; the log.

        Raises:
            AssertionError: it did not, or the daemon ended.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            log = self.log()
            if log.count(text) >= times:
                return log
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{log}")
            time.sleep(0.02)
        raise AssertionError(f"no {text!r} in the log:\n{self.log()}")

    def log(self) -> str:
        """What it has logged."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def reload(self, policy: str, *, ok: bool = True) -> None:
        """Write a new policy, send SIGHUP and wait for the outcome."""
        wanted = f"reloaded daemon={self.name} ok={str(ok).lower()}"
        before = self.log().count(wanted)
        self.write(policy)
        self.signal(signal.SIGHUP)
        self.wait_for(wanted, before + 1)

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, seconds: float = 45) -> int:
        """SIGTERM, and its exit status; connections made by `connect` are closed first."""
        for each in self._connections:
            each.close()
        if self.process is None:
            return 0
        self.process.terminate()
        return self.process.wait(seconds)

    def children(self) -> list[int]:
        """Process ids of workers and keeper."""
        assert self.process is not None
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def worker_pids(self) -> list[int]:
        """Process ids of the workers; the keeper is forked first."""
        return sorted(self.children())[1:]

    def connect(self) -> socket.socket:
        """A connection to it, closed when the daemon is stopped."""
        if self.address.startswith("unix:"):
            opened = socket.socket(socket.AF_UNIX)
            self._connections.append(opened)
            opened.settimeout(20)
            opened.connect(self.address[5:])
        else:
            match = re.fullmatch(r"inet:\[?([0-9a-f.:]+?)\]?:(\d+)", self.address)
            assert match
            opened = socket.create_connection((match[1], int(match[2])), 20)
            self._connections.append(opened)
        return opened


def lives(pid: int) -> bool:
    """Whether a process goes on: one that ended may wait for ever for a parent to ask, as in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def loopback() -> str:
    """::1, or 127.0.0.1 where this machine has no IPv6."""
    try:
        free_port("::1")
    except SkipTest:
        return "127.0.0.1"
    return "::1"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody uses now; skips the test where this machine has no such address, as ::1 in a container."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise SkipTest(f"{host} is no address of this machine ({error.strerror})") from None
        return int(probe.getsockname()[1])

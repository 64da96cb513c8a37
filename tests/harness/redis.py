"""A real Redis of its own: a server, a cluster of one node, or a master with a sentinel, on free ports of loopback.

with PrivateRedis() as redis:
    ... redis.url answers ...
"""

from __future__ import annotations

import atexit
import functools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

PROGRAM = next((name for name in ("redis-server", "valkey-server") if shutil.which(name)), "")
START = 20.0  # seconds


def why_not() -> str:
    """Why no Redis can run here, for pytest.mark.skipif; "" if it can."""
    return "" if PROGRAM else "neither Redis nor Valkey is installed (Debian package redis-server or valkey-server)"


@functools.cache
def shared(*, cluster: bool = False) -> PrivateRedis:
    """One for the whole run of tests; whoever uses it flushes it first."""
    redis = PrivateRedis(cluster=cluster)
    redis.start()
    atexit.register(redis.remove)
    return redis


class PrivateRedis:
    """A context manager, or `start()`, `stop()` and `remove()`.

    cluster: one node that has all slots. sentinel: another process, which knows this server as the master "mail".
    options: of redis-server, set last: `requirepass="…"`.

    Attributes:
        directory: where everything is: `socket`, `log`.
        port: on 127.0.0.1.
        url: what `state:` is to say.
        plain: a client that does not know that it is a cluster.
    """

    def __init__(self, *, cluster: bool = False, sentinel: bool = False, **options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="elemta-redis-"))
        self.socket = self.directory / "redis.sock"
        self.port, self._sentinel_port = _free_port(), _free_port() if sentinel else 0
        self._cluster = cluster
        self._options = {"cluster-enabled": "yes"} if cluster else {}
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self._processes: list[subprocess.Popen[bytes]] = []
        place = f"127.0.0.1:{self.port}"
        self.url = f"redis+cluster://{place}" if cluster else f"redis://{place}/0"
        if sentinel:
            self.url = f"redis+sentinel://127.0.0.1:{self._sentinel_port}/mail"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @functools.cached_property
    def plain(self) -> Redis:
        return Redis(port=self.port, password=self._options.get("requirepass"), socket_timeout=5)

    def start(self) -> None:
        """Start what does not run, on the same ports, and wait until it answers."""
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "unixsocket": str(self.socket), "dir": str(self.directory),
            "save": "", "logfile": "log", "daemonize": "no", **self._options,
        }  # fmt: skip
        command = [PROGRAM, *(word for name, value in options.items() for word in (f"--{name}", value))]
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + START
        while not self.socket.exists() or b"Ready to accept" not in (self.directory / "log").read_bytes():
            if time.monotonic() > deadline or self._processes[-1].poll() is not None:
                raise AssertionError((self.directory / "log").read_text())
            time.sleep(0.02)
        if self._cluster:
            if self.plain.execute_command("CLUSTER INFO")["cluster_slots_assigned"] == "0":
                self.plain.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while self.plain.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.02)
        if self._sentinel_port and len(self._processes) == 1:
            self._start_sentinel()

    def _start_sentinel(self) -> None:
        conf = self.directory / "sentinel.conf"
        conf.write_text(
            f"port {self._sentinel_port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor mail 127.0.0.1 {self.port} 1\nsentinel down-after-milliseconds mail 500\n"
        )
        command = [PROGRAM, conf, "--sentinel", "--logfile", "sentinel.log"]
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + START
        with Redis(port=self._sentinel_port, socket_timeout=5) as sentinel:
            while True:
                try:
                    if sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "mail"):
                        return
                except RedisError:
                    pass  # not there yet
                if time.monotonic() > deadline:
                    raise AssertionError((self.directory / "sentinel.log").read_text())
                time.sleep(0.05)

    @staticmethod
    def another_port() -> int:
        """A free one."""
        return _free_port()

    def signal(self, number: signal.Signals) -> None:
        """Of the server: SIGSTOP makes it hang."""
        self._processes[0].send_signal(number)

    def stop(self) -> None:
        """Kill the server; what it held is gone."""
        process = self._processes.pop(0)
        process.kill()
        process.wait()
        (self.directory / "log").unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)

    def remove(self) -> None:
        """Kill everything, and leave nothing."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_port() -> int:
    """One that nothing listens on; a node of a cluster wants another, 10,000 above."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = int(low.getsockname()[1])
            if port > 50000:
                continue
            try:
                high.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port

"""A real Rspamd of its own: what does it say of this mail?

    with PrivateRspamd(milter_headers='use = ["x-spamd-bar"];') as rspamd:
        ... http://127.0.0.1:{rspamd.port} answers ...

Debian's configuration from /etc/rspamd, with all files that it writes in a new directory, on a port of its own.  Every
module is off that is not named, so nobody on the network is asked.  It takes ten to twenty seconds to start: share one
(`shared()`).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

CONFIGURATION = Path("/etc/rspamd")
GTUBE = "{}JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
REJECT, ADD_HEADER, REWRITE_SUBJECT = (GTUBE.format(letter) for letter in "XYZ")
"""Lines of a mail's body for which Rspamd takes these actions; the latter two only with `test_patterns`."""
START = 90.0  # seconds


def why_not() -> str:
    """Why no Rspamd can run here, for pytest.mark.skipif; "" if it can."""
    if not shutil.which("rspamd"):
        return "Rspamd is not installed (Debian package rspamd)"
    return "" if CONFIGURATION.is_dir() else f"{CONFIGURATION} is missing"


class PrivateRspamd:
    """A context manager, or `start()` and `stop()`.

    modules: what stands in the file of each module that is on: `milter_headers="use = [];"`.
    dns: the port of a name server on 127.0.0.1; none answers at 0.
    scanner: what the normal worker is told; None switches it off.
    proxy: what the milter proxy at `proxy_socket` is told, PORT being the normal worker's; None switches it off.
    files: others of override.d by name: {"actions.conf": "reject = 20;"}.
    lua: rules of its own, rspamd.local.lua.

    Attributes:
        directory: where everything is; `log` is in it.
        port: of the normal worker on 127.0.0.1.
        url: its address.
        proxy_socket: where the milter proxy listens.
    """

    def __init__(
        self,
        *,
        dns: int = 0,
        scanner: str | None = "",
        proxy: str | None = None,
        files: dict[str, str] | None = None,
        lua: str = "",
        **modules: str,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="elemta-rspamd-"))
        self.directory.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.proxy_socket = self.directory / "sockets" / "rspamd.sock"
        self.log_file = self.directory / "log" / "rspamd.log"
        self.process: subprocess.Popen[bytes] | None = None
        for part in ("local.d", "override.d", "run", "db", "log", "sockets"):
            (self.directory / part).mkdir()
            (self.directory / part).chmod(0o777)
        for module in (CONFIGURATION / "modules.d").glob("*.conf"):
            self._write(module.name, modules.get(module.stem, "enabled = false;"))
        options = f"""
            filters = "dkim";
            local_addrs = ["192.0.2.255"];
            check_local = true;
            enable_test_patterns = true;
            gtube_patterns = "all";
            dns {{
              nameserver = ["127.0.0.1:{dns or 9}:1"];
              timeout = {1 if dns else 0.05}s;
              retransmits = {2 if dns else 1};
            }}
            """  # newer versions know gtube_patterns, older ones enable_test_patterns
        self._write("options.inc", options)
        self._write("logging.inc", 'level = "info";')
        own = f'bind_socket = "127.0.0.1:{self.port}";\n'
        self._write("worker-normal.inc", "enabled = false;" if scanner is None else own + (scanner or "count = 1;"))
        own = f'bind_socket = "{self.proxy_socket} mode=0666";\n'
        self._write(
            "worker-proxy.inc", "enabled = false;" if proxy is None else own + proxy.replace("PORT", str(self.port))
        )
        for worker in ("controller", "fuzzy"):
            self._write(f"worker-{worker}.inc", "enabled = false;")
        for name, text in (files or {}).items():
            self._write(name, text)
        (self.directory / "rspamd.local.lua").write_text(lua)
        self._scans = scanner is not None

    def _write(self, name: str, text: str) -> None:
        (self.directory / "override.d" / name).write_text(text + "\n")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it answers.

        Raises:
            RuntimeError: it ended, or does not answer; the text holds the log.
        """
        names = {"LOCAL_CONFDIR": ".", "RUNDIR": "run", "DBDIR": "db", "LOGDIR": "log"}
        variables = [word for name, part in names.items() for word in ("--var", f"{name}={self.directory / part}")]
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen(
                ["rspamd", "-f", "-i", "-c", CONFIGURATION / "rspamd.conf", *variables],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + START
        while wait and not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Rspamd did not start:\n{(self.directory / 'out').read_text()}\n{self.log()}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether the normal worker answers a ping; without one, whether the proxy takes connections."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self._scans:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", "/ping")
                    return connection.getresponse().read().strip() == b"pong"
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.proxy_socket))
                return True
        return False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Its workers hang: connections are taken and nothing is answered."""
        workers = self._workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and wait until its port is free."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """Kill it and its workers, and wait until its port refuses."""
        assert self.process is not None
        workers = self._workers()
        self.process.kill()  # first, or it would start other workers
        self.process.wait()
        self.process = None
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except ConnectionRefusedError:
                return
            except OSError:  # reset: it is about to be gone
                pass
            time.sleep(0.02)
        raise AssertionError("it still listens")

    def _workers(self) -> list[int]:
        assert self.process is not None
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        return [int(pid) for pid in found.stdout.split()]

    def log(self) -> str:
        """What it has logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


CHANGES = """
rspamd_config.CHANGES = {
  type = 'postfilter', priority = 10, score = 0.0,
  callback = function(task)
    if task:get_header('X-Want') ~= 'changes' then return false end
    task:set_milter_reply({
      add_headers = {['X-List'] = {'one', 'two'}, ['X-Bad Name'] = 'v', ['X-Long'] = string.rep('word ', 400)},
      remove_headers = {['X-Gone'] = 0, ['X-Second'] = 2},
      change_from = 'new@sender.example',
      add_rcpt = {'added@example.org'},
      del_rcpt = {'gone@example.org'},
    })
    return true
  end
}
"""
"""Asks for changes of a mail with `X-Want: changes`."""


@functools.cache
def shared() -> PrivateRspamd:
    """One for all tests of this process, which ends with it: a few modules that need no network, and `CHANGES`."""
    rspamd = PrivateRspamd(
        lua=CHANGES,
        milter_headers='use = ["x-spamd-bar", "x-rspamd-queue-id"];\nskip_local = false;\nskip_authenticated = false;',
        spf="check_local = true;\ncheck_authed = true;",
        dkim="check_local = true;\ncheck_authed = true;",
        dmarc="check_local = true;\ncheck_authed = true;",
        arc="check_local = true;\ncheck_authed = true;",
    )
    rspamd.start()
    atexit.register(rspamd.__exit__)
    return rspamd

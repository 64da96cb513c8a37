"""A real clamd of its own: what does ClamAV say of this mail, and what becomes of mail when it dies or hangs?

    with Clamd() as clamd:                       # about three seconds
        policy = f"checks: {{clamav: {{socket: {clamd.address}}}}}"
        clamd.kill(); clamd.start()              # dies, and is back
        with clamd.paused(): ...                 # connections are taken, nothing is answered

Its signatures are EICAR's and one of a file that nobody has; nothing is downloaded. Files, sockets, port are its own.
`Clamd(tcp="::1")` listens on TCP too, at `clamd.inet`; `Clamd(StreamMaxLength="1M")` sets what clamd.conf(5) knows.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from harness.daemon import free_port

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The test file that every scanner calls a virus, in two parts: no scanner shall find it in this file."""
VIRUS = "Eicar-Test-Signature.UNOFFICIAL"
"""Its name: clamd says of signatures that are not its makers' own that they are not."""
SIGNATURES = {
    "test.ndb": f"Eicar-Test-Signature:0:*:{EICAR.hex()}\n",
    # the ClamAV test file, by its hash: inside archives and encodings
    "test.hsb": "71e7b604d18aefd839e51a39c88df8383bb4c071dc31f87f00a2b5df580d4495:544:ClamAV-Test-File\n",
}


def why_not() -> str:
    """Why clamd cannot run here, for pytest.mark.skipif; "" if it can."""
    return "" if shutil.which("clamd") else "clamd is not installed (Debian package clamav-daemon)"


class Clamd:
    """One clamd in the foreground; a context manager, or `start()` and `stop()`.

    address: of its unix socket, as `socket:` of the check wants it. inet: of its TCP port, with `tcp`.
    """

    def __init__(self, *, tcp: str = "", signatures: dict[str, str] | None = None, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="elemta-clamd-"))
        self.directory.chmod(0o755)
        self.address = f"unix:{self.directory}/clamd.ctl"
        self.process: subprocess.Popen[bytes] | None = None
        database = self.directory / "signatures"
        database.mkdir()
        for name, text in (SIGNATURES | (signatures or {})).items():
            (database / name).write_text(text)
        given = {
            "Foreground": "yes",
            "DatabaseDirectory": str(database),
            "TemporaryDirectory": str(self.directory),
            "LocalSocket": str(self.directory / "clamd.ctl"),
            "LocalSocketMode": "666",
            "LogFile": str(self.directory / "log"),
            "SelfCheck": "0",
            "MaxThreads": "4",
        }
        if tcp:
            port = free_port(tcp)
            self.inet = f"inet:[{tcp}]:{port}" if ":" in tcp else f"inet:{tcp}:{port}"
            given |= {"TCPSocket": str(port), "TCPAddr": tcp}
        conf = "".join(f"{name} {value}\n" for name, value in (given | settings).items())
        (self.directory / "clamd.conf").write_text(conf)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, seconds: float = 60) -> None:
        """Start it, and return when it answers."""
        with (self.directory / "out").open("ab") as out:
            command = ["clamd", "--config-file", str(self.directory / "clamd.conf")]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"clamd does not start:\n{(self.directory / 'out').read_text()}\n{self.log()}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it answers PING."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(self.address.removeprefix("unix:"))
            probe.sendall(b"zPING\0")
            return probe.recv(16) == b"PONG\0"
        return False

    def log(self) -> str:
        """What it has logged."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: its socket stays behind and refuses."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While it is stopped in its tracks (SIGSTOP): connections are taken, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

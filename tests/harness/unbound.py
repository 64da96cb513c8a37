"""A real unbound of its own that knows some names and asks nobody: the resolver as it stands beside a mail server.

    with unbound(directory, 5353, {"example.com": ['TXT "v=spf1 -all"', "MX 10 mx.example.com."]}):
        ... 127.0.0.1 port 5353 answers ...

For benches: `harness.dns` can misbehave in every way, but takes a hundred times the processor time for an answer.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CONFIGURATION = """
server:
  interface: 127.0.0.1@{port}
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: "{directory}/unbound.log"
  module-config: "iterator"
  local-zone: "." static
  local-zone: "127.in-addr.arpa." static
{records}
remote-control:
  control-enable: no
"""
START = 10.0  # seconds


@contextlib.contextmanager
def unbound(directory: Path, port: int, records: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Run unbound until the block ends; `records` in zone-file form by name.

    Raises:
        FileNotFoundError: it is not installed (Debian package unbound).
        RuntimeError: it does not answer.
    """
    lines = [f"  local-data: '{name}. 3600 IN {record}'" for name, several in records.items() for record in several]
    configuration = directory / "unbound.conf"
    configuration.write_text(CONFIGURATION.format(port=port, directory=directory, records="\n".join(lines)))
    with (directory / "unbound.out").open("wb") as out:
        process = subprocess.Popen(["unbound", "-d", "-c", str(configuration)], stdout=out, stderr=out)
    try:
        _wait(port)
        yield
    finally:
        process.terminate()
        process.wait(START)


def _wait(port: int) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"unbound does not answer on port {port}")

"""How many policy requests does one worker answer with greylisting on SQLite, and how many does postgrey?

    python tests/bench/bench_policyd.py [--connections 20] [--requests 10000] [--postgrey-requests 3000]

Both services run beside each other's turn on the same machine with the same delay, over a unix socket, and get the
same four kinds of request: first contact, early retry, the retry that passes, mail of who is known.  Every client
network is another, so that nobody is proven.  Both keep their state on the same disk (--directory), as in service.
Everything that the daemon does for a mail is on: journal, log line, metrics.  Rates are by wall clock and by the
server's own processor time (the machine may be busy); the load generator runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("first contact", "early retry", "passes", "known")
WANTED = 10_000  # requests a second by one worker
RATIO = 5  # times postgrey

POLICY = """
host: mx.test
user: root
state: sqlite://{directory}/state.db
journal: {{path: {directory}/journal.db}}
spool: {directory}/spool
policyd: {{listen: "unix:{socket}", workers: 1, group: root}}
metrics: {{listen: "127.0.0.1:{port}"}}
checks: {{greylist: {{delay: {delay}s}}}}
rules:
  recipient:
    - id: greylist
      class: inbound
      when: {{greylist: fail}}
      then: defer
      reply: "450 4.7.1 Greylisted, try again in {{greylist.wait}}"
"""

REQUEST = """request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
helo_name=mx{n}.sender.test
queue_id=
sender=user{a}@sender{n}.test
recipient=someone@receiver.test
recipient_count=0
client_address=10.{x}.{y}.7
client_name=mx{n}.sender.test
reverse_client_name=mx{n}.sender.test
instance={turn}.{n}.0
sasl_method=
sasl_username=
sasl_sender=
size=12345
ccert_subject=
ccert_issuer=
ccert_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
etrn_domain=
stress=
ccert_pubkey_fingerprint=
client_port=40123
policy_context=
server_address=192.0.2.1
server_port=25
compatibility_level=3.6
mail_version=3.8.0

"""


@dataclass
class Service:
    """A running policy service."""

    name: str
    path: str
    process: subprocess.Popen[bytes]
    worker: int  # the process that answers
    requests: int
    delay: float


class Asker:
    """Asks its requests one after the other, as smtpd does, and notes how long each answer took."""

    def __init__(self, path, requests, expected):
        self.requests, self.expected = iter(requests), expected
        self.times, self.wrong, self.buffer = [], 0, b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def ask(self):
        """Ask the next one; False when there is none."""
        request = next(self.requests, None)
        if request is None:
            self.socket.close()
            return False
        self.begin = time.perf_counter()
        self.socket.send(request)
        return True

    def hear(self):
        """Take what was answered, and ask the next one; False when that was the last."""
        self.buffer += self.socket.recv(4096)
        if not self.buffer.endswith(b"\n\n"):
            return True
        self.times.append(time.perf_counter() - self.begin)
        self.wrong += not self.buffer.startswith(self.expected)
        self.buffer = b""
        return self.ask()


def requests_of(phase, count):
    return [
        REQUEST.format(n=n, a=chr(97 + n % 26), x=n >> 8 & 255, y=n & 255, turn=phase).encode() for n in range(count)
    ]


def generate(service_path, phase, count, connections, out):
    """The load generator: (seconds, sorted times, wrong answers) of one phase."""
    expected = (b"action=4", b"action=DEFER") if phase < 2 else (b"action=DUNNO", b"action=PREPEND")
    requests = requests_of(phase, count)

    askers = [Asker(service_path, requests[number::connections], expected) for number in range(connections)]
    by_socket = {asker.socket.fileno(): asker for asker in askers}
    ready = select.epoll()
    begin = time.perf_counter()
    for fd, asker in by_socket.items():
        ready.register(fd, select.EPOLLIN)
        asker.ask()
    while by_socket:
        for fd, _ in ready.poll():
            if not by_socket[fd].hear():
                del by_socket[fd]
    seconds = time.perf_counter() - begin
    out.put((seconds, sorted(t for asker in askers for t in asker.times), sum(asker.wrong for asker in askers)))


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(service, connections):
    """One row for each phase: (requests/s, requests/s of processor time, median ms, p99 ms)."""
    rows, born = [], time.monotonic()
    for phase, name in enumerate(PHASES):
        if phase == 2:
            elapsed = time.monotonic() - born
            if elapsed > service.delay:
                raise SystemExit(f"{service.name}: the retries took {elapsed:.0f} s; fewer requests or a longer delay")
            time.sleep(service.delay - elapsed + rows[0][0] + 1)
        out = multiprocessing.SimpleQueue()
        before = cpu_seconds(service.worker)
        load = multiprocessing.Process(target=generate, args=(service.path, phase, service.requests, connections, out))
        load.start()
        seconds, times, wrong = out.get()
        load.join()
        cpu = cpu_seconds(service.worker) - before
        if wrong:
            print(f"{service.name}: {name}: {wrong} answers were not as expected")
        rows.append((seconds, cpu, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3))
    return rows


def wait_for(path, process):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                time.sleep(0.05)
            else:
                return
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with status {process.returncode}")
    raise SystemExit(f"nobody listens on {path}")


def start_elemta(directory, requests, delay):
    path = f"{directory}/policyd.sock"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = Path(directory, "elemta.yaml")
    config.write_text(POLICY.format(directory=directory, socket=path, port=port, delay=delay))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'policyd'}"}
    with Path(directory, "elemta.log").open("wb") as log:
        command = [sys.executable, "-m", "elemta_policyd", "--config", str(config)]
        process = subprocess.Popen(command, env=environment, stderr=log)
    wait_for(path, process)
    time.sleep(1)  # the workers come up
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    _keeper, worker = sorted(map(int, children))  # the keeper is forked first
    return Service("elemta", path, process, worker, requests, delay)


def start_postgrey(directory, requests, delay):
    path = f"{directory}/postgrey.sock"
    database = Path(directory, "postgrey")
    database.mkdir()
    shutil.chown(database, "postgrey", "postgrey")
    Path(directory).chmod(0o777)
    command = ["postgrey", f"--unix={path}", f"--dbdir={database}", f"--delay={delay}", "--user=postgrey"]
    command += ["--group=postgrey", f"--pidfile={database}/pid"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(path, process)
    return Service("postgrey", path, process, process.pid, requests, delay)


def report(results):
    width = max(map(len, PHASES))
    print(f"{'':9} {'':{width}} {'req/s':>8} {'req/cpu-s':>10} {'median ms':>10} {'p99 ms':>8}")
    totals = {}
    for service, rows in results:
        for name, (seconds, cpu, median, p99) in zip(PHASES, rows, strict=True):
            n = service.requests
            print(f"{service.name:9} {name:{width}} {n / seconds:8.0f} {n / cpu:10.0f} {median:10.2f} {p99:8.2f}")
        asked = service.requests * len(PHASES)
        totals[service.name] = asked / sum(row[0] for row in rows), asked / sum(row[1] for row in rows)
        print(f"{service.name:9} {'all':{width}} {totals[service.name][0]:8.0f} {totals[service.name][1]:10.0f}")
    elemta = totals["elemta"]
    wall, cpu = (rate / WANTED for rate in elemta)
    print(f"elemta: {wall:.2f} of the {WANTED} requests/s wanted ({cpu:.2f} by processor time)")
    if "postgrey" in totals:
        wall, cpu = (ours / theirs for ours, theirs in zip(elemta, totals["postgrey"], strict=True))
        print(f"elemta / postgrey: {wall:.1f} ({cpu:.1f} by processor time), wanted {RATIO}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--postgrey-requests", type=int, default=3_000)
    parser.add_argument("--delay", type=int, default=10, help="seconds of greylisting")
    parser.add_argument("--directory", default="/var/tmp", help="where both keep their state")
    parser.add_argument("--without-postgrey", action="store_true")
    arguments = parser.parse_args()
    results = []
    starts = [(start_elemta, arguments.requests)]
    if not arguments.without_postgrey and shutil.which("postgrey"):
        starts.append((start_postgrey, arguments.postgrey_requests))
    for start, requests in starts:
        directory = tempfile.mkdtemp(prefix="elemta-bench-", dir=arguments.directory)
        service = start(directory, requests, arguments.delay)
        try:
            results.append((service, measure(service, arguments.connections)))
        finally:
            service.process.send_signal(signal.SIGTERM)
            service.process.wait()
            shutil.rmtree(directory, ignore_errors=True)
    report(results)


if __name__ == "__main__":
    main()

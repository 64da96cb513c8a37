"""How fast does mail go through Postfix with Elemta's milter, compared with the same Postfix without one?

    python tests/bench/bench_milter.py [--mails 6000] [--rounds 5] [--workers 2] [--cold] [--unthrottled]

One run: a private Postfix (queue on tmpfs, deliveries discarded) is fed by smtp-source, 20 sessions side by side,
5.7 KB a mail, turn about without a milter and with elemta-milter on a unix socket (spf, iprev, rules, journal and
metrics on), and with a milter that does nothing (idle_milter.py), which shows what pymilter itself costs. The queue is
empty before each begins.  DNS comes from unbound on loopback; with --cold every mail asks it.
A Postfix as it is shipped pauses for a second now and then where mail comes in faster than it goes out
(in_flow_delay), the faster it is the more often: that is what an administrator sees, and what is measured.
--unthrottled takes the pauses away: what the processors can do, with much less noise, for comparing code with code.
Prints mails a second of each round and the median ratios. Nothing is asserted: machines differ, ratios less.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.daemon import free_port
from harness.feeding import feed
from harness.postfix import PrivatePostfix
from harness.unbound import unbound

RECORDS = {
    "bench.test": ['TXT "v=spf1 include:_spf.bench.test -all"', "A 192.0.2.1", "MX 10 mx.bench.test."],
    "_spf.bench.test": ['TXT "v=spf1 ip4:192.0.2.0/24 ip4:127.0.0.0/8 -all"'],
    "1.0.0.127.in-addr.arpa": ["PTR mx.bench.test."],
    "mx.bench.test": ["A 127.0.0.1"],
}
POLICY = """
host: mx1.example.org
dns: {{servers: ["127.0.0.1:{port}"], cache: {cache}}}
state: sqlite://{directory}/state.db
journal: {{path: {directory}/journal.db}}
spool: {directory}/spool
metrics: {{listen: "127.0.0.1:0", directory: {directory}/metrics}}
user: root
milter: {{listen: "unix:{socket}", workers: {workers}}}
checks: {{spf: , iprev: }}
rules:
  message:
    - {{id: spf-fail, class: inbound, when: {{spf: fail}}, then: reject}}
    - {{id: no-name, when: {{iprev: [fail, permerror], spf: {{not: pass}}}}, then: quarantine}}
    - id: list
      when: {{header_from.domain: {{in: [a.test, b.test]}}, subject: {{regex: "(?i)lottery"}}}}
      then: reject
    - {{id: tag, when: {{spf: softfail}}, add_header: {{X-Spam-Flag: "YES"}}}}
"""
MAIL = ["-l", "5700", "-f", "sender@bench.test"]


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]


def spent(pid: int) -> tuple[float, float, int, int]:
    """User and system seconds, context switches of all threads, PSS in KiB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches = sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if "ctxt_switches" in line
    )
    pss = next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    return int(fields[11]) / 100, int(fields[12]) / 100, switches, pss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="no DNS cache of our own: every mail asks")
    parser.add_argument("--unthrottled", action="store_true", help="in_flow_delay=0 on every side")
    given = parser.parse_args()
    port = free_port()
    quiet = {"virtual_transport": "discard:", "default_transport": "discard:"}
    quiet |= {"in_flow_delay": "0s"} if given.unthrottled else {}
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        unbound(Path(directory), port, RECORDS),
        PrivatePostfix(memory=True, main=quiet) as plain,
        PrivatePostfix(milter=True, memory=True, main=quiet) as judged,
        PrivatePostfix(milter=True, memory=True, main=quiet) as idle,
    ):
        policy = Path(directory) / "policy.yaml"
        policy.write_text(
            POLICY.format(
                port=port,
                cache=0 if given.cold else 20000,
                directory=directory,
                socket=judged.milter_socket,
                workers=given.workers,
            )
        )
        began = time.perf_counter()
        with Path(f"{directory}/log").open("wb") as log:
            daemon = subprocess.Popen([Path(sys.executable).parent / "elemta-milter", "--config", policy], stderr=log)
        command = [sys.executable, Path(__file__).with_name("idle_milter.py"), idle.milter_socket, str(given.workers)]
        nothing = subprocess.Popen(command, start_new_session=True)
        try:
            while not judged.milter_socket.exists() or b"started" not in Path(f"{directory}/log").read_bytes():
                if daemon.poll() is not None:
                    sys.exit(Path(f"{directory}/log").read_text())
                time.sleep(0.01)
            print(f"ready after {time.perf_counter() - began:.2f} s")
            for postfix in (plain, judged, idle):
                feed(postfix, 200, *MAIL)
            ratios, floors = [], []
            for number in range(given.rounds):
                without, with_it = feed(plain, given.mails, *MAIL), feed(judged, given.mails, *MAIL)
                floor = feed(idle, given.mails, *MAIL)
                ratios.append(with_it / without)
                floors.append(floor / without)
                print(
                    f"round {number + 1}: {without:6.0f} without, {with_it:6.0f} with: {ratios[-1]:.2f};",
                    f"{floor:6.0f} with one that does nothing: {floors[-1]:.2f}",
                )
            print(
                f"median ratio {statistics.median(ratios):.2f}, doing nothing {statistics.median(floors):.2f}",
                f"({'cold' if given.cold else 'warm'} DNS, {given.workers} workers)",
            )
            mails = given.rounds * given.mails + 200
            for pid in sorted(children(daemon.pid))[1:]:
                user, system, switches, pss = spent(pid)
                print(f"worker {pid}: PSS {pss / 1024:.0f} MB, all workers together had {mails} mails; its own:")
                print(f"  user {user:.2f} s, system {system:.2f} s, {switches} context switches")
        except subprocess.CalledProcessError:
            print(
                "\n".join(
                    line for line in Path(f"{directory}/log").read_text().splitlines() if " decided " not in line
                )[-4000:]
            )
            raise
        finally:
            os.killpg(nothing.pid, signal.SIGKILL)
            nothing.wait()
            daemon.terminate()
            daemon.wait(40)


if __name__ == "__main__":
    main()

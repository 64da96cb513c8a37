"""How fast does signed mail go through Postfix when Elemta authenticates it, OpenDKIM and OpenDMARC, or Rspamd?

    python tests/bench/bench_auth.py [--mails 4000] [--rounds 5] [--workers 2] [--only elemta] [--unthrottled]

One run in a network of its own (root), DNS from unbound on loopback: a private Postfix (queue on tmpfs, deliveries
discarded) is fed by smtp-source, 20 sessions side by side, one DKIM-signed mail of 5.7 KB over and over, turn and turn
about, the queue being empty before each begins:

    plain      no milter
    nothing    a milter of pymilter's that does nothing (idle_milter.py), without the body: the ceiling
    elemta     spf, dkim, dmarc, arc, two rules, Authentication-Results, journal, metrics
    open       OpenDKIM, then OpenDMARC with SPFSelfValidate (Debian packages), both with Authentication-Results
    rspamd     spf, dkim, dmarc and nothing else, as Debian ships it: its milter proxy hands mails to workers that scan
               them, over HTTP, and each mail stands in its log
    tuned      the same made as fast as it gets: the proxy scans by itself, and no mail stands in its log

All on unix sockets. Prints mails a second of each round and the medians as parts of plain. Nothing is asserted.
--unthrottled (in_flow_delay=0) takes away the pauses of a second that Postfix makes where mail comes in faster than it
goes out: much less noise, and what the processors can do; what an administrator sees is without it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.feeding import feed
from harness.postfix import PrivatePostfix
from harness.rspamd import PrivateRspamd
from harness.rspamd import why_not as why_no_rspamd
from harness.signatures import rsa_key, signed, wire
from harness.unbound import unbound

SENDER = "sender.example"
POLICY = """
host: mx1.example.org
dns: {{servers: ["127.0.0.1:53"]}}
state: sqlite://{directory}/state.db
journal: {{path: {directory}/journal.db}}
spool: {directory}/spool
metrics: {{listen: "127.0.0.1:0", directory: {directory}/metrics}}
user: root
milter: {{listen: "unix:{socket}", workers: {workers}}}
checks: {{spf: , dkim: , dmarc: , arc: {{trusted_sealers: [lists.example.com]}}}}
rules:
  message:
    - {{id: dmarc-reject, class: inbound, when: {{dmarc: fail, dmarc.policy: reject}}, then: reject,
        unless: {{arc: pass, arc.trusted: true}}}}
    - {{id: dmarc-quarantine, class: inbound, when: {{dmarc: fail, dmarc.policy: quarantine}}, then: quarantine}}
"""
OPENDKIM = """
Mode v
Socket local:{sockets}/opendkim.sock
UMask 000
PidFile {directory}/opendkim.pid
AuthservID mx1.example.org
InternalHosts {directory}/nobody
PeerList {directory}/nobody
Nameservers 127.0.0.1
Syslog no
AlwaysAddARHeader yes
"""
OPENDMARC = """
Socket local:{sockets}/opendmarc.sock
UMask 000
PidFile {directory}/opendmarc.pid
AuthservID mx1.example.org
TrustedAuthservIDs mx1.example.org
IgnoreHosts {directory}/nobody
RejectFailures no
SPFSelfValidate yes
SPFIgnoreResults yes
Syslog no
"""

QUIET = {"virtual_transport": "discard:", "default_transport": "discard:"}
"""main.cf: mail is thrown away."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="compare only this one with plain")
    parser.add_argument("--unthrottled", action="store_true", help="in_flow_delay=0 on every side")
    given = parser.parse_args()
    if given.unthrottled:
        QUIET["in_flow_delay"] = "0s"
    if "ELEMTA_BENCH_NETWORK" not in os.environ:
        _in_a_network_of_its_own()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        stack.enter_context(unbound(directory, 53, _records()))
        mail = _mail(directory)
        setups = {"plain": stack.enter_context(_postfix(False))}
        others = (("open", _open), ("rspamd", _rspamd), ("tuned", _tuned))
        for setup, start in (("nothing", _nothing), ("elemta", _elemta), *others):
            if given.only in ("", setup):
                made = stack.enter_context(start(directory, given.workers))
                if made is None:
                    print(f"{setup}: not installed, left out")
                else:
                    setups[setup] = made
        for setup, postfix in setups.items():
            print(f"{setup}: {_evidence(postfix, mail)}")
        before = _spent(directory)
        _race(setups, ["-F", str(mail), "-f", f"anna@{SENDER}"], given.mails, given.rounds)
        if "elemta" in setups:
            mails = given.mails * given.rounds + 200
            user, system = (after - first for after, first in zip(_spent(directory), before, strict=True))
            print(f"elemta-milter: {user / mails * 1e6:.0f} us user and {system / mails * 1e6:.0f} us system a mail")


def _spent(directory: Path) -> tuple[float, float]:
    """User and system seconds of all processes of elemta-milter so far."""
    command = ["pgrep", "-f", f"elemta-milter --config {directory}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in found.stdout.split()]
    tick = os.sysconf("SC_CLK_TCK")
    return sum(int(stat[11]) for stat in stats) / tick, sum(int(stat[12]) for stat in stats) / tick


def _in_a_network_of_its_own() -> None:
    """Start again where port 53 and resolv.conf are ours."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as conf:
        conf.write("nameserver 127.0.0.1\noptions edns0\n")
    Path(conf.name).chmod(0o644)
    bind = f'mount --bind {conf.name} /etc/resolv.conf; exec "$@"'
    os.environ["ELEMTA_BENCH_NETWORK"] = "own"
    os.execvp("unshare", ["unshare", "-n", "-m", "sh", "-c", bind, "sh", sys.executable, *sys.argv])


def _mail(directory: Path) -> Path:
    body = (b"A line of a mail as people write it, of seventy characters or so.\r\n" * 90)[:5000] + b"\r\n"
    headers = (
        (b"Received", b" from a.example by b.example\r\n\tfor <x@b.example>; Mon, 1 Jan 2024 00:00:00 +0000"),
        (b"From", b" Anna <anna@sender.example>"),
        (b"To", b" Bert <rcpt@example.org>"),
        (b"Subject", b" The boat is ready"),
        (b"Date", b" Mon, 1 Jan 2024 00:00:00 +0000"),
        (b"Message-ID", b" <1@sender.example>"),
        (b"MIME-Version", b" 1.0"),
        (b"Content-Type", b" text/plain; charset=utf-8"),
    )
    path = directory / "mail"
    # smtp-source wants lines that end in LF
    signed_headers = signed(headers, body, key=rsa_key(SENDER), now=int(time.time()) - 60)
    path.write_bytes(wire(signed_headers, body).replace(b"\r\n", b"\n"))
    return path


def _records() -> dict[str, list[str]]:
    key = rsa_key(SENDER)
    parts = [key.record[at : at + 250] for at in range(0, len(key.record), 250)]
    return {
        SENDER: ['TXT "v=spf1 include:_spf.sender.example -all"', "A 192.0.2.1", "MX 10 mx.sender.example."],
        f"_spf.{SENDER}": ['TXT "v=spf1 ip4:192.0.2.0/24 ip4:127.0.0.0/8 -all"'],
        key.record_name: ["TXT " + "".join(f'"{part}"' for part in parts)],
        f"_dmarc.{SENDER}": ['TXT "v=DMARC1; p=reject; rua=mailto:dmarc@sender.example"'],
    }


@contextlib.contextmanager
def _program(command: list[str], log: Path, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **more)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(40)


def _postfix(milter: bool | str) -> PrivatePostfix:
    return PrivatePostfix(milter=milter, memory=True, main=QUIET)


def _wait(path: Path) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.05)
    sys.exit(f"nobody listens on {path}")


@contextlib.contextmanager
def _nothing(directory: Path, workers: int) -> Iterator[PrivatePostfix | None]:
    """A milter that sees nothing and says nothing: what pymilter itself costs, and so the most that can be reached."""
    with _postfix(True) as postfix:
        command = [sys.executable, str(Path(__file__).with_name("idle_milter.py")), postfix.milter_socket, str(workers)]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            _wait(postfix.milter_socket)
            yield postfix
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _elemta(directory: Path, workers: int) -> Iterator[PrivatePostfix | None]:
    with _postfix(True) as postfix:
        policy = directory / "policy.yaml"
        policy.write_text(POLICY.format(directory=directory, socket=postfix.milter_socket, workers=workers))
        program = str(Path(sys.executable).parent / "elemta-milter")
        with _program([program, "--config", str(policy)], directory / "elemta.log"):
            _wait(postfix.milter_socket)
            yield postfix


@contextlib.contextmanager
def _open(directory: Path, workers: int) -> Iterator[PrivatePostfix | None]:
    if not (shutil.which("opendkim") and shutil.which("opendmarc")):
        yield None
        return
    sockets = directory / "open"
    sockets.mkdir()
    sockets.chmod(0o777)
    (directory / "nobody").write_text("192.0.2.255\n")
    both = f"unix:{sockets}/opendkim.sock, unix:{sockets}/opendmarc.sock"
    with contextlib.ExitStack() as stack:
        for name, text in (("opendkim", OPENDKIM), ("opendmarc", OPENDMARC)):
            conf = directory / f"{name}.conf"
            conf.write_text(text.format(directory=directory, sockets=sockets))
            switch = "-x" if name == "opendkim" else "-c"
            stack.enter_context(_program([name, "-f", switch, str(conf)], directory / f"{name}.log"))
            _wait(sockets / f"{name}.sock")
        yield stack.enter_context(_postfix(both))


def _rspamd(_directory: Path, workers: int) -> contextlib.AbstractContextManager[PrivatePostfix | None]:
    return _some_rspamd(
        scanner=f"count = {workers};",
        proxy='milter = yes;\ncount = 1;\nupstream "local" { default = yes; hosts = "127.0.0.1:PORT"; }',
    )


def _tuned(_directory: Path, workers: int) -> contextlib.AbstractContextManager[PrivatePostfix | None]:
    return _some_rspamd(
        scanner=None,
        proxy=f'milter = yes;\ncount = {workers};\nupstream "local" {{ default = yes; self_scan = yes; }}',
        files={"logging.inc": 'level = "error";'},
    )


@contextlib.contextmanager
def _some_rspamd(**how: object) -> Iterator[PrivatePostfix | None]:
    if why_no_rspamd():
        yield None
        return
    module = "check_local = true;\nskip_local = false;"
    rspamd = PrivateRspamd(
        dns=53,
        spf=module,
        dkim=module,
        dmarc=module,
        milter_headers='use = ["authentication-results"];\nskip_local = false;\ncheck_local = true;',
        **how,  # type: ignore[arg-type]
    )
    with rspamd, _postfix(f"unix:{rspamd.proxy_socket}") as postfix:
        yield postfix


def _evidence(postfix: PrivatePostfix, mail: Path) -> str:
    """What the set-up says of the mail, so that nobody is measured who does nothing."""
    postfix.postconf(virtual_transport="virtual")
    postfix.reload()
    data = mail.read_bytes()
    before = len(postfix.delivered())
    outcome = postfix.send(f"anna@{SENDER}", "rcpt@example.org", data)
    if not outcome.accepted:
        return f"{outcome.final}"
    delivered = postfix.wait_delivered(before + 1, timeout=30)[-1].decode(errors="replace")
    postfix.postconf(virtual_transport="discard:")
    postfix.reload()
    methods = ("spf=", "dkim=", "dmarc=", "arc=")
    words = [word for word in delivered.replace(";", " ").split() if word.startswith(methods)]
    return " ".join(words) or "no evidence"


def _race(setups: dict[str, PrivatePostfix], mail: list[str], mails: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in setups}
    for postfix in setups.values():
        feed(postfix, 200, *mail)
    for number in range(rounds):
        for name, postfix in setups.items():
            rates[name].append(feed(postfix, mails, *mail))
        print(f"round {number + 1}: " + ", ".join(f"{name} {of[-1]:.0f}/s" for name, of in rates.items()), flush=True)
    for name, of in rates.items():
        parts = [rate / plain for rate, plain in zip(of, rates["plain"], strict=True)]
        print(f"{name}: {statistics.median(of):.0f} mails/s, {statistics.median(parts):.2f} of plain")
    if "elemta" in rates:
        for name in rates.keys() - {"plain", "elemta"}:
            times = [ours / theirs for ours, theirs in zip(rates["elemta"], rates[name], strict=True)]
            print(f"elemta is {statistics.median(times):.2f} times {name}")


if __name__ == "__main__":
    main()

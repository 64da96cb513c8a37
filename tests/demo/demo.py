"""The demonstration of `make run`: what does Elemta do to real mail, and why?

Starts a private Postfix, a small DNS server and both daemons, all on loopback and below one temporary directory; sends
five mails; prints what became of them and one full explanation.  Then it stays up until Ctrl-C, or with --once ends:
status 0 if every verdict was as expected, else 1.  Needs root, as Postfix does; reads and changes no system Postfix.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from elemta.config.words import fill
from elemta.journal import Entry, JournalError, Reader
from harness.dns import DnsServer, reverse
from harness.postfix import PrivatePostfix, why_not
from harness.smtp import Outcome

POLICY = Path(__file__).with_name("policy.yaml")
COMMANDS = Path(sys.executable).parent
READY = 20  # seconds for both daemons to answer
RECORDED = 5  # seconds for the journal, which is written in batches

ZONES = {
    "example.com": [("TXT", "v=spf1 ip4:192.0.2.0/24 -all"), ("MX", "mail.example.com")],
    "mail.example.com": [("A", "192.0.2.10")],
    reverse("192.0.2.10"): [("PTR", "mail.example.com")],
    "example.net": [("TXT", "v=spf1 ?all")],
    "mail.example.net": [("A", "198.51.100.25")],
    reverse("198.51.100.25"): [("PTR", "mail.example.net")],
    "example.edu": [("TXT", "v=spf1 ip4:203.0.113.0/28 ~all")],
    reverse("203.0.113.66"): [("PTR", "host66.dialup.example")],
}


@dataclass(frozen=True)
class Mail:
    """One mail of the demonstration, and what should become of it."""

    about: str
    sender: str
    client: str
    name: str
    disposition: str
    rule: str = ""
    shadow: str = ""
    code: int = 250


MAILS = (
    Mail("a good one", "alice@example.com", "192.0.2.10", "mail.example.com", "accept"),
    Mail("a spoofed one", "alice@example.com", "203.0.113.66", "host66.dialup.example", "reject", "spoofed", code=550),
    Mail("a first contact", "bob@example.net", "198.51.100.25", "mail.example.net", "defer", "greylist", code=450),
    Mail("… and its retry", "bob@example.net", "198.51.100.25", "mail.example.net", "accept"),
    Mail("one on trial", "carol@example.edu", "203.0.113.66", "host66.dialup.example", "accept", shadow="softfail"),
)


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description="show what Elemta does to real mail")
    parser.add_argument("--once", action="store_true", help="end after the table")
    once = parser.parse_args().once
    if reason := why_not():
        print(f"demo: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _demonstrate(once=once)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _demonstrate(*, once: bool) -> int:
    with ExitStack() as stack:
        begin = time.monotonic()
        dns = stack.enter_context(DnsServer(ZONES))
        postfix = stack.enter_context(PrivatePostfix(milter=True, policyd=True, domains=["example.org"]))
        settings = {
            "DEMO": str(postfix.directory),
            "DEMO_DNS": dns.endpoint,
            "DEMO_USER": _user(),
            "DEMO_METRICS": f"127.0.0.1:{_free_port()}",
        }
        policy = postfix.directory / "policy.yaml"
        policy.write_text(fill(POLICY.read_text(), settings))
        os.environ["ELEMTA_CONFIG"] = str(policy)
        running = [stack.enter_context(_daemon(name, postfix)) for name in ("elemta-policyd", "elemta-milter")]
        for each in running:
            each.wait()
            stack.callback(each.process.terminate)  # both at once
        print(f"Postfix, elemta-milter, elemta-policyd and DNS are up after {time.monotonic() - begin:.1f} s.\n")
        good = _show(postfix)
        if not once:
            _stay(postfix, policy)
    return 0 if good else 1


@dataclass(frozen=True)
class Daemon:
    """A daemon that was started."""

    name: str
    place: Path
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Return when it listens."""
        deadline = time.monotonic() + READY
        while not _answers(self.place):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"demo: {self.name} did not start:\n{self.log.read_text()}")
            time.sleep(0.02)


@contextmanager
def _daemon(name: str, postfix: PrivatePostfix) -> Iterator[Daemon]:
    """Run a daemon until the block ends."""
    log = postfix.directory / "log" / f"{name}.log"
    place = postfix.milter_socket if name == "elemta-milter" else postfix.policyd_socket
    with log.open("wb") as output:
        process = subprocess.Popen([COMMANDS / name, "--config", os.environ["ELEMTA_CONFIG"]], stderr=output)
    try:
        yield Daemon(name, place, log, process)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(place))
        except OSError:
            return False
    return True


def _show(postfix: PrivatePostfix) -> bool:
    """Send all mails and print the table and an explanation; whether every verdict was as expected."""
    row = "{:<16} {:<18} {:<14} {:<9} {:<22} {:<11} {:>7}"
    print(row.format("mail", "from", "client", "verdict", "rule", "reference", "ms"))
    good = True
    explain = ""
    for mail in MAILS:
        if mail.about.startswith("…"):
            time.sleep(2.2)  # the delay of `greylist` has passed
        outcome = _send(postfix, mail)
        entry = _recorded(postfix, outcome)
        if entry is None:
            print(row.format(mail.about, mail.sender, mail.client, "?", "not in the journal", "", ""))
            print(f"    Postfix said: {outcome.final}")
            good = False
            continue
        rule = entry.rule or (f"({entry.shadow[0]}, shadow)" if entry.shadow else "-")
        verdict = entry.disposition.value
        milliseconds = f"{entry.seconds * 1000:.1f}"
        print(row.format(mail.about, mail.sender, mail.client, verdict, rule, entry.id, milliseconds))
        seen = (verdict, entry.rule, "".join(entry.shadow), outcome.final.code)
        wanted = (mail.disposition, mail.rule, mail.shadow, mail.code)
        if seen != wanted:
            print(f"    expected {wanted}, got {seen}; Postfix said: {outcome.final}")
            good = False
        if mail.disposition == "reject":
            explain = entry.id
    if explain:
        print(f"\n$ elemta explain {explain}", flush=True)
        status = subprocess.run([COMMANDS / "elemta", "explain", explain], check=False).returncode
        good = good and status == 0
    return good


def _send(postfix: PrivatePostfix, mail: Mail) -> Outcome:
    text = f"From: <{mail.sender}>\nTo: <you@example.org>\nSubject: {mail.about}\n\nHello.\n"
    client = {"addr": mail.client, "name": mail.name}
    return postfix.send(mail.sender, "you@example.org", text, helo=mail.name, xclient=client)


def _recorded(postfix: PrivatePostfix, outcome: Outcome) -> Entry | None:
    """The deciding entry of the journal: by the reference in the reply, or by the queue id."""
    found = re.search(r"Reference (\w+)", outcome.final.text)
    reference = found[1] if found else outcome.queue_id
    deadline = time.monotonic() + RECORDED
    while reference and time.monotonic() < deadline:
        try:
            reader = Reader(str(postfix.directory / "elemta" / "journal.db"))
            try:
                entries = reader.find(reference)
            finally:
                reader.close()
        except JournalError:
            entries = []
        if entries and (found or entries[-1].stage == "message"):
            return entries[-1]
        time.sleep(0.05)
    return None


def _stay(postfix: PrivatePostfix, policy: Path) -> None:
    print(
        f"""
Send mail to anybody at example.org through 127.0.0.1:{postfix.port}, for example
    {_swaks(MAILS[0], postfix.port)}
(XCLIENT is allowed, so that a test may come from any address; without it this sender is refused) and ask why:
    {COMMANDS}/elemta explain --config {policy} REFERENCE-OR-QUEUE-ID
Mailboxes, logs, policy and journal are below {postfix.directory}
and gone when this ends. Ctrl-C ends it.""",
        flush=True,
    )
    try:
        while postfix.pid:
            time.sleep(0.5)
    except KeyboardInterrupt:
        print()


def _swaks(mail: Mail, port: int) -> str:
    """The command that sends such a mail, from a client that may."""
    client = f"--xclient-addr {mail.client} --xclient-name {mail.name}"
    return f"swaks --server 127.0.0.1:{port} {client} --from {mail.sender} --to you@example.org"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _user() -> str:
    """Whom the daemons become: nobody, unless nobody could not read this checkout (below /root, for example)."""
    places = [Path(__file__).resolve(), Path(sys.executable), Path(sys.base_prefix).resolve() / "lib"]
    folders = {folder for place in places for folder in place.parents}
    return "nobody" if all(folder.stat().st_mode & 0o005 == 0o005 for folder in folders) else "root"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has postconf; not in the path of `su`
    sys.exit(main())

"""Watching a daemon whose checks cannot answer: what did the client hear, and where does an administrator see why?

    watch = Watch(daemon, by_milter)          # or by_policyd
    watch.cell("clamav", r"Connection refused", within=5)

Four mails at once, one of each class of `CLASSES`: in the class `defer` trouble means defer, and so on.  Each must get
that verdict in time, and tell why in the journal, the log and `elemta explain`; `answers_again` sees to the metrics.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import itertools
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from miltertest import codec

from elemta.cli import main
from elemta.findings import Finding
from elemta.journal import Entry, JournalError, Reader
from harness.daemon import Daemon
from harness.mta import Mta

WORDS = ("accept", "defer", "reject", "quarantine")
CLASSES = "classes:\n" + "".join(f'  {word}: {{sender.domain: {{glob: "*{word}.test"}}}}\n' for word in WORDS)
"""A class for each word, by the envelope sender's domain; other mail has no class."""
TROUBLE = f"classes: [{', '.join(WORDS)}], trouble: {{{', '.join(f'{word}: {word}' for word in WORDS)}}}"
"""What each check is told: not to look at mail without a class, and what trouble means in each."""

PATIENCE = 40.0
"""Seconds until what was broken must be found to be well: a breaker's pause is 30 at most."""

_SMTP = {"4": "defer", "5": "reject"}
_number = itertools.count(1)

Carrier = Callable[[Daemon, str, bytes], str]
"""Carries a mail of this sender with this body; what became of it: one of `WORDS`."""


def by_milter(daemon: Daemon, sender: str, body: bytes = b"") -> str:
    """Carry it over the milter protocol, as Postfix does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(codec.codec, "q", (("reason", "str"),))  # miltertest cannot read quarantine
        mta = Mta(daemon.address)
        with mta.sock:
            mta.sock.settimeout(60)
            mta.hello(helo=b"mail.helo.test")
            mta.envelope(f"<{sender}>".encode())
            domain = sender.partition("@")[2]
            bh = base64.b64encode(hashlib.sha256(body or b"\r\n").digest()).decode()
            signed = f" v=1; a=rsa-sha256; d={domain}; s=s; h=from; bh={bh}; b=AAAA"  # DKIM asks the DNS for its key
            mta.fields((b"From", f" {sender}".encode()), (b"DKIM-Signature", signed.encode()))
            if body:
                assert mta.step("B", body) == "c"
            answers = mta.end()
    verdict, fields = answers[-1]
    if verdict == "y":
        return _SMTP[fields["smtpcode"][0]]
    assert verdict == "c", answers
    return "quarantine" if any(command == "q" for command, _ in answers) else "accept"


def by_policyd(daemon: Daemon, sender: str, _body: bytes = b"") -> str:
    """Ask about a recipient, as Postfix does at RCPT TO."""
    attributes = {
        "request": "smtpd_access_policy", "protocol_state": "RCPT", "protocol_name": "ESMTP", "instance": sender,
        "client_address": "192.0.2.7", "client_name": "unknown", "helo_name": "mail.helo.test", "sender": sender,
        "recipient": "r@example.org", "sasl_username": "", "size": "0", "queue_id": "", "recipient_count": "0",
    }  # fmt: skip
    with daemon.connect() as link:
        link.settimeout(60)
        link.sendall("".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            answer += (got := link.recv(4096))
            assert got, "it hung up without an answer"
    action = answer.decode().removeprefix("action=").strip()
    return {"DUNNO": "accept", "HOLD": "quarantine"}.get(action.split()[0]) or _SMTP[action[0]]


@dataclass(frozen=True)
class Carried:
    """What became of one mail."""

    sender: str
    verdict: str
    seconds: float


class Watch:
    """One daemon with one worker, `CLASSES` and checks with `TROUBLE`."""

    def __init__(self, daemon: Daemon, carrier: Carrier) -> None:
        self.daemon = daemon
        self._carrier = carrier
        self._counted: dict[str, float] = {}  # by check: what the metric must come to, within a second or so

    def carry(self, domain: str, body: bytes = b"") -> Carried:
        """Carry a mail from somebody new at `domain`, and from a new domain below it."""
        number = next(_number)
        sender = f"n{number}@d{number}.{domain}"
        began = time.monotonic()
        verdict = self._carrier(self.daemon, sender, body)
        return Carried(sender, verdict, time.monotonic() - began)

    def together(self, domains: Iterable[str], body: bytes = b"") -> list[Carried]:
        """Carry several at once."""
        domains = list(domains)
        with ThreadPoolExecutor(len(domains)) as threads:
            return list(threads.map(lambda domain: self.carry(domain, body), domains))

    def cell(self, checks: str | tuple[str, ...], told: str, within: float) -> None:
        """One mail of each class: each check is in trouble, for a reason that `told` matches; all that must follow."""
        checks = (checks,) if isinstance(checks, str) else checks
        before = {check: self.trouble(check) for check in checks}
        carried = self.together(f"{word}.test" for word in WORDS)
        assert [each.verdict for each in carried] == list(WORDS), self._story(carried)
        assert max(each.seconds for each in carried) < within
        for word, each in zip(WORDS, carried, strict=True):
            entry = self.entry(each.sender)
            explained = self.explain(entry.id)
            for check in checks:
                found = self.finding(entry, check)
                assert found.trouble, (check, found)
                assert found.result == "temperror"
                assert re.search(told, found.reason), (check, found.reason)
                assert re.search(rf"{check} +temperror +could not answer:", explained), explained
                assert _plain(found.reason) in _plain(explained)
                self.daemon.wait_for(f" id={entry.id} ")
                assert re.search(rf" id={entry.id} .* {check}=temperror ", self.daemon.log())
            decided_by = entry.rule.removeprefix("trouble:")
            assert decided_by in (("",) if word == "accept" else checks)
            assert "its setting `trouble` decided" in explained or word == "accept"
        self._counted = {check: before[check] + len(WORDS) for check in checks}

    def left_alone(self, check: str, name: str, within: float = 1.0) -> None:
        """The breaker of what the check asks is open: a mail costs next to nothing, and whoever asks is told."""

        def not_asked() -> bool:
            carried = self.carry("defer.test")
            assert carried.verdict == "defer"
            found = re.search("not asked|left alone", self.finding(self.entry(carried.sender), check).reason)
            assert not found or carried.seconds < within
            return bool(found)

        def told() -> bool:
            up = self.metric("dependency_up", check=check, dependency=name)
            return f"check {check}: {name} does not answer: " in self.ready() and up == 0

        # once the pause is over it is told of no more, and the next mail is tried: where all is slow, that may be ours
        wait_until(lambda: not_asked() and told())
        self.daemon.wait_for("left alone")

    def comes_back(self, check: str, name: str) -> None:
        """It is ready again before any mail comes, and mail is judged as before."""
        wait_until(lambda: f"check {check}" not in self.ready(), PATIENCE)
        self.answers_again(check)
        wait_until(lambda: self.metric("dependency_up", check=check, dependency=name) == 1)

    def answers_again(self, *checks: str) -> None:
        """Mail is judged as before, and so it is ready."""

        def judged() -> bool:
            entry = self.entry(self.carry("accept.test").sender)
            found = [each for each in entry.findings if each.check in checks]
            return len(found) == len(checks) and not any(each.trouble for each in found)

        wait_until(judged, PATIENCE)
        wait_until(lambda: not self.ready(), PATIENCE)
        assert self.carry("reject.test").verdict == "accept"
        # the last ones of a worker that was replaced may have come on top
        wait_until(lambda: all(self.trouble(check) >= least for check, least in self._counted.items()))

    # ── where it is seen ─────────────────────────────────────────────────────────────────────────────────

    def entry(self, sender: str) -> Entry:
        """The decision in the journal."""
        found: list[Entry] = []

        def look() -> bool:
            path = str(self.daemon.directory / "journal.db")  # made by the first decision
            with contextlib.suppress(JournalError), contextlib.closing(Reader(path)) as reader:
                found[:] = reader.search(sender=sender)
            return bool(found)

        wait_until(look)
        return found[0]

    def finding(self, entry: Entry, check: str) -> Finding:
        """What a check found."""
        [found] = [each for each in entry.findings if each.check == check]
        return found

    def explain(self, reference: str) -> str:
        """What `elemta explain` says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert main(["explain", "--config", str(self.daemon.policy), reference]) == 0
        return said.getvalue()

    def trouble(self, check: str) -> float:
        """The metric elemta_trouble_total."""
        return self.metric("trouble_total", check=check)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's children with these labels; 0 when there is none."""
        found = 0.0
        for line in self._page("metrics").splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == f"elemta_{name}" and all(f'{k}="{v}"' in match[2] for k, v in labels.items()):
                found += float(match[3])
        return found

    def ready(self) -> str:
        """What /readyz complains of; "" when it is ready."""
        said = self._page("readyz")
        return "" if said.startswith("200") else said

    def _page(self, name: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.daemon.metrics}/{name}", timeout=10) as page:
                return f"{page.status}\n{page.read().decode()}"
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code}\n{error.read().decode()}"

    def _story(self, carried: list[Carried]) -> dict[str, Any]:
        return {each.sender: (each.verdict, self.entry(each.sender).findings) for each in carried}


def wait_until(what: Callable[[], object], seconds: float = 20) -> None:
    """Wait for it, looking ten times a second."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Process ids of a process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in below for each in children(int(child)))]


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text)

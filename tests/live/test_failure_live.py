"""Failures as Postfix and its clients see them: every dependency once, and all of them hanging at once.

What trouble means reaches the client as it should: delivered, put on hold, told to come again, refused.  The other
ways to fail are in test_failure_scanners_live.py, …_dns_live.py, …_state_live.py and …_plugin_live.py.
"""

import os
import re
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext

import pytest

from harness import clamd, rspamd
from harness.clamd import Clamd
from harness.daemon import Daemon, free_port
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not
from harness.proxy import Datagrams, How
from harness.watching import CLASSES, TROUBLE, WORDS, Watch, by_milter, children, wait_until

pytestmark = pytest.mark.live

ZONE = {f"{word}.test": [("TXT", "v=spf1 +all")] for word in WORDS}
PLUGIN = '''
import os
from elemta import Check, Message, Result

class Ill(Check[Message]):
    """Does it ever answer?"""

    name = "ill"

    async def run(self, facts, seen):
        os._exit(3)
'''


@pytest.fixture(scope="module")
def postfix():
    if why_not():
        pytest.skip(why_not())
    with PrivatePostfix(milter=True, policyd=True) as instance:
        yield instance


@pytest.fixture(scope="module")
def daemons(postfix):
    """The milter and the policy service, of one worker each and a budget of a second."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Daemon(
                    name, listen=f"unix:{postfix.sockets}/{name}.sock", workers=1, metrics=free_port(), own="budget: 1s"
                )
            )
            for name in ("milter", "policyd")
        }


@contextmanager
def locked(daemon):
    with closing(sqlite3.connect(daemon.directory / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("dependency", ["clamd", "rspamd", "dns", "plugin", "state"])
def test_what_trouble_means_reaches_the_client(postfix, daemons, tmp_path, dependency):
    daemon = daemons["policyd" if dependency == "state" else "milter"]
    (tmp_path / "ill.py").write_text(PLUGIN)
    nobody = free_port()
    check, more = {
        "clamd": ("clamav", f'socket: "unix:{tmp_path}/clamd.ctl"'),
        "rspamd": ("rspamd", f'url: "http://127.0.0.1:{nobody}"'),
        "dns": ("spf", ""),
        "plugin": ("ill", ""),
        "state": ("greylist", ""),
    }[dependency]
    daemon.reload(f"""
dns: {{servers: ["127.0.0.1:{nobody}"], timeout: 200ms, budget: 500ms}}
plugins: {{folder: {tmp_path}}}
{CLASSES}
checks:
  {check}: {{{f"{more}, " if more else ""}{TROUBLE}}}
rules:
  recipient:
    - {{id: asks, when: {{{"greylist: fail" if dependency == "state" else "login: nobody"}}}, label: asked}}
""")
    watch = Watch(daemon, by_milter)
    before = len(postfix.delivered())
    with locked(daemon) if dependency == "state" else nullcontext():
        for word in WORDS:
            sender = f"{dependency}@{word}.test"
            outcome = postfix.send(sender, "r@example.org", "From: a@b.test\r\n\r\n", xclient={"addr": "192.0.2.7"})
            code = outcome.final.code
            assert {"defer": code == 451, "reject": code == 550}.get(word, outcome.accepted), (word, outcome)
            entry = watch.entry(sender)
            assert watch.finding(entry, check).trouble
            assert re.search(rf"{check} +temperror +could not answer:", watch.explain(entry.id))
            refused = re.search(r"A policy check could not be made.* Reference (\w{10})$", outcome.final.text)
            assert (refused[1] if refused else "") == (entry.id if word in ("defer", "reject") else "")
            held = outcome.queue_id in postfix.held()
            assert held == (word == "quarantine")
            if held:
                postfix.delete(outcome.queue_id)
    [mail] = postfix.wait_delivered(before + 1)[before:]
    assert f"Return-Path: <{dependency}@accept.test>".encode() in mail
    daemon.reload(CLASSES)


# ── all at once ──────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def stopped(pid):
    """A process and all below it, stopped in their tracks."""
    pids = children(pid)
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in pids:
            os.kill(each, signal.SIGCONT)


BUDGET = 2.0
WITHIN = 3 * BUDGET


@pytest.mark.skipif(bool(clamd.why_not() or rspamd.why_not()), reason=clamd.why_not() or rspamd.why_not())
def test_everything_hangs_at_once(tmp_path):
    """One mail, then twenty at once: nobody waits longer than the budget, and who needs none of it is not held up."""
    scanner = rspamd.shared()
    with (
        Clamd() as virus_scanner,
        DnsServer(ZONE) as server,
        Datagrams("127.0.0.1", server.port) as dns,
        Daemon(
            "milter",
            f"""
dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 400ms, budget: 1s}}
{CLASSES}
checks:
  spf: {{{TROUBLE}}}
  dkim: {{{TROUBLE}}}
  clamav: {{socket: "{virus_scanner.address}", timeout: 20s, {TROUBLE}}}
  rspamd: {{url: "{scanner.url}", timeout: 20s, {TROUBLE}}}
""",
            workers=1,
            metrics=free_port(),
            own=f"budget: {BUDGET:g}s",
        ) as daemon,
    ):
        watch = Watch(daemon, by_milter)
        checks = ("spf", "dkim", "clamav", "rspamd")
        watch.answers_again(*checks)
        dns.how = How.SILENT
        with virus_scanner.paused(), stopped(scanner.process.pid), ThreadPoolExecutor(1) as aside:
            watch.cell(checks, "timed out|no answer|budget", WITHIN)
            crowd = aside.submit(watch.together, [f"{word}.test" for word in WORDS] * 5)
            while not crowd.done():
                alone = watch.carry("nobody.example")  # of no class: nothing is looked at
                assert (alone.verdict, alone.seconds < 2.0) == ("accept", True)
                began = time.monotonic()
                watch.ready()
                assert time.monotonic() - began < 2.0
            carried = crowd.result()
            assert [each.verdict for each in carried] == list(WORDS) * 5
            assert max(each.seconds for each in carried) < WITHIN
            wait_until(lambda: all(f"check {check}" in watch.ready() for check in checks))
        dns.how = How.PASS
        watch.answers_again(*checks)

"""Plugins in elemta-milter behind a real Postfix: dropped in, changed, crashed and taken away while mail flows."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from harness.daemon import Daemon, lives
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

TO = "r@example.org"
PLUGIN = '''
import os, signal, time
from elemta import Action, ActionKind, Check, Field, Finding, Message, Result

class Stamp(Check[Message]):
    """What does the mail ask for?"""

    name = "stamp"
    fields = {"words": Field(str, "what it asked for")}

    async def run(self, facts, seen):
        words = b" ".join(facts.header("x-do")).decode().strip()
        if words == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if words == "hang":
            while True:
                pass
        size = sum(map(len, facts.body.chunks()))
        edits = (Action(ActionKind.ADD_HEADER, "X-Stamp", f"VERSION {words} {size}"),)
        return Finding(self.name, Result.PASS, words, {"words": words}, edits=edits)
'''


def plugin_processes(daemon):
    """Process ids of plugins that workers of this daemon have started."""
    found = subprocess.run(["pgrep", "-f", "elemta.plugins.child"], capture_output=True, text=True, check=False)
    ours = set(daemon.children())
    return [int(pid) for pid in found.stdout.split() if _parent(pid) in ours]


def _parent(pid):
    try:
        return int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    except FileNotFoundError:
        return 0


def wait_until(holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Site:
    """A Postfix with a milter whose plugins are in a folder."""

    def __init__(self, postfix, daemon, folder):
        self.postfix, self.daemon, self.folder = postfix, daemon, folder

    def policy(self, checks="{}", more="", **plugins):
        section = "".join(f", {key}: {value}" for key, value in plugins.items())
        return f"plugins: {{folder: {self.folder}{section}}}\nchecks: {checks}\n{more}\n"

    def reload(self, policy, *, ok=True):
        """Reload, and wait until the workers of the old policy have gone: which of them takes a mail is chance."""
        self.daemon.reload(policy, ok=ok)
        wait_until(lambda: len(self.daemon.children()) == 3)

    def drop(self, name, text):
        (self.folder / name).write_text(text)

    def carry(self, words="", body=b"hello\r\n", **options):
        """Send a mail; the outcome, and its X-Stamp fields when it was delivered."""
        before = len(self.postfix.delivered())
        head = b"From: a@b.test\r\nX-Do: " + words.encode() + b"\r\n\r\n"
        outcome = self.postfix.send("a@b.test", TO, head + body, **options)
        if not outcome.accepted:
            return outcome, []
        mail = self.postfix.wait_delivered(before + 1)[before]
        return outcome, re.findall(rb"(?m)^X-Stamp: (.*)$", mail.partition(b"\n\n")[0])


@pytest.fixture(scope="module")
def site():
    with PrivatePostfix(milter=True) as postfix:
        daemon = Daemon("milter", listen=f"unix:{postfix.milter_socket}")
        folder = daemon.directory / "plugins"
        folder.mkdir()
        made = Site(postfix, daemon, folder)
        daemon.write(made.policy())
        with daemon:
            yield made


@pytest.fixture(autouse=True)
def nothing_enabled_before(site):
    site.reload(site.policy())


def test_a_file_is_dropped_in_changed_broken_and_taken_away_while_mail_flows(site):
    assert site.carry("one")[1] == []
    site.drop("stamp.py", PLUGIN.replace("VERSION", "first"))
    site.reload(site.policy("{stamp: {edits: true}}"))
    assert site.carry("one")[1] == [b"first one 7"]

    site.drop("stamp.py", PLUGIN.replace("VERSION", "again"))
    assert site.carry("two")[1] == [b"first two 7"], "nothing changes before the reload"
    site.reload(site.policy("{stamp: {edits: true}}"))
    assert site.carry("two")[1] == [b"again two 7"]

    site.drop("stamp.py", "1 / 0")
    site.reload(site.policy("{stamp: {edits: true}}"), ok=False)
    assert "stamp.py:1: ZeroDivisionError" in site.daemon.log()
    assert site.carry("three")[1] == [b"again three 7"], "the old code goes on"

    site.reload(site.policy("{}"))
    assert site.carry("four")[1] == []
    wait_until(lambda: not plugin_processes(site.daemon))


def test_its_facts_are_judged_and_it_edits_only_where_it_may(site):
    site.drop("stamp.py", PLUGIN)
    rule = "rules: {message: [{id: no, when: {stamp: pass, stamp.words: bad}, then: reject}]}"
    site.reload(site.policy("{stamp: }", rule))
    outcome, stamps = site.carry("good")
    assert (outcome.accepted, stamps) == (True, [])
    assert site.carry("bad")[0].end.code == 550


@pytest.mark.parametrize("how", ["die", "hang"])
def test_the_worst_costs_that_finding_only(site, how):
    site.drop("stamp.py", PLUGIN)
    site.reload(site.policy("{stamp: {edits: true, timeout: 5s}}"))
    workers = site.daemon.worker_pids()
    assert site.carry(how)[0].end.code == 451, "trouble defers by default"
    assert site.carry("well")[1] == [b"VERSION well 7"]
    site.reload(site.policy("{stamp: {trouble: accept, timeout: 5s}}"))
    assert site.carry(how)[0].accepted
    assert site.carry("well")[0].accepted
    assert "worker_died" not in site.daemon.log()
    assert workers, "the same processes answered all the time"


def test_a_spooled_body_reaches_it_whole(site):
    site.drop("stamp.py", PLUGIN)
    site.reload(site.policy("{stamp: {edits: true}}"))
    body = b"line of a long mail\r\n" * 150_000
    assert site.carry("big", body=body)[1] == [b"VERSION big %d" % len(body)]


def test_a_worker_that_is_killed_takes_its_plugins_along(site):
    site.drop("stamp.py", PLUGIN)
    site.reload(site.policy("{stamp: {edits: true}}"))
    site.carry("well")
    before = plugin_processes(site.daemon)
    assert before
    for worker in site.daemon.worker_pids():
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not any(map(lives, before)))
    wait_until(lambda: len(site.daemon.worker_pids()) == 2)
    wait_until(lambda: site.carry("well")[0].accepted)


@pytest.mark.parametrize("trusted", ["[]", "[geoip]"])
def test_geoip_of_the_shipped_plugins(site, trusted):
    writer = MMDBWriter(ip_version=4)
    writer.insert_network(IPSet(["192.0.2.0/24"]), {"country": {"iso_code": "DE"}})
    path = site.daemon.directory / "country.mmdb"
    writer.to_db_file(str(path))
    rule = 'rules: {message: [{id: home, when: {geoip.country: DE}, then: reject, reply: "550 5.7.1 {geoip.country}"}]}'
    site.reload(site.policy(f"{{geoip: {{databases: [{{file: {path}}}]}}}}", rule, trusted=trusted))
    assert site.carry(xclient={"addr": "192.0.2.7"})[0].end.text == "5.7.1 DE"
    assert site.carry(xclient={"addr": "198.51.100.7"})[0].accepted


def test_nothing_is_left_when_the_daemon_stops():
    with PrivatePostfix(milter=True) as postfix:
        daemon = Daemon("milter", listen=f"unix:{postfix.milter_socket}")
        folder = daemon.directory / "plugins"
        folder.mkdir()
        (folder / "stamp.py").write_text(PLUGIN)
        daemon.write(f"plugins: {{folder: {folder}}}\nchecks: {{stamp: }}\n")
        with daemon:
            wait_until(lambda: plugin_processes(daemon))
            before = plugin_processes(daemon)
        assert daemon.process.returncode == 0
        wait_until(lambda: not any(map(lives, before)))

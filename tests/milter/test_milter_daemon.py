"""The whole of elemta-milter with a policy: does the YAML reach the mail, and does no mail fall between two workers?"""

import contextlib
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from miltertest import MilterError

from harness.daemon import Daemon, free_port
from harness.mta import ACCEPT, REPLY, Mta

POLICY = """
sets: {relays: [198.51.100.0/24]}
milter: {listen: "LISTEN", workers: 2, trusted: [relays, 203.0.113.7]}
rules:
  message:
    - id: seen
      add_header: {X-Class: "{class}", X-Client: "{client.address}"}
      set_header: {Subject: "[{sender.domain}]"}
      remove_header: X-Remove
    - {id: virus, when: {subject: virus}, then: reject, reply: "550 5.7.1 100% bad. Reference {id}"}
    - {id: later, when: {subject: later}, then: defer, reply: "450 4.7.1 Later"}
    - {id: hold, when: {subject: hold}, then: quarantine}
"""


def policy(daemon):
    return POLICY.replace("LISTEN", daemon.listen)


@pytest.fixture(scope="module")
def daemon():
    process = Daemon("milter")
    text = process.policy.read_text()
    process.policy.write_text(re.sub(r"(?m)^milter:.*$", "", text) + policy(process))
    with process:
        yield process


@pytest.fixture
def connect():
    made = []

    def connection(daemon, **hello):
        made.append(Mta(daemon.address))
        made[-1].hello(**hello)
        return made[-1]

    yield connection
    for each in made:
        each.sock.close()


def test_rules_change_the_mail(daemon, connect):
    got = connect(daemon).carry((b"Subject", b" hi"), (b"X-Remove", b" 1"), (b"x-remove", b" 2"))
    assert got == [
        ("h", {"name": "X-Class", "value": " inbound"}),
        ("h", {"name": "X-Client", "value": " 192.0.2.7"}),
        ("m", {"index": 1, "name": "Subject", "value": " [b.test]"}),
        ("m", {"index": 2, "name": "X-Remove", "value": ""}),
        ("m", {"index": 1, "name": "X-Remove", "value": ""}),
        (ACCEPT, {}),
    ]


def test_a_refusal_names_the_decision_in_the_log(daemon, connect):
    [(command, reply)] = connect(daemon).carry((b"Subject", b" virus"))
    assert (command, reply["smtpcode"]) == (REPLY, "550")
    match = re.fullmatch(r"5\.7\.1 100%% bad\. Reference (\w{10})", reply["text"])
    assert match, reply
    log = daemon.wait_for(match[1])
    assert re.search(rf"id={match[1]} .*disposition=reject rule=virus", log)


def test_defer_and_quarantine(daemon, connect):
    mta = connect(daemon)
    assert mta.carry((b"Subject", b" later")) == [(REPLY, {"smtpcode": "450", "space": " ", "text": "4.7.1 Later"})]
    got = mta.carry((b"Subject", b" hold"))
    assert [command for command, _ in got[-2:]] == ["q", ACCEPT]
    assert got[-2][1]["reason"].startswith("hold ")


@pytest.mark.parametrize(
    ("address", "trusted"),
    [(b"192.0.2.7", False), (b"198.51.100.9", True), (b"203.0.113.7", True), (b"203.0.113.8", False)],
)
def test_whose_results_in_our_name_are_kept(daemon, connect, address, trusted):
    got = connect(daemon, address=address).carry((b"Authentication-Results", b" mx1.example.org; spf=pass"))
    assert (("m", {"index": 1, "name": "Authentication-Results", "value": ""}) in got) == (not trusted)


def test_a_reload_drops_no_session_and_judges_the_next_by_the_new_policy(connect):
    with Daemon("milter", 'rules: {message: [{id: old, then: reject, reply: "550 5.7.1 old"}]}') as daemon:
        open_before = connect(daemon)
        open_before.envelope()
        daemon.reload('rules: {message: [{id: new, then: reject, reply: "550 5.7.1 new"}]}')
        time.sleep(0.2)
        open_before.fields((b"From", b" x"))
        assert open_before.end()[-1][1]["text"] == "5.7.1 old"
        for _ in range(8):
            assert connect(daemon).carry()[-1][1]["text"] == "5.7.1 new"
        open_before.packet("Q")
        assert daemon.stop() == 0


def test_a_killed_worker_costs_its_own_sessions_only(connect):
    with Daemon("milter") as daemon:
        mtas = [connect(daemon) for _ in range(12)]
        victim, *_ = daemon.worker_pids()
        os.kill(victim, signal.SIGKILL)
        answers = []
        for mta in mtas:
            with contextlib.suppress(AssertionError, OSError, MilterError):
                answers += mta.carry()
        assert {command for command, _ in answers} <= {ACCEPT}
        daemon.wait_for("died")
        for _ in range(8):
            assert connect(daemon).carry() == [(ACCEPT, {})]
        daemon.wait_for("started", 1)
        for mta in mtas:
            mta.sock.close()
        assert daemon.stop() == 0


@pytest.mark.parametrize("listen", ["unix", "inet"])
def test_who_comes_during_the_end_is_turned_away_and_does_not_wait_for_it(connect, listen):
    with Daemon("milter", listen=f"inet:127.0.0.1:{free_port()}" if listen == "inet" else "") as daemon:
        idle = connect(daemon)
        daemon.signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            while time.monotonic() < deadline:
                daemon.connect().close()
                time.sleep(0.01)  # what is not taken at once waits, in a queue that has an end
        assert time.monotonic() < deadline
        assert daemon.process.poll() is None
        assert idle.carry() == [(ACCEPT, {})]
        idle.packet("Q")
        assert daemon.process.wait(10) == 0


def test_an_idle_session_does_not_hold_up_the_end_for_longer_than_the_grace(connect):
    with Daemon("milter", workers=1) as daemon:
        mta = connect(daemon)
        assert mta.carry() == [(ACCEPT, {})]  # so the worker has taken the connection
        daemon.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert daemon.process.poll() is None
        assert mta.carry() == [(ACCEPT, {})]
        mta.packet("Q")
        assert daemon.process.wait(10) == 0


def processors(pid):
    """Where each thread of a process may run, "0-1"."""
    return [
        re.search(r"Cpus_allowed_list:\t(.*)", (task / "status").read_text())[1]
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_libmilters_threads_stay_on_the_processor_of_their_worker(connect):
    own = processors("self")[0]
    each = sorted(os.sched_getaffinity(0))
    with Daemon("milter", workers=len(each)) as daemon:
        assert connect(daemon).carry() == [(ACCEPT, {})]
        seen = [Counter(processors(pid)) for pid in daemon.worker_pids()]

    assert all(threads[own] >= 1 for threads in seen)  # the loop, which starts other processes
    alone = [max(set(threads) - {own}, key=threads.get) for threads in seen]
    assert sorted(map(int, alone)) == each

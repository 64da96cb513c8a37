"""Nothing is lost or doubled: workers killed, daemons stopped and reloaded while mail flows through Postfix."""

import collections
import os
import re
import signal
import threading
import time

import pytest

from harness.daemon import Daemon
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

MAILS = 120
SENDERS = 6


def flood(postfix, replies, stop_at=MAILS):
    """Send `MAILS` mails, each until it is accepted; every reply is noted."""
    numbers = iter(range(stop_at))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            data = f"From: a@sender.test\r\nMessage-ID: <{number}@sender.test>\r\n\r\nbody\r\n"
            for _ in range(60):
                outcome = postfix.send("a@sender.test", "b@example.org", data)
                replies.append(outcome.final.code)
                if outcome.accepted:
                    break
                time.sleep(0.1)

    threads = [threading.Thread(target=work) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    return threads


def delivered_ids(postfix, count=MAILS):
    mails = postfix.wait_delivered(count, timeout=30)
    return collections.Counter(re.search(rb"(?i)^message-id: <(\d+)@", mail, re.MULTILINE)[1] for mail in mails)


@pytest.mark.parametrize("name", ["milter", "policyd"])
def test_workers_killed_under_load(name):
    replies = []
    with (
        PrivatePostfix(**{name: True}) as postfix,
        Daemon(name, listen=f"unix:{postfix.sockets}/{name}.sock") as daemon,
    ):
        threads = flood(postfix, replies)
        for deaths in range(1, 5):
            time.sleep(0.4)
            os.kill(daemon.worker_pids()[0], signal.SIGKILL)
            daemon.wait_for("worker_died", deaths)
        for thread in threads:
            thread.join(100)
        found = delivered_ids(postfix)

    assert len(found) == MAILS
    assert set(found.values()) == {1}  # nobody got a mail twice
    assert not [code for code in replies if code >= 500 or code == 0]  # at most 4xx


def test_reloads_under_load_refuse_nothing():
    """SIGHUP again and again while mail flows: not even a 4xx."""
    replies = []
    with (
        PrivatePostfix(milter=True, policyd=True) as postfix,
        Daemon("milter", listen=f"unix:{postfix.sockets}/milter.sock") as milter,
        Daemon("policyd", listen=f"unix:{postfix.sockets}/policyd.sock") as policyd,
    ):
        threads = flood(postfix, replies)
        for number in range(3):
            time.sleep(0.3)
            label = f"rules: {{message: [{{id: n{number}, label: l}}]}}"
            milter.reload(label)
            policyd.reload(label.replace("message", "recipient"))
        for thread in threads:
            thread.join(100)
        found = delivered_ids(postfix)

    assert len(found) == MAILS
    assert set(replies) == {250}


def test_a_stopped_milter_means_4xx_and_a_started_one_goes_on():
    with (
        PrivatePostfix(milter=True) as postfix,
        Daemon("milter", listen=f"unix:{postfix.sockets}/milter.sock") as daemon,
    ):
        assert postfix.send("a@sender.test", "b@example.org", "Subject: 1\r\n\r\n").accepted
        assert daemon.stop() == 0

        refused = postfix.send("a@sender.test", "b@example.org", "Subject: 2\r\n\r\n")
        assert 400 <= refused.final.code < 500

        daemon.start()
        assert postfix.send("a@sender.test", "b@example.org", "Subject: 3\r\n\r\n").accepted


def test_a_mail_under_way_is_finished_before_the_milter_stops():
    with (
        PrivatePostfix(milter=True) as postfix,
        Daemon("milter", listen=f"unix:{postfix.sockets}/milter.sock") as daemon,
        postfix.session() as session,
    ):
        session.command("MAIL FROM:<a@sender.test>")
        session.command("RCPT TO:<b@example.org>")
        session.command("DATA")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("stopping")
        time.sleep(0.5)
        reply = session.command("Subject: under way\r\n\r\nbody\r\n.")

    assert reply.code == 250, reply

"""The harness itself: is the private Postfix a real one, and does it tell the truth?"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from harness.daemon import lives
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

MESSAGE = b"From: Alice <alice@example.com>\nTo: bob@example.org\nSubject: hello\n\n.a line with a dot\n"


@pytest.fixture(scope="module")
def postfix():
    with PrivatePostfix() as instance:
        yield instance


def test_starts_and_stops_within_three_seconds():
    begin = time.monotonic()
    with PrivatePostfix() as postfix:
        pid = postfix.pid
        directory = postfix.directory
        assert pid
        assert time.monotonic() - begin < 3
    assert not directory.exists()
    assert time.monotonic() - begin < 6
    assert not lives(pid)


def test_mail_is_delivered_as_it_was_sent_and_the_client_is_who_xclient_says(postfix):
    before = len(postfix.delivered())
    client = {"addr": "192.0.2.7", "name": "mail.example.com"}
    outcome = postfix.send("alice@example.com", "bob@example.org", MESSAGE, helo="mail.example.com", xclient=client)
    assert outcome.accepted
    assert outcome.queue_id
    mail = postfix.wait_delivered(before + 1)[-1]
    assert mail.endswith(MESSAGE[MESSAGE.index(b"From:") :])
    assert b"Return-Path: <alice@example.com>" in mail
    assert b"(mail.example.com [192.0.2.7])" in mail
    assert f"{outcome.queue_id}: client=mail.example.com[192.0.2.7]" in postfix.log()


def test_ipv6_clients_logins_and_bdat(postfix):
    before = len(postfix.delivered())
    with postfix.session(xclient={"addr": "2001:db8::25", "login": "alice+x=y"}) as session:
        for chunks in (0, 10):
            assert session.send("alice@example.com", ["bob@example.org"], MESSAGE, chunks=chunks).accepted
    mails = postfix.wait_delivered(before + 2)
    assert all(b"[IPv6:2001:db8::25]" in mail for mail in mails[before:])
    postfix.wait_log(r"sasl_username=alice\+x=y")


def test_refusals_are_outcomes(postfix):
    outcome = postfix.send("alice@example.com", ["x@elsewhere.test"], MESSAGE, xclient={"addr": "192.0.2.7"})
    assert not outcome.accepted
    assert outcome.mail.ok
    assert outcome.final.code == 554
    assert outcome.final.enhanced == "5.7.1"
    assert outcome.data is None


def test_only_loopback_is_an_own_network(postfix):
    assert postfix.send("a@example.com", ["x@elsewhere.test"], MESSAGE).accepted
    entries = [entry for entry in postfix.queue() if entry["recipients"][0]["address"] == "x@elsewhere.test"]
    assert len(entries) == 1  # nothing leaves the machine


def test_hold_postcat_release_and_delete(postfix):
    outcome = postfix.send("a@example.com", ["later@elsewhere.test"], MESSAGE)
    postfix.wait_log(f"{outcome.queue_id}: to=<later@elsewhere.test>.*status=deferred")
    postfix.hold(outcome.queue_id)
    assert postfix.held() == [outcome.queue_id]
    assert postfix.postcat(outcome.queue_id).endswith(b"\n.a line with a dot\n")
    assert b"sender: a@example.com" in postfix.postcat(outcome.queue_id, envelope=True)
    postfix.release(outcome.queue_id)
    assert postfix.held() == []
    postfix.delete()
    assert postfix.queue() == []


def test_smtputf8_and_pipelining(postfix):
    before = len(postfix.delivered())
    outcome = postfix.send("jürgen@example.com", "bjørn@example.org", MESSAGE, mail_options=["SMTPUTF8"])
    assert outcome.accepted
    with postfix.session() as session:
        lines = ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "DATA"]
        assert [reply.code for reply in session.pipeline(lines)] == [250, 250, 250, 354]
        assert session.body(MESSAGE.replace(b"\n", b"\r\n")).ok
    assert b"To: bj\xc3\xb8rn@example.org" in postfix.wait_delivered(before + 3)[before]


def test_starttls():
    with PrivatePostfix(tls=True) as postfix:
        assert postfix.send("a@example.com", "b@example.org", MESSAGE, starttls=True).accepted
        assert b"using TLSv1." in postfix.wait_delivered(1)[0]


def test_two_instances_side_by_side_with_known_recipients():
    with PrivatePostfix(recipients=["bob@example.org"], hostname="one.test") as one, PrivatePostfix(memory=True) as two:
        assert one.port != two.port
        assert two.directory.is_relative_to("/dev/shm")
        assert one.send("a@example.com", "bob@example.org", MESSAGE).accepted
        assert one.send("a@example.com", "nobody@example.org", MESSAGE).final.code == 550
        assert len(one.wait_delivered(1)) == 1
        assert two.delivered() == []
        with one.session() as session:
            assert session.hello.text.startswith("one.test")


def test_queue_survives_a_restart(postfix):
    postfix.delete()
    outcome = postfix.send("a@example.com", ["later@elsewhere.test"], MESSAGE)
    postfix.stop()
    assert postfix.pid == 0
    postfix.start()
    assert [entry["queue_id"] for entry in postfix.queue()] == [outcome.queue_id]


def test_missing_milter_or_policy_service_means_try_again_later():
    with PrivatePostfix(milter=True) as postfix:
        outcome = postfix.send("a@example.com", "b@example.org", MESSAGE)
        assert (outcome.final.code, outcome.final.enhanced) == (451, "4.7.1")
    with PrivatePostfix(policyd=True) as postfix:
        outcome = postfix.send("a@example.com", "b@example.org", MESSAGE)
        assert outcome.rcpts[0].code == 451
        assert "Policy service unavailable" in outcome.rcpts[0].text


def test_policy_service_is_asked_at_rcpt_and_at_the_end():
    with PrivatePostfix(policyd=True) as postfix:
        seen = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(postfix.policyd_socket))
        postfix.policyd_socket.chmod(0o666)
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream:
                request = {}
                for line in stream:
                    if line == b"\n":
                        seen.append(request)
                        request = {}
                        stream.write(b"action=DUNNO\n\n")
                        stream.flush()
                    else:
                        name, _, value = line.decode().rstrip("\n").partition("=")
                        request[name] = value

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        client = {"addr": "192.0.2.7", "login": "alice"}
        assert postfix.send("a@example.com", ["b@example.org", "c@example.org"], MESSAGE, xclient=client).accepted
        postfix.stop()
        thread.join(5)
        listener.close()
    assert [request["protocol_state"] for request in seen] == ["RCPT", "RCPT", "END-OF-MESSAGE"]
    assert {request["client_address"] for request in seen} == {"192.0.2.7"}
    assert {request["sasl_username"] for request in seen} == {"alice"}
    assert len({request["instance"] for request in seen}) == 1


def test_the_system_postfix_is_not_touched():
    def newest():
        places = ("/etc/postfix", "/var/spool/postfix", "/var/lib/postfix")
        return {path: path.lstat().st_mtime_ns for place in places for path in Path(place).rglob("*")}

    before = newest()
    with PrivatePostfix() as postfix:
        assert postfix.send("a@example.com", "b@example.org", MESSAGE).accepted
    assert newest() == before

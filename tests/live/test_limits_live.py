"""Limits beside a real Postfix: counted when a message is accepted, once, and given back when it is not after all."""

from __future__ import annotations

import time

import pytest

from harness import redis
from harness.daemon import Daemon
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

MAIL = "From: a@sender.test\r\nSubject: {}\r\n\r\nbody\r\n"
POLICY = """
classes: {submission: {login: {exists: true}}, inbound: {}}
checks:
  limits: {per_login: {key: login, count: recipients, windows: {1h: 3}}}
rules:
  recipient:
    - id: over-limit
      when: {limits: fail}
      then: defer
      reply: "450 4.7.1 Limit {limits.name} reached ({limits.used} of {limits.max}); try again in {limits.wait}"
  message:
    - {id: virus, when: {subject: virus}, then: reject}
    - {id: broken, when: {subject: broken}, add_recipient: "{subject} address"}  # no address: the mail is deferred
"""


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.skipif(bool(redis.why_not()), reason=redis.why_not())),
    ],
)
def stack(request, tmp_path_factory):
    state = f"sqlite://{tmp_path_factory.mktemp('state')}/state.db"  # one for both daemons, as always
    if request.param == "redis":
        redis.shared().plain.flushall()
        state = redis.shared().url
    with PrivatePostfix(policyd=True, milter=True) as postfix:
        policyd = Daemon("policyd", POLICY, listen=f"unix:{postfix.sockets}/policyd.sock", state=state)
        milter = Daemon("milter", POLICY, listen=f"unix:{postfix.milter_socket}", state=state)
        with policyd, milter:
            yield postfix, policyd


@pytest.fixture
def client(stack, request):
    """An SMTP session with a login of its own."""
    login = request.node.name.replace("_", "-")
    with stack[0].session(xclient={"addr": "192.0.2.7", "name": "mx.sender.test", "login": login}) as session:
        yield session


def send(client, count, subject="hello"):
    """The codes of the recipients, and that of the message."""
    outcome = client.send("a@sender.test", [f"r{number}@example.org" for number in range(count)], MAIL.format(subject))
    return [reply.code for reply in outcome.rcpts], outcome.final.code


def test_what_was_accepted_counts(client):
    assert send(client, 2) == ([250, 250], 250)
    codes, final = send(client, 2)
    assert (codes, final) == ([250, 450], 250)
    refused = client.send("a@sender.test", "r9@example.org", MAIL).rcpts[0]
    assert "4.7.1 " in refused.text
    assert "Limit per_login reached (3 of 3); try again in 1h" in refused.text


def test_another_login_has_a_count_of_its_own(client):
    assert send(client, 3) == ([250] * 3, 250)


def test_what_was_given_up_does_not_count(client):
    for _ in range(3):
        assert client.mail("a@sender.test").ok
        assert [client.rcpt(f"r{number}@example.org").code for number in range(3)] == [250] * 3
        assert client.rset().ok
    assert send(client, 3) == ([250] * 3, 250)
    assert send(client, 1)[0] == [450]


@pytest.mark.parametrize(("subject", "code"), [("virus", 550), ("broken", 451)])
def test_what_the_milter_refuses_does_not_count(client, subject, code):
    assert send(client, 3, subject) == ([250] * 3, code)
    deadline = time.monotonic() + 5
    while send(client, 1)[0] == [450]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert send(client, 2) == ([250] * 2, 250)
    assert send(client, 1)[0] == [450]


def test_a_reload_in_the_middle_of_a_message_counts_it_once(client, stack):
    assert client.mail("a@sender.test").ok
    assert client.rcpt("r1@example.org").ok
    stack[1].reload(POLICY)
    assert client.rcpt("r2@example.org").ok
    assert client.command("DATA").code == 354
    stack[1].reload(POLICY)
    assert client.body(MAIL.encode()).code == 250
    assert send(client, 2) == ([250, 450], 250)


def test_who_is_refused_at_data_is_refused_also_when_he_says_it_again():
    with PrivatePostfix(policyd=True) as postfix:
        service = f"unix:{postfix.sockets}/policyd.sock"
        postfix.postconf(
            smtpd_recipient_restrictions="reject_unauth_destination",
            smtpd_data_restrictions=f"check_policy_service {service}",
        )
        postfix.reload()
        login = {"addr": "192.0.2.7", "name": "mx.sender.test", "login": "anna"}
        with Daemon("policyd", POLICY, listen=service), postfix.session(xclient=login) as client:
            assert client.mail("a@sender.test").ok
            assert all(client.rcpt(f"r{number}@example.org").ok for number in range(4))
            assert [client.command("DATA").code for _ in range(3)] == [450] * 3
            assert client.rset().ok
            assert send(client, 3) == ([250] * 3, 250)

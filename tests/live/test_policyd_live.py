"""A real Postfix with our policy daemon: does each verdict become what the client hears and the mail shows?"""

import re
import time

import pytest

from harness.daemon import Daemon
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

MAIL = "From: a@sender.test\r\nSubject: hello\r\n\r\nbody\r\n"
CLIENT = {"addr": "192.0.2.7", "name": "mx.sender.test"}
POLICY = """
checks:
  greylist: {delay: 2s}
rules:
  recipient:
    - id: reject
      when: {recipient: {glob: "reject*"}}
      then: reject
      reply: "553 5.7.1 Not for {sender}. Reference {id}"
    - id: login
      when: {login: bob}
      then: accept
      add_header: {X-Login: "{login}"}
    - id: hold
      when: {recipient: {glob: "hold*"}}
      then: quarantine
    - id: discard
      when: {recipient: {glob: "discard*"}}
      then: discard
    - id: plaintext
      when: {recipient: {glob: "tls*"}}
      unless: {tls: {exists: true}}
      then: reject
      reply: "550 5.7.10 TLS only"
    - id: header
      when: {recipient: {glob: "header*"}}
      then: accept
      add_header: {X-Policy: "seen {recipient}"}
    - id: greylist
      when: {recipient: {glob: "grey*"}, greylist: fail}
      then: defer
      reply: "450 4.7.1 Greylisted, try again in {greylist.wait}"
"""

LATE = """
    - {id: late, when: {recipient: {glob: "late*"}}, then: reject, reply: "550 5.7.1 Late"}
"""


@pytest.fixture(scope="module")
def stack():
    with (
        PrivatePostfix(policyd=True, tls=True) as postfix,
        Daemon("policyd", POLICY, listen=f"unix:{postfix.sockets}/policyd.sock") as daemon,
    ):
        yield postfix, daemon


@pytest.fixture
def postfix(stack):
    return stack[0]


@pytest.fixture
def carry(postfix):
    """Send a mail from another network each time; give the outcome."""

    def send(recipients, sender="a@sender.test", **options):
        return postfix.send(sender, recipients, MAIL, xclient={**CLIENT, **options.pop("xclient", {})}, **options)

    return send


def refusal(outcome):
    [reply] = [each for each in outcome.rcpts if each.code >= 400]
    return reply.code, reply.text


def test_dunno_lets_mail_through(carry, postfix):
    before = len(postfix.delivered())
    assert carry("b@example.org").accepted
    assert len(postfix.wait_delivered(before + 1)) == before + 1


def test_greylisting_and_the_retry(carry, postfix):
    before = len(postfix.delivered())
    code, text = refusal(carry("grey1@example.org"))
    assert code == 450
    assert re.search(r"4\.7\.1 .*Greylisted, try again in [12]s", text)
    assert refusal(carry("grey1@example.org", xclient={"addr": "192.0.2.99"}))[0] == 450
    time.sleep(2.1)
    assert carry("grey1@example.org").accepted
    assert carry("grey1@example.org", sender="A@Sender.Test").accepted
    assert refusal(carry("grey1@example.org", sender=""))[0] == 450  # the null sender is another one
    postfix.wait_delivered(before + 2)


def test_a_rejection_names_the_decision_and_carries_what_the_sender_wrote_as_text(carry, stack):
    code, text = refusal(carry("reject@example.org", sender="a+{id}%s@sender.test"))
    assert code == 553
    assert "Not for a+{id}%s@sender.test. Reference " in text
    reference = re.search(r"Reference (\w{10})", text)[1]
    assert f"id={reference}" in stack[1].wait_for(f"id={reference}")


def test_each_recipient_is_judged_for_itself(carry, postfix):
    before = len(postfix.delivered())
    outcome = carry(["b@example.org", "reject@example.org", "c@example.org", "grey2@example.org"])
    assert [reply.code for reply in outcome.rcpts] == [250, 553, 250, 450]
    assert len(postfix.wait_delivered(before + 2)) == before + 2


def test_quarantine_is_the_hold_queue(carry, postfix):
    outcome = carry("hold@example.org")
    assert outcome.accepted
    assert outcome.queue_id in postfix.held()
    postfix.wait_log(r"hold: RCPT from .* held by rule hold, reference \w{10}; from=<a@sender.test>")
    postfix.delete(outcome.queue_id)


def test_discarded_mail_is_accepted_and_gone(carry, postfix):
    before = len(postfix.delivered())
    outcome = carry("discard@example.org")
    assert outcome.accepted
    assert carry("b@example.org").accepted
    assert len(postfix.wait_delivered(before + 1)) == before + 1
    assert postfix.queue() == []


def test_a_header_is_added_once_a_message(carry, postfix):
    before = len(postfix.delivered())
    assert carry(["header1@example.org", "header2@example.org"]).accepted
    for mail in postfix.wait_delivered(before + 2)[before:]:
        assert re.findall(rb"(?m)^X-Policy: (.*)$", mail) == [b"seen header1@example.org"]


def test_logins_and_tls_are_facts(carry, postfix):
    before = len(postfix.delivered())
    assert carry("header@example.org", xclient={"login": "bob"}).accepted
    assert b"\nX-Login: bob\n" in postfix.wait_delivered(before + 1)[-1]
    assert refusal(carry("tls@example.org"))[0] == 550
    assert carry("tls@example.org", starttls=True).accepted


def test_odd_clients_and_addresses(carry):
    assert carry("b@example.org", xclient={"addr": "[UNAVAILABLE]", "name": "[UNAVAILABLE]"}).accepted
    assert refusal(carry("grey3@example.org", xclient={"addr": "IPV6:2001:db8::7"}))[0] == 450
    assert refusal(carry("grey3@example.org", sender="jörg@sender.test", mail_options=["SMTPUTF8"]))[0] == 450


def test_without_the_daemon_mail_is_put_off_and_with_it_goes_on(carry, stack):
    _, daemon = stack
    daemon.stop()
    assert refusal(carry("b@example.org"))[0] == 451
    daemon.start()
    assert carry("b@example.org").accepted


def test_a_reload_in_the_middle_of_a_session(postfix, stack):
    _, daemon = stack
    with postfix.session(xclient=CLIENT) as session:
        assert session.send("a@sender.test", ["b@example.org"], MAIL).accepted
        daemon.reload(POLICY + LATE)
        assert session.send("a@sender.test", ["b@example.org"], MAIL).accepted
        assert refusal(session.send("a@sender.test", ["late@example.org"], MAIL))[0] == 550

"""A real Rspamd behind a real Postfix: its actions reach the rules, its changes the mail, and what we know it."""

import re
import time
from contextlib import contextmanager

import pytest

from harness import rspamd as harness
from harness.daemon import Daemon
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not
from harness.rspamd import ADD_HEADER, REJECT, REWRITE_SUBJECT, shared

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not() or harness.why_not()), reason=why_not() or harness.why_not()),
]

SENDER = "a@sender.example"
POLICY = """
classes: {{internal: {{client.address: 192.0.2.9}}, inbound: {{}}}}
checks:
  spf:
  dkim:
  dmarc:
  arc:
  rspamd: {{url: "{url}", timeout: 3s, trouble: {{inbound: defer, internal: accept}}, {more}}}
rules:
  message:
    - id: spam
      when: {{rspamd.action: reject}}
      then: reject
      reply: "550 5.7.1 Spam: {{rspamd.message}}. Reference {{id}}"
    - {{id: tag, when: {{rspamd.action: [add header, rewrite subject]}}, set_header: {{X-Spam: "Yes"}}}}
    - {{id: own, when: {{header.x-own: {{exists: true}}}}, set_header: {{X-Spamd-Bar: "ours"}}}}
"""


@pytest.fixture(scope="module")
def rspamd():
    return shared()


@pytest.fixture(scope="module")
def postfix():
    with PrivatePostfix(milter=True, tls=True) as instance:
        yield instance


@pytest.fixture(scope="module")
def dns():
    with DnsServer({"sender.example": [("TXT", "v=spf1 ip4:192.0.2.7 -all")]}) as server:
        yield server


@pytest.fixture
def daemon(rspamd, postfix, dns):
    @contextmanager
    def started(more="", url=rspamd.url):
        policy = POLICY.format(url=url, more=more)
        with Daemon("milter", policy, dns=dns, listen=f"unix:{postfix.milter_socket}", workers=1) as running:
            yield running

    return started


def mail(text, *fields):
    head = ("From: Anna <a@sender.example>", "To: r@example.org", "Date: Mon, 1 Jan 2024 00:00:00 +0000", *fields)
    return ("\r\n".join((*head, "Message-ID: <1@sender.example>")) + f"\r\n\r\n{text}\r\n").encode()


def send(postfix, data, to="r@example.org", **options):
    options.setdefault("xclient", {"addr": "192.0.2.7"})
    return postfix.send(SENDER, to, data, **options)


@pytest.fixture
def deliver(postfix):
    def carried(data, to="r@example.org", copies=1, **options):
        before = len(postfix.delivered())
        outcome = send(postfix, data, to, **options)
        assert outcome.accepted, outcome.final
        return outcome, postfix.wait_delivered(before + copies)[before:]

    return carried


def fields(data, name):
    head = data.partition(b"\n\n")[0].decode()
    return [" ".join(found.split()) for found in re.findall(rf"(?im)^{name}:(.*(?:\n[ \t].*)*)", head)]


def line(rspamd, queue_id):
    """What Rspamd logged of a mail."""
    deadline = time.monotonic() + 10
    while not (found := re.search(rf"task_write_log: .*qid: <{queue_id}>.*", rspamd.log())):
        assert time.monotonic() < deadline, rspamd.log()[-3000:]
        time.sleep(0.05)
    return found[0]


def test_its_actions_and_headers(daemon, postfix, deliver):
    with daemon():
        reply = send(postfix, mail(REJECT)).final
        assert reply.code == 550
        assert reply.text.startswith("5.7.1 Spam: Gtube pattern. Reference ")
        _, [found] = deliver(mail(ADD_HEADER, "Subject: a"))
        assert (fields(found, "X-Spam"), fields(found, "Subject")) == (["Yes"], ["a"])
        _, [found] = deliver(mail(REWRITE_SUBJECT, "Subject: a"))
        assert (fields(found, "X-Spam"), fields(found, "Subject")) == (["Yes"], ["*** SPAM *** a"])
        forged = ("X-Spam: Yes", "X-Spamd-Bar: ----", "X-Rspamd-Queue-Id: forged")
        outcome, [found] = deliver(mail("hello", "Subject: a", *forged))
        assert fields(found, "X-Spam") == []
        [bar] = fields(found, "X-Spamd-Bar")
        assert re.fullmatch(r"\++", bar)  # how many depends on Rspamd's version
        assert fields(found, "X-Rspamd-Queue-Id") == [outcome.queue_id]
        assert len(fields(found, "Authentication-Results")) == 1
        _, [found] = deliver(mail("hello", "X-Own: 1", *forged))
        assert fields(found, "X-Spamd-Bar") == ["ours", bar]


def test_it_knows_what_postfix_knows(daemon, rspamd, deliver):
    client = {"addr": "192.0.2.7", "name": "mail.sender.example", "login": "anna"}
    with daemon():
        to = ["r@example.org", '"a, b"@example.org', "s@example.net"]
        outcome, _ = deliver(mail("hello"), to, copies=3, xclient=client, starttls=True)
        said = line(rspamd, outcome.queue_id)
        assert "ip: 192.0.2.7," in said
        assert "user: anna," in said
        assert f"from: <{SENDER}>" in said
        assert "rcpts: <r@example.org,a, b@example.org,s@example.net>" in said
        assert f"len: {len(mail('hello'))}," in said


def test_what_its_modules_change(daemon, deliver):
    want = ("X-Want: changes", "X-Gone: 1", "X-Gone: 2", "X-Second: 1", "X-Second: 2", "X-Second: 3")
    with daemon() as running:
        _, found = deliver(mail("hello", *want), ["r@example.org", "gone@example.org"], copies=2)
        assert sorted(fields(each, "Delivered-To")[0] for each in found) == ["added@example.org", "r@example.org"]
        for each in found:
            assert fields(each, "Return-Path") == ["<new@sender.example>"]
            assert sorted(fields(each, "X-List")) == ["one", "two"]
            assert fields(each, "X-Gone") == []
            assert fields(each, "X-Second") == ["1", "3"]
            assert fields(each, "X-Long")[0].split() == ["word"] * 400
        running.wait_for("is no header field's name")
    with daemon("edits: false"):
        _, [found] = deliver(mail("hello", *want))
        assert (fields(found, "X-List"), fields(found, "X-Gone")) == ([], ["1", "2"])


def asked(said):
    """How many questions Rspamd asked the name system."""
    return int(re.search(r"dns req: (\d+),", said)[1])


def test_what_we_found_is_handed_over(daemon, rspamd, deliver):
    with daemon():
        outcome, _ = deliver(mail("hello"))
        said = line(rspamd, outcome.queue_id)
        assert "R_SPF_DNSFAIL" in said  # no name server answers it
        alone = asked(said)
    with daemon("hand_over: true"):
        outcome, _ = deliver(mail("hello"))
        said = line(rspamd, outcome.queue_id)
        assert "R_SPF_ALLOW(-0.20){+ip4:192.0.2.7;}" in said
        assert "R_DKIM_NA(0.00)" in said
        assert asked(said) < alone  # one is left in Rspamd 3.12
        outcome, _ = deliver(mail("hello"), xclient={"addr": "192.0.2.8"})
        assert "R_SPF_FAIL(1.00){-all;}" in line(rspamd, outcome.queue_id)


def test_one_that_is_not_there_or_hangs_is_trouble(daemon, rspamd, postfix):
    internal = {"xclient": {"addr": "192.0.2.9"}}
    with daemon(url="http://127.0.0.1:1"):
        assert send(postfix, mail("hello")).final.code == 451
        assert send(postfix, mail("hello"), **internal).accepted
    with daemon() as running:
        with rspamd.paused():
            for _ in range(3):
                assert send(postfix, mail("hello")).final.code == 451
            running.wait_for("does not answer and is left alone")
            began = time.monotonic()
            assert send(postfix, mail("hello"), **internal).accepted
            assert time.monotonic() - began < 2.5  # not asked: its time-out is three seconds
        deadline = time.monotonic() + 40
        while not send(postfix, mail("hello")).accepted:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert send(postfix, mail(REJECT)).final.code == 550

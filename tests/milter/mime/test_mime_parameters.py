"""Parameters of fields: RFC 2231 and what programs make of values that are not lawful."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mime.description import describe
from elemta_milter.mime.parameters import MAX_READINGS, parameters

READINGS = [
    ("attachment; filename=a.exe", ["a.exe"]),
    ('attachment; FileName = "a b.exe" ; size=3', ["a b.exe"]),
    ("attachment;\r\n filename=a.exe", ["a.exe"]),
    ("attachment;\rfilename=a.exe", ["a.exe"]),
    ("attachment filename=a.exe", ["a.exe"]),
    ('attachment, filename="a.exe"', ["a.exe"]),
    ('attachment (a "comment); filename=a.exe', ["a.exe"]),
    ("attachment (\\); filename=b.txt); filename=a.exe", ["a.exe", "b.txt)"]),
    ("attachment (open; filename=a.exe", ["a.exe"]),
    ('attachment; filename="a.exe" (said)', ["a.exe", "a.exe (said)"]),
    ("attachment; filename=report(1).exe", ["report(1).exe", "report"]),
    ("attachment; filename=my a.exe", ["my a.exe", "my"]),
    ('attachment; filename="a\\"b.exe"', ['a"b.exe', 'a\\"b.exe']),
    ('attachment; filename="C:\\temp\\a.exe"', ["C:tempa.exe", "C:\\temp\\a.exe"]),
    ('attachment; filename="a.exe; size=3', ["a.exe", '"a.exe']),
    ('attachment; filename="a".exe', ["a.exe", "a"]),
    ("attachment; filename=a.txt; filename=b.exe", ["a.txt", "b.exe"]),
    ("attachment; filename*=utf-8''a%C3%A9.exe", ["aé.exe"]),
    ("attachment; filename*=iso-8859-1'de'a%E9.exe", ["aé.exe"]),
    ("attachment; filename*=no-such''a%C3%A9.exe", ["aé.exe"]),
    ("attachment; filename*=a%2Eexe", ["a.exe"]),
    ("attachment; filename*1=.exe; filename*0=a", ["a.exe"]),
    ("attachment; filename*0*=utf-8''%C3; filename*1*=%A9.exe", ["é.exe"]),
    ("attachment; filename*0*=utf-8''%C3%A9; filename*1=%41.exe", ["é%41.exe"]),
    ("attachment; filename*0=a; filename*2=.exe", ["a.exe", "a"]),
    ("attachment; filename*0=a; filename*0=b; filename*1=.exe", ["a.exe", "b.exe"]),
    ("attachment; filename=b.txt; filename*0=a; filename*1=.exe", ["a.exe", "b.txt"]),
    ('attachment; filename="=?utf-8?B?YS5leGU=?="', ["a.exe"]),
    ('attachment; filename="=?utf-8?B?YS5leGU?="', ["a.exe"]),
    ('attachment; filename*0="=?utf-8?B?YS5l"; filename*1="eGU=?="', ["a.exe"]),
    ('attachment; filename="a%2Eexe"', ["a%2Eexe", "a.exe"]),
    ('attachment; filename="a.exe\0.txt"', ["a.exe\0.txt", "a.exe.txt", "a.exe"]),
    ("attachment; filename=", []),
    ("attachment; =a.exe; filename*x=a.exe; ;;", []),
]


@pytest.mark.parametrize(("value", "names"), READINGS)
def test_file_names(value, names):
    read = parameters(value.encode())

    assert read.word == "attachment"
    assert list(read.readings.get("filename", ())) == names


@pytest.mark.parametrize("other", ["filename={}.txt", "filename*=utf-8''{}.txt"])
def test_that_there_are_more_readings_than_are_kept_is_told(other):
    names = [other.format(number) for number in range(MAX_READINGS)]
    full = parameters("; ".join(["attachment", *names]).encode())
    assert (len(full.readings["filename"]), full.cut) == (MAX_READINGS, False)
    assert parameters("; ".join(["attachment", *names, "filename=evil.exe"]).encode()).cut is True


def test_the_end_of_a_long_file_name_is_kept():
    said = describe([(b"Content-Disposition", b"attachment; filename=" + b"a" * 2000 + b".exe")])
    assert said.filenames[0].endswith(".exe")


def test_octets_of_no_charset():
    assert parameters(b"x; filename=\xe9.exe").first("filename") == "é.exe"
    assert parameters("x; filename=é.exe".encode()).first("filename") == "é.exe"


TYPES = [
    (["text/html; charset=utf-8"], "text/html", {"charset": "utf-8"}),
    (["(c) TEXT / Html (c) ; (c) charset (c) = (c) utf-8 (c)"], "text/html", {"charset": "utf-8"}),
    (["nonsense"], "text/plain", {}),
    ([""], "text/plain", {}),
    (["text/plain", "application/zip; name=a"], "application/zip", {"name": "a"}),
    (["text/plain", "text/html"], "text/plain", {}),
    (["\v\0multipart/mixed; boundary=b"], "multipart/mixed", {"boundary": "b"}),
    (['"multipart/mixed"; boundary=b'], "multipart/mixed", {"boundary": "b"}),
    (["mixed; boundary=b"], "multipart/mixed", {"boundary": "b"}),
    ([], "text/plain", {}),
]


@pytest.mark.parametrize(("values", "media_type", "found"), TYPES)
def test_media_types(values, media_type, found):
    said = describe([(b"Content-Type", value.encode()) for value in values])

    assert (said.media_type, dict(said.parameters)) == (media_type, found)
    assert (len(values) > 1) == ("several Content-Type fields" in said.defects)


@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        (["BASE64"], "base64"),
        ([' "base64" (x)'], "base64"),
        (["(base64) 8bit;"], "8bit"),
        (["7bit", "base64"], "base64"),
        ([""], "7bit"),
        (["x-own"], "x-own"),
    ],
)
def test_encodings(values, encoding):
    assert describe([(b"Content-Transfer-Encoding ", value.encode()) for value in values]).encoding == encoding


def test_names_stand_in_both_fields():
    said = describe([(b"Content-Type", b"x/y; name=a.txt"), (b"CONTENT-DISPOSITION", b"; filename=b.exe")])

    assert said.filenames == ("b.exe", "a.txt")
    assert said.disposition == "attachment"


HOSTILE = [
    b'"\\',
    b"(",
    b"a=b;",
    b"a*1=b;",
    b'a="b',
    b'(")',
    b"a=%41",
    b'x;a="(',
    b"a ",
    b"=?",
    b"=?u?q?a?=",
    b"; a\t",
    b"*",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear(piece):
    began = time.process_time()
    parameters(b"x; a=" + piece * (500_000 // len(piece)))

    assert time.process_time() - began < 10  # it takes at most one


@given(
    st.lists(
        st.sampled_from(
            ['"', "\\", "(", ")", ";", "=", "*", "*0", "*1*", "a", "'", "%41", " ", "\r\n ", "=?utf-8?q?x?="]
        )
    )
)
def test_any_value(pieces):
    read = parameters("".join(pieces).encode())

    for readings in read.readings.values():
        assert 0 < len(readings) <= MAX_READINGS

"""Contents of parts: transfer encodings and charsets as programs read them."""

import base64
import time
from binascii import b2a_qp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.testing import message
from elemta_milter.mime import content, text_of, tree_of
from elemta_milter.mime.content import PIECE


def hold(body, encoding="base64", limit=1 << 20, content_type="application/octet-stream"):
    fields = [("Content-Type", content_type), ("Content-Transfer-Encoding", encoding)]
    tree = tree_of(message(headers=fields, body=body))
    return content(tree, tree.root, limit)


BASE64 = [
    (b"Q2F0", b"Cat", None),
    (b"Q2\r\nF0\r\n", b"Cat", None),
    (b"Q2E=", b"Ca", None),
    (b"Q2E", b"Ca", "base64 without its padding"),
    (b"Q2F0Q", b"Cat", "base64 of a wrong length"),
    (b"Q2!F*0", b"Cat", "octets that are not base64"),
    (b"Q2E=Q2E=", b"CaCa", "base64 that goes on after its padding"),
    (b"Q2E=Q2F0", b"CaCat", "base64 that goes on after its padding"),
    (b"=Q2F0", b"Cat", None),
    (b"", b"", None),
    (b"\x00\xff", b"", "octets that are not base64"),
]


@pytest.mark.parametrize(("body", "octets", "defect"), BASE64)
def test_base64(body, octets, defect):
    found = hold(body)

    assert found.octets == octets
    assert found.defects == ((defect,) if defect else ())
    assert not found.cut


def test_base64_in_countless_segments_is_cut_off():
    found = hold(b"QQ==" * 1_000_000)

    assert "base64 in too many segments" in found.defects
    assert found.octets == b"A" * 1000


@pytest.mark.parametrize(("encoding", "body"), [("x-yenc", b"="), ("x-uuencode", b"!A\n")])
def test_so_many_steps_are_made_and_no_more(encoding, body):
    began = time.thread_time()
    found = hold(body * 8_000_000, encoding, 1 << 26)
    assert time.thread_time() - began < 2.0
    assert found.defects[-1].startswith("a broken ")


QUOTED_PRINTABLE = [
    (b"a=3Db=\r\nc", b"a=bc"),
    (b"caf=c3=A9", "café".encode()),
    (b"broken =ZZ =4", b"broken =ZZ =4"),
    (b"end=", b"end"),
    (b"a=\nb", b"ab"),
    (b"a= \t\r\nb", b"ab"),
    (b"a=\rhidden\r\nb", b"ahidden\r\nb"),
    (b"a= b=", b"a= b"),
]


@pytest.mark.parametrize(("body", "octets"), QUOTED_PRINTABLE)
def test_quoted_printable(body, octets):
    assert hold(body, "Quoted-Printable").octets == octets


def test_uuencode():
    assert hold(b"begin 644 a\r\n#0V%T\r\n`\r\nend\r\nrest", "x-uuencode").octets == b"Cat"
    assert hold(b"#0V%T\r\n", "uuencode").octets == b"Cat"
    assert hold(b"begin 644 a\r\n#0V%Tx9\r\n", "uuencode").octets == b"Cat"


def test_yenc():
    octets = bytes(range(256))
    coded = bytearray()
    for octet in octets:
        coded += (
            bytes([(octet + 42) % 256]) if (octet + 42) % 256 not in b"\0\n\r=" else bytes([61, (octet + 106) % 256])
        )

    assert hold(bytes(coded), "x-yenc").octets == octets


def test_what_is_not_encoded_or_in_an_unknown_way():
    assert hold(b"a=3D", "8bit").octets == b"a=3D"
    found = hold(b"a=3D", "x-own")

    assert found.octets == b"a=3D"
    assert found.defects == ("unknown encoding x-own",)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "binary", "uuencode", "yenc"])
def test_the_limit(encoding):
    body = {"base64": b"Q2F0" * 100, "uuencode": b"#0V%T\n" * 100}.get(encoding, b"Cat" * 100)

    found = hold(body, encoding, 10)
    assert (len(found.octets), found.cut) == (10, True)
    assert len(hold(body, encoding, 0).octets) == 0
    assert not hold(body, encoding, 300).cut


@given(st.binary(max_size=2000), st.integers(1, 2000))
def test_what_others_encode_is_decoded(octets, limit):
    for encoding, body in (("base64", base64.encodebytes(octets)), ("quoted-printable", b2a_qp(octets, istext=False))):
        assert hold(body, encoding).octets == octets
        assert hold(body, encoding, limit).octets == octets[:limit]


@pytest.mark.parametrize("over", [-2, -1, 0, 1, 2])
def test_pieces_are_joined(over):
    octets = bytes(range(251)) * 4000
    for ends in (b"", b"\r\n"):
        shift = b" " * (PIECE % 7 + over + 2)
        assert hold(shift + base64.b64encode(octets) + ends, limit=1 << 21).octets == octets
    coded = b"".join(b"=%02X" % octet for octet in octets)  # in one line
    assert hold(b"x" * (over + 2) + coded, "quoted-printable", 1 << 21).octets == b"x" * (over + 2) + octets


@given(
    st.binary(max_size=300),
    st.sampled_from(["base64", "quoted-printable", "uuencode", "yenc", "x"]),
    st.integers(0, 50),
)
def test_any_octets(body, encoding, limit):
    assert len(hold(body, encoding, limit).octets) <= limit


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "uuencode", "yenc"])
@pytest.mark.parametrize("piece", [b"=", b"A===", b"=\r\n", b"\r\n", b"A", b"#0V%T\r\n", b"=A"])
def test_time_is_linear(encoding, piece):
    body = piece * (4_000_000 // len(piece))
    began = time.process_time()
    hold(body, encoding, 1 << 30)

    assert time.process_time() - began < 10


def test_a_line_of_uuencode_that_does_not_end_is_not_gone_through_again_and_again():
    began = time.process_time()
    held = hold(b"#0V%T" + b"x" * (32 << 20) + b"\n#0V%T\n", "uuencode", 1 << 30)

    assert time.process_time() - began < 3.5  # it took five, and four times that of twice as many
    assert held.octets == b"CatCat"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("before", range(-2, 3))
def test_a_line_of_uuencode_may_end_where_a_piece_ends(end, before):
    first = b"#0V%T".ljust((PIECE - before) % 8 + 8 - len(end), b" ") + end
    line = b"#0V%T".ljust(8 - len(end), b" ") + end
    held = hold(first + line * (PIECE // 4), "uuencode")

    assert held.octets == b"Cat" * (PIECE // 4 + 1)


CHARSETS = [
    ("charset=utf-8", "é".encode(), "é", ""),
    ("charset=iso-8859-1", b"\xe9\x80", "é€", ""),
    ("charset=us-ascii", "é".encode(), "é", "not in its charset us-ascii"),
    ("x=y", b"\xe9", "é", ""),
    ("x=y", "é".encode(), "é", ""),
    ("charset=utf-8", b"\xe9", "\ufffd", "not in its charset utf-8"),
    ("charset=gb2312", "镕".encode("gb18030"), "镕", ""),
    ("charset=utf-7", b"+AGg-ttp", "+AGg-ttp", "unknown charset utf-7"),
    ("charset=hex", b"41", "41", "unknown charset hex"),
    ("charset=idna", b"41", "41", "unknown charset idna"),
    ("charset=no-such", b"\xe9", "é", "unknown charset no-such"),
    ("charset=iso-8859-1", b"\xef\xbb\xbf\xc3\xa9", "é", ""),
    ("charset=utf-8", b"\xff\xfea\x00", "a", ""),
]


@pytest.mark.parametrize(("parameter", "octets", "expected", "defect"), CHARSETS)
def test_charsets(parameter, octets, expected, defect):
    tree = tree_of(message(headers=[("Content-Type", f"text/plain; {parameter}")], body=octets))

    assert text_of(tree.root, octets) == (expected, defect)


def test_html_tells_its_charset_in_a_meta_element():
    octets = b'<html><META http-equiv="Content-Type" content="text/html; charset=windows-1251">\xe9'
    tree = tree_of(message(headers=[("Content-Type", "text/html")], body=octets))

    assert text_of(tree.root, octets)[0].endswith("й")


@pytest.mark.parametrize("charset", ["utf-16", "cp037", "utf-7", "no-such"])
def test_one_in_which_the_element_could_not_be_read_is_not_believed(charset):
    octets = b"<meta charset=%s>x" % charset.encode()
    tree = tree_of(message(headers=[("Content-Type", "text/html")], body=octets))

    assert text_of(tree.root, octets)[0] == octets.decode()

"""attachments: mail that programs read in several ways hides no file, or is not called clean."""

from __future__ import annotations

import base64
import binascii
import gzip
import random
import time

import pytest

from elemta.facts import BytesBody, Message
from elemta.findings import Result
from elemta.testing import envelope, run
from elemta_milter.checks.attachments import Attachments
from harness.archives import PROGRAM, zipped

PDF = b"%PDF-1.7\n1 0 obj <</Type /Catalog>>\n<</S /JavaScript>>\n"
CRLF = b"\r\n"


def b64(octets):
    return base64.encodebytes(octets).replace(b"\n", CRLF)


def part(*header, content=b""):
    return CRLF.join(header) + CRLF * 2 + content


def body(*parts, boundary=b"b"):
    return b"".join(b"--" + boundary + CRLF + each + CRLF for each in parts) + b"--" + boundary + b"--" + CRLF


def look(content, *header, **options):
    fields = tuple((each.partition(b":")[0], each.partition(b":")[2]) for each in header)
    return run(Attachments, Message(envelope(), fields, BytesBody(content)), **options)


def mixed(*parts, **options):
    return look(body(*parts), b"Content-Type: multipart/mixed; boundary=b", **options)


TEXT = part(b"Content-Type: text/plain", content=b"hello")
OCTETS = b"Content-Type: application/octet-stream"
EXE = part(OCTETS, b"Content-Disposition: attachment; filename=evil.exe", content=b"x")
ENCODED_EXE = part(OCTETS, b"Content-Transfer-Encoding: base64", content=b64(PROGRAM))


@pytest.mark.parametrize("inside", [ENCODED_EXE, part(OCTETS + b"; name=a", content=PROGRAM[:2] + b"\0\0" + PROGRAM)])
def test_a_multipart_that_was_encoded_as_a_whole_is_read(inside):
    encoded = b"Content-Transfer-Encoding: base64"
    assert look(b64(body(TEXT, inside)), b"Content-Type: multipart/mixed; boundary=b", encoded).fields["executable"]
    inner = part(b"Content-Type: multipart/mixed; boundary=c", encoded, content=b64(body(inside, boundary=b"c")))
    assert mixed(TEXT, inner).fields["executable"] is True


def test_one_in_quoted_printable_is_not_called_clean():
    packed = binascii.b2a_qp(body(TEXT, ENCODED_EXE), istext=False)
    header = b"Content-Type: multipart/mixed; boundary=b", b"Content-Transfer-Encoding: quoted-printable"
    assert look(packed, *header).result is Result.NEUTRAL


@pytest.mark.parametrize(
    ("encoding", "content", "result"),
    [
        (b"base64", b64(body(TEXT, ENCODED_EXE)) + CRLF + body(TEXT), "neutral"),
        (b"quoted-printable", body(TEXT) + body(TEXT, ENCODED_EXE).replace(b"--b\r\n", b"-=2Db\r\n"), "neutral"),
        (b"base64", body(TEXT, TEXT), "none"),  # an encoding that was only told
        (b"quoted-printable", body(TEXT, TEXT), "none"),
    ],
)
def test_an_encoded_multipart_with_parts_that_are_not_encoded_hides_none(encoding, content, result):
    kind = b"Content-Type: multipart/mixed; boundary=b"
    assert look(content, kind, b"Content-Transfer-Encoding: " + encoding).result == result


def test_encoded_multiparts_within_each_other_are_decoded_until_the_time_is_over():
    kind = b"Content-Type: multipart/mixed; boundary=b%d\r\nContent-Transfer-Encoding: base64\r\n\r\n--b%d\r\n"
    content = b"--b\r\n" + b"".join(kind % (number, number) for number in range(45)) + b"\r\n" + b"QUJD" * (1 << 20)
    began = time.process_time()
    found = look(content, b"Content-Type: multipart/mixed; boundary=b", max_cpu="200ms")
    assert time.process_time() - began < 6  # of a mail of 50 MB it took fifteen
    assert found.fields["excess"] == ("0.2 s of processor time",)


def test_multiparts_in_encoded_multiparts_end_at_the_depth():
    inner = ENCODED_EXE
    for _ in range(9):
        header = b"Content-Type: multipart/mixed; boundary=b", b"Content-Transfer-Encoding: base64"
        inner = part(*header, content=b64(body(inner)))
    assert mixed(inner).fields["excess"] == ("depth 5",)


def test_a_block_of_uuencode_in_a_file_hides_not_the_file():
    block = b"begin 644 a.txt\r\n" + binascii.b2a_uu(b"x").rstrip() + b"\r\n`\r\nend\r\n"
    for header in (
        b"Content-Type: text/plain; name=a.pdf",
        b"Content-Type: text/html\r\nContent-Disposition: attachment",
    ):
        found = mixed(TEXT, part(header, content=PDF + block))
        assert found.fields["script"] == ("javascript",)
        assert "a.txt" in found.fields["names"]


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_block_of_uuencode_in_an_encoded_text_is_found(encoding):
    octets = b"see\r\nbegin 644 evil.exe\r\n" + binascii.b2a_uu(PROGRAM[:45]).rstrip() + b"\r\n`\r\nend\r\n"
    packed = b64(octets) if encoding == "base64" else binascii.b2a_qp(octets)
    header = b"Content-Type: text/plain", b"Content-Transfer-Encoding: " + encoding.encode()
    assert look(packed, *header).fields["names"] == ("evil.exe",)
    assert mixed(TEXT, part(*header, content=packed)).fields["extension"] == ("exe",)
    packed = b64(b"a line that fills\r\n" * 60_000 + octets)
    assert look(packed, header[0], b"Content-Transfer-Encoding: base64").fields["names"] == ("evil.exe",)


UUENCODED = b"see\r\nbegin 644 evil.exe\r\n" + binascii.b2a_uu(PROGRAM[:45]).rstrip() + b"\r\n`\r\nend\r\n"


@pytest.mark.parametrize(
    ("name", "octets"), [("a.uue", UUENCODED), ("a.UU", UUENCODED), ("a.zip", zipped(("a.uue", UUENCODED)))]
)
@pytest.mark.parametrize("media_type", [b"application/octet-stream", b"text/plain"])
def test_a_file_that_programs_unpack_as_uuencode_is_unpacked(name, octets, media_type):
    kind = b'Content-Type: %s; name="%s"' % (media_type, name.encode())
    for found in (
        mixed(TEXT, part(kind, b"Content-Transfer-Encoding: base64", content=b64(octets))),
        mixed(TEXT, part(kind, content=octets)),
    ):
        assert "exe" in found.fields["extension"]
        assert found.fields["count"] == 2


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: text/javascript",
        b"Content-Type: text/x-vbscript",
        b"Content-Type: text/rtf",
        b"Content-Type: message/x-unknown",
        b"Content-Type: text/plain\r\nContent-Disposition: something",  # RFC 2183 section 2.8: as an attachment
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64",
    ],
)
def test_what_no_program_shows_as_text_is_an_attachment(header):
    content = b64(PROGRAM) if b"base64" in header else PROGRAM
    assert mixed(TEXT, part(header, content=content)).fields["executable"] is True


@pytest.mark.parametrize(
    "header", [b"Content-Type: text/plain", b"Content-Type: text/html", b"Content-Type: text/calendar; method=REQUEST"]
)
def test_and_what_they_show_is_none(header):
    assert mixed(TEXT, part(header, content=b"hello")).result is Result.NONE


@pytest.mark.parametrize("kind", [b"message/rfc822", b"message/global", b"message/news"])
def test_an_encoded_mail_with_an_archive_behind_it_is_still_a_mail(kind):
    inner = b"Content-Type: multipart/mixed; boundary=i\r\n\r\n" + body(EXE, boundary=b"i") + zipped(("a.txt", b"x"))
    found = mixed(part(b"Content-Type: " + kind, b"Content-Transfer-Encoding: base64", content=b64(inner)))
    assert {"exe", "txt"} <= set(found.fields["extension"])
    found = mixed(part(OCTETS + b"; name=a.eml", b"Content-Transfer-Encoding: base64", content=b64(inner)))
    assert {"eml", "exe", "txt"} <= set(found.fields["extension"])


LINE = b64(bytes(range(57)))


@pytest.mark.parametrize(
    "content",
    [
        (b64(PDF)[:40] + b"\r\n--bxyz\r\n" + b64(PDF)[40:]),  # a delimiter line for some
        (b64(PDF)[:40] + b"\r\n--b xyz\r\n" + b64(PDF)[40:]),
        (b64(PDF)[:41] + b"=" + b64(PDF)[41:]),  # some pass over a lone "="
        (b64(PDF)[:40] + b"----" + b64(PDF)[40:]),
    ],
)
def test_content_that_programs_read_in_several_ways_is_not_called_clean(content):
    found = mixed(TEXT, part(OCTETS + b"; name=a.pdf", b"Content-Transfer-Encoding: base64", content=content))
    assert (found.result, found.fields["broken"]) == (Result.NEUTRAL, True)
    assert "broken: " in found.reason


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64",
        b"Content-Type: application/pdf\r\nContent-Type: text/plain; name=a.pdf",
        b"Content-Type: application/pdf; name=a.pdf\r\njunk\r\nX: y",
        b"junk\r\nContent-Type: application/pdf; name=a.pdf",
    ],
)
def test_nor_is_a_header_that_contradicts_itself(header):
    found = mixed(TEXT, part(header, content=b"hello"), part(OCTETS + b"; name=a.txt", content=b"x"))
    assert (found.result, found.fields["broken"]) == (Result.NEUTRAL, True)


@pytest.mark.parametrize("boundary", [b"'b'", b"=b"])
def test_nor_is_a_multipart_without_parts_in_which_some_program_finds_parts(boundary):
    found = look(body(TEXT, EXE), b"Content-Type: multipart/mixed; boundary=" + boundary)
    assert (found.result, found.fields["broken"]) == (Result.NEUTRAL, True)


@pytest.mark.parametrize("other", [b"filename=%d.txt", b"filename*=utf-8''%d.txt"])
def test_more_names_than_are_kept_are_not_called_clean(other):
    names = b"; ".join(other % number for number in range(60))
    found = mixed(part(OCTETS, b"Content-Disposition: attachment; " + names + b"; filename=evil.js", content=b"x"))
    assert found.result is Result.NEUTRAL


@pytest.mark.parametrize(
    "encoding", [b'"base64"', b"(x) base64", b"((x)y) base64", b"8bit base64", b"base64; x=y", b"BASE64 (x)"]
)
def test_an_encoding_is_found_in_what_stands_around_it(encoding):
    found = mixed(part(OCTETS + b"; name=a", b"Content-Transfer-Encoding: " + encoding, content=b64(PROGRAM)))
    assert found.fields["executable"] is True


def test_what_is_encoded_in_an_unknown_way_was_not_read():
    found = mixed(part(OCTETS + b"; name=a", b"Content-Transfer-Encoding: x-own", content=b64(PROGRAM)))
    assert (found.result, found.fields["unread"]) == (Result.NEUTRAL, True)
    assert "a: unknown encoding x-own" in found.reason


def test_benign_oddities_are_none():
    content = b64(PROGRAM).rstrip().rstrip(b"=") + b"\r\n\r\n"
    found = mixed(TEXT, part(OCTETS + b"; name=a.exe", b"Content-Transfer-Encoding: base64", content=content))
    assert found.result is Result.PASS
    open_ended = look(body(TEXT, EXE)[:-7], b"Content-Type: multipart/mixed; boundary=b")
    assert (open_ended.result, open_ended.fields["names"]) == (Result.PASS, ("evil.exe",))


def two_names(content_type, disposition, octets):
    encoding = b"Content-Transfer-Encoding: base64"
    header = b"Content-Type: " + content_type, b"Content-Disposition: attachment; " + disposition, encoding
    return mixed(TEXT, part(*header, content=b64(octets)))


MAIL = CRLF.join((b"Subject: x", b"Content-Type: application/x; name=evil.js", b"", b"var a;"))
RELATION = (
    b'<Relationship Type="http://x.test/attachedTemplate" Target="http://evil.test/a.dotm" TargetMode="External"/>'
)


@pytest.mark.parametrize(
    ("shown", "other", "octets"),
    [
        ("a.docx", "a.zip", zipped(("evil.js", b"var a;"))),
        ("a.txt", "a.eml", MAIL),
        ("a.gz", "evil.js.gz", gzip.compress(b"var a;")),
    ],
)
def test_what_programs_show_by_another_name_is_opened_by_that_too(shown, other, octets):
    kind = f"application/octet-stream; name={other}".encode()
    for found in (
        two_names(kind, f"filename={shown}".encode(), octets),
        two_names(b"application/octet-stream", f"filename*=utf-8''{shown}; filename={other}".encode(), octets),
    ):
        assert "js" in found.fields["extension"]


@pytest.mark.parametrize("field", [b"Content-Name", b"X-Sun-Data-Name"])
@pytest.mark.parametrize("name", [b"evil.js", b'"evil.js"', b"=?utf-8?Q?evil=2Ejs?=", b"evil\r\n .js", b"evil%2ejs"])
def test_names_in_fields_of_no_rfc(field, name):
    found = mixed(TEXT, CRLF.join((b"Content-Type: text/plain", field + b": " + name, b"", b"var a;")))
    assert "js" in found.fields["extension"]


def test_a_second_name_hides_nothing_of_a_document():
    document = zipped(("[Content_Types].xml", b""), ("word/_rels/settings.xml.rels", RELATION))
    assert two_names(b"application/x; name=a.docx", b"filename=a.zip", document).fields["fetches"] is True
    assert two_names(b"application/x; name=a.zip", b"filename=a.docx", document).fields["fetches"] is True


def test_a_name_that_is_read_as_a_part_of_itself_makes_no_archive_of_a_document():
    document = zipped(("[Content_Types].xml", b""), ("word/media/a.bin", b"x"))
    found = two_names(b"application/x", b"filename=v1.2 report.docx", document)
    assert (found.fields["archives"], "bin" in found.fields["extension"]) == ((), False)


@pytest.mark.parametrize(("name", "end"), [("a.eml", MAIL), ("a.zip", zipped(("evil.js", b"var a;")))])
def test_what_is_too_long_to_be_opened_in_an_archive_is_not_called_clean(name, end):
    filler = random.Random(1).randbytes(9 << 20)  # which does not shrink
    if name == "a.eml":
        header = CRLF.join((b"Subject: x", b"Content-Type: multipart/mixed; boundary=b", b"", b""))
        end = header + body(TEXT + base64.b64encode(filler), MAIL)
    else:
        end = filler + end
    found = mixed(TEXT, part(b"Content-Type: application/zip; name=x.zip", content=zipped((name, end))))
    assert found.result is Result.NEUTRAL
    assert f"not opened: x.zip: {name}: too long" in found.reason


def test_a_long_file_in_an_archive_that_nobody_opens_as_one_is_well():
    filler = random.Random(1).randbytes(9 << 20)  # which does not shrink
    assert mixed(part(b"Content-Type: application/zip; name=x.zip", content=zipped(("a.mp4", filler)))).result == "pass"


@pytest.mark.parametrize(("kind", "flag"), [(2, "unread"), (3, "encrypted")])  # CMS: signed, enveloped data
@pytest.mark.parametrize("form", ["{}", "-----BEGIN PKCS7-----\n{}-----END PKCS7-----\n", None])
def test_a_mail_in_s_mime_is_known_by_its_name_too(kind, flag, form):
    octets = bytes.fromhex(f"3080 06092a864886f70d0107{kind:02x} a080") + bytes(50)
    if form is not None:  # DER in base64, as many signed invoices are
        octets = form.format(base64.encodebytes(octets).decode()).encode()
    header = part(OCTETS + b"; name=smime.p7m", b"Content-Transfer-Encoding: base64", content=b64(octets))
    found = mixed(TEXT, header)
    assert (found.result, found.fields["encrypted"], found.fields["unread"]) == (
        Result.NEUTRAL,
        flag == "encrypted",
        flag == "unread",
    )


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        (b"signed-data", "unread"),
        (b"Compressed-Data", "unread"),
        (b"certs-only", "unread"),
        (b"enveloped-data", "encrypted"),
    ],
)
def test_s_mime_is_what_it_says_it_is(kind, flag):
    signed = bytes.fromhex("3080 06092a864886f70d010702 a080") if flag == "encrypted" else b""
    found = mixed(TEXT, part(b"Content-Type: application/pkcs7-mime; smime-type=" + kind, content=signed + bytes(50)))
    assert (found.fields["encrypted"], found.fields["unread"]) == (flag == "encrypted", flag == "unread")

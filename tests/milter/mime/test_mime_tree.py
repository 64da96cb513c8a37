"""MIME trees: well-formed mail, mail that programs read in two ways, and bounds."""

import base64
import email
import email.policy
import quopri
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from elemta.testing import message
from elemta_milter.body import Spool
from elemta_milter.mime import MimeBounds, content, read, read_octets, tree_of, trees


def mail(body, content_type='multipart/mixed; boundary="b"', *more):
    lines = body.replace("\n", "\r\n").encode() if isinstance(body, str) else body
    return message(headers=[("Content-Type", content_type), *more], body=lines)


def shape(tree):
    """Numbers and types of the parts, as they stand in the message."""
    return [(part.number, part.media_type) for part in tree.root.walk()]


def leaves(tree):
    """What the parts say that hold no others."""
    return [bytes(tree.raw(part)) for part in tree.root.walk() if not part.parts]


def test_plain_mail_is_one_part():
    tree = tree_of(message())

    assert shape(tree) == [("", "text/plain")]
    assert leaves(tree) == [b"hello\r\n"]
    assert not tree.excess
    assert not tree.defects


def test_the_tree_is_made_once_a_message():
    of = message()

    assert tree_of(of) is tree_of(of)


NESTED = """pre
--b
Content-Type: multipart/alternative; boundary=bb

--bb

text
--bb
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: Quoted-Printable

<p>=C3=A9</p>
--bb--
--b
Content-Type: message/rfc822

Subject: inner
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: application/pdf; name=a.pdf
Content-Disposition: ATTACHMENT; filename="b.pdf"

%PDF
--c--
--b
Content-Type: message/rfc822

Subject: plain

body
--b--
epilogue
"""


def test_parts_are_numbered_as_imap_does():
    tree = tree_of(mail(NESTED))

    assert shape(tree) == [
        ("", "multipart/mixed"),
        ("1", "multipart/alternative"),
        ("1.1", "text/plain"),
        ("1.2", "text/html"),
        ("2", "message/rfc822"),
        ("2.TEXT", "multipart/mixed"),
        ("2.1", "application/pdf"),
        ("3", "message/rfc822"),
        ("3.1", "text/plain"),
    ]
    pdf = tree.root.parts[1].parts[0].parts[0]
    assert (pdf.disposition, pdf.filename, pdf.filenames, pdf.depth) == ("attachment", "b.pdf", ("b.pdf", "a.pdf"), 3)
    assert bytes(tree.raw(pdf)) == b"%PDF"
    assert pdf.header[0] == (b"Content-Type", b" application/pdf; name=a.pdf")
    assert bytes(tree.body[pdf.header_start :]).startswith(b"Content-Type: application/pdf")
    assert not tree.defects


SPLIT = [  # a body, what its leaves hold, what is wrong
    ("--b\n\none\n--b\n\ntwo\n--b--\n", [b"one", b"two"], None),
    ("--b  \n\none\n--b-- \t\n", [b"one"], None),
    ("--b\n\none\n--b\n\ntwo", [b"one", b"two"], "a multipart without its last delimiter"),
    ("--b\n\none\n--b--\n--b\n\ntwo", [b"one", b"two"], "parts after the last delimiter"),
    ("--b\n\none\n--bXY\n\ntwo\n--b--\n", [b"one", b"two"], "a delimiter line with text after the boundary"),
    ("--b\nno header\n--b--\n", [b"no header"], None),
    ("--b\n\n\n--b--\n", [b""], None),
    ("--b\n--b\n\ntwo\n--b--\n", [b"", b"two"], None),
    ("--b\nContent-Type: text/plain\n--b\n\ntwo\n--b--\n", [b"", b"two"], None),
    ("--b\nContent-Type: text/plain\njunk\nX: y\n\none\n--b--", [b"one"], "a line in a header that is no field"),
    ("--b\njunk\nContent-Type: text/html\n\none\n--b--", [b"one"], "a line in a header that is no field"),
    ("--b\njunk\nX: y\n\none\n--b--", [b"junk\r\nX: y\r\n\r\none"], None),
    ("--b\njunk\n\nContent-Type: text/html\n--b--", [b"junk\r\n\r\nContent-Type: text/html"], None),
    (b"--b\r\nContent-Type\v: text/html\r\n\r\none\r\n--b--", [b"one"], None),
    ("x --b\n--b\n\none --b\n--b--", [b"one --b"], None),
    ("-- \nme\n--\n", [b"-- \r\nme\r\n--\r\n"], "a multipart without its last delimiter"),
    ("--b\n\none\n-- \nme\n--b--", [b"one\r\n-- \r\nme"], None),
    (b"--b\n\none\n--b--\n", [b"one"], None),
    (b"--b\r\rone\r--b--\r", [b"one"], "a delimiter line that ends with CR alone"),
    (b"--b\r\r\nX: y\r\r\n\r\r\none\r\r\n--b--", [b"one\r"], None),
    (b"--b\r\n\r\n\x00\xff\r\n--b--", [b"\x00\xff"], None),
    (b"--b\r\nContent-Type: text/plain;\r name=x\r\n\r\none\r\n--b--", [b"one"], None),
]


@pytest.mark.parametrize(("body", "parts", "defect"), SPLIT)
def test_delimiter_lines(body, parts, defect):
    tree = tree_of(mail(body))

    assert leaves(tree) == parts
    assert tree.defects == ((defect,) if defect else ())


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/mixed", "--guessed\n\none\n--guessed\n\ntwo\n--guessed--"),
        ('multipart/mixed; boundary=""', "pre\n--guessed\n\none\n--guessed\n\ntwo\n--guessed--"),
        ('multipart/mixed; boundary=""', "--\n\none\n--\n\ntwo\n----"),
        ("multipart; boundary=b", "--b\n\none\n--b\n\ntwo\n--b--"),
        ("MULTIPART/Odd ; BOUNDARY = b", "--b\n\none\n--b\n\ntwo\n--b--"),
        ('multipart/mixed; boundary="a b "', "--a b \n\none\n--a b\n\ntwo\n--a b--"),
        ("multipart/mixed (c); (c) boundary=b (c)", "--b\n\none\n--b\n\ntwo\n--b--"),
        ("multipart/mixed; boundary*1=y; boundary*0=x", "--xy\n\none\n--xy\n\ntwo\n--xy--"),
        ("multipart/mixed; boundary=x; boundary=y", "--x\n\none\n--y\n\ntwo\n--y--"),
        ('multipart/mixed; boundary="=?utf-8?q?x?="', "--=?utf-8?q?x?=\n\none\n--=?utf-8?q?x?=\n\ntwo"),
        (f"multipart/mixed; boundary={'x' * 512}", "--{0}\n\none\n--{0}\n\ntwo\n--{0}--".format("x" * 512)),
        ('multipart/mixed; boundary="unended', "--unended\n\none\n--unended\n\ntwo\n--unended--"),
    ],
)
def test_every_reading_of_a_boundary_counts(content_type, body):
    assert leaves(tree_of(mail(body, content_type))) == [b"one", b"two"]


def test_delimiter_lines_of_a_boundary_that_is_not_told():
    tree = tree_of(mail("-- \n--'b'\n\none\n--'b'--", "multipart/mixed; boundary==b"))

    assert not tree.root.parts
    assert "a delimiter line of a boundary that is not told" in tree.defects


def test_of_several_content_types_that_which_shows_parts():
    of = mail("--b\n\none\n--b--", "text/plain", ("Content-Type", "multipart/mixed; boundary=b"))

    tree = tree_of(of)

    assert leaves(tree) == [b"one"]
    assert "several Content-Type fields" in tree.defects


def test_a_boundary_that_begins_with_another():
    body = "--bb\n\ninner 1\n--bb\n\ninner 2\n--bb--\n--b\n\nouter 2\n--b--\n"
    tree = tree_of(mail(f"--b\nContent-Type: multipart/mixed; boundary=bb\n\n{body}"))

    assert leaves(tree) == [b"inner 1", b"inner 2", b"outer 2"]
    assert [part.number for part in tree.root.parts] == ["1", "2"]
    assert not tree.defects


def test_a_boundary_within_an_equal_one():
    tree = tree_of(mail("--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n--b\n\ntwo\n--b--\n"))

    assert leaves(tree) == [b"one", b"two"]


def test_the_parent_ends_what_has_no_end():
    tree = tree_of(mail("--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--b\n\ntwo\n--b--\n"))

    assert shape(tree) == [
        ("", "multipart/mixed"),
        ("1", "multipart/mixed"),
        ("1.1", "text/plain"),
        ("2", "text/plain"),
    ]
    assert leaves(tree) == [b"one", b"two"]


def test_the_parts_of_a_digest_are_messages():
    tree = tree_of(mail("--b\n\nSubject: x\n\nbody\n--b--\n", "multipart/digest; boundary=b"))

    assert shape(tree)[1:] == [("1", "message/rfc822"), ("1.1", "text/plain")]


def test_a_message_from_a_mailbox_file():
    tree = tree_of(mail("\n>From a@b Mon Jan 1\nContent-Type: text/html\n\n<p>", "message/rfc822"))

    assert shape(tree) == [("", "message/rfc822"), ("1", "text/html")]


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_an_encoded_message_is_read_when_it_is_asked_for(encoding):
    inner = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none=\r\n--c--"
    encoded = base64.encodebytes(inner) if encoding == "base64" else quopri.encodestring(inner)
    tree = tree_of(mail(encoded, "message/rfc822", ("Content-Transfer-Encoding", encoding)))

    first, second = trees(tree, 10_000)

    assert f"a message in {encoding}" in first.defects
    assert shape(second) == [("", "multipart/mixed"), ("1", "text/plain")]
    assert leaves(second) == [b"one="]
    assert trees(tree, 10)[1].excess


def test_an_encoded_multipart_is_read_when_it_is_asked_for():
    body = b"LS1iDQoNCm9uZQ0KLS1iLS0="
    tree = tree_of(mail(body, "multipart/mixed; boundary=b", ("Content-Transfer-Encoding", "base64")))

    assert leaves(trees(tree, 10_000)[1]) == [b"one"]


def test_encoded_messages_within_each_other_are_bounded():
    inner = b"Content-Type: text/plain\r\n\r\nx"
    for _ in range(25):
        head = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        inner = head + base64.b64encode(inner)
    tree = tree_of(mail(inner, "message/rfc822"))

    found = trees(tree, 1 << 20)

    assert len(found) == 21
    assert found[0].excess == ("20 messages that are encoded",)


EMBEDDED = [
    ("begin 644 a.exe\n#0V%T\n`\nend\n", "uuencode", "a.exe", b"Cat"),
    ("text\nbegin  a b.exe\n#0V%T\n", "uuencode", "a b.exe", b"Cat"),
    ("begin-base64 644 a.exe\nQ2F0\n====\n", "base64", "a.exe", b"Cat"),
    ("begin 644   a b.exe \n#0V%T\n", "uuencode", "a b.exe", b"Cat"),
    ("begin 644 \n#0V%T\n", "uuencode", "644", b"Cat"),
    (b"=ybegin line=128 size=3 name=a.exe\r\nm\x8b\x9e\r\n=yend size=3\r\n", "yenc", "a.exe", b"Cat"[:1] + b"at"),
    (b"=ybegin line=128 name=a=name=b.exe  \r\nm\x8b\x9e\r\n", "yenc", "a=name=b.exe", b"Cat"),
]


@pytest.mark.parametrize(("body", "encoding", "name", "holds"), EMBEDDED)
def test_files_in_text(body, encoding, name, holds):
    tree = tree_of(mail(body, "text/plain"))

    [part] = tree.root.parts
    assert (part.number, part.encoding, part.filename) == ("1", encoding, name)
    assert content(tree, part, 100).octets == holds


def test_the_word_begin_is_no_file():
    assert not tree_of(
        mail("begin\nbegin with me\nand end\nto begin 644 a\nbegin 644 x\nnot uuencoded at all\n", "text/plain")
    ).root.parts


@pytest.mark.parametrize(
    "line",
    [
        b"begin" + b" " * 10_000 + b"x",
        b"begin 644 a" + b" " * 10_000 + b"x",
        b"begin 644 " + b"a " * 5_000,
        b"=ybegin " + b"name=" * 200 + b" " * 10_000 + b"x",
    ],
)
def test_a_line_that_nearly_begins_a_file_is_read_once(line):
    began = time.process_time()
    tree = tree_of(mail(line * 5, "text/plain"))

    assert time.process_time() - began < 10  # it took hours
    assert not tree.root.parts


RFC822 = b"Content-Type: message/rfc822\r\n\r\n"
DEEP = b"--b\r\n" + b"".join(
    b"Content-Type: multipart/mixed; boundary=%dx\r\n\r\n--%dx\r\n" % (n, n) for n in range(1000)
)
BOUNDS = [
    (b"--b\r\n\r\nx\r\n" * 10_000, "1000 parts", 1001),
    (b"--b\r\n" * 2_000_000, "1000 parts", 1001),
    (b"--c\r\n" * 2_000_000, "200000 lines that begin with --", 1),
    (b"--b\r\nContent-Type: text/plain; x=" + b"a" * 1_000_000, "65536 octets of the header of a part", 2),
    (b"--b\r\n" + b"A:\r\n" * 2_000_000, "65536 octets of the header of a part", 2),
    (b"--b\r\nA:" + b"\r" * 2_000_000, None, 2),
    (b"\r" * 5_000_000, None, 1),
    (b"\r\n-- " * 2_000_000, "200000 lines that begin with --", 1),
    (b"\r\n--" * 2_000_000, "200000 lines that begin with --", 1),
    (b"--b\r\n\r\n" + b"begin" * 2_000_000, "100000 times begin in text", 2),
    (b"--b\r\n\r\n" + b"begin 6\n" * 2_000_000, "100000 times begin in text", 2),
    ((b"--b\r\nContent-Type: x/y" + b";(" * 500 + b"\r\n\r\n") * 900, "the pieces of header fields that are read", 901),
    (b"--b\r\n" + RFC822 * 10_000, "50 parts within each other", 51),
    (DEEP, "50 parts within each other", 51),
]


@pytest.mark.parametrize(("body", "excess", "parts"), BOUNDS, ids=range(len(BOUNDS)))
def test_bounds_are_told_and_cost_little(body, excess, parts):
    began = time.process_time()
    tree = tree_of(mail(body))

    assert time.process_time() - began < 5  # it takes a tenth
    assert excess is None or excess in tree.excess
    assert parts is None or len(list(tree.root.walk())) == parts


def test_a_field_of_a_megabyte():
    tree = tree_of(message(headers=[("Content-Type", "text/plain; " + "a=b;" * 250_000)]))

    assert "65536 octets of header fields that describe a part" in tree.excess


@pytest.mark.parametrize(
    "field",
    [
        ("Content-Type", "text/plain" + ";(" * 30_000),
        ("Content-Type", "text/plain" + ";a=b" * 15_000),
        ("Content-Disposition", "attachment" + ";name*=utf-8''%41" * 3_800),
        ("\x01Content-Type", "x" * 65_536),
    ],
)
def test_fields_of_a_message_that_say_much_of_it_cost_little(field):
    began = time.process_time()
    tree = tree_of(message(headers=[field] * 16))

    assert time.process_time() - began < 1.5  # on the loop; it took two seconds, and takes a tenth
    assert tree.excess


def test_octets_beyond_the_bound_are_not_searched():
    tree = read(mail("--b\n\none\n--b\n\ntwo\n--b--\n"), MimeBounds(octets=14))

    assert tree.excess == ("14 octets",)
    assert len(tree.root.parts) == 1


def test_a_spooled_body_is_mapped(tmp_path):
    body = NESTED.replace("\n", "\r\n").encode()
    spool = Spool(str(tmp_path), memory=10)
    spool.append(body)
    of = message(headers=[("Content-Type", "multipart/mixed; boundary=b")])
    of = replace(of, body=spool.finish())

    assert shape(tree_of(of)) == shape(tree_of(mail(NESTED)))
    assert leaves(tree_of(of)) == leaves(tree_of(mail(NESTED)))


# ── any mail at all ─────────────────────────────────────────────────────────────────────────────────────────

_PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"--",
        b"--b",
        b"--b--",
        b"--c",
        b"--bb",
        b" ",
        b"\t",
        b";",
        b'"',
        b"(",
        b")",
        b"x",
        b"\x00\xff",
    ),
    *(
        b"Content-Type: ",
        b"multipart/mixed; boundary=",
        b"multipart/mixed",
        b"message/rfc822",
        b"text/plain",
        b"b",
        b"bb",
    ),
    *(b"Content-Transfer-Encoding: base64", b"begin 644 a\r\n#0V%T\r\n", b"=ybegin line=1 name=a\r\n", b"From "),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=60), st.sampled_from(["b", "c", '"b', "", "bb; boundary=c"]))
def test_any_octets_give_a_lawful_tree(pieces, boundary):
    body = b"".join(pieces)
    tree = read(mail(body, f"multipart/mixed; boundary={boundary}"), MimeBounds(parts=20, depth=5, part_header=200))

    parts = list(tree.root.walk())
    assert len(parts) <= 21 + 20
    assert (tree.root.start, tree.root.end) == (0, len(body))
    for part in parts:
        assert part.header_start <= part.start <= part.end <= len(body)
        assert part.depth <= 6
        place = part.start
        for inner in part.parts:  # one behind the other, within their parent
            if inner.encoding not in ("uuencode", "yenc"):
                assert place <= inner.header_start
                assert inner.end <= max(part.end, inner.start)
                place = inner.header_start
        content(tree, part, 50)
    trees(tree, 200)


_TEXT = st.text("abc -=\n", max_size=60)


@st.composite
def _mails(draw, depth=0):
    """A well-formed entity."""
    kind = draw(st.sampled_from(["text", "text", "multipart", "message"] if depth < 3 else ["text"]))
    if kind == "text":
        body = draw(_TEXT)
        return f"Content-Type: text/x{draw(st.integers(0, 9))}\n\n{body}"
    if kind == "message":
        return f"Content-Type: message/rfc822\n\nSubject: x\n{draw(_mails(depth + 1))}"
    inner = draw(st.lists(_mails(depth + 1), min_size=1, max_size=3))
    boundary = f"=_{depth}_{draw(st.integers(0, 99))}_"
    parts = "".join(f"--{boundary}\n{each}\n" for each in inner)
    return f'Content-Type: multipart/mixed; boundary="{boundary}"\n\n{parts}--{boundary}--\n'


@given(_mails())
def test_the_standard_library_reads_well_formed_mail_alike(entity):
    octets = f"Subject: test\n{entity}".replace("\n", "\r\n").encode()
    theirs = email.message_from_bytes(octets, policy=email.policy.compat32)
    head, _, body = octets.partition(b"\r\n\r\n")
    fields = tuple(tuple(line.split(b":", 1)) for line in head.split(b"\r\n"))
    of = message(body=body)
    of = replace(of, headers=fields)

    tree = tree_of(of)

    assert [part.media_type for part in tree.root.walk()] == [part.get_content_type() for part in theirs.walk()]
    ours = [bytes(tree.raw(part)) for part in tree.root.walk() if part.media_type.startswith("text/")]
    assert ours == [part.get_payload().encode() for part in theirs.walk() if part.get_content_maintype() == "text"]
    assert not tree.excess
    assert not tree.defects


@pytest.mark.parametrize(
    ("boundaries", "line", "told"), [(900, b"--x", True), (900, b"--5--", True), (6, b"--x", False)]
)
def test_many_boundaries_are_compared_with_fewer_lines(boundaries, line, told):  # or it takes seconds
    header = [(b"Content-Type", b" multipart/mixed; boundary=%d" % number) for number in range(boundaries)]
    found = read_octets((line + b"\r\n") * 30_000, header)
    assert bool(found.excess) == told

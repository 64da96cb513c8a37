"""Where a banner goes, in which octets, which mail it leaves alone; the result is read by Python's email package."""

from __future__ import annotations

import base64
import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mime import read_octets
from elemta_milter.rewriting import Banner, RewritingBounds, Skipped, add_banners
from elemta_milter.rewriting.encoding import quoted_printable, with_charset, with_fields

TOP = Banner("From outside <x>")
BOTTOM = Banner("Greetings\nfrom us", position="bottom")
WIDE = Banner("Von draußen ☃")
ALTERNATIVE = "multipart/alternative; boundary=b"
MIXED = "multipart/mixed; boundary=b"
P, H = "Content-Type: text/plain\n", "Content-Type: text/html\n"
A = 'Content-Type: application/pdf\nContent-Disposition: attachment; filename="a.pdf"\n'


def octets(text):
    return text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode()


def header(content_type="", encoding="", *more):
    fields = [(b"From", b" a@b.test")]
    fields += [(b"Content-Type", b" " + content_type.encode())] if content_type else []
    fields += [(b"Content-Transfer-Encoding", b" " + encoding.encode())] if encoding else []
    return (*fields, *more)


def parts(*texts, boundary="b", end=True):
    body = "".join(f"--{boundary}\n{text}\n" for text in texts)
    return body + (f"--{boundary}--\n" if end else "")


def done(fields, body, *banners, **options):
    """The mail with the banners: header, body, what was told."""
    tree = read_octets(octets(body), fields)
    made = add_banners(tree, banners or (TOP,), **options)
    return made.change.header(fields), made.change.octets(), made


def parsed(fields, body):
    whole = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n" + body
    return email.message_from_bytes(whole, policy=email.policy.default)


def leaves(message):
    """Media type and decoded octets of each part that is not a multipart."""
    return [
        (part.get_content_type(), part.get_payload(decode=True)) for part in message.walk() if not part.is_multipart()
    ]


def skipped(fields, body, *banners, **options):
    with pytest.raises(Skipped) as reason:
        done(fields, body, *banners, **options)
    return str(reason.value)


# ── where it goes ─────────────────────────────────────────────────────────────────────────────────────────

TEXT = b"From outside <x>\r\n\r\n"
MARKUP = b"\r\n<p>From outside &lt;x&gt;</p>\r\n"


@pytest.mark.parametrize(
    ("content_type", "body", "want", "numbers"),
    [
        ("", "hello\n", [("text/plain", TEXT + b"hello\r\n")], ("1",)),
        ("", "", [("text/plain", TEXT)], ("1",)),
        ("text/html", "<p>hello", [("text/html", MARKUP + b"<p>hello")], ("1",)),
        (
            ALTERNATIVE,
            parts(P + "\nhello", H + "\n<body>hello"),
            [("text/plain", TEXT + b"hello"), ("text/html", b"<body>" + MARKUP + b"hello")],
            ("1", "2"),
        ),
        (
            MIXED,
            parts(A + "\n%PDF", P + "\nhello", P + "\nsecond"),
            [("application/pdf", b"%PDF"), ("text/plain", TEXT + b"hello"), ("text/plain", b"second")],
            ("2",),
        ),
        (
            MIXED,
            parts(
                f"Content-Type: {ALTERNATIVE.replace('=b', '=c')}\n\n"
                + parts(
                    P + "\nhello",
                    "Content-Type: multipart/related; boundary=d\n\n"
                    + parts(H + "\nhello", "Content-Type: image/png\n\nPNG", boundary="d"),
                    boundary="c",
                ),
                A + "\n%PDF",
            ),
            [
                ("text/plain", TEXT + b"hello"),
                ("text/html", MARKUP + b"hello"),
                ("image/png", b"PNG"),
                ("application/pdf", b"%PDF"),
            ],
            ("1.1", "1.2.1"),
        ),
        (
            'multipart/related; boundary=b; start="<x>"',
            parts(P + "X-ID: <x>\nContent-ID: <y>\n\nno", H + "Content-ID: <x>\n\nyes"),
            [("text/plain", b"no"), ("text/html", MARKUP + b"yes")],
            ("2",),
        ),
        (
            ALTERNATIVE,
            parts(P + "\nhello", "Content-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR"),
            [("text/plain", TEXT + b"hello"), ("text/calendar", b"BEGIN:VCALENDAR")],
            ("1",),
        ),
        (
            MIXED,
            parts("Content-Type: message/rfc822\n\nSubject: in\n\ninner", P + "\nouter"),
            [("text/plain", b"inner"), ("text/plain", TEXT + b"outer")],
            ("2",),
        ),
        # a part without fields, one without the empty line, and one that is empty
        (MIXED, parts("\nhello", A + "\nX"), [("text/plain", TEXT + b"hello"), ("application/pdf", b"X")], ("1",)),
        (MIXED, "--b\n" + P + "--b--\n", [("text/plain", b"From outside <x>\r\n")], ("1",)),
        # a name makes it a file for some programs; it is taken where nothing else is a text
        (
            MIXED,
            parts('Content-Type: text/plain; name="a.txt"\n\nfile', P + "\nhello"),
            [("text/plain", b"file"), ("text/plain", TEXT + b"hello")],
            ("2",),
        ),
        ('text/plain; name="a.txt"', "hello", [("text/plain", TEXT + b"hello")], ("1",)),
        (
            MIXED,
            parts(P + "Content-Disposition: attachment\n\nfile", P + "\nhello"),
            [("text/plain", b"file"), ("text/plain", TEXT + b"hello")],
            ("2",),
        ),
        # no text at all
        (
            MIXED,
            parts(P + "Content-Disposition: attachment; filename=a.txt\n\nfile"),
            [("text/plain", b"From outside <x>\r\n"), ("text/plain", b"file")],
            ("new",),
        ),
        (MIXED, parts(A + "\n%PDF"), [("text/plain", b"From outside <x>\r\n"), ("application/pdf", b"%PDF")], ("new",)),
        ("image/png", "PNG\n", [("text/plain", b"From outside <x>\r\n"), ("image/png", b"PNG\r\n")], ("new",)),
        (
            "multipart/related; boundary=b",
            parts("Content-Type: image/png\n\nPNG"),
            [("text/plain", b"From outside <x>\r\n"), ("image/png", b"PNG")],
            ("new",),
        ),
        # defects that leave no doubt
        (MIXED, parts(P + "\nhello", end=False), [("text/plain", TEXT + b"hello")], ("1",)),
    ],
)  # fmt: skip
def test_where_it_goes(content_type, body, want, numbers):
    fields, new, made = done(header(content_type), body)

    assert leaves(parsed(fields, new)) == want
    assert made.parts == numbers
    assert skipped(fields, new) == "it bears the banner already"


def test_an_attached_message_that_is_encoded_or_signed_is_no_reason_against_it():
    for attached in (
        "Content-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKeQo=",
        "\n" + SIGNED + parts(P + "\nx", "\ny", boundary="c"),
    ):
        body = parts(P + "\nhello", "Content-Type: message/rfc822\n" + attached)
        assert done(header(MIXED), body)[2].parts == ("1",)


def test_a_new_text_stands_in_a_mixed_multipart_and_before_any_other():
    fields, new, made = done(header(MIXED), parts(A + "\n%PDF"))
    assert (new.count(b"--b\r\n"), made.change.fields, tuple(fields)) == (2, {}, header(MIXED))
    fields, new, _ = done(header("multipart/related; boundary=b"), parts("Content-Type: image/png\n\nPNG"))
    whole = parsed(fields, new)
    assert [part.get_content_type() for part in (whole, *whole.iter_parts())] == [
        "multipart/mixed", "text/plain", "multipart/related",
    ]  # fmt: skip


def test_a_multipart_without_parts_gets_a_text():
    assert done(header("multipart/related; boundary=b"), "nothing\n")[2].parts == ("new",)


def test_all_else_stays_octet_by_octet():
    body = octets("preamble\n" + parts(P + "X-A:  1 \n\nhello", A + "\n%PDF\n\n") + "epilogue\n\n")
    fields = header(MIXED)
    new_fields, new, _ = done(fields, body)

    assert new == body.replace(b"hello", TEXT + b"hello")
    assert tuple(new_fields) == fields


def test_a_whole_mail_that_is_an_attachment_keeps_its_fields_in_the_part():
    own = ((b"Content-Disposition", b' attachment;\r\n\tfilename="a.pdf"'), (b"Content-Description", b" it"))
    fields, new, _ = done(header("application/pdf", "base64", *own), base64.b64encode(b"%PDF") + b"\r\n", WIDE)
    message = parsed(fields, new)

    assert message.get_content_type() == "multipart/mixed"
    assert [str(name) for name in message] == ["From", "Content-Type", "MIME-Version"]
    text, attached = message.iter_parts()
    assert text.get_content().strip() == "Von draußen ☃"
    assert (attached.get_filename(), attached["Content-Description"]) == ("a.pdf", "it")
    assert attached.get_payload(decode=True) == b"%PDF"


def test_eight_bits_in_the_part_are_told_by_the_multipart():
    fields, _, _ = done(header("application/x", "binary"), b"\xff\x00")
    assert dict(fields)[b"Content-Transfer-Encoding"] == b" binary"


def test_several_banners_stand_in_their_order_each_once():
    fields, new, _ = done(header(), "hello\n", TOP, BOTTOM, Banner("second"), TOP)
    assert new == b"From outside <x>\r\n\r\nsecond\r\n\r\nhello\r\n\r\nGreetings\r\nfrom us\r\n"
    assert skipped(fields, new, TOP, BOTTOM, Banner("second"))


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("hello\n", b"hello\r\n\r\nGreetings\r\nfrom us\r\n"),
        ("hello", b"hello\r\n\r\nGreetings\r\nfrom us"),
        ("", b"\r\nGreetings\r\nfrom us\r\n"),
    ],
)
def test_at_the_bottom(body, want):
    fields, new, _ = done(header(), body, BOTTOM)
    assert new == want
    assert skipped(fields, new, BOTTOM) == "it bears the banner already"


def test_html_of_its_own_and_made_of_the_text():
    _, new, _ = done(header("text/html"), "<body>hello</body></html>\n", Banner("x", "<b>ü\nno</b>", "bottom"))
    assert new == b"<body>hello\r\n<b>&#252;\r\nno</b>\r\n</body></html>\r\n"
    _, new, _ = done(header("text/html"), "hello", BOTTOM)
    assert new == b"hello\r\n<p>Greetings<br>\r\nfrom us</p>\r\n"


# ── in which octets ───────────────────────────────────────────────────────────────────────────────────────


IN_CHARSETS = {
    "": "plain = text", "us-ascii": "plain = text", "utf-8": "plain = text ☃", "iso-8859-1": "grün", "koi8-r": "далеко",
    "shift_jis": "表示", "utf-16": "☃", "iso-2022-jp": "表示",
}  # fmt: skip
LAWFUL = [
    (charset, encoding)
    for charset, text in IN_CHARSETS.items()
    for encoding in ("", "7bit", "8bit", "quoted-printable", "base64")
    if encoding in ("8bit", "quoted-printable", "base64") or text.encode(charset or "ascii").isascii()
]


@pytest.mark.parametrize(("charset", "encoding"), LAWFUL)
@pytest.mark.parametrize("subtype", ["plain", "html"])
@pytest.mark.parametrize("banner", [TOP, WIDE, Banner("für"), Banner("да!"), BOTTOM], ids=lambda each: each.text[:6])
def test_every_charset_and_encoding_holds_it(charset, encoding, subtype, banner):
    text = IN_CHARSETS[charset] + "\r\n"
    raw = text.encode(charset or "ascii")
    body = {"base64": base64.encodebytes, "quoted-printable": quoted_printable}.get(encoding, bytes)(raw)
    fields = header(f"text/{subtype}" + (f"; charset={charset}" if charset else ""), encoding)
    fields, new, _ = done(fields, body.replace(b"\n", b"\r\n") if encoding == "base64" else body, banner)
    message = parsed(fields, new)
    shown = message.get_content().replace("\r\n", "\n")
    words = banner.markup().replace("\r\n", "\n") if subtype == "html" else banner.text

    assert shown.count(words) == 1
    assert shown.replace(words, "").strip() == text.strip()
    assert message.get_content_charset("us-ascii") in (charset or "us-ascii", "utf-8")
    assert new.endswith(b"\r\n")
    if encoding != "8bit":
        assert new.isascii()
    assert skipped(fields, new, banner) == "it bears the banner already"


def test_a_charset_that_holds_it_is_kept():
    fields, new, _ = done(header("text/plain; charset=iso-8859-1", "8bit"), "grün\n".encode("latin-1"), Banner("für"))
    assert new == "für\r\n\r\ngrün\n".encode("latin-1")
    assert fields == list(header("text/plain; charset=iso-8859-1", "8bit"))


def test_the_other_parameters_are_kept_and_flowed_text_stays_so():
    fields, new, _ = done(
        header('Text/Plain; CHARSET="koi8-r" ; format=flowed;\r\n\tdelsp=yes'),
        "hello \nworld\n",
        Banner("> ☃ \n end \nFrom x"),
    )
    message = parsed(fields, new)
    assert dict(message["Content-Type"].params) == {"charset": "utf-8", "format": "flowed", "delsp": "yes"}
    assert message.get_payload(decode=True).decode() == " > ☃\r\n  end\r\n From x\r\n\r\nhello \r\nworld\r\n"


def test_a_part_whose_charset_cannot_hold_it_gets_another_and_keeps_its_other_fields():
    told = "content-type: text/plain;\n\tcharset=us-ascii; format=flowed\nContent-Transfer-Encoding : 7bit\n"
    _, new, _ = done(header(MIXED), parts(f"X-A: 1\n 2\n{told}Content-ID: <x>\n\nhello", A + "\n%PDF"), WIDE)
    told = "Content-Type: text/plain; format=flowed; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n"
    text = "Von drau=C3=9Fen =E2=98=83\n\nhello"
    assert new == octets(parts(f"X-A: 1\n 2\nContent-ID: <x>\n{told}\n{text}", A + "\n%PDF"))


@pytest.mark.parametrize(
    ("raw", "kept"),
    [(b"A: 1\n\nB: 2", b"A: 1\n"), (b"A: 1\rX: 2\r 3\r", b"A: 1\r\n"), (b" A\r\nX: 2\r\nA: 1", b" A\r\nA: 1\r\n")],
)
def test_other_fields_of_a_part_however_its_lines_end(raw, kept):
    assert with_fields(raw, [("X", "new")]) == kept + b"X: new\r\n\r\n"


@pytest.mark.parametrize("value", [b"", b" text/plain; name=\xff", b" text/html; charset=x"])
def test_a_content_type_that_would_not_be_read_with_its_charset_is_written_anew(value):
    assert with_charset(value, "text/plain", "utf-8") == "text/plain; charset=utf-8"


def test_a_text_that_ends_in_another_set_of_characters_does_not_swallow_it():
    fields, new, _ = done(
        header("text/plain; charset=iso-2022-jp"), "表示".encode("iso-2022-jp").removesuffix(b"\x1b(B"), BOTTOM
    )
    assert parsed(fields, new).get_content().splitlines() == ["表示", "", "Greetings", "from us"]


def test_an_unknown_charset_takes_ascii_and_nothing_else():
    _, new, made = done(header("text/plain; charset=x-none"), "hello\n")
    assert (new, made.change.fields) == (TEXT + b"hello\r\n", {})
    assert "unknown charset" in skipped(header("text/plain; charset=x-none"), "hello\n", WIDE)


def test_an_undeclared_text_becomes_what_programs_take_it_for():
    for raw in ("grün\r\n".encode(), "grün\r\n".encode("cp1252")):
        fields, new, _ = done(header("", "8bit"), raw, WIDE)
        assert parsed(fields, new).get_content().splitlines() == ["Von draußen ☃", "", "grün"]


def test_a_byte_order_mark_stays_first():
    _, new, _ = done(header("text/plain; charset=utf-8", "8bit"), b"\xef\xbb\xbfhello", TOP)
    assert new == b"\xef\xbb\xbf" + TEXT + b"hello"


def test_a_long_line_is_encoded():
    fields, new, _ = done(header(), "hello\n", Banner("x" * 2000))
    assert max(map(len, new.splitlines())) <= 76
    assert parsed(fields, new).get_content().startswith("x" * 2000)


@given(st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"a", b" ", b"=", b"\t", b"\x00", b"\xff", b".", b"x" * 80])))
def test_quoted_printable_gives_the_very_octets_back(pieces):
    import binascii  # noqa: PLC0415

    data = b"".join(pieces)
    encoded = quoted_printable(data)
    assert binascii.a2b_qp(encoded) == data
    assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))
    assert encoded.replace(b"\r\n", b"").translate(None, b"\r\n") == encoded.replace(b"\r\n", b"")


# ── what stays as it is ───────────────────────────────────────────────────────────────────────────────────

SIGNED = "Content-Type: multipart/signed; boundary=c; protocol=x/y\n\n"


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        ("multipart/signed; boundary=b", parts(P + "\nx", "Content-Type: application/pgp-signature\n\ny"), "signed"),
        (MIXED, parts(P + "\nx", SIGNED + parts(P + "\nx", "\ny", boundary="c")), "signed"),
        ("multipart/encrypted; boundary=b", parts("\nVersion: 1", "\ny"), "encrypted"),
        ("application/pkcs7-mime; smime-type=enveloped-data", "x", "S/MIME"),
        ("application/x-pkcs7-mime; name=smime.p7m", "x", "S/MIME"),
        ("application/octet-stream; name=smime.p7m", "x", "S/MIME"),
        ("multipart/report; report-type=delivery-status; boundary=b", parts(P + "\nx"), "a report"),
        ("message/partial; id=1; number=1", "x", "cut into several"),
        ("", "Hello\n-----BEGIN PGP MESSAGE-----\n", "PGP"),
        (ALTERNATIVE, parts(P + "\n-----BEGIN PGP SIGNED MESSAGE-----", H + "\nx"), "PGP"),
        ("text/calendar", "BEGIN:VCALENDAR", "invitation"),
        (MIXED, parts("Content-Type: text/calendar\n\nBEGIN:VCALENDAR"), "invitation"),
        ("multipart/mixed", parts(P + "\nx"), "programs differ"),
        ("multipart/mixed; boundary=b; boundary=c", parts(P + "\nx"), "programs differ"),
        (MIXED, "--b junk\n\nx\n--b--\n", "programs differ"),
        ("text/plain; charset=utf-8", "x" * 200_000, "longer than"),
        (ALTERNATIVE, parts(*[P + "\nx"] * 9), "more than 8"),
        (MIXED, parts(*[A + "\nx"] * 1001), "1000 parts"),
    ],
)  # fmt: skip
def test_what_stays_as_it_is(content_type, body, why):
    assert why in skipped(header(content_type), body, bounds=RewritingBounds(text=100_000))


def test_a_large_mail_stays_as_it_is():
    assert "larger than 10 octets" in skipped(header(), "x" * 11, bounds=RewritingBounds(octets=10))


def test_an_unknown_transfer_encoding_stays_as_it_is():
    assert "x-odd" in skipped(header("", "x-odd"), "hello")


def test_an_empty_banner_is_none():
    assert skipped(header(), "hello", Banner(" \n")) == "the banner is empty"


def test_one_alternative_is_told_that_stays_as_it_is():
    body = parts(P + "\nhello", H + "Content-Transfer-Encoding: x-odd\n\nhello")
    _, new, made = done(header(ALTERNATIVE), body)
    assert made.left == ("its transfer encoding x-odd is unknown",)
    assert new == octets(body.replace("hello", TEXT.decode().replace("\r\n", "\n") + "hello", 1))


# ── any mail ──────────────────────────────────────────────────────────────────────────────────────────────

words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)
leaf = st.builds(
    lambda kind, encoding, text, disposition: (kind, encoding, text, disposition),
    st.sampled_from(["text/plain", "text/html", "image/png", "text/calendar", "application/x"]),
    st.sampled_from(["8bit", "quoted-printable", "base64"]),
    words,
    st.sampled_from(["", "", "inline", "attachment"]),
)
trees = st.recursive(
    leaf,
    lambda child: st.tuples(
        st.sampled_from(["mixed", "alternative", "related"]), st.lists(child, min_size=1, max_size=3)
    ),
)


def written(tree, depth=0):
    """The fields and the body of a made-up mail."""
    if len(tree) == 2:
        kind, children = tree
        inner = [written(child, depth + 1) for child in children]
        body = (
            b"".join(b"--b%d\r\n%s\r\n%s\r\n" % (depth, fields, text) for fields, text in inner)
            + b"--b%d--\r\n" % depth
        )
        return b"Content-Type: multipart/%s; boundary=b%d\r\n" % (kind.encode(), depth), body
    kind, encoding, text, disposition = tree
    raw = f"{text}\r\n".encode()
    body = {"base64": base64.encodebytes, "quoted-printable": quoted_printable, "8bit": bytes}[encoding](raw)
    fields = f"Content-Type: {kind}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n"
    fields += f"Content-Disposition: {disposition}\r\n" if disposition else ""
    return fields.encode(), body.replace(b"\n", b"\r\n") if encoding == "base64" else body


@given(trees, st.sampled_from([TOP, WIDE, BOTTOM]))
def test_any_mail_keeps_its_parts_and_gets_it_once(tree, banner):
    raw, body = written(tree)
    fields = tuple((name, value) for name, _, value in (line.partition(b":") for line in raw.splitlines()))
    before = leaves(parsed(fields, body))
    try:
        new_fields, new, made = done(fields, body, banner)
    except Skipped:  # an invitation, or too many alternatives
        return
    after = leaves(parsed(new_fields, new))
    plain, markup = banner.text.replace("\n", "\r\n").encode(), banner.markup().encode()
    if made.parts == ("new",):
        assert after[0][1].strip() == plain
        del after[0]
        assert after == before
    else:
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) == len(made.parts)
        for (kind, old), (same, now) in changed:
            words = markup if kind == "text/html" else plain
            assert (kind, now.count(words), now.replace(words, b"").split()) == (same, 1, old.split())
    assert skipped(new_fields, new, banner) == "it bears the banner already"


TYPES = ["text/plain", "text/html", MIXED, ALTERNATIVE, "message/rfc822", "image/png", ""]


@given(st.binary(max_size=300), st.sampled_from(TYPES), st.sampled_from(["", "base64", "quoted-printable", "8bit"]))
def test_no_octets_break_it(body, content_type, encoding):
    for octets_ in (body, b"--b\r\n" + body + b"\r\n--b--\r\n", b"<html>" + body):
        try:
            fields, new, _ = done(header(content_type, encoding), octets_, TOP, BOTTOM)
        except Skipped:
            continue
        parsed(fields, new)

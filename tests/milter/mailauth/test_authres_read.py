import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mailauth.authres import claims, is_authentication_results, is_ours, parse


def shown(value):
    read = parse(value)
    return read.authserv_id, [(item.method, item.result, dict(item.properties)) for item in read.results]


@pytest.mark.parametrize(
    ("value", "name", "results"),
    [  # the examples of RFC 8601 appendix B are of these forms
        ("example.org 1; none", "example.org", []),
        ("example.com; none (nothing to do)", "example.com", []),
        (
            "example.com;\r\n\tspf=pass smtp.mailfrom=example.net",
            "example.com",
            [("spf", "pass", {"smtp.mailfrom": "example.net"})],
        ),
        (
            "example.com; auth=pass (cram-md5) smtp.auth=sender@example.net; spf=pass smtp.mailfrom=example.net",
            "example.com",
            [("auth", "pass", {"smtp.auth": "sender@example.net"}), ("spf", "pass", {"smtp.mailfrom": "example.net"})],
        ),
        (
            "mx (first) 1 (second);\r\n dkim (c) / 1 (c) = (c) fail\r\n policy (.) . (=) expired\r\n (c) = (;) 1362",
            "mx",
            [("dkim", "fail", {"policy.expired": "1362"})],
        ),
        ('"example.com"; SPF=Pass SMTP.MailFrom=A@b', "example.com", [("spf", "pass", {"smtp.mailfrom": "A@b"})]),
        ('a.example; dkim=pass header.i="a b@c"', "a.example", [("dkim", "pass", {"header.i": "a b@c"})]),
        ('a.example; spf=pass smtp.x="a;b"@c', "a.example", [("spf", "pass", {"smtp.x": '"a;b"@c'})]),
        ('a.example; spf=pass smtp.x="a\\"b"', "a.example", [("spf", "pass", {"smtp.x": 'a"b'})]),
        ('a.example; x-ptr=fail policy.ptr=""', "a.example", [("x-ptr", "fail", {"policy.ptr": ""})]),
        ("a; dkim=pass header.i=@b header.b=S/m=", "a", [("dkim", "pass", {"header.i": "@b", "header.b": "S/m="})]),
        ("bücher.test; spf=pass smtp.x=jörg@b", "bücher.test", [("spf", "pass", {"smtp.x": "jörg@b"})]),
        ("a.example; spf=pass;", "a.example", [("spf", "pass", {})]),
    ],
)  # fmt: skip
def test_valid_fields(value, name, results):
    assert parse(value).reason == ""
    assert shown(value) == (name, results)
    assert parse(value.encode()) == parse(value)


def test_versions_and_reason():
    read = parse('a.example 2; dkim/3=fail reason="bad; \\"key\\"" header.d=b')
    assert (read.version, read.results[0].version, read.results[0].reason) == (2, 3, 'bad; "key"')
    assert parse("a.example; dkim=fail").version is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "   ",
        ";",
        "a.example",
        "a.example;",
        "a.example none",
        "a.example, spf=pass",
        "spf=pass",
        "a.example; =pass",
        "a.example; spf",
        "a.example; spf=",
        "a.example; spf=pass smtp.mailfrom",
        "a.example; spf=pass smtp.mailfrom=",
        "a.example; spf=pass smtp..mailfrom=b",
        "a.example; spf=pass smtp.mailfrom.=b",
        "a.example; spf=pass smtp.=b",
        "a.example; spf=pass smtp.mail_from=b",
        "a.example; spf_=pass",
        "a.example; spf=pass-",
        "a.example; spf=pass action=none",
        "a.example; spf=pass @",
        "a.example; spf=pass (no end",
        'a.example; spf=pass smtp.x="no end',
        "a.example; none; spf=pass",
        "a.example 1 2; none",
        "(no end",
        '"no end; none',
    ],
)
def test_invalid_fields_have_a_reason(value):
    read = parse(value)
    assert read.reason


def test_what_can_be_read_is_given_though_invalid():
    read = parse("a.example; dmarc=pass action=none header.from=b.example;compauth=pass reason=100")
    assert [item.method for item in read.results] == ["dmarc", "compauth"]
    assert ("header.from", "b.example") in read.results[0].properties
    assert read.results[1].reason == "100"
    assert shown("a.example; d_k=p_s a.b.c=d") == ("a.example", [("d_k", "p_s", {"a.b.c": "d"})])


@pytest.mark.parametrize(("text", "results"), [("; b=c" * 1_001, 1_000), ("; b=c" + " d.e=f" * 4_001 + "; g=h", 1)])
def test_more_than_is_read(text, results):
    read = parse("a.example" + text)
    assert (len(read.results), read.reason) == (results, "too many results")


def is_claimed(value):
    return any(claims(value, host) for host in ("mx.example.net", "bücher.example"))


@pytest.mark.parametrize(
    "value",
    [
        "mx.example.net; dmarc=pass",
        " MX.Example.NET; dmarc=pass",
        "mx.example.net. ; dmarc=pass",
        "mx.example.net 1; dmarc=pass",
        "mx.example.net",
        '"mx.example.net"; dmarc=pass',
        '" mx.example.net "; dmarc=pass',
        '"mx\\.example.net"; dmarc=pass',
        '"mx.example.net; dmarc=pass"; none',  # for programs that know no quotes
        '"mx.example.net (c)"; dmarc=pass',
        "mx.example.net.. ; dmarc=pass",
        "(x) mx.example.net (y) 1 (z); dmarc=pass",
        "(a(b)\\)c)\r\n\tmx.example.net; dmarc=pass",
        "mx(.evil).example.net; dmarc=pass",
        "mx.\r\n example.net; dmarc=pass",
        "mx.example.net\r; dmarc=pass",
        "mx.exa\x00mple.net; dmarc=pass",
        "mx.example.net\x0cx; dmarc=pass",  # for programs whose white space has more than RFC 5322's
        "mx\\.example.net; dmarc=pass",
        "mx.example.net/1; dmarc=pass",
        "mx.example.net garbage; dmarc=pass",
        "mx.example.net, dmarc=pass",
        "=?utf-8?q?mx.example.net?=; dmarc=pass",
        "=?utf-8?q?mx.exam?=\r\n =?utf-8?b?cGxlLm5ldA==?=; dmarc=pass",
        "=?utf-8?q?mx.example.net?=x; dmarc=pass",  # for programs that see a space between an encoded word and another
        "mx.example.net=?utf-8?q?x?=; dmarc=pass",
        "mx\u3002example\uff0enet; dmarc=pass",
        "\uff4dx.example.net; dmarc=pass",
        "mx.exam\u200bple.net; dmarc=pass",
        "bu\u0308cher.example; dmarc=pass",
        "bu\u0308cher.example x; dmarc=pass",
        "\ufeffmx.example.net; dmarc=pass",
        "bücher.example; dmarc=pass",
        "BÜCHER.example; dmarc=pass",
        "xn--bcher-kva.example; dmarc=pass",
        "(mx.example.net; dmarc=pass",
        '"mx.example.net; dmarc=pass',
        "; dmarc=pass mx.example.net",
        "i=1; mx.example.net; dmarc=pass",
        "spf=pass (mx.example.net: good) smtp.mailfrom=a@b; dmarc=pass",
        "(bücher.example",
        "(a (b) mx.example.net; dmarc=pass) other.example; spf=pass",  # for readers that look for the first parenthesis
        "(\\) mx.example.net; dmarc=pass) other.example; spf=pass",
        "mx(\\).example.net; dmarc=pass",
        "other.example (a (b); x=y) 1 (mx.example.net); dmarc=pass",
        "(\uff09 other.example; \uff08) mx.example.net; dmarc=pass",  # what looks like a parenthesis and is none
        "(=?utf-8?b?) mx.example.net; spf=pass (?=)",  # what mail programs decode and readers of results do not
    ],
)
def test_our_name_is_recognized_in_any_disguise(value):
    assert is_claimed(value.encode())
    assert is_claimed(value)


@pytest.mark.parametrize(
    "value",
    [
        "\u2028mx.example.net; dmarc=pass".encode(),
        "\u0085mx.example.net; dmarc=pass".encode(),
        b"\xa0mx.example.net; dmarc=pass",
        b"mx.exa\x85mple.net; dmarc=pass",
        b"mx.example.net\xa0x; dmarc=pass",
        "mx.example.net\ufeffx; dmarc=pass".encode(),
        b"(" + b"x" * 70_000 + b") mx.example.net; dmarc=pass",
        b" " * 70_000 + b"mx.example.net; dmarc=pass",
        b'"' + b"\\m" * 40_000 + b'"; dmarc=pass',
    ],
)
def test_what_hides_our_name_from_readers_of_other_encodings_and_bounds(value):
    assert is_claimed(value)


@pytest.mark.parametrize(
    "value",
    [
        "mx.other.example; dmarc=pass",
        "mx.other.example; dmarc=pass " + "x" * 70_000,
        "mx.other.example 1; dmarc=pass",
        "mx.other.example 1 ; spf=pass smtp.mailfrom=mx.example.net",
        "mx.example.net.evil.example; dmarc=pass",
        "a.mx.example.net; dmarc=pass",
        "mx.exämple.net; dmarc=pass",
        "mx.other.example; dkim=pass (=?utf-8?q?ex=C3=A4mple?=)",
        '"mx.other.example"; spf=pass reason="mx.example.net"',
        "(mx.example.net) mx.other.example; dmarc=pass",
        "mx.other.example (a) (mx.example.net); dmarc=pass (b (c))",
        "spf=pass smtp.mailfrom=a@b.example",
        "",
        ";",
    ],
)
def test_fields_of_others_stay(value):
    assert not is_claimed(value.encode())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"Authentication-Results", True),
        (b"AUTHENTICATION-results", True),
        (b"Authentication-Results ", True),
        (b"\tAuthentication-Results\x00", True),
        (b"X-Original-Authentication-Results", False),
        (b"ARC-Authentication-Results", False),
        (b"Authentication_Results", False),
    ],
)
def test_the_name_of_the_field(name, expected):
    assert is_authentication_results(name) is expected


@given(st.lists(st.sampled_from(["(", ")", "\uff08", "\uff09", "=?utf-8?b?", "?=", "x", "other.example;"]), max_size=7))
def test_a_field_that_says_plainly_that_it_is_ours_is_always_taken_for_ours(pieces):
    value = f"({' '.join(pieces)}) mx.example.net; dmarc=pass"
    assert is_claimed(value) or not is_ours(parse(value), "mx.example.net")


@given(st.one_of(st.binary(max_size=200), st.text(st.sampled_from('mx.examplnt;:=?()"\\ \r\n\x00/1ü-'), max_size=60)))
def test_any_octets(value):
    parse(value)
    is_claimed(value)


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        '"',
        "\\",
        '"\\',
        "a;",
        "; a=b",
        " a=b",
        "()",
        'a="b"',
        "x.y=z ",
        "; a=b c.d=e",
        "=?",
        "=?a?q?x?= ",
        "ü",
        '."',
        "\u0315\u0c4d",
        "\uff9e\u0315",  # a mark once it is normalized
    ],
)
@pytest.mark.parametrize("start", ["", "a.example; spf=pass "])
def test_time_grows_with_the_size_only(piece, start):
    value = start + piece * (65_536 // len(piece))
    begun = time.process_time()
    parse(value)
    is_claimed(value)
    assert time.process_time() - begun < 3

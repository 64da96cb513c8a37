import time
from email.headerregistry import HeaderRegistry
from email.utils import getaddresses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.addresses import Mailbox, a_label, authors

CLEAR = [
    (b"user@example.com", [("", "user", "example.com")]),
    (b" User@Example.COM", [("", "User", "example.com")]),
    (b"<user@example.com>", [("", "user", "example.com")]),
    (b" Ann User <user@example.com>", [("Ann User", "user", "example.com")]),
    (b"Ann\r\n\tUser\r\n <user@example.com>", [("Ann User", "user", "example.com")]),
    (b'"User, Ann" <user@example.com>', [("User, Ann", "user", "example.com")]),
    (rb'"Ann \"the\\ boss\"" <user@example.com>', [('Ann "the\\ boss"', "user", "example.com")]),
    (b"John Q. Public <john@example.com>", [("John Q. Public", "john", "example.com")]),
    (b"user@example.com (Ann)", [("Ann", "user", "example.com")]),
    (b"(Ann (the) boss) user@example.com", [("Ann (the) boss", "user", "example.com")]),
    (b'"ceo@example.com" <x@evil.example>', [("ceo@example.com", "x", "evil.example")]),
    (b"=?utf-8?Q?=3Cceo=40example=2Ecom=3E?= <x@evil.example>", [("<ceo@example.com>", "x", "evil.example")]),
    (b"=?utf-8?q?J=C3=B6rg?= =?iso-8859-1?b?TfxsbGVy?= <j@example.com>", [("JörgMüller", "j", "example.com")]),
    ("Jörg <jörg@bücher.example>".encode(), [("Jörg", "jörg", "xn--bcher-kva.example")]),
    (b"J\xf6rg <j@example.com>", [("J\ufffdrg", "j", "example.com")]),
    (b"user@xn--bcher-kva.example", [("", "user", "xn--bcher-kva.example")]),
    (b'"a b@evil.example"@example.com', [("", '"a b@evil.example"', "example.com")]),
    (b"example.com!ceo@evil.example", [("", "example.com!ceo", "evil.example")]),
    (b"ceo%example.com@evil.example", [("", "ceo%example.com", "evil.example")]),
    (b"user@example.com.", [("", "user", "example.com")]),
    (b"user@[192.0.2.1]", [("", "user", "[192.0.2.1]")]),
    (b"a@example.com, Bea <b@example.org>", [("", "a", "example.com"), ("Bea", "b", "example.org")]),
    (b",, a@example.com ,,", [("", "a", "example.com")]),  # RFC 5322 section 4.4
    (b"Team: a@example.com, b@example.com;", [("", "a", "example.com"), ("", "b", "example.com")]),
    (b"=?utf-8?q?B=C3=BCro?=: a@example.com;", [("", "a", "example.com")]),
    (b"=?utf-8?q?Ann=0AUser?=\r\n <user@example.com>", [("Ann User", "user", "example.com")]),
    (b"=?utf-8?q?Doe, John?= <john@example.com>", [("John?=", "john", "example.com")]),
    (b"Undisclosed:;", []),
    # not lawful, but every reading finds the same domain
    (b"user@example.com <user@example.com>", [("user@example.com", "user", "example.com")]),
    (b"[List] Ann <user@example.com>", [("[List] Ann", "user", "example.com")]),
    (b"Bob @ Work <bob@example.com>", [("Bob @ Work", "bob", "example.com")]),
    (b"Re: hello :) <user@example.com>", [(") ", "user", "example.com")]),
    (b"Doe, John <john@example.com>", [("John", "john", "example.com")]),
    (b"user@example.com;", [("", "user", "example.com")]),
    (b"Doe, =?utf-8?q?John_=28john=40example.com=29?= <john@example.com>",
     [("John (john@example.com)", "john", "example.com")]),
    (b"(user@example.com), user@example.com", [("", "user", "example.com")]),
    (b"a..b.@example.com", [("", "a..b.", "example.com")]),  # Japanese phones had such addresses
    (b'a."b c".d@example.com', [("", 'a."b c".d', "example.com")]),
    (b"a(x)b@example.com", [("x", "ab", "example.com")]),
    (b" <user@example.com> (Ann)", [("Ann", "user", "example.com")]),
    (b"(x) user@example.com (Ann)", [("Ann", "user", "example.com")]),
    (rb"user@example.com (Ann \( Bee)", [(r"Ann \( Bee", "user", "example.com")]),
    (b"user@example.com (of ann@example.org)", [("of ann@example.org", "user", "example.com")]),
    (b'"ann@example.org" <user@example.com> ()', [("ann@example.org", "user", "example.com")]),
    (b"a@example.com, , (x), b@example.org", [("", "a", "example.com"), ("", "b", "example.org")]),
    (b"Team: a@example.com, b@example.org;", [("", "a", "example.com"), ("", "b", "example.org")]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), CLEAR)
def test_a_clear_author(value, expected):
    found = authors([value])
    assert found.trouble == ""
    assert found.fields == 1
    assert found.mailboxes == tuple(Mailbox(name.strip(), local, domain) for name, local, domain in expected)
    assert found.domains == tuple(dict.fromkeys(domain for _, _, domain in expected))


UNCLEAR = [
    (b"", set()),
    (b"  ", set()),
    (b"<>", set()),
    (b"ceo", set()),
    (b"=?utf-8?b?Y2VvQGV4YW1wbGUuY29t?=", {"example.com"}),  # for programs that decode before they read
    (b"=?utf-8?q?ceo=40example.com?=, x@evil.example", {"example.com", "evil.example"}),
    (b"<x@evil.example>, <=?utf-8?q?ceo=40example.com?=>", {"example.com", "evil.example"}),
    (b"(ceo@example.com)", {"example.com"}),  # for programs that take a comment for an address where there is none
    (b"(ceo@example.com), x@evil.example", {"example.com", "evil.example"}),
    (b"x@evil.example, (=?utf-8?q?ceo=40example.com?=)", {"example.com", "evil.example"}),
    (b"=?x-foo?q?ceo=40example.com?=, x@evil.example", {"example.com", "evil.example"}),  # whatever that charset is
    (b"=?x-foo?b?Ym9zc0BleGFtcGxlLmNvbQ?=, x@evil.example", {"example.com", "evil.example"}),  # nor is it padded
    (b"=?utf-8?b?Y2VvQGV4YW1 wbGUuY29t?=, x@evil.example", {"example.com", "evil.example"}),
    (b"=?utf-8?q?The CEO ceo=40example.com?=, x@evil.example", {"example.com", "evil.example"}),
    (b'"CEO <ceo@example.com>"@evil.example', {"example.com", "evil.example"}),  # for programs that look for < first
    (b'<"ceo@example.com> "@evil.example>', {"example.com", "evil.example"}),
    (b"=?utf-8?q?ceo=40example.com=00?= <x@evil.example>", {"example.com", "evil.example"}),  # cut in C
    (b"=?utf-8?q?ceo=40example.com?= =?utf-8?b?Cg==?= <x@evil.example>", {"example.com", "evil.example"}),
    (b"x@evil.example (=?utf-8?q?ceo=40example.com=0D?=)", {"example.com", "evil.example"}),
    (b"(=?utf-8?q?ceo=40example.com=00?=) (x) <x@evil.example>", {"example.com", "evil.example"}),
    (b'"%s" =?utf-8?q?ceo=40example.com=00?= <x@evil.example>' % (b" " * 1000), {"example.com", "evil.example"}),
    (b'"ceo@example.com":;', {"example.com"}),
    (b'"ceo@example.com": x@evil.example;', {"example.com", "evil.example"}),
    (b'"CEO <ceo@example.com>": x@evil.example;', {"example.com", "evil.example"}),
    (b"=?utf-8?q?=3Cceo=40example.com=3E?=: x@evil.example;", {"example.com", "evil.example"}),
    (b"=?utf-8?q?ceo=40example.com?=:;", {"example.com"}),
    (b"ceo@=?utf-8?q?example=2Ecom?=", {"=?utf-8?q?example=2Ecom?=", "example.com"}),
    (b"ceo@example.com <x@evil.example>", {"example.com", "evil.example"}),
    (b"<x@evil.example> ceo@example.com", {"example.com", "evil.example"}),
    (b"<x@evil.example>ceo@example.com", {"example.com", "evil.example"}),
    (b"<x@evil.example> <ceo@example.com>", {"example.com", "evil.example"}),
    (b"ceo @example. com <x@evil.example>", {"example.com", "evil.example"}),  # RFC 5322 section 4.4: obs-domain
    (b"<x@evil.example> <ceo @ example\r\n .com>", {"example.com", "evil.example"}),
    (b'ceo@"example.com" <x@evil.example>', {"example.com", "evil.example"}),
    (b'x@evil.example, ceo@"example.com"', {"example.com", "evil.example"}),
    (b"ceo@(c)example.com <x@evil.example>", {"example.com", "evil.example"}),
    (b"<x@evil.example> ceo@(c)example (d) . com", {"example.com", "example", "evil.example"}),
    (b"=?utf-8?q?ceo_=40_example=2E_com?=, x@evil.example", {"example.com", "evil.example"}),
    (b"<x@evil.example>\\,<ceo@example.com>", {"example.com", "evil.example"}),
    (b"ceo@example.com@evil.example", {"example.com", "evil.example"}),
    (rb"ceo\@example.com@evil.example", {"example.com", "evil.example"}),
    (b"ceo@example.com\x00@evil.example", {"example.com", "evil.example"}),
    (b"<x@evil.example>\r,<ceo@example.com>", {"example.com", "evil.example"}),
    (b"CEO\r\n \r\n <x@evil.example>", {"evil.example"}),
    (b"<@evil.example:ceo@example.com>", {"example.com", "evil.example"}),
    (b"<@evil.example,@any.example:ceo@example.com>", {"example.com", "evil.example", "any.example"}),
    (b"ceo@example.com Ann:", {"example.com"}),
    (b"ceo@example.com: x@evil.example;", {"example.com", "evil.example"}),
    (b"=?utf-8?q?ceo=40example.com?=@evil.example", {"example.com", "evil.example"}),
    (b"ceo@example.com (<x@evil.example>)", {"example.com", "evil.example"}),
    (b"x@evil.example (<ceo@example.com>", {"example.com", "evil.example"}),
    (b'"Ann <ceo@example.com>, x@evil.example', {"example.com", "evil.example"}),
    (b"<x@evil.example, ceo@example.com>", {"example.com", "evil.example"}),
    (b"<ceo@example.com", {"example.com"}),
    (b"ceo@example.com>", {"example.com"}),
    (b">ceo@example.com", {"example.com"}),
    (b"<x<ceo@example.com>@evil.example>", {"example.com", "evil.example"}),
    (b"ceo@example.com(x).evil.example", {"example.com", "example.com.evil.example"}),
    (b"ceo@example.com\r\n .evil.example", {"example.com", "example.com.evil.example"}),
    (b'"a"b@example.com', {"example.com"}),
    (b"@example.com", {"example.com"}),
    (b"user@exa_mple..com", {"exa_mple..com"}),
    ("user@example.com\uff20evil.example".encode(), {"example.com\uff20evil.example", "example.com"}),
    # characters that show nothing
    ("ceo@example.com\u202e".encode(), {"example.com\u202e", "example.com"}),
    ("ceo@exam\u202eple.com".encode(), {"exam\u202eple.com", "example.com", "exam"}),
    ("ceo@b\u00fccher.example\u202e".encode(), {"b\u00fccher.example\u202e", "xn--bcher-kva.example"}),
    (b"ceo@example.com\xff", {"example.com\udcff", "example.com"}),
    ("ceo@example.com\u00a0<x@evil.example>".encode(), {"example.com", "evil.example"}),
    ("ceo@example.com\u3000<x@evil.example>".encode(), {"example.com", "evil.example"}),
    # one address, but not for every program
    (b"ceo@", set()),
    (b"<<x@evil.example>>", {"evil.example"}),
    (b"<a:x@evil.example>", {"evil.example"}),
    (b"x@evil.example: y@evil.example;", {"evil.example"}),
    (b"x@evil.example (Ann", {"evil.example"}),
    (b"[List <x@evil.example>", {"evil.example"}),
    (b"Ann\\ <x@evil.example>", {"evil.example"}),
    (b'"a"..@evil.example', {"evil.example"}),
    (b'"a" "b"@evil.example', {"evil.example"}),
    (b"ceo@[=?utf-8?q?x?=]", {"[=?utf-8?q?x?=]", "[x]"}),
    # a name that looks like an address is no lie, but beside what is not lawful it could be taken for one
    (b'"ceo@example.com" ) <x@evil.example>', {"example.com", "evil.example"}),
    (b'"ceo@example.com" ] <x@evil.example>', {"example.com", "evil.example"}),
    (b'> "ceo@example.com" <x@evil.example>', {"example.com", "evil.example"}),
    (b'"ceo@example.com" [List] <x@evil.example>', {"example.com", "evil.example"}),
    (b'"ceo@example.com" <x@evil.example>;', {"example.com", "evil.example"}),
    (b'Team: "ceo@example.com" <x@evil.example>', {"example.com", "evil.example"}),
    (b'"ceo@example.com" <x y@evil.example>', {"example.com", "evil.example"}),
    (b'"ceo@example.com" <x(c)y@evil.example>', {"example.com", "evil.example"}),
    (b'<x@evil.example>"ceo@example.com"', {"example.com", "evil.example"}),
    (b'"<ceo@example.com"@evil.example', {"example.com", "evil.example"}),
    (b"ceo@[IPv6:2001:db8::1] <x@evil.example>", {"[IPv6:2001:db8::1]", "evil.example"}),
    # a letter cut in two by those who encode
    (
        b"=?utf-8?b?Y2VvQGLD?= =?utf-8?b?vGNoZXIuZXhhbXBsZQ==?=, x@evil.example",
        {"xn--bcher-kva.example", "b", "evil.example"},
    ),
]


@pytest.mark.parametrize(("value", "domains"), UNCLEAR)
def test_what_mail_programs_read_differently_is_trouble_with_all_domains(value, domains):
    found = authors([value])
    assert found.trouble
    assert set(found.domains) == domains


@pytest.mark.parametrize(
    ("value", "author"),
    [
        (b"Ann (the) User <user@example.com> (boss)", Mailbox("Ann User", "user", "example.com", "the boss")),
        (b"Ann <ceo(x)>", Mailbox("Ann", "ceo", "", "x")),
        (b"<@evil.example:ceo@example.com>", Mailbox("", "ceo", "example.com")),
    ],
)
def test_comments_and_what_is_read_despite_trouble(value, author):
    assert authors([value]).mailboxes == (author,)


def test_the_number_of_fields_matters():
    assert authors([]).trouble == "no From field"
    two = authors([b"x@evil.example", b"ceo@example.com"])
    assert two.trouble == "2 From fields"
    assert two.domains == ("evil.example", "example.com")
    assert two.fields == 2


def test_bounds():
    many = authors([b", ".join(b"a@d%d.example" % number for number in range(2_000))])
    assert many.trouble == "more than 1000 authors"
    assert len(many.mailboxes) == len(many.domains) == 1_000
    assert authors([b'"a"' * 16_001]).trouble == "From has too many parts"
    assert "octets" in authors([b"a@example.com" + b" " * 70_000]).trouble
    piled = [b"a@d%d.example" % number + b" " * 40_000 for number in range(4)]
    assert authors(piled).domains == ("d0.example", "d1.example")  # no more octets of all of them together are read


PILES = ["(", '"', "<", "@", "=?", "a@b,", "\\", '["', ":;", "(<@", "@[", "a", "(a)", "ü", "a@b.c<", '"a"', "."]


@pytest.mark.parametrize("piece", [*PILES, " ", "\n ", "\r", "=?a?q?x?= "])
def test_time_grows_with_the_size_only(piece):
    value = (piece * (65_536 // len(piece))).encode()
    start = time.process_time()
    authors([value])
    assert time.process_time() - start < 3


@pytest.mark.parametrize("piece", ['"\\', '\\"'])
def test_a_quote_without_its_end_is_looked_for_once(piece):
    start = time.process_time()
    found = authors([b"a@example.com, " + piece.encode() * 32_000 + b"<b@evil.example>"])
    assert time.process_time() - start < 3  # it took six seconds
    assert set(found.domains) == {"example.com", "evil.example"}


@given(st.lists(st.binary(max_size=400), max_size=3))
def test_any_octets(values):
    found = authors(values)
    assert found.fields == len(values)
    assert {mailbox.domain for mailbox in found.mailboxes if mailbox.domain} <= set(found.domains)
    assert all(char.isprintable() for mailbox in found.mailboxes for char in mailbox.display)


PIECES = [
    "ceo@example.com",
    "x@evil.example",
    "<",
    ">",
    "(",
    ")",
    '"',
    "\\",
    ",",
    ";",
    ":",
    " ",
    "\r\n ",
    "Ann",
    "@",
    ".",
]


def read_by_registry(value):
    try:
        header = HeaderRegistry()("From", value)
        return {address.domain for address in header.addresses if address.username and address.domain}
    except Exception:  # noqa: BLE001 - that parser's own faults
        return set()


def read_by_getaddresses(value):
    return {address.rpartition("@")[2] for _, address in getaddresses([value]) if "@" in address}


@pytest.mark.parametrize("theirs", [read_by_registry, read_by_getaddresses])
@settings(max_examples=500)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_no_domain_that_another_parser_finds_is_missed(theirs, pieces):
    """Where another parser sees an address, its domain is listed, or there is trouble."""
    value = "".join(pieces)
    found = authors([value.encode()])
    domains = {a_label(domain) for domain in theirs(value.replace("\r\n", ""))} - {None}
    assert found.trouble or domains <= set(found.domains), (found, domains)


@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters='"\\\x7f'), max_size=30),
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){0,2}", fullmatch=True),
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{2,8}){1,2}", fullmatch=True),
)
def test_a_lawful_mailbox_is_read_as_written(display, local, domain):
    found = authors([f'"{display}" <{local}@{domain}>'.encode()])
    assert found.trouble == ""
    assert (found.mailboxes[0].local, found.mailboxes[0].domain) == (local, domain)

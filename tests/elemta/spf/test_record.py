"""The grammar of a record: RFC 7208 sections 4.5, 4.6, 5, 6 and 12."""

from ipaddress import ip_address, ip_network

import pytest

from elemta.spf.record import is_spf, parse

GOOD = [
    "v=spf1",
    "v=spf1 ",
    "V=SPF1 -ALL",
    "v=spf1   a   -all  ",
    "v=spf1 +a -mx ~ptr ?all",
    "v=spf1 a/0 mx/32 a//0 mx//128 a/8//64",
    "v=spf1 a:x.test/24 mx:x.test//64 a:x.test/24//64",
    "v=spf1 a:foo:bar/baz.x.test",
    "v=spf1 a:x.xn--zckzah a:x.1-2 a:x.test. a:_x.test",
    "v=spf1 ptr:x.test include:x.test exists:x.test",
    "v=spf1 ip4:192.0.2.1 ip4:192.0.2.0/24 ip4:0.0.0.0/0 ip6:2001:db8::1 ip6:2001:db8::/32 ip6:::/0 ip6:::1.2.3.4/96",
    "v=spf1 a:%{d} exists:%{ir}.%{v}._spf.%{d2} a:%{h} include:%{o}.x.test",
    "v=spf1 exists:%{l1r+-}.x.test exists:%{s-.+,/_=}.x.test exists:%{L}.x.test exists:%{d128}.x.test",
    "v=spf1 exists:a%%b%_c%-d.x.test a:%{d}/24 a:x%% a:x%{d1r/}",
    "v=spf1 redirect=x.test exp=%{d}.x.test",
    "v=spf1 REDIRECT=x.test",
    "v=spf1 moo.cow-far_out=man:dog/cat a=b ip4=1.2.3.4 x= y=%{c}%{r}%{t}",
    "v=spf1 redirect=x.test ~all",
]

BAD = [
    ("v=spf1 \t-all", 'term 1: unknown mechanism "?-all"'),
    ("v=spf1 a\ta", "unknown mechanism"),
    ("v=spf1 ip4:192.0.2.1\nall", "is no IPv4 address"),
    ("v=spf1 -all nonsense", 'term 2: unknown mechanism "nonsense"'),
    ("v=spf1 a mx -all ipv4:192.0.2.1", 'term 4: unknown mechanism "ipv4" (did you mean "ip4"?)'),
    ("v=spf1 -all.", 'did you mean "all"'),
    ("v=spf1 -", 'unknown mechanism ""'),
    ("v=spf1 --all", 'unknown mechanism "-all"'),
    ("v=spf1 =all", 'unknown mechanism ""'),
    ("v=spf1 1up=foo", 'unknown mechanism "1up"'),
    ("v=spf1 -foo=bar", 'unknown mechanism "foo"'),
    ("v=spf1 moo.cow/far_out=man", 'unknown mechanism "moo.cow"'),
    ("v=spf1 moo.cow:far_out=man", 'unknown mechanism "moo.cow"'),
    ("v=spf1 redirect:x.test", 'unknown mechanism "redirect"'),
    ("v=spf1 all:x.test", "all takes no argument"),
    ("v=spf1 all/8", "all takes no argument"),
    ("v=spf1 a:", "a domain is missing"),
    ("v=spf1 a:/24", "a domain is missing"),
    ("v=spf1 mx:", "a domain is missing"),
    ("v=spf1 ptr:", "a domain is missing"),
    ("v=spf1 include:", "a domain is missing"),
    ("v=spf1 exists:", "a domain is missing"),
    ("v=spf1 redirect=", "a domain is missing"),
    ("v=spf1 exp=", "a domain is missing"),
    ("v=spf1 include", "lacks a domain"),
    ("v=spf1 exists/24", "lacks a domain"),
    ("v=spf1 a/", 'a domain follows ":"'),
    ("v=spf1 a//", 'a domain follows ":"'),
    ("v=spf1 a/24/64", 'a domain follows ":"'),
    ("v=spf1 ptr/24", 'a domain follows ":"'),
    ("v=spf1 a:x.test/", "does not end in a top-level domain"),
    ("v=spf1 a:x.test/24/64", "does not end in a top-level domain"),
    ("v=spf1 include:x.test/24", "does not end in a top-level domain"),
    ("v=spf1 exists:x.test/24", "does not end in a top-level domain"),
    ("v=spf1 a/33", "not a number up to 32"),
    ("v=spf1 a/024", "not a number up to 32"),
    ("v=spf1 a:x.test/99999999999999999999", "not a number up to 32"),
    ("v=spf1 mx//129", "not a number up to 128"),
    ("v=spf1 a/00", "not a number up to 32"),
    ("v=spf1 ip4", "lacks an address"),
    ("v=spf1 ip4:", "is no IPv4 address"),
    ("v=spf1 ip4/24", "lacks an address"),
    ("v=spf1 ip4:192.0.2", "is no IPv4 address"),
    ("v=spf1 ip4:192.0.02.1", "is no IPv4 address"),
    ("v=spf1 ip4:192.0.2.256", "is no IPv4 address"),
    ("v=spf1 ip4:192.0.2.1:25", "is no IPv4 address"),
    ("v=spf1 ip4:192.0.2.1/33", "not a number up to 32"),
    ("v=spf1 ip4:192.0.2.1/", "not a number up to 32"),
    ("v=spf1 ip4:192.0.2.1/-1", "not a number up to 32"),
    ("v=spf1 ip4:192.0.2.1//32", "not a number up to 32"),
    ("v=spf1 ip4:2001:db8::1", "is no IPv4 address"),
    ("v=spf1 ip6:192.0.2.1", "is no IPv6 address"),
    ("v=spf1 ip6:2001:db8::1%eth0", "is no IPv6 address"),
    ("v=spf1 ip6:1::2::3", "is no IPv6 address"),
    ("v=spf1 ip6:1:2:3:4:5:6:7", "is no IPv6 address"),
    ("v=spf1 ip6:12345::", "is no IPv6 address"),
    ("v=spf1 ip6:::1.2.3", "is no IPv6 address"),
    ("v=spf1 ip6:[::1]", "is no IPv6 address"),
    ("v=spf1 ip4:0x7f.0.0.1", "is no IPv4 address"),
    ("v=spf1 ip4:2130706433", "is no IPv4 address"),
    ("v=spf1 ip4:192.0.2.1\0", "is no IPv4 address"),
    ("v=spf1 ip4:+192.0.2.1", "is no IPv4 address"),
    ("v=spf1 ip6:::1/129", "not a number up to 128"),
    ("v=spf1 ip6:::1//64", "not a number up to 128"),
    ("v=spf1 ip6::CAFE::BABE", "is no IPv6 address"),
    ("v=spf1 a:192.0.2.1", '"192.0.2.1" is an address: write ip4:192.0.2.1'),
    ("v=spf1 a:x.123", "does not end in a top-level domain"),
    ("v=spf1 a:museum", "does not end in a top-level domain"),
    ("v=spf1 a:museum.", "does not end in a top-level domain"),
    ("v=spf1 a:x.-com", "does not end in a top-level domain"),
    ("v=spf1 a:x.com-", "does not end in a top-level domain"),
    ("v=spf1 a:x.c_m", "does not end in a top-level domain"),
    ("v=spf1 a:x.test..", "does not end in a top-level domain"),
    ("v=spf1 a:%{d}com", "does not end in a top-level domain"),
    ("v=spf1 a:%{d}.", "does not end in a top-level domain"),
    ("v=spf1 a:%{x}.test", "is no macro"),
    ("v=spf1 a:%{d", "is no macro"),
    ("v=spf1 a:%(d).test", "is no macro"),
    ("v=spf1 a:%.test", "is no macro"),
    ("v=spf1 a:x.test%", "is no macro"),
    ("v=spf1 a:%{d0}", "keeps no part"),
    ("v=spf1 a:%{d00r}", "keeps no part"),
    ("v=spf1 a:%{dr2}", "is no macro"),
    ("v=spf1 a:%{d*}", "is no macro"),
    ("v=spf1 a:%{}", "is no macro"),
    ("v=spf1 exists:%{c}.test", "belong in explanations only"),
    ("v=spf1 exp=%{r}.test", "belong in explanations only"),
    ("v=spf1 redirect=%{t}.test", "belong in explanations only"),
    ("v=spf1 foo=%abc", "is no macro"),
    ("v=spf1 foo=a\x07b", "may not stand there"),
    ("v=spf1 redirect=x.test redirect=x.test", "term 2: a second redirect="),
    ("v=spf1 exp=x.test -all EXP=y.test", "term 3: a second exp="),
    ("v=spf1 a:" + "%{d1}" * 65, "more than 64 macros"),
]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_record_is_understood(text):
    assert parse(text.encode()).error == ""


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_broken_record_says_where_and_why(text, says):
    record = parse(text.encode())
    assert says in record.error
    assert not record.terms4
    assert not record.terms6


def test_octets_beyond_ascii_break_a_record():
    assert parse(b"v=spf1 a:\xef\xbb\xbfx.test -all").error == "a character that is not ASCII"


@pytest.mark.parametrize(
    ("octets", "verdict"),
    [
        (b"v=spf1", True),
        (b"v=spf1 ", True),
        (b"V=sPf1 all", True),
        (b"v=spf10", False),
        (b"v=spf1all", False),
        (b"v=spf1\tall", False),
        (b" v=spf1 all", False),
        (b"v=spf", False),
        (b"spf2.0/pra all", False),
        (b"", False),
        (b"v=spf1\xff", False),
    ],
)
def test_the_version_section_tells_an_spf_record(octets, verdict):
    assert is_spf(octets) is verdict


@pytest.mark.parametrize(
    "text", ["192.0.2.77/24", "192.0.2.1", "0.0.0.0/0", "10.255.255.255/9", "2001:db8::1/33", "::/0", "fe80::/128"]
)
def test_networks_are_integers(text):
    network = ip_network(text, strict=False)
    record = parse(f"v=spf1 ip{network.version}:{text}".encode())
    ((term,), other) = (record.terms4, record.terms6) if network.version == 4 else (record.terms6, record.terms4)
    assert other == ()
    assert (term.network, term.mask) == (int(network.network_address), int(network.netmask))


def test_a_client_meets_the_terms_of_its_family_in_order():
    record = parse(b"v=spf1 ip4:192.0.2.1 a/24//64 ip6:2001:db8::1 exists:x.test -all")
    assert [term.name for term in record.terms4] == ["ip4", "a", "exists", "all"]
    assert [term.name for term in record.terms6] == ["a", "ip6", "exists", "all"]
    assert record.terms4[1].mask == 0xFFFFFF00
    assert record.terms6[1 - 1].mask == int(ip_address("ffff:ffff:ffff:ffff::"))
    assert [term.result for term in record.terms4] == ["pass", "pass", "pass", "fail"]
    assert record.terms4[1].text == "a/24//64"


def test_a_term_matches_by_itself_only_where_it_needs_no_look_up():
    record = parse(b"v=spf1 a/0 mx/0 ptr exists:x.test include:x.test all")
    assert [0 & term.mask == term.network for term in record.terms4] == [False] * 5 + [True]


def test_ordinary_records_are_parsed_once_and_huge_ones_are_not_kept():
    ordinary, huge = b"v=spf1 ip4:198.51.100.7 -all", b"v=spf1 " + b"ip4:198.51.100.7 " * 100
    assert parse(ordinary) is parse(bytes(bytearray(ordinary)))
    assert parse(huge) is not parse(bytes(bytearray(huge)))


def test_the_terms_of_a_record_are_bounded():
    assert parse(b"v=spf1" + b" a" * 1000).error == ""
    assert parse(b"v=spf1" + b" a" * 1001).error == "more than 1000 terms"


def test_the_text_kept_of_a_term_is_bounded():
    (term,) = parse(b"v=spf1 a:" + b"x" * 5000 + b".test").terms4
    assert len(term.text) == 255

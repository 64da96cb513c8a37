"""Whatever a stranger publishes or says, SPF answers with a result, within its bounds."""

import time
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elemta.spf import Limits, check_host, parse
from elemta.spf.macro import Facts, MacroError, domain_spec, explanation, macro_string, target_name

RESULTS = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}

WORDS = (
    "a mx ptr all include exists ip4 ip6 redirect exp : = / // + - ~ ? . % %% %_ %- %{ } %{d} %{l1r-} %{p} %{S} %{ir} "
    "%{h} %{v} %{c} example.org x.test 192.0.2.1 2001:db8::1 ::ffff:1.2.3.4 24 128 0 99999 \u00e9 \0 _spf"
)
GOOD = (
    "a mx ptr ~all ?all -all exp=x.test include:x.test include:%{d1r}.test exists:%{p}.x.test exists:%{S}.x.test "
    "mx:%{h} a:%{ir}.%{v}.x.test/24//64 ip4:192.0.2.0/24 ip6:::/1 redirect=%{l}.test ?exists:%{L}.%{o} -a:y.test/8"
)
PIECES = st.sampled_from([*WORDS.split(), "\t", " ", " "])
TEXT = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60))
RECORD = st.one_of(
    TEXT.map(lambda text: b"v=spf1 " + text.encode("utf-8", "surrogateescape")),
    st.lists(st.sampled_from(GOOD.split()), max_size=15).map(lambda terms: b"v=spf1 " + " ".join(terms).encode()),
    st.binary(max_size=200).map(lambda octets: b"v=spf1 " + octets),
    st.binary(max_size=200),
)
IP = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.just(IPv6Address("::ffff:192.0.2.1")))
WORLD = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def everything(new_zone, record, names):
    """A world in which every name that the record may come to has something, or trouble."""
    records = {"TXT": [record], "A": ["192.0.2.1"], "MX": ["x.test", ""], "AAAA": ["2001:db8::1"], "PTR": ["p.test"]}
    zone = new_zone({"example.org": records})
    lawful = zone.query

    async def query(name, rdtype):
        zone.asked.append((name, rdtype))
        if name not in zone.answers and names:
            zone.answers[name] = zone.answers["example.org"] if len(name) % 3 else "SERVFAIL"
        return await lawful(name, rdtype)

    zone.query = query
    return zone


@WORLD
@given(record=RECORD, ip=IP, names=st.booleans())
def test_any_record_gives_a_result_within_the_bounds(new_zone, run, record, ip, names):
    zone = everything(new_zone, record, names)
    got = run(zone, str(ip))
    assert got.result in RESULTS
    assert got.terms <= 11
    assert got.voids <= 3
    assert len(got.explanation) <= 400
    assert got.reason
    assert all(text.isascii() and text.isprintable() for text in (got.reason, got.mechanism, got.explanation))
    assert len(zone.asked) <= 2 * (1 + 10 * 11 + 11)  # every question is logged twice here
    assert all(name and len(name) <= 253 for name, _ in zone.asked)


@WORLD
@given(domain=st.text(max_size=300), sender=st.text(max_size=100), helo=st.text(max_size=100), ip=IP)
def test_any_identity_gives_a_result(new_zone, run, domain, sender, helo, ip):
    record = "v=spf1 a:%{s}.x.test exists:%{l1r-}.%{o}.%{h}.%{H} exp=%{S}.x.test -all"
    for name in (domain, "example.org"):
        got = run(everything(new_zone, record, names=True), str(ip), sender, helo, name)
        assert got.result in RESULTS
        assert got.reason.isascii()
        assert got.reason.isprintable()


@WORLD
@given(record=RECORD)
def test_parsing_never_raises_and_is_whole_or_nothing(record):
    parsed = parse(record)
    assert not (parsed.error and (parsed.terms4 or parsed.terms6 or parsed.redirect or parsed.exp))
    for term in (*parsed.terms4, *parsed.terms6):
        assert 0 <= term.mask < 1 << 128
        assert term.network == -1 or term.network & term.mask == term.network


@WORLD
@given(text=TEXT, local=st.text(max_size=80), helo=st.text(max_size=80), ip=IP, domain=st.text(max_size=300))
def test_macros_expand_or_are_refused(text, local, helo, ip, domain):
    facts = Facts(ip, local, "example.org", helo, "mx.test", 1)
    try:
        name = target_name(domain_spec(text), facts, domain, "unknown")
    except MacroError:
        name = ""
    assert name.isascii()
    assert len(name) <= 253
    assert name == "" or all(0 < len(label) <= 63 for label in name.split("."))
    try:
        assert len(explanation(macro_string(text, explanation=True), facts, domain, "unknown", 100)) <= 100
    except MacroError:
        return


@given(
    parts=st.lists(st.sampled_from(["a", "b", "-", "+", ".", "="]), max_size=12).map("".join), keep=st.integers(1, 9)
)
def test_splitting_agrees_with_the_words_of_the_rfc(parts, keep):
    facts = Facts(IPv4Address("192.0.2.1"), parts, "example.org", "h", "", 0)
    said = parts.replace("+", "-").split("-")  # section 7.3: split, reverse, keep the right-hand parts, join by dots
    spec = macro_string(f"%{{l{keep}r-+}}", explanation=True)
    assert explanation(spec, facts, "d", "", 100) == ".".join(said[::-1][-keep:])


EVIL = {
    "percent signs": b"%" * 8000,
    "open macros": b"a:" + b"%{" * 4000,
    "macros": b"a:" + b"%{l1r-}" * 1100 + b".x.test",
    "fixed macros": b"a:" + b"%%" * 4000 + b".x.test",
    "delimiters": b"a:%{l" + b"-" * 8000 + b"}",
    "digits": b"a:%{l" + b"9" * 8000 + b"}",
    "slashes": b"a:x.test" + b"/" * 8000,
    "long prefix": b"a:x.test/" + b"9" * 8000,
    "dots": b"a:" + b"." * 8000,
    "top label": b"a:x." + b"a-" * 4000,
    "modifier name": b"a" + b"." * 8000,
    "terms": b"a " * 4000,
    "addresses": b"ip4:192.0.2.1 " * 580,
    "colons": b"ip6:" + b":" * 8000,
    "spaces": b" " * 8000,
    "exists": b"exists:%{s1r-.+,/_=}%{d9}.x.test " * 240,
}


@pytest.mark.parametrize("kind", EVIL)
def test_no_record_costs_much(run, kind):
    # Linear work on 8 KiB takes some milliseconds; anything quadratic in it takes many seconds.
    started = time.process_time()
    sender = "a-" * 100_000 + "@example.org"
    got = run({"example.org": {"TXT": [b"v=spf1 " + EVIL[kind]]}}, sender=sender, limits=Limits(terms=1000, voids=1000))
    assert got.result in RESULTS
    assert time.process_time() - started < 5


def test_the_kernel_raises_what_is_not_its_own():
    class Broken:
        async def query(self, _name, _rdtype):
            raise RuntimeError("a fault in the resolver")

    with pytest.raises(RuntimeError, match="a fault"):
        check_host(Broken(), IPv4Address("192.0.2.1"), "example.org", "a@example.org", "h.test").send(None)

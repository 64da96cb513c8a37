"""check_host(): RFC 7208 sections 3 to 6."""

import time
from contextlib import contextmanager
from ipaddress import IPv6Address

import pytest

from elemta.dns import DEADLINE
from elemta.spf import check_host

V4, V6 = "192.0.2.1", "2001:db8::1"


@pytest.mark.parametrize(
    "domain",
    [
        "", ".", "com", "user@example.org", "[192.0.2.1]", "[IPv6:::1]", "a..example.org", ".example.org",
        "a" * 64 + ".example.org", "x." * 126 + "ab", "exa mple.org",
        "a\x00b.test", "a\nb.test", "\ud800.test", "-\u00fc.test",
    ],
)  # fmt: skip
def test_what_is_no_domain_name_gives_none_without_a_question(new_zone, run, domain):
    zone = new_zone({})
    result = run(zone, sender="user@example.org", domain=domain)
    assert (result.result, result.domain, result.terms) == ("none", domain, 0)
    assert "is no domain name" in result.reason
    assert result.reason.isprintable()
    assert zone.asked == []


@pytest.mark.parametrize(
    ("domain", "asked"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("B\u00dcCHER\u3002example", "xn--bcher-kva.example"),
        ("_x.b\u00fccher.example", "_x.xn--bcher-kva.example"),
    ],
)
def test_domains_are_asked_for_as_a_labels(new_zone, run, domain, asked):
    zone = new_zone({asked: {"TXT": ["v=spf1 ip4:192.0.2.1"]}})
    result = run(zone, domain=domain)
    assert (result.result, result.domain) == ("pass", asked)
    assert zone.asked == [(asked, "TXT")]


def test_u_labels_of_sender_and_helo_become_a_labels_in_macros(run):
    domain = "xn--bcher-kva.example"
    zone = {
        domain: {"TXT": ["v=spf1 exists:%{o}.o.test -exists:%{h}.h.test"]},
        f"{domain}.h.test": {"A": ["127.0.0.2"]},
    }
    sender = "u@b\u00fccher.example"
    assert run(zone, sender=sender, helo="b\u00fccher.example").mechanism == "-exists:%{h}.h.test"
    assert run(zone | {f"{domain}.o.test": {"A": ["127.0.0.2"]}}, sender=sender).mechanism == "exists:%{o}.o.test"


@pytest.mark.parametrize(
    ("sender", "domain", "local"),
    [
        ("@example.org", "example.org", "postmaster"),
        ("example.org", "example.org", "postmaster"),
        ("", "example.org", "postmaster"),
        ("postmaster@mx.example.net", "mx.example.net", "postmaster"),
        ("Joe@example.org", "example.org", "Joe"),
        ('"a@b"@example.org', "example.org", '"a@b"'),
    ],
)
def test_the_local_part(new_zone, run, sender, domain, local):
    zone = new_zone({domain: {"TXT": ["v=spf1 exists:%{l}.l.test ?all"]}})
    run(zone, sender=sender, domain=domain)
    assert zone.asked[1] == (f"{local}.l.test", "A")


@pytest.mark.parametrize(
    ("texts", "result"),
    [
        (["v=spf1 -all"], "fail"),
        (["hello", "v=spf1 -all", b"\xff"], "fail"),
        (["v=spf10 -all", "v=spf1 +all"], "pass"),
        (["V=SPF1 +ALL"], "pass"),
        (["v=spf1"], "neutral"),
        (["v=spf1mx"], "none"),
        (["hello"], "none"),
        (["v=spf1 -all", "v=spf1 -all"], "permerror"),
        (["v=spf1 -all", "V=spf1"], "permerror"),
        ([b"v=spf1 -all \x80"], "permerror"),
    ],
)
def test_selecting_the_record(run, texts, result):
    assert run({"example.org": {"TXT": texts}}).result == result


@pytest.mark.parametrize(
    ("zone", "result", "reason"),
    [
        ({}, "none", "example.org does not exist"),
        ({"example.org": {"A": [V4]}}, "none", "example.org has no SPF record"),
        ({"example.org": {"TXT": "SERVFAIL"}}, "temperror", "TXT example.org: SERVFAIL"),
        ({"example.org": "SERVFAIL"}, "temperror", "TXT example.org: SERVFAIL"),
    ],
)
def test_no_record_and_no_answer(run, zone, result, reason):
    got = run(zone)
    assert (got.result, got.reason, got.mechanism) == (result, reason, "")


@pytest.mark.parametrize(
    ("text", "ip", "result", "mechanism"),
    [
        ("v=spf1 -all", V4, "fail", "-all"),
        ("v=spf1 ~all", V6, "softfail", "~all"),
        ("v=spf1 ?all", V4, "neutral", "?all"),
        ("v=spf1 all", V4, "pass", "all"),
        ("v=spf1 +all -all", V4, "pass", "+all"),
        ("v=spf1 ip4:192.0.2.1 -all", V4, "pass", "ip4:192.0.2.1"),
        ("v=spf1 ip4:192.0.2.2 -all", V4, "fail", "-all"),
        ("v=spf1 -ip4:192.0.2.0/24 +all", V4, "fail", "-ip4:192.0.2.0/24"),
        ("v=spf1 ip4:192.0.2.128/25 ~all", V4, "softfail", "~all"),
        ("v=spf1 ip4:0.0.0.0/0 -all", V6, "fail", "-all"),
        ("v=spf1 ip6:::/0 -all", V4, "fail", "-all"),
        ("v=spf1 ip6:2001:db8::/32 -all", V6, "pass", "ip6:2001:db8::/32"),
        ("v=spf1 ip6:::ffff:192.0.2.1 -all", V4, "fail", "-all"),
        ("v=spf1 ip6:::ffff:192.0.2.1 -all", "::ffff:192.0.2.1", "fail", "-all"),
        ("v=spf1 ip4:192.0.2.1 -all", "::ffff:192.0.2.1", "pass", "ip4:192.0.2.1"),
        ("v=spf1 ip6:fe80::/10 -all", "fe80::1%eth0", "pass", "ip6:fe80::/10"),
        ("v=spf1 a -all", "192.0.2.10", "pass", "a"),
        ("v=spf1 a -all", "2001:db8::10", "pass", "a"),
        ("v=spf1 a -all", "192.0.2.11", "fail", "-all"),
        ("v=spf1 a/24 -all", "192.0.2.200", "pass", "a/24"),
        ("v=spf1 a//64 -all", "192.0.2.200", "fail", "-all"),
        ("v=spf1 a//64 -all", "2001:db8::abcd", "pass", "a//64"),
        ("v=spf1 a/0 -all", "2001:db8:1::", "fail", "-all"),
        ("v=spf1 a:mail.example.org -all", "192.0.2.25", "pass", "a:mail.example.org"),
        ("v=spf1 a:example.org/24//32 -all", "2001:db8:ffff::", "pass", "a:example.org/24//32"),
        ("v=spf1 mx -all", "192.0.2.25", "pass", "mx"),
        ("v=spf1 mx -all", "2001:db8::25", "pass", "mx"),
        ("v=spf1 mx -all", "192.0.2.10", "fail", "-all"),
        ("v=spf1 mx/24 -all", "192.0.2.10", "pass", "mx/24"),
        ("v=spf1 mx:mail.example.org -all", "192.0.2.25", "fail", "-all"),  # section 5.4: no implicit MX
        ("v=spf1 exists:example.org -all", V6, "pass", "exists:example.org"),
        ("v=spf1 exists:nowhere.test -all", V4, "fail", "-all"),
        ("v=spf1 ip4:10.0.0.1", V4, "neutral", ""),
        ("v=spf1", V4, "neutral", ""),
        ("v=spf1 a:%{h} -all", V4, "fail", "-all"),
        ("v=spf1 a:a..example.org a:" + "x" * 64 + ".org -all", V4, "fail", "-all"),  # section 4.8
        ("v=spf1 moo=cow -all op=x", V4, "fail", "-all"),
    ],
)
def test_mechanisms(record, text, ip, result, mechanism):
    got = record(text, ip)
    assert (got.result, got.mechanism) == (result, mechanism)


def test_exists_asks_for_ipv4_whatever_the_client_is(record):
    extra = {"v6only.test": {"AAAA": ["2001:db8::1"]}}
    assert record("v=spf1 exists:v6only.test -all", V6, extra).result == "fail"


def test_a_null_mx_is_no_host(record):
    extra = {"nullmx.test": {"MX": [(0, "")]}}
    got = record("v=spf1 mx:nullmx.test -all", V4, extra)
    assert (got.result, got.voids) == ("fail", 0)


PTR = {
    "1.2.0.192.in-addr.arpa": {"PTR": ["forged.example.org", "Host.Example.ORG", "host.other.test"]},
    "host.example.org": {"A": [V4]},
    "forged.example.org": {"A": ["198.51.100.1"]},
    "host.other.test": {"A": [V4]},
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["six.example.org"]},
    "six.example.org": {"A": [V4], "AAAA": [V6]},
}


@pytest.mark.parametrize(
    ("text", "ip", "result"),
    [
        ("v=spf1 ptr -all", V4, "pass"),
        ("v=spf1 ptr -all", V6, "pass"),
        ("v=spf1 ptr:other.test -all", V4, "pass"),
        ("v=spf1 ptr:Host.OTHER.test -all", V4, "pass"),
        ("v=spf1 ptr:ther.test -all", V4, "fail"),
        ("v=spf1 ptr:forged.example.org -all", V4, "fail"),
        ("v=spf1 ptr -all", "192.0.2.2", "fail"),
        ("v=spf1 exists:%{p}.p.test -all", V4, "pass"),
        ("v=spf1 exists:%{p}.p.test -all", "192.0.2.2", "softfail"),
    ],
)
def test_ptr_needs_a_name_that_leads_back(record, text, ip, result):
    p = {"host.example.org.p.test": {"A": [V4]}, "unknown.p.test": {"A": [V4]}}
    if result == "softfail":
        text = text.replace("exists", "~exists")
    assert record(text, ip, PTR | p).result == result


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["zz.test", "below.example.org", "example.org"], "example.org"),
        (["zz.test", "below.example.org"], "below.example.org"),
        (["forged.test", "zz.test"], "zz.test"),
        (["forged.test", "dead.test"], "unknown"),
    ],
)
def test_the_name_for_p(record, names, chosen):
    client = "192.0.2.10"
    extra = {"10.2.0.192.in-addr.arpa": {"PTR": names}, f"{chosen}.p.test": {"A": [V4]}}
    for name in ("zz.test", "below.example.org"):
        extra[name] = {"A": [client]}
    assert record("v=spf1 exists:%{p}.p.test -all", client, extra).result == "pass"


def test_trouble_with_ptr_is_no_match_and_never_temperror(record):
    dead = {"1.2.0.192.in-addr.arpa": "SERVFAIL"}
    assert record("v=spf1 ptr -all", V4, dead).result == "fail"
    dead = {"1.2.0.192.in-addr.arpa": {"PTR": ["dead.example.org", "good.example.org"]}, "dead.example.org": "SERVFAIL"}
    assert record("v=spf1 ptr -all", V4, dead | {"good.example.org": {"A": [V4]}}).result == "pass"


@pytest.mark.parametrize("term", ["a:dead.test", "mx:dead.test", "exists:dead.test", "include:dead.test"])
def test_trouble_with_any_other_term_ends_in_temperror(record, term):
    got = record(f"v=spf1 {term} +all")
    assert (got.result, got.mechanism) == ("temperror", "")
    assert got.reason.startswith(f"{term}: ")
    assert got.reason.endswith("dead.test: SERVFAIL")


def test_trouble_with_one_mx_host_ends_in_temperror(record):
    extra = {"some.test": {"MX": ["dead.test", "mail.example.org"]}}
    assert record("v=spf1 mx:some.test -all", V4, extra).result == "temperror"


@pytest.mark.parametrize(
    ("target", "result"),
    [  # the table of section 5.2
        ("pass.test", "pass"),
        ("fail.test", "softfail"),
        ("soft.test", "softfail"),
        ("open.test", "softfail"),
        ("dead.test", "temperror"),
        ("broken.test", "permerror"),
        ("empty.test", "permerror"),
        ("nowhere.test", "permerror"),
        ("a..test", "permerror"),
    ],
)
def test_include(record, target, result):
    assert record(f"v=spf1 include:{target} ~all").result == result


@pytest.mark.parametrize("term", ["include:%{l}.x.test", "include:%{s}", "a:%{l}.x.test", "exists:%{L}.x.test"])
def test_terms_with_a_local_part_beyond_ascii_match_nothing(record, term):
    got = record(f"v=spf1 {term} ~all", sender="m\u00fcller@example.org")  # RFC 8616 section 4
    assert (got.result, got.terms) == ("softfail", 1)


@pytest.mark.parametrize(("sign", "result"), [("+", "pass"), ("-", "fail"), ("~", "softfail"), ("?", "neutral")])
def test_the_sign_before_include_decides(record, sign, result):
    assert record(f"v=spf1 {sign}include:pass.test +all").result == result


@pytest.mark.parametrize(
    ("target", "result"),
    [  # section 6.1
        ("pass.test", "pass"),
        ("fail.test", "fail"),
        ("soft.test", "softfail"),
        ("open.test", "neutral"),
        ("dead.test", "temperror"),
        ("broken.test", "permerror"),
        ("empty.test", "permerror"),
        ("nowhere.test", "permerror"),
        ("a..test", "permerror"),
        ("%{h}", "permerror"),
    ],
)
def test_redirect(record, target, result):
    got = record(f"v=spf1 redirect={target} ip4:10.0.0.1", helo="[192.0.2.1]")
    assert (got.result, got.domain) == (result, "example.org")


def test_redirect_waits_for_all_mechanisms_and_yields_to_them(new_zone, run):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 redirect=fail.test ip4:192.0.2.1 ?all"]}})
    assert run(zone).result == "pass"
    assert run(zone, "192.0.2.2").result == "neutral"
    assert {name for name, _ in zone.asked} == {"example.org"}


def test_below_an_include_the_domain_is_the_included_one_and_the_sender_stays(record):
    extra = {
        "inc.test": {"TXT": ["v=spf1 exists:%{d}.%{o}.%{l}.x.test"]},
        "inc.test.example.org.user.x.test": {"A": [V4]},
    }
    assert record("v=spf1 include:inc.test -all", V4, extra).result == "pass"
    assert record("v=spf1 redirect=inc.test", V4, extra).result == "pass"


def test_a_redirect_below_an_include(record):
    extra = {"inc.test": {"TXT": ["v=spf1 redirect=pass.test"]}, "inc2.test": {"TXT": ["v=spf1 redirect=nowhere.test"]}}
    assert record("v=spf1 include:inc.test -all", V4, extra).result == "pass"
    assert record("v=spf1 include:inc2.test -all", V4, extra).result == "permerror"


@pytest.mark.parametrize(
    ("text", "extra", "says"),
    [
        ("v=spf1 -all exp=why.test", {"why.test": {"TXT": ["%{c}: no, %{d}"]}}, "192.0.2.1: no, example.org"),
        ("v=spf1 -all exp=why.test", {"why.test": {"TXT": ["%{r} %{t} %{p}"]}}, "mx.receiver.test 1234567890 unknown"),
        ("v=spf1 -all exp=%{l}.why.test", {"user.why.test": {"TXT": ["dot."]}}, "dot."),
        ("v=spf1 -all exp=why.test", {}, ""),
        ("v=spf1 -all exp=dead.test", {}, ""),
        ("v=spf1 -all exp=a..test", {}, ""),
        ("v=spf1 -all exp=why.test", {"why.test": {"A": [V4]}}, ""),
        ("v=spf1 -all exp=why.test", {"why.test": {"TXT": ["one", "two"]}}, ""),
        ("v=spf1 -all exp=why.test", {"why.test": {"TXT": ["the %{x} files"]}}, ""),
        ("v=spf1 -all exp=why.test", {"why.test": {"TXT": ["b\u00f6se"]}}, ""),
        ("v=spf1 -all exp=why.test", {"why.test": {"TXT": ["x" * 9000]}}, ""),
        ("v=spf1 ~all exp=why.test", {"why.test": {"TXT": ["not for softfail"]}}, ""),
        ("v=spf1 -all", {"why.test": {"TXT": ["not asked for"]}}, ""),
        ("v=spf1 exp=why.test redirect=fail.test", {"why.test": {"TXT": ["of the first record"]}}, ""),
        (
            "v=spf1 exp=first.test redirect=second.test",
            {"second.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["%{d}"]}},
            "second.test",
        ),
        (
            "v=spf1 -include:inner.test exp=outer.test",
            {
                "inner.test": {"TXT": ["v=spf1 +all exp=why.test"]},
                "why.test": {"TXT": ["inner"]},
                "outer.test": {"TXT": ["outer"]},
            },
            "outer",
        ),
    ],
)  # fmt: skip
def test_explanations(record, text, extra, says):
    got = record(text, V4, extra)
    assert got.explanation == says
    assert got.result in {"fail", "softfail"}


@contextmanager
def within(seconds, zone):
    """The time for DNS; gives the seconds that were left of it at each question."""
    left, query = {}, zone.query

    async def timed(name, rdtype):
        left[name, rdtype] = DEADLINE.get() - time.monotonic()
        return await query(name, rdtype)

    zone.query = timed
    before = DEADLINE.set(time.monotonic() + seconds)
    try:
        yield left
    finally:
        DEADLINE.reset(before)


@pytest.mark.parametrize(("budget", "most"), [(20.0, 2.0), (0.5, 0.5)])
def test_an_explanation_that_does_not_come_is_not_waited_for_as_long_as_the_mail(new_zone, run, budget, most):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 -all exp=slow.test"]}, "slow.test": "SERVFAIL"})
    with within(budget, zone) as left:
        got = run(zone, V4)
    assert (got.result, got.explanation) == ("fail", "")
    assert left["slow.test", "TXT"] <= most
    assert left["example.org", "TXT"] > budget - 0.5


def test_the_clients_own_names_are_asked_for_once_and_take_half_of_the_time_at_most(new_zone, run):
    pointer, names = "1.2.0.192.in-addr.arpa", ["a.example.org", "b.other.test"]
    zone = new_zone({"example.org": {"TXT": ["v=spf1 ptr ptr:other.test a -all"]}, pointer: {"PTR": names}})
    with within(20.0, zone) as left:
        assert run(zone, V4).mechanism == "-all"
    assert all(8 < left[asked] <= 10 for asked in ((pointer, "PTR"), *((name, "A") for name in names)))
    assert left["example.org", "A"] > 18
    assert zone.asked.count((pointer, "PTR")) == 1


def test_an_explanation_without_p_asks_for_no_names_of_the_client(new_zone, run):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["See %{d}"]}})
    assert run(zone, V4).explanation == "See example.org"
    assert zone.asked == [("example.org", "TXT"), ("why.test", "TXT")]


def test_no_explanation_is_looked_up_unless_wanted(new_zone):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 -all exp=why.test"]}})
    with pytest.raises(StopIteration) as end:
        check_host(zone, IPv6Address(V6), "example.org", "a@example.org", "mx.test").send(None)
    assert (end.value.value.result, end.value.value.explanation) == ("fail", "")
    assert zone.asked == [("example.org", "TXT")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v=spf1 -all", "192.0.2.1 is not listed by example.org (matched -all)"),
        ("v=spf1 ?all", "192.0.2.1 is not listed by example.org (matched ?all)"),
        ("v=spf1 +all", "192.0.2.1 is authorized by example.org (matched +all)"),
        ("v=spf1 -ip4:192.0.2.1", "192.0.2.1 is refused by example.org (matched -ip4:192.0.2.1)"),
        ("v=spf1 include:pass.test", "192.0.2.1 is authorized by example.org (matched include:pass.test > +all)"),
        ("v=spf1 redirect=fail.test", "192.0.2.1 is not listed by example.org (matched -all of fail.test)"),
        ("v=spf1 a", "192.0.2.1 matches no term of example.org"),
        ("v=spf1 include:dead.test", "include:dead.test: TXT dead.test: SERVFAIL"),
        ("v=spf1 a:x.test a mx -all v4:1.2.3.4", 'example.org: term 5: unknown mechanism "v4"'),
        ("v=spf1 include:broken.test", 'include:broken.test: broken.test: term 1: unknown mechanism "nonsense"'),
        ("v=spf1 redirect=nowhere.test", "redirect: nowhere.test does not exist"),
        ("v=spf1 include:a..test", "include:a..test: the target is no domain name"),
    ],
)  # fmt: skip
def test_the_reason_is_for_people(record, text, reason):
    assert record(text).reason == reason


def test_the_zone_of_a_link_local_client_is_ours_and_not_the_senders(new_zone, run):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 ptr exists:%{ir}.x.test"]}})
    assert run(zone, "fe80::1%eth0").reason == "fe80::1 matches no term of example.org"
    assert zone.asked[1][0] == "1." + "0." * 28 + "8.e.f.ip6.arpa"


def test_type_spf_is_never_asked_for(new_zone, run):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 a mx ptr exists:x.test include:i.test -all"]}})
    run(zone)
    assert {kind for _, kind in zone.asked} == {"TXT", "A", "MX", "PTR"}

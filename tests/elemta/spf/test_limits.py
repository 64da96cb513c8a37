"""The bounds of an evaluation: RFC 7208 section 4.6.4 and our own."""

import pytest

from elemta.spf import Limits

V4 = "192.0.2.1"
HOSTS = {f"h{number}.test": {"A": [f"198.51.100.{number}"]} for number in range(30)}


def names(template, count):
    return " ".join(template % number for number in range(count))


@pytest.mark.parametrize("kind", ["a:h%d.test", "exists:h%d.test", "mx:m%d.test"])
@pytest.mark.parametrize(("count", "result"), [(10, "pass"), (11, "permerror")])
def test_ten_terms_may_ask(record, kind, count, result):
    extra = HOSTS | {f"m{number}.test": {"MX": ["h1.test"]} for number in range(11)}
    sign = "-" if kind.startswith("exists") else ""  # an exists matches: let it be found missing instead
    text = f"v=spf1 {names(sign + kind, count)} +all"
    if sign:
        extra = {}
    got = record(text, V4, extra, limits=Limits(voids=100))
    assert (got.result, got.terms) == (result, count)


def test_terms_that_are_not_evaluated_and_addresses_do_not_count(record):
    text = f"v=spf1 {names('ip4:10.0.0.%d', 30)} {names('a:h%d.test', 10)} ip4:{V4} {names('a:h%d.test', 9)} -all"
    got = record(text, V4, HOSTS)
    assert (got.result, got.terms) == ("pass", 10)


def test_the_limit_is_one_for_all_records_together(record):
    inner = {"inc.test": {"TXT": [f"v=spf1 {names('a:h%d.test', 8)}"]}}
    assert record(f"v=spf1 a include:inc.test ip4:{V4}", V4, HOSTS | inner).result == "pass"
    got = record(f"v=spf1 a include:inc.test a ip4:{V4}", V4, HOSTS | inner)
    assert (got.result, got.reason) == ("permerror", "a: more than 10 terms that ask the DNS")
    redirect = record("v=spf1 a include:inc.test redirect=pass.test", V4, HOSTS | inner)
    assert (redirect.result, redirect.reason) == ("permerror", "redirect: more than 10 terms that ask the DNS")


def test_the_first_question_for_p_counts_as_a_term(record):
    assert record("v=spf1 exists:%{p}.x.test exists:%{p}.y.test").terms == 3
    assert record(f"v=spf1 {names('exists:h%d.%%{p}.test', 9)}", limits=Limits(voids=100)).result == "neutral"
    assert record(f"v=spf1 {names('exists:h%d.%%{p}.test', 10)}", limits=Limits(voids=100)).result == "permerror"


def test_a_limit_reached_inside_the_explanation_changes_nothing(record):
    extra = HOSTS | {"why.test": {"TXT": ["%{p}"]}}
    got = record(f"v=spf1 {names('a:h%d.test', 10)} -all exp=why.test", V4, extra)
    assert (got.result, got.explanation) == ("fail", "unknown")
    extra = HOSTS | {"unknown.why.test": {"TXT": ["why"]}}
    got = record(f"v=spf1 {names('a:h%d.test', 10)} -all exp=%{{p}}.why.test", V4, extra)
    assert (got.result, got.explanation, got.terms) == ("fail", "why", 10)


@pytest.mark.parametrize("term", ["a:%s", "mx:%s", "exists:%s"])
def test_two_terms_may_find_nothing(record, term):
    terms = [term % name for name in ("nowhere.test", "open.test", "nothing.test")]
    got = record(f"v=spf1 {terms[0]} {terms[1]} +all")
    assert (got.result, got.voids) == ("pass", 2)
    got = record(f"v=spf1 {' '.join(terms)} +all")
    assert (got.result, got.voids) == ("permerror", 3)
    assert got.reason == f"{terms[2]}: more than 2 terms that name nothing in the DNS"


def test_an_mx_whose_hosts_have_no_address_of_the_family_is_void_once(record):
    extra = HOSTS | {"v4.test": {"MX": ["h1.test", "h2.test", "h3.test"]}}
    got = record("v=spf1 mx:v4.test +all", "2001:db8::1", extra)
    assert (got.result, got.voids) == ("pass", 1)
    assert record("v=spf1 mx:v4.test +all", V4, extra).voids == 0


def test_a_host_that_is_missing_beside_one_that_matches_is_not_void(record):
    extra = {"two.test": {"MX": ["nowhere.test", "here.test"]}, "here.test": {"A": [V4]}}
    got = record("v=spf1 mx:two.test -all", V4, extra)
    assert (got.result, got.voids) == ("pass", 0)


def test_the_clients_own_names_cannot_make_a_term_void(record):
    forged = {"1.2.0.192.in-addr.arpa": {"PTR": [f"n{number}.example.org" for number in range(5)]}}
    got = record("v=spf1 ptr -all", V4, forged)
    assert (got.result, got.voids) == ("fail", 0)
    assert record("v=spf1 ptr -all").voids == 1  # no PTR at all


def test_a_question_for_the_clients_names_that_nobody_answers_is_not_void(record):
    dead = {"1.2.0.192.in-addr.arpa": "SERVFAIL"}  # section 5.5: "this mechanism fails to match", and no more
    got = record("v=spf1 a:nowhere.test ptr ptr:x.test a:nothing.test -all", V4, dead)
    assert (got.result, got.voids) == ("fail", 2)


def mx_of(count):
    return {"many.test": {"MX": [(number, f"h{number}.test") for number in reversed(range(count))]}}


@pytest.mark.parametrize(
    ("count", "ip", "result"),
    [
        (10, "198.51.100.9", "pass"),
        (10, V4, "fail"),
        (11, V4, "permerror"),
        (11, "198.51.100.10", "permerror"),  # the eleventh by preference
        (11, "198.51.100.0", "pass"),  # the limit is not reached
    ],
)
def test_ten_mx_hosts_may_be_looked_up(record, count, ip, result):
    assert record("v=spf1 mx:many.test -all", ip, HOSTS | mx_of(count)).result == result


@pytest.mark.parametrize(("place", "result"), [(9, "pass"), (10, "fail")])
def test_ten_ptr_names_are_looked_at(new_zone, run, place, result):
    pointers = [f"n{number}.example.org" for number in range(12)]
    zone = new_zone(
        {
            "example.org": {"TXT": ["v=spf1 ptr -all"]},
            "1.2.0.192.in-addr.arpa": {"PTR": pointers},
            pointers[place]: {"A": [V4]},
        }
    )
    assert run(zone).result == result
    assert sum(kind == "A" for _, kind in zone.asked) == 10


@pytest.mark.parametrize("term", ["include:", "redirect="])
def test_a_loop_ends_and_says_so(new_zone, run, term):
    zone = new_zone(
        {
            "example.org": {"TXT": [f"v=spf1 {term}b.test"]},
            "b.test": {"TXT": [f"v=spf1 {term}Example.org"]},
        }
    )
    got = run(zone)
    assert got.result == "permerror"
    assert got.reason.endswith("example.org leads back to itself")
    assert len(zone.asked) == 2


def test_the_same_record_twice_side_by_side_is_no_loop(record):
    assert record("v=spf1 include:fail.test include:fail.test include:pass.test").result == "pass"


def test_an_endless_chain_ends(new_zone, run):
    endless = {f"i{number}.test": {"TXT": [f"v=spf1 include:i{number + 1}.test"]} for number in range(50)}
    zone = new_zone(endless | {"example.org": {"TXT": ["v=spf1 include:%{d1}.a.test"]}})
    assert run(zone, sender="a@i0.test").result == "permerror"
    assert len(zone.asked) == 11


@pytest.mark.parametrize(("octets", "result"), [(8192, "pass"), (8193, "permerror")])
def test_the_record_has_a_longest_size(record, octets, result):
    head = f"v=spf1 ip4:{V4} "
    assert record(head + "x=" + "y" * (octets - len(head) - 2)).result == result


def test_one_label_is_a_question_of_the_limits(run):
    zone = {"com": {"TXT": ["v=spf1 -all"]}}
    assert run(zone, sender="a@com").result == "none"  # section 4.3
    assert run(zone, sender="a@com", limits=Limits(labels=1)).result == "fail"


def test_macros_see_the_right_end_of_a_long_identity(record):
    extra = {"why.test": {"TXT": ["%{l} %{h}"]}}
    who = {"sender": "abcdefgh@example.org", "helo": "mx.test", "domain": "example.org", "limits": Limits(identity=5)}
    assert record("v=spf1 -all exp=why.test", V4, extra, **who).explanation == "defgh .test"


def test_a_monstrous_sender_is_cut(new_zone, run):
    zone = new_zone({"example.org": {"TXT": ["v=spf1 " + "exists:%{l1r}.x.test " * 3]}})
    run(zone, sender="a." * 100_000 + "@example.org", helo="h" * 100_000)
    assert all(len(name) <= 253 for name, _ in zone.asked)

"""uribl: which hosts are asked about, weights, and lists that cannot be believed."""

import pytest

from elemta.findings import Finding, Result
from elemta.testing import FakeResolver, envelope, judge, message, policy, run
from elemta_milter.checks.uribl import Uribl

ZONE = {
    "evil.example.uri": [("A", "127.0.0.2")],
    "worse.example.uri": [("A", "127.0.0.4")],
    "www.evil.example.hosts": [("A", "127.0.0.2")],
    "1.2.0.192.uri": [("A", "127.0.0.2")],
    "evil.example.all": [("A", "127.0.0.2")],
    "invalid.all": [("A", "127.0.0.2")],
    "evil.example.parked": [("A", "203.0.113.1")],
    "evil.example.slow": [("A", "TIMEOUT")],
    "fine.example.slow": [("A", "TIMEOUT")],
}


def look(lists, hosts=("www.evil.example",), addresses=(), resolver=None, **options):
    domains = tuple(dict.fromkeys(".".join(host.split(".")[-2:]) for host in hosts))
    fields = {"url_hosts": hosts, "url_domains": domains, "url_addresses": addresses}
    seen = {"content": Finding("content", Result.PASS, fields=fields)}
    return run(Uribl, message(), seen, resolver=resolver or FakeResolver(ZONE), lists=lists, **options)


@pytest.mark.parametrize(
    ("lists", "result", "score", "domains"),
    [
        ([{"zone": "uri"}], "fail", 1, ("evil.example",)),
        ([{"zone": "hosts"}], "pass", 0, ()),
        ([{"zone": "hosts", "names": "host"}], "fail", 1, ("www.evil.example",)),
        ([{"zone": "uri", "weight": 0.5}], "pass", 0.5, ("evil.example",)),
        ([{"zone": "uri", "replies": {"127.0.0.4": 3}}], "pass", 0, ("evil.example",)),
        ([{"zone": "empty"}], "pass", 0, ()),
        ([], "none", None, None),
    ],
)
def test_score(lists, result, score, domains):
    finding = look(lists)

    assert finding.result == result
    assert finding.fields.get("score") == score
    assert finding.fields.get("domains") == domains


def test_a_list_counts_once_by_its_heaviest_listing():
    replies = {"127.0.0.2": 1, "127.0.0.4": 3}

    finding = look([{"zone": "uri", "replies": replies}], ("evil.example", "a.worse.example", "b.worse.example"))

    assert finding.fields["score"] == 3
    assert finding.fields["domains"] == ("evil.example", "worse.example")


def test_addresses_are_asked_where_the_list_takes_them():
    assert look([{"zone": "uri"}], (), ("192.0.2.1",)).result == "none"
    finding = look([{"zone": "uri", "addresses": True}], (), ("192.0.2.1",))

    assert finding.result == "fail"
    assert finding.fields["domains"] == ("192.0.2.1",)


def test_what_is_ignored_is_not_asked():
    resolver = FakeResolver(ZONE)

    assert look([{"zone": "uri"}], resolver=resolver, ignore=("Evil.Example",)).result == "none"
    assert not resolver.asked


def test_the_number_of_questions_is_bounded():
    resolver = FakeResolver(ZONE)
    finding = look(
        [{"zone": "uri"}], tuple(f"h{number}.test{number}" for number in range(50)), resolver=resolver, most=7
    )

    assert len(resolver.asked) == 7
    assert finding.fields["unasked"] == 43


@pytest.mark.parametrize("zone", ["all", "parked"])
def test_a_list_that_cannot_be_believed_is_ignored_with_a_warning(zone):
    finding = look([{"zone": zone}, {"zone": "uri"}])

    assert finding.fields["lists"] == ("uri",)
    assert finding.fields["ignored"] == (zone,)
    assert f"{zone} is ignored" in finding.warning
    assert look([{"zone": zone}]).result == "pass"


def test_trouble_only_when_no_list_answers():
    assert look([{"zone": "slow"}, {"zone": "uri"}]).result == "fail"
    assert look([{"zone": "slow"}]).trouble


def test_without_content_there_is_a_warning():
    finding = run(Uribl, message(), {}, resolver=FakeResolver(ZONE), lists=[{"zone": "uri"}])

    assert finding.result == "none"
    assert "content" in finding.warning


def test_beside_content():
    of = policy("""
        host: mx.test.example
        checks: {content: {}, uribl: {lists: [{zone: uri}]}}
        rules: {message: [{id: link, when: {uribl: fail}, then: reject, reply: "550 5.7.1 {uribl.domains} is listed"}]}
    """)
    mail = message(envelope(), body=b"see http://www.evil.example/now")

    decision = judge(of, mail, resolver=FakeResolver(ZONE))
    assert decision.verdict.reply == "550 5.7.1 evil.example is listed"


def test_a_domain_to_ignore_must_be_one():
    with pytest.raises(ValueError, match="no domain"):
        Uribl.Options(ignore=("a b",))


def test_links_that_could_not_be_read_are_trouble():
    seen = {"content": Finding("content", Result.TEMPERROR, "crashed", trouble=True)}
    finding = run(Uribl, message(), seen, resolver=FakeResolver(ZONE), lists=[{"zone": "uri"}])
    assert (finding.result, finding.trouble) == (Result.TEMPERROR, True)

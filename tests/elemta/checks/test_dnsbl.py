"""dnsbl: weights, reply codes, trouble, and lists that cannot be believed."""

import asyncio
import time

import pytest

from elemta.checks.dnsbl import Dnsbl
from elemta.dns.lists import TEST_ADDRESS, DnsLists, ListOptions
from elemta.testing import FakeResolver, envelope, judge, message, policy, run

ZONE = {
    "7.2.0.192.good.dnsbl": [("A", "127.0.0.2"), ("A", "127.0.0.10")],
    "7.2.0.192.other.dnsbl": [("A", "127.0.0.3")],
    "7.2.0.192.parked.dnsbl": [("A", "203.0.113.80")],
    "7.2.0.192.public.dnsbl": [("A", "127.255.255.254")],
    "7.2.0.192.refused.dnsbl": [("A", "127.0.0.1")],
    "7.2.0.192.all.dnsbl": [("A", "127.0.0.2")],
    "1.0.0.127.all.dnsbl": [("A", "127.0.0.2")],
    "7.2.0.192.slow.dnsbl": [("A", "TIMEOUT")],
    "7.2.0.192.white.dnsbl": [("A", "127.0.0.5")],
    "bad.test.rhs.dnsbl": [("A", "127.0.0.2")],
    "192.0.2.7.rhs.dnsbl": [("A", "127.0.1.255")],
    "1.0.0.127.rhs.dnsbl": [("A", "127.0.1.255")],  # a list of domains says of any address that it is none
    "helo.test.rhs.dnsbl": [("A", "127.0.0.4")],
    "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.good.dnsbl": [("A", "127.0.0.2")],
}
TENTHS = (("good", 0.7), ("other", 0.2), ("white", 0.1))  # as binary fractions they make less than 1


def look(*lists, facts=None, **options):
    facts = facts or envelope("192.0.2.7", "a@bad.test", helo="helo.test")
    return run(Dnsbl, facts, resolver=FakeResolver(ZONE), lists=lists, **options)


@pytest.mark.parametrize(
    ("lists", "threshold", "result", "score", "listing"),
    [
        ([{"zone": "good.dnsbl"}], 1, "fail", 1, ("good.dnsbl",)),
        ([{"zone": "empty.dnsbl"}], 1, "pass", 0, ()),
        ([{"zone": "good.dnsbl"}, {"zone": "other.dnsbl"}], 2, "fail", 2, ("good.dnsbl", "other.dnsbl")),
        ([{"zone": "good.dnsbl"}], 2, "pass", 1, ("good.dnsbl",)),
        (
            [{"zone": f"{of}.dnsbl", "weight": each} for of, each in TENTHS],
            1,
            "fail",
            1,
            ("good.dnsbl", "other.dnsbl", "white.dnsbl"),
        ),
        ([{"zone": "good.dnsbl", "weight": 0.5}, {"zone": "white.dnsbl", "weight": -2}], 0.5, "pass", -1.5, None),
        ([{"zone": "good.dnsbl", "replies": {"127.0.0.2": 1, "127.0.0.8/30": 4}}], 4, "fail", 4, ("good.dnsbl",)),
        ([{"zone": "good.dnsbl", "replies": {"127.0.0.99": 5}}], 1, "pass", 0, ("good.dnsbl",)),
        ([{"zone": "rhs.dnsbl", "of": "sender"}], 1, "fail", 1, ("rhs.dnsbl",)),
        ([{"zone": "rhs.dnsbl", "of": "helo"}], 1, "fail", 1, ("rhs.dnsbl",)),
    ],
)
def test_score(lists, threshold, result, score, listing):
    finding = look(*lists, threshold=threshold)

    assert finding.result == result
    assert finding.fields["score"] == score
    if listing is not None:
        assert finding.fields["lists"] == listing


def test_ipv6_is_asked_by_nibbles():
    assert look({"zone": "good.dnsbl"}, facts=envelope("2001:db8::7")).result == "fail"
    assert look({"zone": "good.dnsbl"}, facts=envelope("fe80::7%eth0")).result == "pass"


@pytest.mark.parametrize(
    ("zone", "why"),
    [
        ("parked.dnsbl", "answers 203.0.113.80, which is no reply of a list"),
        ("public.dnsbl", "asked through a public resolver, or too often"),
        ("refused.dnsbl", "answers 127.0.0.1: asked through a public resolver, or too often"),
        ("all.dnsbl", "it lists everything"),
    ],
)
def test_a_list_that_cannot_be_believed_is_ignored_with_a_warning(zone, why):
    finding = look({"zone": zone}, {"zone": "good.dnsbl"})

    assert finding.result == "fail"
    assert finding.fields["lists"] == ("good.dnsbl",)
    assert finding.fields["ignored"] == (zone,)
    assert why in finding.warning
    assert look({"zone": zone}).result == "pass"


def test_a_reply_that_the_policy_names_is_believed():
    assert look({"zone": "refused.dnsbl", "replies": {"127.0.0.1": 2}}).fields["score"] == 2
    assert look({"zone": "refused.dnsbl", "replies": {"127.0.0.0/24": 2}}).fields["ignored"] == ("refused.dnsbl",)


def test_the_warning_is_logged(caplog):
    of = policy("host: mx.test.example\nchecks: {dnsbl: {lists: [{zone: parked.dnsbl}]}}")
    judge(of, message(envelope("192.0.2.7")), resolver=FakeResolver(ZONE))

    assert len([record for record in caplog.records if "parked.dnsbl is ignored" in record.message]) == 1


def test_trouble_only_when_no_list_answers():
    assert look({"zone": "slow.dnsbl"}, {"zone": "good.dnsbl"}).result == "fail"
    assert look({"zone": "slow.dnsbl"}, {"zone": "empty.dnsbl"}).result == "pass"
    silent = look({"zone": "slow.dnsbl"})

    assert silent.result == "temperror"
    assert silent.trouble


def test_nothing_to_look_up():
    assert look().result == "none"
    assert look({"zone": "good.dnsbl"}, facts=envelope("")).result == "none"
    assert look({"zone": "rhs.dnsbl", "of": "sender"}, facts=envelope(sender="")).result == "none"
    for helo in ("", "[192.0.2.7]", "192.0.2.7", "192.0.2.7."):  # lists of domains answer addresses with an error
        assert look({"zone": "rhs.dnsbl", "of": "helo"}, facts=envelope("192.0.2.7", helo=helo)).result == "none"


def test_a_list_that_begins_to_list_everything_is_noticed_within_minutes(monkeypatch):
    zone = {"7.2.0.192.good.dnsbl": [("A", "127.0.0.2")]}
    resolver, began = FakeResolver(zone), time.monotonic()
    asked, lists = ListOptions(zone="good.dnsbl"), DnsLists(resolver)

    def ask(after):
        monkeypatch.setattr(time, "monotonic", lambda: began + after)
        return asyncio.run(lists.ask(asked, "7.2.0.192", TEST_ADDRESS)).lists

    assert ask(0)
    resolver.zone["1.0.0.127.good.dnsbl"] = [("A", "127.0.0.2")]
    assert ask(1)
    assert not ask(301)

"""To which addresses a report may go: external ones only where their host says so."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.testing import FakeResolver
from elemta_milter.mailauth.dmarc_record import parse_record, size_limits
from elemta_milter.reports.destinations import ADDRESSES, address_of, destinations

YES = [("TXT", "v=DMARC1")]
ZONE = {
    "_dmarc.sender.test": [("TXT", "v=DMARC1; p=none")],
    "sender.test._report._dmarc.vendor.test": YES,
    "sender.test._report._dmarc.semicolon.test": [("TXT", "v=DMARC1;")],
    "sender.test._report._dmarc.several.test": [("TXT", "hello"), ("TXT", "v=DMARC1"), ("TXT", "v=DMARC1")],
    "sender.test._report._dmarc.junk.test": [("TXT", "hello")],
    "sender.test._report._dmarc.late.test": [("TXT", "hello"), ("TXT", " v=DMARC1")],
    "sender.test._report._dmarc.slow.test": [("TXT", "TIMEOUT")],
    "sender.test._report._dmarc.empty.test": [("A", "192.0.2.1")],
    "sender.test._report._dmarc.other.test": [("TXT", "v=DMARC1; rua=mailto:better@other.test!2k")],
    "sender.test._report._dmarc.onlyruf.test": [("TXT", "v=DMARC1; ruf=mailto:better@onlyruf.test")],
    "sender.test._report._dmarc.away.test": [("TXT", "v=DMARC1; rua=mailto:a@victim.test")],
    "sender.test._report._dmarc.victim.test": [],
    "sender.test._report._dmarc.two.test": [("TXT", "v=DMARC1; rua=mailto:a@two.test,mailto:b@two.test")],
    "_dmarc.walk.test": [("TXT", "TIMEOUT")],
}


def verdicts(rua, policy_domain="sender.test", tag="rua", zone=ZONE):
    record, _ = parse_record(f"v=DMARC1; p=none; {tag}={rua}".encode())
    resolver = FakeResolver(zone)
    return asyncio.run(destinations(resolver, policy_domain, record, tag)), resolver


@pytest.mark.parametrize(
    ("uri", "address", "refusal"),
    [
        ("mailto:a@sender.test", "a@sender.test", ""),
        ("MAILTO:A@Sender.TEST", "a@sender.test", ""),
        ("mailto:a@deep.sub.sender.test", "a@deep.sub.sender.test", ""),
        ("mailto:a@vendor.test", "a@vendor.test", ""),
        ("mailto:a%2Btag@vendor.test", "a+tag@vendor.test", ""),
        ("mailto:a@vendor.test?subject=x", "a@vendor.test", ""),
        ("mailto:a@semicolon.test", "a@semicolon.test", ""),
        ("mailto:a@several.test", "a@several.test", ""),
        ("mailto:a@other.test", "better@other.test", ""),
        ("mailto:a@onlyruf.test", "a@onlyruf.test", ""),
        ("mailto:a@nobody.test", "a@nobody.test", "there is no v=DMARC1"),
        ("mailto:a@junk.test", "a@junk.test", "there is no v=DMARC1"),
        ("mailto:a@late.test", "a@late.test", "there is no v=DMARC1"),
        ("mailto:a@empty.test", "a@empty.test", "there is no v=DMARC1"),
        ("mailto:a@away.test", "a@away.test", "yet another host"),
        ("mailto:a@slow.test", "a@slow.test", "not verified"),
        ("mailto:a@walk.test", "a@walk.test", "not verified"),
        ("https://sender.test/dmarc", "", "https: is not supported"),
        ("mailto:a%0d%0aBcc%3a@sender.test", "", "no address"),
        ("mailto:a%2cb@sender.test", "", "no address"),
        ("mailto:a%25victim.test@sender.test", "", "no address"),  # for Postfix a@victim.test, which nobody verified
        ("mailto:victim.test%21a@sender.test", "", "no address"),
        ("mailto:%22a%20b%22@sender.test", "", "no address"),
        ("mailto:%c3%a4@sender.test", "", "no address"),
        ("mailto:%3croot%3e@sender.test", "", "no address"),
        (f"mailto:{'a' * 243}@sender.test", "", "longer than an address may be"),
    ],
)
def test_an_address(uri, address, refusal):
    [found], _ = verdicts(uri)
    assert found.address == address
    assert (refusal in found.refusal) if refusal else not found.refusal
    assert found.later is ("not verified" in refusal)


@pytest.mark.parametrize(
    ("others", "taken"),
    [
        ("https://more.test/x,mailto:b@more.test", ["b@more.test"]),  # of a scheme that is not for us: ignored
        ("mailto:%22b%22@more.test,mailto:c@more.test", ["c@more.test"]),
        ("https://More.test:8443/x", []),
        ("https://victim.test/x,mailto:b@more.test", []),  # RFC 9990 section 4: then neither of them
        ("https://[x/,mailto:b@more.test", []),
    ],
)
def test_a_host_may_name_more_than_addresses(others, taken):
    consent = {"sender.test._report._dmarc.more.test": [("TXT", f"v=DMARC1; rua={others}")]}
    found, _ = verdicts("mailto:a@more.test", zone=ZONE | consent)
    assert [each.address for each in found if not each.refusal] == taken


def test_the_question_is_that_of_the_rfc():
    # RFC 9990 section 4: the record of blue.example.com names red.example.net
    _, resolver = verdicts("mailto:reports@red.example.net", "blue.example.com")
    assert ("blue.example.com._report._dmarc.red.example.net", "TXT") in resolver.asked


def test_a_name_that_is_too_long_is_not_asked_for():
    domain = ".".join(["a" * 60] * 3) + ".test"
    [found], resolver = verdicts(f"mailto:a@{'b' * 60}.test", domain, zone={})
    assert "too long" in found.refusal
    assert not [name for name, _ in resolver.asked if "_report" in name]


def test_a_host_may_name_several_addresses_of_its_own():
    found, _ = verdicts("mailto:x@two.test")
    assert [each.address for each in found if not each.refusal] == ["a@two.test", "b@two.test"]


def test_sizes():
    found, _ = verdicts("mailto:a@sender.test!10m,mailto:b@sender.test,mailto:c@other.test!50m")
    assert [(each.address, each.limit) for each in found] == [
        ("a@sender.test", 10 << 20),
        ("b@sender.test", None),
        ("better@other.test", 2048),
    ]
    assert size_limits("v=DMARC1; rua=a:1!7,a:2!7k,a:3!7M,a:4!7g,a:5!1t,a:6!,a:7!x,a:8!-1", "rua") == {
        "a:1": 7, "a:2": 7 << 10, "a:3": 7 << 20, "a:4": 7 << 30, "a:5": 1 << 40,
    }  # fmt: skip
    assert size_limits("v=DMARC1; rua=a:1!" + "9" * 5000, "rua") == {}


def test_only_so_many_addresses_and_each_once():
    many = ",".join(f"mailto:a{number}@sender.test" for number in range(20))
    found, _ = verdicts(f"{many},mailto:A0@sender.test")
    assert len(found) == 20
    assert len([each for each in found if not each.refusal]) == ADDRESSES


def test_failure_reports_have_addresses_of_their_own():
    found, _ = verdicts("mailto:a@sender.test", tag="ruf")
    assert [each.address for each in found] == ["a@sender.test"]


def test_the_suffix_list_says_what_belongs_together():
    record, _ = parse_record(b"v=DMARC1; p=none; rua=mailto:a@b.co.test")
    zone = FakeResolver({})
    [found] = asyncio.run(destinations(zone, "x.b.co.test", record, "rua", lambda name: ".".join(name.split(".")[-3:])))
    assert not found.refusal
    assert zone.asked == []


def test_addresses_in_uris():
    assert address_of("mailto:A@B.test!10m".partition("!")[0]) == "a@b.test"
    assert address_of("http://x") == ""


@given(st.text() | st.binary().map(lambda octets: quote(octets) + "@sender.test"))
def test_whatever_stands_in_a_record_an_address_is_harmless(text):
    address = address_of(f"mailto:{text}")
    assert re.fullmatch(r"(?:[!#$%&'*+\-./0-9=?^_`a-z{|}~]+@[a-z0-9._-]+)?", address), address


def test_silent_hosts_are_waited_for_side_by_side():
    """One after the other, a few domains of somebody with silent name servers would hold up all reports for hours."""
    waiting = [0, 0]  # now, at most

    class Silent(FakeResolver):
        async def query(self, name, rdtype):
            if name.endswith(".silent.test"):
                waiting[0] += 1
                waiting[1] = max(waiting)
                await asyncio.sleep(0.01)
                waiting[0] -= 1
            return await super().query(name, rdtype)

    record, _ = parse_record(b"v=DMARC1; rua=" + b",".join(b"mailto:a@h%d.silent.test" % n for n in range(20)))
    asyncio.run(destinations(Silent(ZONE), "sender.test", record, "rua"))
    assert waiting[1] == 20

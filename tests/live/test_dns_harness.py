"""The DNS server of the tests: does a resolver meet on the wire what a zone says?"""

from __future__ import annotations

import time

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from harness.dns import (
    GARBAGE,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    TIMEOUT,
    TRUNCATE,
    DnsServer,
    from_openspf,
    reverse,
)

ZONES = {
    "example.com": [("TXT", "v=spf1 -all"), ("TXT", ["two ", "strings"]), ("MX", (10, "mx.example.com"))],
    "mx.example.com": [("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("TXT", SERVFAIL)],
    "deep.empty.example.com": [("A", "192.0.2.9", 60)],
    "alias.example.com": [("CNAME", "mx.example.com")],
    "long.example.com": [("TXT", "x" * 3000)],
    "short.example.com": [("TXT", "hello"), ("TXT", TRUNCATE)],
    "raw.example.com": [("TXT", b'\xff"\\\x00')],
    "slow.example.com": [TIMEOUT],
    "refused.example.com": [REFUSED],
    "gone.example.com": [NXDOMAIN],
    "junk.example.com": [GARBAGE],
    "*.list.example.com": [("A", "127.0.0.2")],
    reverse("192.0.2.1"): [("PTR", "mx.example.com")],
}


@pytest.fixture
def server():
    with DnsServer(ZONES) as running:
        yield running


def ask(server, name, rdtype, over=dns.query.udp, **options):
    return over(dns.message.make_query(name, rdtype, **options), server.address, 1, server.port)


def texts(response):
    return sorted(str(data) for rrset in response.answer for data in rrset)


@pytest.mark.parametrize("over", [dns.query.udp, dns.query.tcp])
def test_records(server, over):
    assert texts(ask(server, "EXAMPLE.com", "TXT", over)) == ['"two " "strings"', '"v=spf1 -all"']
    assert texts(ask(server, "example.com", "MX", over)) == ["10 mx.example.com."]
    assert texts(ask(server, "mx.example.com", "AAAA", over)) == ["2001:db8::1"]
    assert texts(ask(server, "1.2.0.192.in-addr.arpa", "PTR", over)) == ["mx.example.com."]
    assert texts(ask(server, "alias.example.com", "A", over)) == ["192.0.2.1", "mx.example.com."]
    assert ask(server, "raw.example.com", "TXT", over).answer[0][0].strings == (b'\xff"\\\x00',)
    assert ask(server, "deep.empty.example.com", "A", over).answer[0].ttl == 60


def test_names_that_are_not_there(server):
    assert ask(server, "nothing.example.com", "A").rcode() == dns.rcode.NXDOMAIN
    assert ask(server, "gone.example.com", "A").rcode() == dns.rcode.NXDOMAIN
    for name, rdtype in (("example.com", "AAAA"), ("empty.example.com", "A")):
        response = ask(server, name, rdtype)
        assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])
        assert response.authority  # a negative answer carries its time to live


def test_wildcards(server):
    assert texts(ask(server, "2.0.0.127.list.example.com", "A")) == ["127.0.0.2"]
    assert ask(server, "other.example.com", "A").rcode() == dns.rcode.NXDOMAIN


def test_large_answers_need_tcp(server):
    for name in ("long.example.com", "short.example.com"):
        assert ask(server, name, "TXT").flags & dns.flags.TC
        assert ask(server, name, "TXT", dns.query.tcp).answer
    assert [query.transport for query in server.queries] == ["udp", "tcp"] * 2


def test_trouble(server):
    assert ask(server, "mx.example.com", "TXT").rcode() == dns.rcode.SERVFAIL
    assert ask(server, "mx.example.com", "A").rcode() == dns.rcode.NOERROR
    assert ask(server, "refused.example.com", "A").rcode() == dns.rcode.REFUSED
    query = dns.message.make_query("slow.example.com", "A")
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(query, server.address, 0.3, server.port)
    with pytest.raises(dns.exception.DNSException):
        dns.query.udp(dns.message.make_query("junk.example.com", "A"), server.address, 1, server.port)


def test_zones_change_while_running_and_queries_are_counted(server):
    server.set("example.com", ("TXT", "v=spf1 +all"))
    assert texts(ask(server, "example.com", "TXT")) == ['"v=spf1 +all"']
    server.remove("example.com")
    assert ask(server, "example.com", "TXT").rcode() == dns.rcode.NOERROR  # names lie below it
    server.replace({})
    assert ask(server, "example.com", "TXT").rcode() == dns.rcode.NXDOMAIN
    assert server.asked("example.com") == server.asked("example.com.", "TXT") == 3
    server.delay = 0.2
    begin = time.monotonic()
    ask(server, "example.com", "TXT")
    assert time.monotonic() - begin >= 0.2


def test_zones_of_the_openspf_suites():
    zone = from_openspf(
        {
            "a.example": [{"SPF": "v=spf1 -all"}, {"MX": [5, "m.example"]}, "TIMEOUT"],
            "x" * 64 + ".example": [{"A": "192.0.2.1"}],
            "b.example": [{"SPF": "v=spf1 -all"}, {"TXT": "NONE"}],
        }
    )
    assert zone == {"a.example": [("TXT", "v=spf1 -all"), ("MX", [5, "m.example"]), TIMEOUT], "b.example": []}

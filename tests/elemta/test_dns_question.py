"""A DNS question and what counts as an answer to it (RFC 5452 section 9.1)."""

import asyncio
import time
from struct import pack

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.exception import DNSException
from hypothesis import given
from hypothesis import strategies as st

from elemta.dns import Answer, Status
from elemta.dns.exchange import Exchange
from elemta.dns.question import PAYLOAD, Question, RcodeError, answer_of
from harness.dns import DnsServer

NUMBER = 4711
NAME = dns.name.from_text("_spf.example.org.")
QUESTION = Question(NAME, dns.rdatatype.TXT)


def query(name=NAME, rdtype="TXT", number=NUMBER):
    made = dns.message.make_query(name, rdtype, use_edns=0, payload=PAYLOAD)
    made.id = number
    return made


@pytest.mark.parametrize(
    "name", ["example.org.", "a.b.c.d.test.", ".", "x" * 63 + "." + "y" * 63 + ".test.", "\\255.a."]
)
@pytest.mark.parametrize("rdtype", ["A", "AAAA", "MX", "PTR", "TXT"])
def test_the_query_is_the_one_that_dnspython_makes(name, rdtype):
    of = dns.name.from_text(name)
    made = Question(of, dns.rdatatype.from_text(rdtype)).wire(NUMBER)
    assert made == query(of, rdtype).to_wire()


def test_a_response_to_it_is_taken_in_any_case_of_letters():
    response = dns.message.make_response(query(dns.name.from_text("_SPF.Example.ORG.")))
    assert QUESTION.answered_by(NUMBER, response.to_wire()).rcode == dns.rcode.NOERROR


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED])
def test_a_server_that_will_not_answer_may_leave_out_the_question(rcode):
    response = dns.message.make_response(query())
    response.set_rcode(rcode)
    response.question.clear()
    assert QUESTION.answered_by(NUMBER, response.to_wire()).rcode == rcode


def changed(change):
    response = dns.message.make_response(query())
    change(response)
    return response.to_wire()


@pytest.mark.parametrize(
    "data",
    [
        dns.message.make_response(query(number=NUMBER + 1)).to_wire(),
        dns.message.make_response(query(dns.name.from_text("example.org."))).to_wire(),
        dns.message.make_response(query(rdtype="A")).to_wire(),
        changed(lambda response: response.question.clear()),
        changed(lambda response: response.question.append(response.question[0])),
        changed(lambda response: response.set_opcode(dns.opcode.NOTIFY)),
        query().to_wire(),
        b"",
        b"\0" * 12,
    ],
    ids=["id", "name", "type", "no question", "two", "opcode", "a query", "empty", "zeros"],
)
def test_what_does_not_answer_it_is_refused(data):
    with pytest.raises((DNSException, ValueError)):
        QUESTION.answered_by(NUMBER, data)


NS, SOA = ("NS", "ns.test."), ("SOA", "ns.test. root.test. 1 2 3 4 60")
CNAME = ("CNAME", "there.example.org.")


def said(*authority, answer=(), rcode=dns.rcode.NOERROR):
    response = dns.message.make_response(query())
    response.set_rcode(rcode)
    owner = dns.name.from_text("example.org.")
    response.authority = [dns.rrset.from_text(owner, 300, "IN", *each) for each in authority]
    response.answer = [dns.rrset.from_text(NAME, 300, "IN", *each) for each in answer]
    return answer_of(QUESTION, QUESTION.answered_by(NUMBER, response.to_wire()))


def test_a_referral_is_no_word_that_there_is_nothing():
    with pytest.raises(RcodeError, match="a referral"):  # RFC 2308 section 2.2.1
        said(NS)


@pytest.mark.parametrize(
    ("authority", "more", "answer"),
    [
        ([], {}, Answer(Status.NODATA)),
        ([SOA], {}, Answer(Status.NODATA, ttl=60)),
        ([SOA, NS], {}, Answer(Status.NODATA, ttl=60)),
        ([], {"answer": [CNAME]}, Answer(Status.NODATA)),
        ([NS], {"answer": [CNAME]}, Answer(Status.NODATA)),
        ([NS], {"rcode": dns.rcode.NXDOMAIN}, Answer(Status.NXDOMAIN)),
        ([NS], {"answer": [("TXT", '"a" "b"')]}, Answer(Status.OK, (b"ab",), 300)),
    ],
)
def test_what_says_that_there_is_nothing_and_for_how_long(authority, more, answer):
    assert said(*authority, **more) == answer


@pytest.mark.parametrize(
    ("rdtype", "data", "most"),
    [("A", lambda number: pack("!I", number), 512), ("MX", lambda number: pack("!H", number) + b"\xc0\x0c", 512)],
)
def test_thousands_of_records_with_the_longest_names_are_no_burden(rdtype, data, most):
    asked = Question(dns.name.from_text(".".join("a" * 126) + "."), dns.rdatatype.from_text(rdtype))
    octets = bytearray(asked.wire(NUMBER, edns=False))
    octets[2:12] = pack("!HHHHH", 0x8180, 1, 4000, 0, 0)
    for number in range(4000):
        one = data(number)
        octets += b"\xc0\x0c" + pack("!HHIH", asked.rdtype, 1, 300, len(one)) + one
    began = time.process_time()
    answer = answer_of(asked, asked.answered_by(NUMBER, bytes(octets)))
    assert time.process_time() - began < 8  # dnspython's own reading takes 25 s
    assert len(answer.records) == most


def test_a_record_of_no_interest_may_be_broken():
    response = dns.message.make_response(query())
    response.answer = [dns.rrset.from_text(NAME, 300, "IN", "TXT", '"a"')]
    response.additional = [dns.rrset.from_text(NAME, 300, "IN", "TYPE1", "\\# 4 01020304")]
    octets = response.to_wire()
    assert octets.count(b"\1\2\3\4") == 1
    octets = octets.replace(b"\0\4\1\2\3\4", b"\0\3\1\2\3")
    assert answer_of(QUESTION, QUESTION.answered_by(NUMBER, octets)).records == (b"a",)


OWNERS = [NAME, *map(dns.name.from_text, ("_SPF.example.ORG.", "b.test.", "c.test.", "example.org.", "test.", "."))]
SETS = st.tuples(
    st.sampled_from(OWNERS),
    st.sampled_from([0, 60, 300, 0x7FFFFFFF]),
    st.sampled_from(
        [("TXT", '"a"', '"b" "c"'), ("TXT", '"bc"'), ("CNAME", "b.test."), ("CNAME", "C.test."),
         ("CNAME", "_spf.example.org."), ("A", "192.0.2.1"), SOA, NS, ("MX", "10 b.test.")]
    ),
)  # fmt: skip


def by_dnspython(octets):
    """What dnspython makes of a response; None for nonsense."""
    response = dns.message.from_wire(octets)
    try:
        chain = response.resolve_chaining()
    except DNSException:
        return None
    soas = [rrset.name for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA]
    above = any(chain.canonical_name.is_subdomain(name) for name in soas)
    if chain.answer is not None:
        return Answer(Status.OK, tuple(b"".join(rdata.strings) for rdata in chain.answer), chain.minimum_ttl)
    if response.rcode() == dns.rcode.NXDOMAIN:
        return Answer(Status.NXDOMAIN, (), chain.minimum_ttl if above else 0)
    aside = not {dns.rdatatype.TXT, dns.rdatatype.CNAME} & {rrset.rdtype for rrset in response.answer}
    if aside and not soas and any(rrset.rdtype == dns.rdatatype.NS for rrset in response.authority):
        return None  # a referral
    return Answer(Status.NODATA, (), chain.minimum_ttl if above else 0)


@given(st.lists(SETS, max_size=5), st.lists(SETS, max_size=3), st.sampled_from([0, 3]), st.booleans())
def test_dnspython_reads_the_same(answer, authority, rcode, edns):
    response = dns.message.make_response(query())
    response.set_rcode(rcode)
    if not edns:
        response.use_edns(False)
    for section, sets in ((response.answer, answer), (response.authority, authority)):
        section += [dns.rrset.from_text(owner, ttl, "IN", *data) for owner, ttl, data in sets]
    octets = response.to_wire()
    try:
        found = answer_of(QUESTION, QUESTION.answered_by(NUMBER, octets))
    except (RcodeError, ValueError):
        found = None
    assert found == by_dnspython(octets)


class _Cutting(DnsServer):
    """Sends over UDP as many octets as there is room for, which may end within a record, and says so."""

    def answer(self, wire, transport):
        whole = super().answer(wire, "tcp")
        return whole if transport == "tcp" else whole[:2] + bytes([whole[2] | 0x02]) + whole[3:PAYLOAD]


def test_an_answer_cut_within_a_record_is_asked_for_again_over_tcp():
    async def ask(port):
        exchange = Exchange([("127.0.0.1", port)], 2.0)
        try:
            return await exchange.ask("big.test", "TXT")
        finally:
            exchange.close()

    texts = [f"{number} {'x' * 300}" for number in range(9)]
    with _Cutting({"big.test": [("TXT", text) for text in texts]}) as server:
        answer = asyncio.run(ask(server.port))
    assert set(answer.records) == {text.encode() for text in texts}
    assert server.asked("big.test", "TXT") == 2


def test_a_host_that_is_named_can_be_asked_for_whatever_its_letters_are():
    host = 'a(b)$c@d;"e.test'

    async def follow(port):
        exchange = Exchange([("127.0.0.1", port)], 2.0)
        try:
            [(_, there)] = (await exchange.ask("x.test", "MX")).records
            [named] = (await exchange.ask("y.test", "PTR")).records
            return there, named, (await exchange.ask(there, "A")).status
        finally:
            exchange.close()

    with DnsServer({"x.test": [("MX", (10, host))], "y.test": [("PTR", host)], host: [("A", "192.0.2.1")]}) as server:
        assert asyncio.run(follow(server.port)) == (host, host, Status.OK)


@pytest.mark.parametrize(
    "labels", [(b"a.b", b"test"), (b"a\0b", b"test"), (b"a b", b"test"), (b"\xfc", b"test"), (b"a\\", b"test"), ()]
)
def test_a_name_that_text_cannot_hold_is_told_with_escapes(labels):
    response = dns.message.make_response(query(rdtype="PTR"))
    name = dns.name.Name([*labels, b""])
    response.answer = [dns.rrset.from_text(NAME, 300, "IN", "PTR", name.to_text())]
    asked = Question(NAME, dns.rdatatype.PTR)
    [told] = answer_of(asked, asked.answered_by(NUMBER, response.to_wire())).records
    assert told == name.to_text(omit_final_dot=True)
    assert told.isascii()
    assert told.isprintable()


@given(st.binary(max_size=200), st.integers(0, 100))
def test_no_octets_do_any_harm(data, place):
    whole = changed(lambda response: None)
    for octets in (data, whole[:place] + data, whole[:12] + data):
        try:
            answer_of(QUESTION, QUESTION.answered_by(NUMBER, octets))
        except (DNSException, ValueError, RcodeError):
            continue

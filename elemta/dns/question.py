"""Question: how is one asked on the wire, and which octets are an answer to it?

`Question` makes the query and reads the response; `answer_of` gives what it says, with typed records.  Never sends
anything.

RFC 1035, RFC 2181 (cut answers), RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 5452 (matching answers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from struct import pack

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from elemta.dns.port import Answer, Record, Status

PAYLOAD = 1232  # octets of UDP we accept: no fragments (DNS flag day 2020)
MOST_RECORDS = 512  # records of one answer that are looked at

_HEADER = 12  # octets; RFC 1035 section 4.1.1, as what follows
_RESPONSE = dns.flags.QR >> 8  # in the third octet
_RESPONSE_TO_QUERY = _RESPONSE | 0x78  # with the opcode, which is 0
_RCODE = 0x0F  # in the fourth octet
_EDNS = pack("!BHHIH", 0, dns.rdatatype.OPT, PAYLOAD, 0, 0)


@dataclass(slots=True)
class Question:
    """What is asked for.

    Attributes:
        name: whose records.
        rdtype: of which type.
        strays: datagrams with its id that were no answer to it, since it was last sent.
    """

    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType
    strays: int = 0
    _octets: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._octets = self.name.to_wire() + pack("!HH", self.rdtype, dns.rdataclass.IN)  # type: ignore[operator]

    def wire(self, number: int, *, edns: bool = True) -> bytes:
        """The query with this id: a question for recursion, and EDNS (RFC 1035 section 4.1, RFC 6891 section 6.1.2)."""
        head = pack("!HHHHHH", number, dns.flags.RD, 1, 0, 0, edns)
        return head + self._octets + (_EDNS if edns else b"")

    def is_met_by(self, data: bytes) -> bool:
        """Whether a datagram with the right id may be the response: a look at its octets, cheap however many come."""
        if len(data) < _HEADER or data[2] & _RESPONSE_TO_QUERY != _RESPONSE:
            return False
        if data[4:6] == b"\0\0":
            return data[3] & _RCODE in _WITHOUT_QUESTION
        end = _HEADER + len(self._octets)
        return data[4:6] == b"\0\1" and data[_HEADER:end].lower() == self._octets.lower()

    def passed_over(self) -> str:
        """For people: what came in place of an answer."""
        return f", but what is no answer to the question (datagrams: {self.strays})" if self.strays else ""

    def answered_by(self, number: int, data: bytes, *, cut: bool = False) -> dns.message.Message:
        """The response that these octets are; of one that is `cut`, which may end anywhere, all but its records.

        Raises:
            dns.exception.DNSException, ValueError: they are none, or not to this question with this id.
        """
        response = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False, question_only=cut)
        asked = response.question  # RFC 5452 section 9.1: id and question must match
        matches = len(asked) == 1 and (asked[0].name, asked[0].rdtype, asked[0].rdclass) == (
            self.name, self.rdtype, dns.rdataclass.IN,
        )  # fmt: skip
        if not asked and response.rcode() in _WITHOUT_QUESTION:
            matches = True
        response_to_query = response.flags & dns.flags.QR and response.opcode() == dns.opcode.QUERY
        if response.id != number or not response_to_query or not matches:
            raise ValueError("not an answer to our question")
        return response


_WITHOUT_QUESTION = (dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)
"""Servers that answer so may leave out the question."""
WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
"""Servers that answer so may not know EDNS, or not this version."""


class RcodeError(Exception):
    """The server says that it cannot or will not answer."""


def answer_of(response: dns.message.Message) -> Answer:
    """The typed answer.

    Raises:
        RcodeError: SERVFAIL, REFUSED and the like, or a referral.
        dns.exception.DNSException, ValueError: nonsense.
    """
    code = response.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise RcodeError(dns.rcode.to_text(code))
    chain = response.resolve_chaining()  # type: ignore[attr-defined]
    ttl = int(chain.minimum_ttl)
    if chain.answer is None:
        return _nothing(response, ttl)
    records = tuple(_record(rdata) for rdata in list(chain.answer)[:MOST_RECORDS])
    return Answer(Status.OK, records, ttl)


def _nothing(response: dns.message.Message, ttl: int) -> Answer:
    """That there is none, for as long as a SOA says (RFC 2308 section 5)."""
    kinds = {rrset.rdtype for rrset in response.authority}
    soa = dns.rdatatype.SOA in kinds
    if response.rcode() == dns.rcode.NXDOMAIN:
        return Answer(Status.NXDOMAIN, (), ttl if soa else 0)
    if dns.rdatatype.NS in kinds and not soa and not response.answer:  # RFC 2308 section 2.2.1
        raise RcodeError("a referral in place of an answer: is it no resolver?")
    return Answer(Status.NODATA, (), ttl if soa else 0)


def _record(rdata: object) -> Record:
    kind = dns.rdatatype.to_text(rdata.rdtype)  # type: ignore[attr-defined]
    if kind == "A":
        return IPv4Address(rdata.address)  # type: ignore[attr-defined]
    if kind == "AAAA":
        return IPv6Address(rdata.address)  # type: ignore[attr-defined]
    if kind in ("TXT", "SPF"):
        return b"".join(rdata.strings)  # type: ignore[attr-defined]
    if kind == "MX":
        return (rdata.preference, rdata.exchange.to_text(omit_final_dot=True).removesuffix("."))  # type: ignore[attr-defined]
    if kind in ("PTR", "CNAME", "NS"):
        return str(rdata.target.to_text(omit_final_dot=True))  # type: ignore[attr-defined]
    raise ValueError(f"record type {kind} is not asked for")


def wire_name(name: str) -> dns.name.Name | None:
    """The name on the wire; None when it cannot stand there (RFC 1035 section 2.3.4)."""
    labels = name.removesuffix(".").split(".")
    try:
        return dns.name.Name([label.encode("utf-8", "surrogateescape") for label in labels] + [b""])
    except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, UnicodeEncodeError):
        return None

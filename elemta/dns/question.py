"""Question: how is one asked on the wire, and which octets are an answer to it?

`Question` makes the query and reads the response; `answer_of` gives what it says, with typed records.  Never sends
anything.

RFC 1035, RFC 2181 (cut answers), RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 5452 (matching answers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from struct import Struct, pack, unpack_from
from typing import NamedTuple

import dns.flags
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.txtbase import TXTBase

from elemta.dns.port import Answer, Record, Status

PAYLOAD = 1232  # octets of UDP we accept: no fragments (DNS flag day 2020)
MOST_RECORDS = 512  # records of one response that are looked at
MOST_ALIASES = 16  # steps from a name to its records

_HEADER = 12  # octets; RFC 1035 section 4.1.1, as what follows
_TO_QUESTION = b"\xc0\x0c"  # in place of a name: the one that stands in the question; RFC 1035 section 4.1.4
_RESPONSE = dns.flags.QR >> 8  # in the third octet
_RESPONSE_TO_QUERY = _RESPONSE | 0x78  # with the opcode, which is 0
_RCODE = 0x0F  # in the fourth octet
_FIELDS = Struct("!HHIH")  # of a record after its name: RFC 1035 section 4.1.3
_ANSWER, _AUTHORITY, _ADDITIONAL = range(3)
_LONGEST_TTL = 0x7FFFFFFF
_EDNS = pack("!BHHIH", 0, dns.rdatatype.OPT, PAYLOAD, 0, 0)
_PLAIN = re.compile(rb"[!-\[\]-~]*")  # printable, but for the backslash of escapes

Labels = tuple[bytes, ...]


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

    @property
    def size(self) -> int:
        """Octets on the wire."""
        return len(self._octets)

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
        end = _HEADER + self.size
        return data[4:6] == b"\0\1" and data[_HEADER:end].lower() == self._octets.lower()

    def passed_over(self) -> str:
        """For people: what came in place of an answer."""
        return f", but what is no answer to the question (datagrams: {self.strays})" if self.strays else ""

    def answered_by(self, number: int, data: bytes, *, cut: bool = False) -> Response:
        """The response that these octets are; of one that is `cut`, which may end anywhere, all but its records.

        Raises:
            dns.exception.DNSException, ValueError: they are none, or not to this question with this id.
        """
        if int.from_bytes(data[:2]) != number or not self.is_met_by(data):  # RFC 5452 section 9.1
            raise ValueError("not an answer to our question")
        rcode, asked, *counts = data[3] & _RCODE, *unpack_from("!HHHH", data, 4)
        if cut or not asked:
            return Response(rcode, {}, {})
        return _read(self, data, rcode, counts)


class Response(NamedTuple):
    """What a response says, as far as it matters here.

    Attributes:
        rcode: with the upper bits that EDNS has.
        answer: by owner and type, the time to live and data of each record.
        soa: a time to live for each SOA in the authority section, by the domain it is of.
        refers: there are NS in the authority section.
    """

    rcode: int
    answer: dict[tuple[Labels, int], list[tuple[int, dns.rdata.Rdata]]]
    soa: dict[Labels, int]
    refers: bool = False


_WITHOUT_QUESTION = (dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)
"""Servers that answer so may leave out the question."""
WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
"""Servers that answer so may not know EDNS, or not this version."""


class RcodeError(Exception):
    """The server says that it cannot or will not answer."""


def answer_of(question: Question, response: Response) -> Answer:
    """The typed answer.

    Raises:
        RcodeError: SERVFAIL, REFUSED and the like, or a referral.
        ValueError: nonsense.
    """
    if response.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise RcodeError(dns.rcode.to_text(dns.rcode.Rcode.make(response.rcode)))
    name, ttl = _labels(question.name), _LONGEST_TTL
    for _ in range(MOST_ALIASES):
        found = response.answer.get((name, question.rdtype)) or response.answer.get((name, dns.rdatatype.CNAME))
        if not found:
            return _nothing(response, name, ttl)
        ttl = min(ttl, *(each for each, _ in found))
        if found[0][1].rdtype == question.rdtype:
            break
        name = _labels(found[-1][1].target)  # type: ignore[attr-defined]
    else:
        raise ValueError("a chain of aliases without end")
    if response.rcode == dns.rcode.NXDOMAIN:
        raise ValueError("records of a name that does not exist")
    records = {_same(rdata): _record(rdata) for _, rdata in found}
    return Answer(Status.OK, tuple(records.values()), ttl)


def _nothing(response: Response, name: Labels, ttl: int) -> Answer:
    """That there is none, for as long as the SOA of a domain above says (RFC 2308 section 5)."""
    of = next((end for start in range(len(name)) if (end := name[start:]) in response.soa), None)
    ttl = 0 if of is None else min(ttl, response.soa[of])
    if response.rcode == dns.rcode.NXDOMAIN:
        return Answer(Status.NXDOMAIN, (), ttl)
    if response.refers and not response.soa and not response.answer:  # RFC 2308 section 2.2.1
        raise RcodeError("a referral in place of an answer: is it no resolver?")
    return Answer(Status.NODATA, (), ttl)


def _read(question: Question, data: bytes, rcode: int, counts: list[int]) -> Response:
    """Read the records, as many as are looked at; those of no interest are passed over.

    Not by dns.message, which took 25 s for the 4,000 mail exchangers of a hostile domain.
    """
    response = Response(rcode, {}, {})
    refers, place, left = False, _HEADER + question.size, MOST_RECORDS
    for section, count in enumerate(counts):
        for _ in range(min(count, left)):
            name, used = _owner(question, data, place)
            place += used + _FIELDS.size
            if place > len(data):
                raise ValueError("it breaks off")
            rdtype, rdclass, ttl, size = _FIELDS.unpack_from(data, place - _FIELDS.size)
            if place + size > len(data):
                raise ValueError("it breaks off")
            if rdtype == dns.rdatatype.OPT and section == _ADDITIONAL:
                rcode |= ttl >> 24 << 4  # RFC 6891 section 6.1.3
            elif rdclass == dns.rdataclass.IN:
                ttl = ttl if ttl <= _LONGEST_TTL else 0  # RFC 2181 section 8
                if section == _ANSWER and rdtype in (question.rdtype, dns.rdatatype.CNAME):
                    rdata = dns.rdata.from_wire(rdclass, rdtype, data, place, size)
                    response.answer.setdefault((_labels(name), rdtype), []).append((ttl, rdata))
                elif section == _AUTHORITY and rdtype == dns.rdatatype.SOA:
                    rdata = dns.rdata.from_wire(rdclass, rdtype, data, place, size)
                    of = _labels(name)
                    response.soa[of] = min(ttl, rdata.minimum, response.soa.get(of, ttl))  # type: ignore[attr-defined]
                refers |= section == _AUTHORITY and rdtype == dns.rdatatype.NS
            place += size
        if count > left:
            break
        left -= count
    return response._replace(rcode=rcode, refers=refers)


def _owner(question: Question, data: bytes, place: int) -> tuple[dns.name.Name, int]:
    """The name that a record begins with, and how many octets of it stand there."""
    if data.startswith(_TO_QUESTION, place):  # as a rule
        return question.name, len(_TO_QUESTION)
    return dns.name.from_wire(data, place)


def _labels(name: dns.name.Name) -> Labels:
    """The name in the one form in which names are compared."""
    return tuple(map(bytes.lower, name.labels))


def _same(rdata: dns.rdata.Rdata) -> object:
    """What two records have in common that are one (RFC 2181 section 5)."""
    return rdata.strings if isinstance(rdata, TXTBase) else _record(rdata)


def _record(rdata: object) -> Record:
    kind = dns.rdatatype.to_text(rdata.rdtype)  # type: ignore[attr-defined]
    if kind == "A":
        return IPv4Address(rdata.address)  # type: ignore[attr-defined]
    if kind == "AAAA":
        return IPv6Address(rdata.address)  # type: ignore[attr-defined]
    if kind in ("TXT", "SPF"):
        return b"".join(rdata.strings)  # type: ignore[attr-defined]
    if kind == "MX":
        return (rdata.preference, _host(rdata.exchange))  # type: ignore[attr-defined]
    if kind in ("PTR", "CNAME", "NS"):
        return _host(rdata.target) or "."  # type: ignore[attr-defined]
    raise ValueError(f"record type {kind} is not asked for")


def _host(name: dns.name.Name) -> str:
    """The name as `wire_name` takes it, "" for the root; with escapes where it has labels that text cannot hold."""
    text = b".".join(name.labels[:-1])
    plain = _PLAIN.fullmatch(text) and text.count(b".") == max(0, len(name.labels) - 2)
    return text.decode("ascii") if plain else name.to_text(omit_final_dot=True)


def wire_name(name: str) -> dns.name.Name | None:
    """The name on the wire; None when it cannot stand there (RFC 1035 section 2.3.4)."""
    labels = name.removesuffix(".").split(".")
    try:
        return dns.name.Name([label.encode("utf-8", "surrogateescape") for label in labels] + [b""])
    except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, UnicodeEncodeError):
        return None

"""Exchange: one question to one of the configured resolvers, one answer back.  The only user of dnspython.

Asks over UDP with EDNS, again without it where a server does not know it, over TCP when the answer is truncated, and
the next server when one is silent, refuses or talks nonsense.  Datagrams that do not fit a question that is open are
ignored.

RFC 1035, RFC 2181 (cut answers), RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 7766 (TCP), RFC 5452
(matching answers).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
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
import dns.resolver

from elemta.dns.port import Answer, DnsError, Record, Status

PAYLOAD = 1232  # octets of UDP we accept: no fragments (DNS flag day 2020)
ROUNDS = 2  # times that each server is asked
ENDPOINTS = 8  # open UDP sockets a server: as many source ports to guess
USES = 2000  # questions after which a UDP socket is given up for a new source port
LARGEST_ANSWER = 65535
MOST_RECORDS = 512  # records of one answer that are looked at

_HEADER = 12  # octets; RFC 1035 section 4.1.1, as what follows
_TRUNCATED = dns.flags.TC >> 8  # in the third octet
_RESPONSE = dns.flags.QR >> 8
_RESPONSE_TO_QUERY = _RESPONSE | 0x78  # with the opcode, which is 0
_RCODE = 0x0F  # in the fourth octet
_EDNS = pack("!BHHIH", 0, dns.rdatatype.OPT, PAYLOAD, 0, 0)

Server = tuple[str, int]


class _Endpoint(asyncio.DatagramProtocol):
    """One connected UDP socket with the questions open on it."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[_Question, asyncio.Future[bytes]]] = {}
        self.uses = 0
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, _address: object) -> None:
        question, waiting = self.open.get(int.from_bytes(data[:2]), (None, None))
        if question is None or waiting is None or waiting.done():
            return
        if question.is_met_by(data):
            waiting.set_result(data)
        else:
            question.strays += 1  # RFC 5452 section 9.1: ignored, the answer may yet come

    def error_received(self, error: Exception) -> None:
        for _, waiting in self.open.values():  # ICMP port unreachable: nobody is there
            if not waiting.done():
                waiting.set_exception(error)


@dataclass
class Exchange:
    """Asks resolvers. One object a worker; used on its loop only.

    Attributes:
        servers: addresses and ports, in the order in which they are asked.
        timeout: seconds for one server's answer.
    """

    servers: Sequence[Server]
    timeout: float
    _endpoints: dict[Server, list[_Endpoint]] = field(default_factory=dict)

    async def ask(self, name: str, rdtype: str) -> Answer:
        """Ask until a server answers lawfully.

        Raises:
            DnsError: none did.
        """
        wire_name = _name(name)
        if wire_name is None:
            return Answer(Status.NXDOMAIN)  # a name that no zone can hold
        reason = "no server configured"
        question = _Question(wire_name, dns.rdatatype.from_text(rdtype))
        for server in [*self.servers] * ROUNDS:
            try:
                async with asyncio.timeout(self.timeout):
                    response = await self._ask(server, question)
                return _answer(response)
            except TimeoutError:
                why = f"no answer within {self.timeout:g} s{question.passed_over()}"
            except OSError as error:
                why = error.strerror or str(error)
            except (dns.exception.DNSException, ValueError) as error:
                why = f"a broken answer: {type(error).__name__}"
            except _RcodeError as error:
                why = str(error)
            reason = f"name server {server[0]}: {why}"
        raise DnsError(name, rdtype, reason)

    async def _ask(self, server: Server, question: _Question) -> dns.message.Message:
        response = await self._once(server, question)
        if response.rcode() in _WITHOUT_EDNS:  # RFC 6891 sections 6.1.3, 6.2.2 and 7
            response = await self._once(server, question, edns=False)
        return response

    async def _once(self, server: Server, question: _Question, *, edns: bool = True) -> dns.message.Message:
        endpoint = await self._endpoint(server)
        number = random.SystemRandom().randrange(65536)
        while number in endpoint.open:
            number = (number + 1) % 65536
        wire = question.wire(number, edns=edns)
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        question.strays = 0
        endpoint.open[number] = question, waiting
        try:
            endpoint.transport.sendto(wire)  # type: ignore[union-attr]
            data = await waiting
        finally:
            del endpoint.open[number]
        if not data[2] & _TRUNCATED:
            return question.answered_by(number, data)
        question.answered_by(number, data, cut=True)  # its records are not looked at: RFC 2181 section 9
        return question.answered_by(number, await _ask_tcp(server, wire))

    async def _endpoint(self, server: Server) -> _Endpoint:
        """A UDP socket to `server`: one of several, each for a bounded number of questions."""
        pool = self._endpoints.setdefault(server, [])
        if len(pool) >= ENDPOINTS:
            endpoint = random.SystemRandom().choice(pool)
            endpoint.uses += 1
            if endpoint.uses >= USES and not endpoint.open:
                pool.remove(endpoint)
                endpoint.transport.close()  # type: ignore[union-attr]
            else:
                return endpoint
        loop = asyncio.get_running_loop()
        _, endpoint = await loop.create_datagram_endpoint(_Endpoint, remote_addr=server)
        pool.append(endpoint)
        return endpoint

    def close(self) -> None:
        """Close every socket."""
        for pool in self._endpoints.values():
            for endpoint in pool:
                endpoint.transport.close()  # type: ignore[union-attr]
        self._endpoints.clear()


@dataclass(slots=True)
class _Question:
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
_WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
"""Servers that answer so may not know EDNS, or not this version."""


class _RcodeError(Exception):
    """The server says that it cannot or will not answer."""


async def _ask_tcp(server: Server, wire: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(wire).to_bytes(2) + wire)
        length = int.from_bytes(await reader.readexactly(2))
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise OSError("it closed the connection") from error
    finally:
        writer.close()


def _answer(response: dns.message.Message) -> Answer:
    """The typed answer.

    Raises:
        _RcodeError: SERVFAIL, REFUSED and the like.
        dns.exception.DNSException, ValueError: nonsense.
    """
    code = response.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _RcodeError(dns.rcode.to_text(code))
    chain = response.resolve_chaining()  # type: ignore[attr-defined]
    ttl = int(chain.minimum_ttl)
    if chain.answer is None:
        return Answer(
            Status.NXDOMAIN if code == dns.rcode.NXDOMAIN else Status.NODATA, (), _negative_ttl(response, ttl)
        )
    records = tuple(_record(rdata) for rdata in list(chain.answer)[:MOST_RECORDS])
    return Answer(Status.OK, records, ttl)


def _negative_ttl(response: dns.message.Message, ttl: int) -> int:
    """RFC 2308 section 5: only a SOA says how long "no" holds."""
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    return ttl if has_soa else 0


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


def _name(name: str) -> dns.name.Name | None:
    """The name on the wire; None when it cannot stand there (RFC 1035 section 2.3.4)."""
    labels = name.removesuffix(".").split(".")
    try:
        return dns.name.Name([label.encode("utf-8", "surrogateescape") for label in labels] + [b""])
    except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, UnicodeEncodeError):
        return None


def servers_of(configured: Sequence[str]) -> list[Server]:
    """(address, port) of "127.0.0.1:53", "[::1]:53", "::1", "9.9.9.9"; those of /etc/resolv.conf when none is given.

    Raises:
        ValueError: one is no address.
        OSError: /etc/resolv.conf is missing or names none.
    """
    if not configured:
        try:
            found = dns.resolver.Resolver()
        except dns.resolver.NoResolverConfiguration as error:
            raise OSError(f"{error}; name servers under dns.servers") from error
        return [(str(address), 53) for address in found.nameservers]
    return [_server(text) for text in configured]


def _server(text: str) -> Server:
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, port = text, "53"
    elif not colon or (host.count(":") and not host.startswith("[")):
        host, port = text, "53"  # a bare IPv4 or IPv6 address
    host = host.strip("[]")
    address = IPv6Address(host) if ":" in host else IPv4Address(host)
    return str(address), int(port)

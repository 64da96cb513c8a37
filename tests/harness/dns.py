"""A real authoritative DNS server on loopback: how does a program meet DNS as it is, broken parts included?

    with DnsServer({"example.com": [("TXT", "v=spf1 -all"), ("MX", (10, "mx.example.com"))],
                    "slow.example": [TIMEOUT],                  # whatever is asked
                    "big.example": [("TXT", "x" * 3000)],       # truncated over UDP by its size
                    "half.example": [("A", "192.0.2.1"), ("TXT", SERVFAIL)]}) as dns:
        ... a resolver on 127.0.0.1, port dns.port, UDP and TCP ...
        assert dns.asked("example.com", "TXT") == 1

Values: A, AAAA text; TXT, SPF str, bytes, or a list of them (character strings; longer ones are parted); MX a host, or
preference and host; anything else in zone-file form. A third member is the TTL.
A special value answers the queries of its type, or alone those of every type the name has no records for:
TIMEOUT (silence), SERVFAIL, REFUSED, NXDOMAIN, GARBAGE (no DNS message), TRUNCATE (UDP: only "ask by TCP").
`*.example.com` is a wildcard. CNAMEs are followed within the zones. Names without records give NXDOMAIN, or NODATA when
something lies below them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TTL = 300


class Special(Enum):
    """How a name or a type of it misbehaves."""

    TIMEOUT = "timeout"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    NXDOMAIN = "nxdomain"
    GARBAGE = "garbage"
    TRUNCATE = "truncate"


TIMEOUT, SERVFAIL, REFUSED, NXDOMAIN, GARBAGE, TRUNCATE = Special
_RCODES = {SERVFAIL: dns.rcode.SERVFAIL, REFUSED: dns.rcode.REFUSED, NXDOMAIN: dns.rcode.NXDOMAIN}

Zone = Mapping[str, Iterable[Any]]


@dataclass(frozen=True)
class Query:
    """One question as it arrived; name lower case without the last dot, "" for the root."""

    name: str
    rdtype: str
    transport: str  # "udp" or "tcp"


@dataclass
class _Node:
    records: dict[int, list[tuple[int, dns.rdata.Rdata]]]  # by type: (ttl, data)
    special: dict[int, Special]  # by type; 0: every type without records


class DnsServer:
    """Serves `zones` on address:port (0 = a free one) from a thread of its own; a context manager.

    delay: seconds before each answer, to play a distant server; may be changed at any time.
    queries: what was asked so far, oldest first.
    """

    def __init__(
        self, zones: Zone | None = None, *, address: str = "127.0.0.1", port: int = 0, delay: float = 0
    ) -> None:
        self.address = address
        self.port = port
        self.delay = delay
        self.queries: list[Query] = []
        self._nodes: dict[dns.name.Name, _Node] = {}
        self._above: set[dns.name.Name] = set()  # empty non-terminals
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.replace(zones or {})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """As Elemta's `dns: {servers: […]}` wants it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def start(self) -> None:
        ready = threading.Event()
        failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(ready, failed), name="dns", daemon=True)
        self._thread.start()
        ready.wait()
        if failed:
            raise failed[0]

    def stop(self) -> None:
        if self._loop and self._thread:
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join()
            self._loop = None

    # ------------------------------------------------------------------ the zones

    def replace(self, zones: Zone) -> None:
        """Serve these names and no others from now on."""
        nodes = {_name(name): _node(entries) for name, entries in zones.items()}
        self._swap(nodes)

    def set(self, name: str, *entries: Any) -> None:
        """Give one name these entries, in place of those it had."""
        self._swap({**self._nodes, _name(name): _node(entries)})

    def remove(self, name: str) -> None:
        """Forget a name."""
        self._swap({key: node for key, node in self._nodes.items() if key != _name(name)})

    def asked(self, name: str, rdtype: str | None = None) -> int:
        """How often `name` (and `rdtype`) was asked for."""
        wanted = name.rstrip(".").lower()
        return sum(query.name == wanted and rdtype in (None, query.rdtype) for query in list(self.queries))

    def _swap(self, nodes: dict[dns.name.Name, _Node]) -> None:
        above = {parent for name in nodes for parent in _parents(name)}
        self._nodes, self._above = nodes, above

    # ------------------------------------------------------------------ answers

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """The answer to one packet; None is silence."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.opcode() != 0 or len(query.question) != 1:
            return _refusal(query, dns.rcode.NOTIMP).to_wire()
        question = query.question[0]
        rdtype = question.rdtype
        text = question.name.to_text(omit_final_dot=True).lower()
        self.queries.append(Query("" if text == "." else text, dns.rdatatype.to_text(rdtype), transport))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        special = self._fill(response, question.name, rdtype, transport)
        if special is TIMEOUT:
            return None
        if special is GARBAGE:
            return wire[:2] + b"\xff\xfe this is no DNS message \x00"
        if special is TRUNCATE:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
        elif special:
            response = _refusal(query, _RCODES[special])
        if response.rcode() == dns.rcode.NXDOMAIN or not response.answer:
            response.authority.append(_soa(question.name))
        limit = 65535 if transport == "tcp" else max(512, min(query.payload or 512, 1232))
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.AA | dns.flags.TC
            return short.to_wire()

    def _fill(self, response: dns.message.Message, name: dns.name.Name, rdtype: int, transport: str) -> Special | None:
        """Put the records into the response, or say how the name misbehaves."""
        owner = name
        for _ in range(9):
            node = self._find(owner)
            if node is None:
                if not response.answer and owner.canonicalize() not in self._above:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return None
            special = node.special.get(rdtype) or (None if rdtype in node.records else node.special.get(0))
            if special and not (special is TRUNCATE and transport == "tcp"):
                return special
            alias = rdtype not in node.records and node.records.get(dns.rdatatype.CNAME)
            kind = dns.rdatatype.CNAME if alias else rdtype
            found = node.records.get(kind, [])
            if found:
                rrset = dns.rrset.from_rdata_list(owner, min(ttl for ttl, _ in found), [data for _, data in found])
                response.answer.append(rrset)
            if not alias:
                return None
            owner = found[0][1].target
        return None

    def _find(self, name: dns.name.Name) -> _Node | None:
        name = name.canonicalize()
        if name in self._nodes or name in self._above:
            return self._nodes.get(name)
        for parent in _parents(name):
            if parent in self._nodes or parent in self._above:  # RFC 4592 section 3.3.1: the closest encloser's
                return self._nodes.get(dns.name.Name((b"*", *parent.labels)))
        return None

    # ------------------------------------------------------------------ the sockets

    def _run(self, ready: threading.Event, failed: list[BaseException]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except OSError as error:
            failed.append(error)
        finally:
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        udp, tcp = await self._listen()
        ready.set()
        await self._done.wait()
        udp.close()
        tcp.close()
        await asyncio.sleep(0)

    async def _listen(self) -> tuple[asyncio.DatagramTransport, asyncio.Server]:
        loop = asyncio.get_running_loop()
        for attempt in range(20):
            tcp = await asyncio.start_server(self._serve_tcp, self.address, self.port)
            port = tcp.sockets[0].getsockname()[1]
            try:
                udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), (self.address, port))
            except OSError:
                tcp.close()
                if self.port or attempt == 19:
                    raise
                continue  # the number was free for TCP only
            self.port = port
            return udp, tcp
        raise AssertionError

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(size), "tcp")
                if self.delay:
                    await asyncio.sleep(self.delay)
                if answer is not None:
                    writer.write(len(answer).to_bytes(2) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._server.answer(data, "udp")
        if answer is None:
            return
        if self._server.delay:
            asyncio.get_running_loop().call_later(self._server.delay, self._transport.sendto, answer, addr)
        else:
            self._transport.sendto(answer, addr)


def from_openspf(zonedata: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """The zone of a case in the OpenSPF test format: {name: [{"SPF": text}, {"MX": [10, host]}, "TIMEOUT"]}.

    As that format asks, SPF records are served as TXT too, unless the name has TXT records of its own ("NONE" = none);
    records of type SPF themselves are not served (RFC 7208 section 3.1). Names that no packet can hold are left out.
    """
    zones: dict[str, list[Any]] = {}
    for name, entries in zonedata.items():
        if not _possible(name):
            continue
        texts = [each for each in entries if isinstance(each, Mapping) and "TXT" in each]
        zone: list[Any] = []
        for entry in entries:
            if not isinstance(entry, Mapping):
                zone.append(Special[entry] if isinstance(entry, str) else entry)
                continue
            for rdtype, value in entry.items():
                if rdtype == "SPF" and not texts:
                    zone.append(("TXT", value))
                elif rdtype != "SPF" and value != "NONE":
                    zone.append((rdtype, value))
        zones[name] = zone
    return zones


def _possible(name: str) -> bool:
    try:
        _name(name)
    except dns.exception.DNSException:
        return False
    return True


def reverse(address: str) -> str:
    """The name that holds the PTR records of an address."""
    import dns.reversename  # noqa: PLC0415

    return dns.reversename.from_address(address).to_text(omit_final_dot=True)


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text).canonicalize()


def _parents(name: dns.name.Name) -> Iterable[dns.name.Name]:
    while len(name.labels) > 1:
        name = name.parent()
        yield name


def _node(entries: Iterable[Any]) -> _Node:
    node = _Node({}, {})
    for entry in entries:
        if isinstance(entry, Special):
            node.special[0] = entry
            continue
        kind, value, *ttl = entry
        rdtype = dns.rdatatype.from_text(kind)
        if isinstance(value, Special):
            node.special[rdtype] = value
        else:
            text = _presentation(kind.upper(), value)
            data = dns.rdata.from_text(dns.rdataclass.IN, rdtype, text, dns.name.root, relativize=False)
            node.records.setdefault(rdtype, []).append((ttl[0] if ttl else TTL, data))
    return node


def _presentation(kind: str, value: Any) -> str:
    """A value in zone-file form."""
    if kind in ("TXT", "SPF"):
        strings = [_octets(each) for each in (value if isinstance(value, list | tuple) else [value])] or [b""]
        parted = [each[at : at + 255] for each in strings for at in range(0, len(each) or 1, 255)]
        return " ".join('"' + "".join(f"\\{octet:03d}" for octet in part) + '"' for part in parted)
    if kind == "MX" and not isinstance(value, str):
        return f"{value[0]} {_escaped(value[1])}"
    if kind == "MX" and " " not in value:
        return f"10 {_escaped(value)}"
    return _escaped(value) if kind in ("PTR", "CNAME", "NS") else str(value)


def _escaped(host: str) -> str:
    return dns.name.from_text(host or ".").to_text()


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _refusal(query: dns.message.Message, rcode: int) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.Rcode(rcode))
    return response


def _soa(name: dns.name.Name) -> dns.rrset.RRset:
    """What makes a negative answer cacheable (RFC 2308): owned by the parent, kept for TTL."""
    owner = name.parent() if len(name.labels) > 1 else name
    return dns.rrset.from_text(owner, TTL, "IN", "SOA", f"ns.invalid. root.invalid. 1 7200 900 1209600 {TTL}")

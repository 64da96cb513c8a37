"""Exchange: one question to one of the configured resolvers, one answer back.

Asks over UDP with EDNS, again without it where a server does not know it, over TCP when the answer is truncated, and
the next server when one is silent, refuses or talks nonsense.  A server that stays silent is asked last for a while.
Datagrams that do not fit a question that is open are ignored.  Only it and `question` use dnspython.

RFC 5452 (matching answers), RFC 6891 (EDNS), RFC 7766 (TCP).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import dns.exception
import dns.flags
import dns.rdatatype

from elemta.dns.port import Answer, DnsError, Status
from elemta.dns.question import WITHOUT_EDNS, Question, RcodeError, Response, answer_of, wire_name
from elemta.patience import within

ROUNDS = 2  # times that each server is asked
ENDPOINTS = 8  # open UDP sockets a server: as many source ports to guess
USES = 2000  # questions after which a UDP socket is given up for a new source port

SILENT = 3  # time-outs in a row after which a server is asked after the others
LAST_FOR = 30.0  # seconds until one question goes to it first again

_TRUNCATED = dns.flags.TC >> 8  # in the third octet: RFC 1035 section 4.1.1

Server = tuple[str, int]

_random = random.SystemRandom()  # not to be guessed: RFC 5452 section 9.2


class NoServers(OSError):  # noqa: N818 - that there are none is what is wrong
    """Nobody says which name servers to ask; the text says what to do."""


class _Endpoint(asyncio.DatagramProtocol):
    """One connected UDP socket with the questions open on it."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[Question, asyncio.Future[bytes]]] = {}
        self.uses = 0
        self.given_up = False
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
        servers: addresses and ports, in the order in which they are asked as long as they answer.
        timeout: seconds for one server's answer.
    """

    servers: Sequence[Server]
    timeout: float
    _endpoints: dict[Server, list[_Endpoint]] = field(default_factory=dict)
    _unheard: dict[Server, int] = field(default_factory=dict)  # time-outs since it was last heard
    _last_until: dict[Server, float] = field(default_factory=dict)  # whom to ask last, on time.monotonic()
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, name: str, rdtype: str) -> Answer:
        """Ask until a server answers lawfully.

        Raises:
            DnsError: none did.
        """
        asked = wire_name(name)
        if asked is None:
            return Answer(Status.NXDOMAIN)  # a name that no zone can hold
        reason = "no server configured"
        question = Question(asked, dns.rdatatype.from_text(rdtype))
        for server in [*self._in_order()] * ROUNDS:
            try:
                return answer_of(question, await within(self.timeout, self._ask(server, question)))
            except TimeoutError:
                self._was_silent(server)
                why = f"no answer within {self.timeout:g} s{question.passed_over()}"
            except OSError as error:
                why = error.strerror or str(error)
            except (dns.exception.DNSException, ValueError) as error:
                why = f"a broken answer: {type(error).__name__}"
            except RcodeError as error:
                why = str(error)
            reason = f"name server {server[0]}: {why}"
        raise DnsError(name, rdtype, reason)

    def _in_order(self) -> Sequence[Server]:
        """The servers, with those at the end that lately were silent."""
        if not self._last_until:
            return self.servers
        now = time.monotonic()
        last = {server for server, until in self._last_until.items() if until > now}
        for server in self._last_until.keys() - last:
            self._last_until[server] = now + LAST_FOR  # this question alone finds out
        return sorted(self.servers, key=lambda server: server in last)

    def _was_silent(self, server: Server) -> None:
        self._unheard[server] = self._unheard.get(server, 0) + 1
        if self._unheard[server] >= SILENT:
            self._last_until[server] = time.monotonic() + LAST_FOR

    def _was_heard(self, server: Server) -> None:
        self._unheard.pop(server, None)
        self._last_until.pop(server, None)

    async def _ask(self, server: Server, question: Question) -> Response:
        response = await self._once(server, question)
        if response.rcode in WITHOUT_EDNS:  # RFC 6891 sections 6.1.3, 6.2.2 and 7
            response = await self._once(server, question, edns=False)
        return response

    async def _once(self, server: Server, question: Question, *, edns: bool = True) -> Response:
        luck = _random.getrandbits(32)  # half for the number, half for the socket
        number, endpoint = luck & 0xFFFF, await self._endpoint(server, luck >> 16)
        while number in endpoint.open:
            number = (number + 1) % 65536
        wire = question.wire(number, edns=edns)
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        question.strays = 0
        endpoint.open[number] = question, waiting
        try:
            endpoint.transport.sendto(wire)  # type: ignore[union-attr]
            data = await waiting
        except BaseException:  # its address or its way through a firewall may be gone: another one is for the next
            self._give_up(server, endpoint)
            raise
        finally:
            del endpoint.open[number]
            if endpoint.given_up and not endpoint.open:
                endpoint.transport.close()  # type: ignore[union-attr]
        self._was_heard(server)
        if not data[2] & _TRUNCATED:
            return question.answered_by(number, data)
        question.answered_by(number, data, cut=True)  # its records are not looked at: RFC 2181 section 9
        return question.answered_by(number, await _ask_tcp(server, wire))

    async def _endpoint(self, server: Server, luck: int) -> _Endpoint:
        """A UDP socket to `server`: one of several, by luck, each for a bounded number of questions."""
        pool = self._endpoints.setdefault(server, [])
        if len(pool) < ENDPOINTS:
            async with self._opening:  # or all who ask now would open one
                if len(pool) < ENDPOINTS:
                    loop = asyncio.get_running_loop()
                    _, endpoint = await loop.create_datagram_endpoint(_Endpoint, remote_addr=server)
                    pool.append(endpoint)
                    return endpoint
        endpoint = pool[luck % len(pool)]
        endpoint.uses += 1
        if endpoint.uses >= USES:
            self._give_up(server, endpoint)  # with this question as its last
        return endpoint

    def _give_up(self, server: Server, endpoint: _Endpoint) -> None:
        """Ask nothing more over this socket; it is closed when what is open on it has ended."""
        if not endpoint.given_up:
            endpoint.given_up = True
            self._endpoints[server].remove(endpoint)

    def close(self) -> None:
        """Close every socket."""
        for pool in self._endpoints.values():
            for endpoint in pool:
                endpoint.given_up = True
                endpoint.transport.close()  # type: ignore[union-attr]
        self._endpoints.clear()


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


def servers_of(configured: Sequence[str], file: str = "/etc/resolv.conf") -> list[Server]:
    """(address, port) of "127.0.0.1:53", "[::1]:53", "::1", "9.9.9.9"; those of `file` when none is given.

    Raises:
        ValueError: one is no address.
        NoServers: the file cannot be read, or names none.
    """
    if configured:
        return [_server(text) for text in configured]
    try:
        lines = Path(file).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise NoServers(f"{file}: {error.strerror}; write name servers under dns.servers") from error
    found = [(address, 53) for line in lines if (address := _named(line))]
    if not found:
        raise NoServers(f"{file} names no name server; write them under dns.servers")
    return found


def _named(line: str) -> str:
    """Give the address in a line of resolv.conf(5), "" where there is none; what else stands there is not for us."""
    keyword, address, *_ = [*line.split(), "", ""]
    try:
        return str(ip_address(address)) if keyword == "nameserver" else ""
    except ValueError:
        return ""


def _server(text: str) -> Server:
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, port = text, "53"
    elif not colon or (host.count(":") and not host.startswith("[")):
        host, port = text, "53"  # a bare IPv4 or IPv6 address
    host = host.strip("[]")
    address = IPv6Address(host) if ":" in host else IPv4Address(host)
    return str(address), int(port)

"""A question on the wire: what is passed over while its answer is waited for, and whom is it asked of next?"""

import asyncio
import time
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rrset
import pytest

from elemta.dns import DnsError, NoServers
from elemta.dns.exchange import ENDPOINTS, SILENT, Exchange, servers_of

TIMEOUT = 0.4
NAME = "a.example.test"


class _Server(asyncio.DatagramProtocol):
    """Answers each datagram with those that `replies(query)` gives, pauses in seconds between them."""

    def __init__(self, replies):
        self.replies = replies
        self.queries = []
        self.from_ports = []

    def connection_made(self, transport):
        self.transport = transport
        self.address = transport.get_extra_info("sockname")

    def datagram_received(self, data, asker):
        query = dns.message.from_wire(data)
        self.queries.append(query)
        self.from_ports.append(asker[1])
        self.task = asyncio.get_running_loop().create_task(self._send(self.replies(query), asker))

    async def _send(self, replies, asker):
        for reply in replies:
            if isinstance(reply, float):
                await asyncio.sleep(reply)
            else:
                self.transport.sendto(reply if isinstance(reply, bytes) else reply.to_wire(), asker)


@asynccontextmanager
async def serving(*all_replies):
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_datagram_endpoint(lambda replies=replies: _Server(replies), ("127.0.0.1", 0))
        for replies in all_replies
    ]
    exchange = Exchange([server.address for _, server in opened], TIMEOUT)
    try:
        yield exchange, *(server for _, server in opened)
    finally:
        exchange.close()
        for transport, _ in opened:
            transport.close()


def answer(query, name=None, **changes):
    response = dns.message.make_response(query)
    asked = dns.name.from_text(name) if name else query.question[0].name
    response.question = [dns.rrset.RRset(asked, dns.rdataclass.IN, query.question[0].rdtype)]
    response.answer = [dns.rrset.from_text(asked, 300, "IN", "TXT", '"here"')]
    for key, value in changes.items():
        setattr(response, key, value)
    return response


def with_rcode(query, rcode, *, edns=True, question=True):
    response = dns.message.make_response(query)
    response.set_rcode(rcode)
    if not edns:
        response.use_edns(False)
    if not question:
        response.question.clear()
    return response


def notify(query):
    response = answer(query)
    response.set_opcode(dns.opcode.NOTIFY)
    return response


STRAYS = {
    "another name": lambda query: answer(query, "b.example.test"),
    "a name that goes on": lambda query: answer(query, NAME + ".test"),
    "a query": lambda query: query,
    "another kind of response": notify,
    "no question": lambda query: with_rcode(query, dns.rcode.NOERROR, question=False),
    "two questions": lambda query: answer(query, question=[*query.question, *query.question]),
    "its number alone": lambda query: query.to_wire()[:2],
    "half a header": lambda query: answer(query).to_wire()[:11],
    "half a question": lambda query: answer(query).to_wire()[:20],
    "garbage": lambda query: query.to_wire()[:2] + b"\xff\xfe this is no DNS message \x00",
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
def test_what_is_no_answer_to_the_question_is_passed_over(stray):
    async def go():
        async with serving(lambda query: [*[stray(query)] * 3, 0.05, answer(query)]) as (exchange, server):
            return await exchange.ask(NAME, "TXT"), len(server.queries)

    found, queries = asyncio.run(go())
    assert (found.records, queries) == ((b"here",), 1)


def test_an_answer_in_other_letters_is_one():
    async def go():
        async with serving(lambda query: [answer(query, NAME.upper())]) as (exchange, _):
            return await exchange.ask(NAME, "TXT")

    assert asyncio.run(go()).records == (b"here",)


def test_strays_without_end_do_not_lengthen_the_wait_and_are_told_of():
    async def go():
        flood = [answer_of for _ in range(60) for answer_of in ("stray", 0.01)]

        def replies(query):
            return [answer(query, "b.example.test").to_wire() if each == "stray" else each for each in flood]

        async with serving(replies) as (exchange, _):
            began = time.monotonic()
            with pytest.raises(DnsError) as caught:
                await exchange.ask(NAME, "TXT")
            return time.monotonic() - began, caught.value.reason

    took, reason = asyncio.run(go())
    assert 2 * TIMEOUT <= took < 3 * TIMEOUT
    assert "no answer within 0.4 s, but what is no answer to the question" in reason


def test_a_broken_answer_to_the_question_is_not_waited_out():
    async def go():
        async with serving(lambda query: [answer(query).to_wire()[:-3]]) as (exchange, _):
            began = time.monotonic()
            with pytest.raises(DnsError, match="a broken answer"):
                await exchange.ask(NAME, "TXT")
            return time.monotonic() - began

    assert asyncio.run(go()) < TIMEOUT


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS], ids=dns.rcode.to_text)
@pytest.mark.parametrize("bare", [False, True])
def test_a_server_that_does_not_know_edns_is_asked_again_without(rcode, bare):
    def replies(query):
        if query.edns < 0:
            return [answer(query)]
        keep = rcode == dns.rcode.BADVERS  # it is told by EDNS itself
        return [with_rcode(query, rcode, edns=keep or not bare, question=keep or not bare)]

    async def go():
        async with serving(replies) as (exchange, server):
            return (await exchange.ask(NAME, "TXT")).records, [query.edns for query in server.queries]

    assert asyncio.run(go()) == ((b"here",), [0, -1])


def test_a_server_that_understands_neither_is_asked_once_more_a_round():
    async def go():
        async with serving(lambda query: [with_rcode(query, dns.rcode.FORMERR)]) as (exchange, server):
            with pytest.raises(DnsError, match="FORMERR"):
                await exchange.ask(NAME, "TXT")
            return [query.edns for query in server.queries]

    assert asyncio.run(go()) == [0, -1, 0, -1]


def test_many_questions_at_once_share_a_few_sockets():
    async def go():
        async with serving(lambda query: [answer(query)]) as (exchange, server):
            await asyncio.gather(*(exchange.ask(f"n{number}.test", "TXT") for number in range(60)))
            return len(set(server.from_ports))

    assert asyncio.run(go()) == ENDPOINTS


def test_a_socket_on_which_no_answer_came_is_not_used_again():
    """A host whose own address has changed would never hear an answer on it; a firewall may have lost its way."""

    async def go():
        silent = dns.name.from_text("silent.test")
        replies = lambda query: [] if query.question[0].name == silent else [answer(query)]  # noqa: E731
        async with serving(replies) as (exchange, server):
            await asyncio.gather(*(exchange.ask(f"n{number}.test", "TXT") for number in range(60)))
            warm = len(server.from_ports)
            with pytest.raises(DnsError):
                await exchange.ask("silent.test", "TXT")
            unheard = server.from_ports[warm:]
            for number in range(60):
                await exchange.ask(f"n{number}.test", "TXT")
            return unheard, server.from_ports[warm + len(unheard) :]

    unheard, after = asyncio.run(go())
    assert len(set(unheard)) == 2
    assert not set(unheard) & set(after)


def test_a_socket_is_given_up_after_its_uses_while_others_wait_for_answers_on_it(monkeypatch):
    monkeypatch.setattr("elemta.dns.exchange.USES", 3)

    async def go():
        async with serving(lambda query: [0.01, answer(query)]) as (exchange, server):
            found = await asyncio.gather(*(exchange.ask(f"n{number}.test", "TXT") for number in range(200)))
            return {each.records for each in found}, len(set(server.from_ports))

    found, ports = asyncio.run(go())
    assert found == {(b"here",)}
    assert ports > 45  # 200 questions, 4 on a socket; a new socket may get the port of a closed one


async def ask_in_turn(exchange, count):
    """Ask for new names one after the other; give the seconds that each took."""
    took = []
    for number in range(count):
        began = time.monotonic()
        await exchange.ask(f"n{number}.test", "TXT")
        took.append(time.monotonic() - began)
    return took


def test_a_silent_server_makes_a_few_questions_slow_and_not_all():
    async def go():
        async with serving(lambda query: [], lambda query: [answer(query)]) as (exchange, silent, _):
            return await ask_in_turn(exchange, 8), len(silent.queries)

    took, asked = asyncio.run(go())
    assert [seconds >= TIMEOUT for seconds in took] == [True] * SILENT + [False] * (8 - SILENT)
    assert asked == SILENT


def test_after_a_while_one_question_tries_it_first_again(monkeypatch):
    monkeypatch.setattr("elemta.dns.exchange.LAST_FOR", 0.5)
    replies = []

    async def go():
        async with serving(lambda query: replies and [answer(query)], lambda query: [answer(query)]) as (
            exchange,
            first,
            second,
        ):
            await ask_in_turn(exchange, SILENT)
            await asyncio.sleep(0.5)
            first.queries.clear()
            await asyncio.gather(*(exchange.ask(f"m{number}.test", "TXT") for number in range(5)))
            tried = len(first.queries)
            replies.append("it is back")
            await asyncio.sleep(0.5)
            second.queries.clear()
            await ask_in_turn(exchange, 5)
            return tried, len(second.queries)

    assert asyncio.run(go()) == (1, 0)


def test_a_server_that_answers_other_questions_is_not_silent():
    """A name whose own servers are down is slow everywhere."""
    down = dns.name.from_text("down.test")

    def replies(query):
        return [] if query.question[0].name == down else [answer(query)]

    async def go():
        async with serving(replies, replies) as (exchange, _, second):
            for _ in range(3):
                with pytest.raises(DnsError):
                    await exchange.ask("down.test", "TXT")
                await ask_in_turn(exchange, 1)
            second.queries.clear()
            await ask_in_turn(exchange, 3)
            return len(second.queries)

    assert asyncio.run(go()) == 0


def test_when_none_is_heard_each_is_asked_all_the_same():
    async def go():
        async with serving(lambda query: [], lambda query: []) as (exchange, *servers):
            exchange.timeout = 0.05
            for number in range(4):
                with pytest.raises(DnsError, match="no answer"):
                    await exchange.ask(f"n{number}.test", "TXT")
            return [len(server.queries) for server in servers]

    assert asyncio.run(go()) == [8, 8]


@pytest.mark.parametrize(
    "other",
    ["nameserver dns.example", "nameserver 010.1.1.1", "nameserver", "search " + "a" * 70, "domain ..", "# J\xf6rg"],
)
def test_what_else_stands_in_resolv_conf_is_passed_over(tmp_path, other):
    file = tmp_path / "resolv.conf"
    file.write_bytes(
        f"{other}\n nameserver\t192.0.2.1 # ours\nnameserver fe80::1%lo\n;nameserver ::2".encode("latin-1")
    )
    assert servers_of((), str(file)) == [("192.0.2.1", 53), ("fe80::1%lo", 53)]


@pytest.mark.parametrize("text", [None, "", "search example.org\n"])
def test_without_name_servers_the_file_is_told_and_what_to_do(tmp_path, text):
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    with pytest.raises(NoServers, match=r"resolv\.conf.*; write .* under dns\.servers"):
        servers_of((), str(file))

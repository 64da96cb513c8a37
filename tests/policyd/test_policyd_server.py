"""The server over real unix and inet sockets, with an engine that does what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import tempfile
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import uvloop

from elemta.decision import Decision
from elemta.verdict import Action, ActionKind, Disposition, Verdict
from elemta_policyd import connection as connection_module
from elemta_policyd import server as server_module
from elemta_policyd.protocol import MAX_REQUEST
from elemta_policyd.server import Server
from elemta_policyd.service import PolicydService
from harness.daemon import free_port


def request(recipient="b@receiver.test", instance="i.1", state="RCPT", **more):
    attributes = {
        "request": "smtpd_access_policy", "protocol_state": state, "sender": "a@sender.test", "recipient": recipient,
        "client_address": "192.0.2.10", "instance": instance, **more,
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"


class Engine:
    """Answers each recipient as its local part says; keeps what it was asked."""

    def __init__(self):
        self.cases, self.cancelled, self.release, self.over = [], 0, asyncio.Event(), []
        self.counting, self.of_whole, self.told = (), Verdict(), []

    def case(self, budget=0.0):
        case = SimpleNamespace(engine=self, asked=[], budget=budget)
        case.recipient = lambda envelope: self.recipient(case, envelope)
        case.whole = self.whole
        case.accepted = lambda envelope: self.tell("accepted", envelope)
        case.given_up = lambda envelope: self.tell("given up", envelope)
        case.cancel = lambda: self.over.append(case)
        self.cases.append(case)
        return case

    async def tell(self, what, envelope):
        self.told.append((what, envelope.instance, envelope.recipient_count))

    async def whole(self, envelope, *, sure):
        await self.tell("whole" if sure else "whole, not sure", envelope)
        return Decision("ID", 0.0, "recipient", "inbound", envelope, {}, (), self.of_whole)

    async def recipient(self, case, envelope):
        [recipient] = envelope.recipients
        case.asked.append(recipient)
        verb, _, _ = recipient.partition("@")
        if verb == "crash":
            raise RuntimeError("a mistake in the engine")
        try:
            if verb == "wait":
                await self.release.wait()
            elif verb.startswith("slow"):
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        actions = (Action(ActionKind.ADD_HEADER, "X-Seen", recipient),) if verb == "header" else ()
        verdict = Verdict(Disposition.ACCEPT, actions=actions)
        if verb not in {"ok", "header", "wait"}:
            verdict = Verdict(Disposition.REJECT, "r", f"550 5.7.1 {verb}")
        return Decision("ID", 0.0, "recipient", "inbound", envelope, {}, (), verdict)


class Client:
    """What Postfix is to us."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, *requests):
        self.writer.write(b"".join(requests))

    async def answers(self, count):
        return [(await self.reader.readuntil(b"\n\n")).decode()[7:-2] for _ in range(count)]

    async def ask(self, *requests):
        self.send(*requests)
        return await self.answers(len(requests))

    async def rest(self):
        """What comes until the server closes."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


class World:
    """A server on a socket of its own."""

    def __init__(self, listener, idle=100.0, most=100, counts=False):
        self.listener = listener
        self.engine = Engine()
        self.server = Server(self.engine.case, idle=idle, most=most, counts=counts)
        self.clients = []

    async def client(self):
        sock = socket.socket(self.listener.family)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.listener.getsockname())
        client = Client(*await asyncio.open_connection(sock=sock))
        self.clients.append(client)
        return client

    async def open_connections(self, count):
        """Wait until the server has that many."""
        await eventually(lambda: len(self.server._connections) == count)


async def eventually(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for must not know of the test
            await asyncio.sleep(0.005)


def listen(family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    address = f"{tempfile.mkdtemp()}/policyd.sock" if family == socket.AF_UNIX else (host, free_port(host))
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def serve(test, family=socket.AF_UNIX, **options):
    """Run the coroutine function `test(world)` on uvloop beside a listening server."""

    async def run():
        with listen(family) as listener:
            world = World(listener, **options)
            world.server.listen(listener)
            try:
                async with asyncio.timeout(30):
                    await test(world)
            finally:  # else uvloop's close waits for them
                for client in world.clients:
                    client.writer.close()
                world.server.stop_listening()
                await world.server.drain(lambda *_: False, 1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6])
def test_one_request_then_another(family):
    async def test(world):
        client = await world.client()
        assert await client.ask(request("ok@a")) == ["DUNNO"]
        assert await client.ask(request("no@a")) == ["550 5.7.1 no"]

    serve(test, family)


def test_many_in_one_packet_are_answered_in_order():
    async def test(world):
        client = await world.client()
        names = [f"{'slow' if number % 7 == 0 else 'n'}{number}" for number in range(200)]
        assert await client.ask(*(request(f"{name}@a") for name in names)) == [f"550 5.7.1 {name}" for name in names]

    serve(test)


def test_one_in_many_packets():
    async def test(world):
        client = await world.client()
        for octet in request("no@a"):
            client.send(bytes([octet]))
            await asyncio.sleep(0)
        assert await client.answers(1) == ["550 5.7.1 no"]

    serve(test)


def test_connections_do_not_wait_for_each_other():
    async def test(world):
        waiting, other = await world.client(), await world.client()
        waiting.send(request("wait@a"))
        assert await other.ask(request("no@a")) == ["550 5.7.1 no"]
        world.engine.release.set()
        assert await waiting.answers(1) == ["DUNNO"]

    serve(test)


STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", "NEW", "")


@pytest.mark.parametrize("state", STATES)
def test_only_rcpt_is_judged(state):
    async def test(world):
        client = await world.client()
        assert await client.ask(request("no@a", state=state)) == ["DUNNO"]
        assert world.engine.cases == []

    serve(test)


def test_a_message_is_one_case():
    async def test(world):
        client = await world.client()
        await client.ask(request("a@a"), request("b@a"), request("", state="DATA"), request("c@a"))
        await client.ask(request("d@a", "i.2"), request("e@a", ""), request("f@a", ""))
        await client.ask(request("g@a", "i.3"), request("h@a", "i.3", sender="other@sender.test"))
        asked = [case.asked for case in world.engine.cases]
        assert asked == [["a@a", "b@a", "c@a"], ["d@a"], ["e@a"], ["f@a"], ["g@a"], ["h@a"]]

    serve(test)


END = "END-OF-MESSAGE"


def told(*requests, of_whole=None):
    """What the engine is told, and the answers, where some check counts."""
    found = []

    async def test(world):
        world.engine.of_whole = of_whole or Verdict()
        client = await world.client()
        found.append(await client.ask(*requests))
        found.append(world.engine.told)

    serve(test, counts=True)
    return found


def test_the_end_of_a_message_says_that_it_is_accepted():
    answers, heard = told(request("ok@a"), request("", state="DATA"), request("", state=END, recipient_count="3"))
    assert answers == ["DUNNO"] * 3
    assert heard == [("accepted", "i.1", 3)]


def test_another_message_says_that_the_one_before_was_given_up():
    requests = (request("ok@a"), request("ok@a", "i.2"), request("", "i.2", END), request("ok@a", "i.3"))
    assert told(*requests)[1] == [("given up", "i.1", 0), ("accepted", "i.2", 0)]


@pytest.mark.parametrize("state", ["DATA", END])
def test_a_message_of_which_nothing_was_asked_is_judged_whole(state):
    answers, heard = told(request("", state=state, recipient_count="4"))
    assert answers == ["DUNNO"]
    assert heard == [("whole, not sure", "i.1", 4), ("accepted", "i.1", 4)][: 1 if state == "DATA" else 2]
    refusal = Verdict(Disposition.REJECT, "r", "550 5.7.1 too much")
    answers, heard = told(request("", state=state, recipient_count="4"), of_whole=refusal)
    assert answers == ["550 5.7.1 too much"]
    assert heard == [("whole, not sure", "i.1", 4), ("given up", "i.1", 4)]


def test_a_message_without_an_instance_is_judged_whole_too():
    refusal = Verdict(Disposition.REJECT, "r", "550 5.7.1 too much")
    assert told(request("", "", END), of_whole=refusal)[0] == ["550 5.7.1 too much"]


def test_the_first_message_of_a_connection_may_have_been_judged_by_a_worker_that_died():
    heard = told(*(request("", instance, END) for instance in ("i.1", "i.2", "i.3")))[1]
    assert [what for what, *_ in heard[::2]] == ["whole, not sure", "whole", "whole"]


@pytest.mark.parametrize("state", ["DATA", END])
def test_a_message_with_one_recipient_of_which_nothing_was_asked_is_judged_as_at_rcpt(state):
    """A rule that accepts this recipient may stand above one that refuses the rest."""
    refusal = Verdict(Disposition.REJECT, "rest", "550 5.7.1 no")
    answers, heard = told(request("ok@a", state=state, recipient_count="1"), of_whole=refusal)
    assert answers == ["DUNNO"]
    assert heard == [("accepted", "i.1", 1)][: state == END]
    answers, heard = told(request("no@a", state=state, recipient_count="1"))
    assert answers == ["550 5.7.1 no"]
    assert heard == [("given up", "i.1", 1)]


def test_who_says_data_again_after_a_refusal_is_judged_again():
    """Postfix keeps the recipients, and asks with the same instance."""
    refusal = Verdict(Disposition.DEFER, "r", "450 4.7.1 too much")
    answers, heard = told(request("", state="DATA"), request("", state="DATA"), of_whole=refusal)
    assert answers == ["450 4.7.1 too much"] * 2
    assert heard == [("whole, not sure", "i.1", 0), ("given up", "i.1", 0)] * 2
    assert told(*[request("no@a", state="DATA")] * 2)[0] == ["550 5.7.1 no"] * 2
    discarded = told(request("", state="DATA"), request("", state=END), of_whole=Verdict(Disposition.DISCARD, "r"))
    assert discarded[0] == ["DISCARD discarded by rule r, reference ID", "DUNNO"]


def test_a_whole_message_is_held_and_counts():
    answers, heard = told(request("", state=END), of_whole=Verdict(Disposition.QUARANTINE, "r"))
    assert answers == ["HOLD held by rule r, reference ID"]
    assert heard == [("whole, not sure", "i.1", 0), ("accepted", "i.1", 0)]


def test_a_header_is_prepended_at_data_but_not_when_the_message_is_there():
    marked = Verdict(Disposition.ACCEPT, actions=(Action(ActionKind.ADD_HEADER, "X-Seen", "yes"),))
    data, end = request("", state="DATA"), request("", state=END)
    assert told(data, end, of_whole=marked)[0] == ["PREPEND X-Seen: yes", "DUNNO"]
    assert told(end, of_whole=marked)[0] == ["DUNNO"]  # Postfix would log a warning, and do nothing


def test_a_whole_message_is_judged_once():
    heard = told(request("", state="DATA"), request("", state=END))[1]
    assert [what for what, *_ in heard] == ["whole, not sure", "accepted"]


def test_other_states_tell_nothing():
    assert told(*(request("", state=state) for state in STATES if state not in ("DATA", END)))[1] == []


def test_a_header_is_prepended_once_a_message():
    async def test(world):
        client = await world.client()
        requests = [request("ok@a"), request("header@a"), request("header@b"), request("header@a", "i.2")]
        prepend = "PREPEND X-Seen: header@a"
        assert await client.ask(*requests) == ["DUNNO", prepend, "DUNNO", prepend]

    serve(test)


@pytest.mark.parametrize("junk", [b"\n", b"junk\n\n", b"request=other\n\n", b"x" * MAX_REQUEST * 2, request("a\0b")])
def test_junk_closes_the_connection_after_what_was_asked_before(junk, caplog):
    async def test(world):
        client, other = await world.client(), await world.client()
        client.send(request("no@a"), junk, request("no@b"))
        assert await client.rest() in {b"action=550 5.7.1 no\n\n", b""}  # b"": a reset may overtake the answer
        assert await other.ask(request("ok@a")) == ["DUNNO"]

    with caplog.at_level(logging.WARNING, "elemta.policyd"):
        serve(test)
    assert len([record for record in caplog.records if "closed a connection" in record.message]) == 1


def test_without_a_decision_there_is_no_answer(caplog):
    async def test(world):
        client = await world.client()
        client.send(request("no@a"), request("crash@a"), request("no@b"))
        assert await client.rest() == b"action=550 5.7.1 no\n\n"

    serve(test)
    assert "a mistake in the engine" in caplog.text


def test_a_client_that_breaks_off_is_not_judged_further():
    async def test(world):
        client = await world.client()
        client.send(request("wait@a"))
        await asked(world)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with RST
        client.writer.transport.abort()
        await world.open_connections(0)
        await asyncio.sleep(0)
        assert world.engine.cancelled == 1
        assert world.engine.over == world.engine.cases  # what the case itself began ends, too

    serve(test, socket.AF_INET)


def test_a_client_that_closes_is_gone_when_its_answer_is_ready():
    async def test(world):
        client = await world.client()
        client.send(request("wait@a"))
        await asked(world)
        client.writer.transport.abort()
        await asyncio.sleep(0.05)
        world.engine.release.set()
        await world.open_connections(0)

    serve(test)


async def asked(world):
    """Wait until the engine was asked."""
    await eventually(lambda: world.engine.cases and world.engine.cases[0].asked)


def test_a_half_closed_connection_gets_its_answers_then_the_end():
    async def test(world):
        client = await world.client()
        client.send(request("slow@a"), request("no@b"))
        client.writer.write_eof()
        assert await client.rest() == b"action=550 5.7.1 slow\n\naction=550 5.7.1 no\n\n"
        silent = await world.client()
        silent.writer.write_eof()
        assert await silent.rest() == b""

    serve(test)


def test_a_question_and_the_end_at_once_get_the_answer():
    async def test(world):
        for _ in range(5):
            client = await world.client()
            client.send(request("no@b"))
            client.writer.write_eof()
            assert await client.rest() == b"action=550 5.7.1 no\n\n"

    serve(test)


def test_who_does_not_read_is_not_read(monkeypatch, caplog):
    monkeypatch.setattr(connection_module, "SLOW", 0.5)
    monkeypatch.setattr(server_module, "LOOK", 0.1)

    async def test(world):
        client = await world.client()
        chunk, sent = request("no@a") * 1000, 0
        client.writer.transport.set_write_buffer_limits(0)
        try:
            async with asyncio.timeout(5):
                while sent < 200e6:
                    client.writer.write(chunk)
                    sent += len(chunk)
                    await client.writer.drain()
        except ConnectionError:
            pass  # cut off
        assert sent < 20e6  # what the sockets and our buffers hold
        assert world.server._connections == set()

    serve(test)
    assert "closed a connection from a socket: it does not read our answers" in caplog.messages


def test_who_never_takes_the_last_answers_is_cut_off_too():
    async def test():
        transport = Mock(is_closing=Mock(return_value=False))
        connection = connection_module.Connection(Mock(), 5.0, Mock(), Mock())
        connection.connection_made(transport)
        connection.data_received(b"junk\n\n")
        await asyncio.sleep(0.01)
        transport.close.assert_called_once()
        transport.is_closing.return_value = True  # and so it stays, until what we wrote is read
        connection.cut_off_if_late(asyncio.get_running_loop().time() + 4.0)
        transport.abort.assert_not_called()
        connection.cut_off_if_late(asyncio.get_running_loop().time() + 6.0)
        transport.abort.assert_called_once()

    asyncio.run(test())


def test_who_reads_again_is_answered_again_and_not_late():
    async def test():
        loop, engine = asyncio.get_running_loop(), Engine()
        transport = Mock(is_closing=Mock(return_value=False))
        soon = lambda connection: loop.call_soon(connection.flush)  # noqa: E731
        connection = connection_module.Connection(engine.case, 100.0, soon, Mock())
        connection.connection_made(transport)
        connection.resume_writing()  # nobody had paused
        await asyncio.sleep(0)
        for number in range(1, 4, 2):
            connection.pause_writing()
            connection.data_received(request("one@a") + request("two@a"))
            await asyncio.sleep(0.05)
            assert [transport.write.call_count, len(engine.cases[0].asked)] == [number] * 2
            connection.resume_writing()
            await asyncio.sleep(0.05)
            assert [transport.write.call_count, len(engine.cases[0].asked)] == [number + 1] * 2
        connection.cut_off_if_late(loop.time() + connection_module.SLOW + 1.0)
        transport.abort.assert_not_called()
        connection.connection_lost(None)

    asyncio.run(test())


def test_slow_readers_get_everything_in_the_end():
    async def test(world):
        client = await world.client()
        count = 20_000
        names = [f"n{number}" for number in range(count)]

        async def send():
            for name in names:
                client.send(request(f"{name}@a"))
                await client.writer.drain()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.3)
        assert await client.answers(count) == [f"550 5.7.1 {name}" for name in names]
        await sending

    serve(test)


@pytest.mark.parametrize(
    ("idle", "slow", "sent", "cut"),
    [
        (0.3, 30.0, b"", True),
        (30.0, 0.3, b"", False),
        (30.0, 0.3, b"request=smtpd", True),
        (0.3, 30.0, b"request=smtpd", False),
        (0.3, 0.3, request("wait@a"), False),  # our own slowness is not the client's fault
    ],
)
def test_silent_and_slow_clients_are_cut_off(monkeypatch, caplog, idle, slow, sent, cut):
    monkeypatch.setattr(connection_module, "SLOW", slow)
    monkeypatch.setattr(server_module, "LOOK", 0.1)

    async def test(world):
        client = await world.client()
        assert await client.ask(request("no@a")) == ["550 5.7.1 no"]
        client.send(sent)
        await asyncio.sleep(0.8)
        assert len(world.server._connections) == (0 if cut else 1)
        assert ("its request does not end" in caplog.text) == (cut and sent != b"")
        world.engine.release.set()

    serve(test, idle=idle)


def test_looks_go_on_after_one_that_came_while_a_connection_began(monkeypatch):
    monkeypatch.setattr(server_module, "LOOK", 0.0)  # in every turn of the loop

    async def test(world):
        client = await world.client()
        assert await client.ask(request("ok@a")) == ["DUNNO"]
        await world.open_connections(0)

    serve(test, idle=0.2)


def test_who_never_says_a_word_is_cut_off_too(monkeypatch, caplog):
    monkeypatch.setattr(server_module, "LOOK", 0.05)

    async def test(world):
        client = await world.client()
        await world.open_connections(1)
        async with asyncio.timeout(3):
            assert await client.rest() == b""

    serve(test, idle=0.3)
    assert caplog.records == []


def test_the_time_for_a_request_begins_with_its_first_octet(monkeypatch):
    monkeypatch.setattr(connection_module, "SLOW", 0.5)
    monkeypatch.setattr(server_module, "LOOK", 0.05)

    async def test(world):
        client = await world.client()
        assert await client.ask(request("ok@a")) == ["DUNNO"]
        await asyncio.sleep(0.7)
        client.send(request("ok@a")[:40])
        await asyncio.sleep(0.2)
        client.send(request("ok@a")[40:])
        assert await client.answers(1) == ["DUNNO"]

    serve(test)


def test_the_time_to_be_silent_begins_with_the_answer(monkeypatch):
    monkeypatch.setattr(server_module, "LOOK", 0.05)

    async def test(world):
        client = await world.client()
        client.send(request("wait@a"))
        await asyncio.sleep(0.8)
        world.engine.release.set()
        assert await client.answers(1) == ["DUNNO"]
        await asyncio.sleep(0.2)
        assert world.server.connections == 1

    serve(test, idle=0.6)


def test_dripping_octets_do_not_buy_time(monkeypatch):
    monkeypatch.setattr(connection_module, "SLOW", 0.3)
    monkeypatch.setattr(server_module, "LOOK", 0.1)

    async def test(world):
        client = await world.client()
        with contextlib.suppress(ConnectionError):
            for octet in request():
                client.send(bytes([octet]))
                await client.writer.drain()
                await asyncio.sleep(0.05)
                if client.reader.at_eof():
                    break
        assert world.server._connections == set()

    serve(test)


def test_connections_above_the_cap_are_closed_and_later_ones_are_not(caplog):
    async def test(world):
        clients = [await world.client() for _ in range(3)]
        for client in clients:
            assert await client.ask(request("ok@a")) == ["DUNNO"]
        for _ in range(5):
            assert await (await world.client()).rest() == b""
        clients[0].writer.close()
        await world.open_connections(2)
        assert await (await world.client()).ask(request("ok@a")) == ["DUNNO"]
        assert await (await world.client()).rest() == b""

    serve(test, most=3)
    assert caplog.text.count("3 connections are open") == 2  # once until there is room again


class Failing(socket.socket):
    """A listener that fails so often before it accepts."""

    def accept(self):
        if self.errors:
            raise OSError(self.errors.pop(), "no")
        return super().accept()


def failing(world, *errors):
    """Let the server listen on one that fails like this."""
    world.server.stop_listening()
    listener = Failing(fileno=world.listener.dup().detach())
    listener.setblocking(False)
    listener.errors = list(errors)
    world.server.listen(listener)
    return listener


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_room_for_a_connection_it_waits_a_second(caplog, number):
    async def test(world):
        with failing(world, number):
            began = asyncio.get_running_loop().time()
            assert await (await world.client()).ask(request("ok@a")) == ["DUNNO"]
            assert 0.9 < asyncio.get_running_loop().time() - began < 5
            world.server.stop_listening()
        assert world.server._taking == set()

    serve(test)
    assert [record.getMessage() for record in caplog.records] == ["cannot accept for a second: no"]


def test_who_stops_listening_in_that_second_does_not_begin_again(caplog):
    async def test(world):
        with failing(world, errno.EMFILE) as listener:
            await world.client()
            await eventually(lambda: not listener.errors)
            world.server.stop_listening()
            await asyncio.sleep(1.2)
        assert world.server.connections == 0

    serve(test)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EAGAIN])
def test_a_client_that_was_gone_before_it_was_accepted_is_no_trouble(caplog, number):
    async def test(world):
        with failing(world, number):
            assert await (await world.client()).ask(request("ok@a")) == ["DUNNO"]
            world.server.stop_listening()

    serve(test)
    assert caplog.records == []


# ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reload_drops_no_connection():
    """Idle, busy and half-asked connections all get their answers, from the old worker or the new one."""

    async def run():
        with listen(socket.AF_UNIX) as listener:
            old, new = World(listener), World(listener)
            old.server.listen(listener)
            idle, busy, half = [await old.client() for _ in range(3)]
            assert await idle.ask(request("ok@a")) == ["DUNNO"]
            busy.send(request("wait@a"))
            half.send(request("old@a")[:40])
            await old.open_connections(3)
            await asyncio.sleep(0.05)

            def hand_over(connection, under_way):
                new.server.take(connection.dup(), under_way)
                return True

            new.server.listen(listener)
            draining = asyncio.create_task(old.server.drain(hand_over, 5.0))
            await new.open_connections(1)
            assert await idle.ask(request("one@a")) == ["550 5.7.1 one"]  # by the new one
            half.send(request("old@a")[40:])
            assert await half.answers(1) == ["550 5.7.1 old"]
            old.engine.release.set()
            assert await busy.answers(1) == ["DUNNO"]
            await draining
            for client in (idle, busy, half):
                assert await client.ask(request("two@a"), request("three@a")) == ["550 5.7.1 two", "550 5.7.1 three"]
            assert [len(world.server._connections) for world in (old, new)] == [0, 3]
            await new.server.drain(lambda *_: False, 1.0)
            for client in (idle, busy, half):
                assert await client.rest() == b""
                client.writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_a_message_under_way_is_known_to_the_workers_that_follow():
    """It was judged at RCPT; its end says that it is accepted, and is not judged once more."""

    async def test(first):
        second, third = [World(first.listener, counts=True) for _ in range(2)]
        asked, over = [await first.client() for _ in range(2)]
        await asked.ask(request("ok@a"))
        await over.ask(request("ok@a", "i.2"), request("", "i.2", END))
        for worker, following in ((first, second), (second, third)):
            await worker.server.drain(lambda sock, *word, to=following: to.server.take(sock.dup(), *word), 5.0)
            await following.open_connections(2)
        assert await asked.ask(request("", state=END)) == ["DUNNO"]
        assert await over.ask(request("", "i.2", END)) == ["DUNNO"]
        assert (first.engine.told, second.engine.told) == ([("accepted", "i.2", 0)], [])
        judged = [("whole, not sure", "i.2", 0), ("accepted", "i.2", 0)]
        assert third.engine.told == [("accepted", "i.1", 0), *judged]
        assert await asked.ask(request("", "i.3", END)) == ["DUNNO"]  # which nobody has judged
        assert third.engine.told[3:] == [("whole", "i.3", 0), ("accepted", "i.3", 0)]

    serve(test, counts=True)


def test_a_message_that_was_refused_whole_is_not_under_way_for_the_worker_that_follows():
    async def test(first):
        second = World(first.listener, counts=True)
        client = await first.client()
        for worker in (first, second):
            worker.engine.of_whole = Verdict(Disposition.DEFER, "r", "450 4.7.1 too much")
        assert await client.ask(request("", state="DATA")) == ["450 4.7.1 too much"]
        await first.server.drain(lambda sock, *word: second.server.take(sock.dup(), *word), 5.0)
        assert await client.ask(request("", state="DATA")) == ["450 4.7.1 too much"]

    serve(test, counts=True)


def test_who_does_not_listen_any_more_leaves_newcomers_to_others(caplog):
    async def test(world):
        world.server.stop_listening()
        client = await world.client()
        client.send(request("ok@a"))
        await asyncio.sleep(0.1)
        assert world.server.connections == 0
        world.server.listen(world.listener)
        assert await client.answers(1) == ["DUNNO"]

    serve(test)
    assert caplog.records == []


def test_a_drain_ends_in_time():
    async def test(world):
        client = await world.client()
        client.send(request("wait@a"))
        await world.open_connections(1)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await world.server.drain(lambda *_: False, 0.3)
        assert 0.2 < loop.time() - begin < 1.0
        assert await client.rest() == b""

    serve(test)


def test_what_is_handed_to_a_worker_that_ends_is_passed_on():
    async def test(world):
        given = []
        await world.server.drain(lambda connection, _: given.append(connection.fileno()) or True, 0.1)
        ours, theirs = socket.socketpair()
        world.server.take(theirs)
        ours.close()
        assert len(given) == 1

    serve(test)


@pytest.mark.parametrize("turns", range(8))
def test_what_is_handed_to_it_in_the_moment_in_which_it_begins_to_end_too(turns):
    async def test(world):
        given = []
        (first, taken), (second, late) = socket.socketpair(), socket.socketpair()
        with first, second:
            world.server.take(taken)
            draining = asyncio.create_task(world.server.drain(lambda *_: given.append(1) or True, 5.0))
            for _ in range(turns):  # of the loop
                await asyncio.sleep(0)
            world.server.take(late)
            async with asyncio.timeout(2):
                await draining
        assert len(given) == 2

    serve(test)


def test_the_service_within_the_skeleton(monkeypatch):
    monkeypatch.setattr("elemta_policyd.service.Case", lambda engine, budget: engine.case(budget))

    async def run():
        with listen(socket.AF_UNIX) as listener:
            world = World(listener)
            settings = SimpleNamespace(policyd=SimpleNamespace(budget=7.0, idle=100.0, connections=10))
            told, adopted, gauges = [], [], []
            metrics = SimpleNamespace(connections="connections", gauge=lambda *gauge: gauges.append(gauge))
            worker = SimpleNamespace(
                settings=settings, engine=world.engine, listener=listener, stopping=asyncio.Event(), grace=1.0,
                ready=lambda: told.append("ready"), closed=lambda: told.append("closed"), adopt=adopted.append,
                hand_over=lambda *_: False, opened=SimpleNamespace(metrics=metrics),
            )  # fmt: skip
            serving = asyncio.create_task(PolicydService().serve(worker))
            client = await world.client()
            assert await client.ask(request("no@a")) == ["550 5.7.1 no"]
            assert told == ["ready"]
            assert len(adopted) == 1
            assert world.engine.cases[0].budget == 7.0
            [(name, connections)] = gauges
            assert (name, connections()) == ("connections", 1)
            worker.stopping.set()
            await serving
            assert told == ["ready", "closed"]
            assert await client.rest() == b""
            client.writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())

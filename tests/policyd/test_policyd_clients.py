"""Clients that break off, do not read, are slow or say nothing.  Over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from unittest.mock import Mock

import pytest

from elemta_policyd import connection as connection_module
from elemta_policyd import server as server_module
from harness.policy_server import Engine, asked, request, serve


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

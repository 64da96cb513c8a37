"""Who may connect, and where do connections go when a worker ends?  Over real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from types import SimpleNamespace

import pytest
import uvloop

from elemta.verdict import Disposition, Verdict
from elemta_policyd.service import PolicydService
from harness.policy_server import END, World, eventually, listen, request, serve


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

"""A worker and those around it: what does it give to the next one, and tell its supervisor, if that is there?"""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from elemta.daemon import worker as module
from elemta.daemon.worker import ALIVE, CLOSED, READY, RETIRE, WORD, Worker


class World:
    """A worker; `supervisor` is the other end of its control socket, `door` that of its inbox."""

    def __init__(self):
        self.supervisor, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inbox, self.door = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener = SimpleNamespace(closed=[], close=lambda: self.listener.closed.append(1))
        for each in (control, inbox, self.supervisor):
            each.setblocking(False)
        self.worker = Worker(0, self.listener, None, SimpleNamespace(), control, inbox, None)
        self.all = [self.supervisor, control, inbox, self.door]

    def close(self):
        for each in (*self.all, self.worker._outbox):
            if each is not None:
                each.close()

    def heard(self):
        found = []
        while True:
            try:
                found.append(self.supervisor.recv(100))
            except BlockingIOError:
                return found


@pytest.fixture
def alone():
    """Run a story of workers on a loop."""

    def run(story, count=1):
        async def told():
            worlds = [World() for _ in range(count)]
            try:
                async with asyncio.timeout(10):
                    await story(*worlds)
            finally:
                for each in worlds:
                    each.close()

        asyncio.run(told())

    return run


def retire(old, new):
    socket.send_fds(old.supervisor, [RETIRE], [new.door.fileno()])
    old.worker.obey()


def test_connections_go_with_their_word_to_the_generation_that_is_named(alone):
    async def story(old, new):
        taken = asyncio.Queue()
        new.worker.adopt(lambda *given: taken.put_nowait(given))
        retire(old, new)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                assert old.worker.hand_over(theirs, b"i.1" + b"x" * WORD)
            connection, word = await taken.get()
            with connection:
                assert word == (b"i.1" + b"x" * WORD)[:WORD]
                connection.sendall(b"answer")
            assert ours.recv(100) == b"answer"
        asyncio.get_running_loop().remove_reader(new.worker.inbox)

    alone(story, 2)


def test_of_two_workers_one_takes_what_comes(alone, caplog):
    async def story(old, new):
        taken = []
        second = Worker(1, None, None, SimpleNamespace(), None, new.worker.inbox.dup(), None)
        for each in new.worker, second:
            each.adopt(lambda *given: taken.append(given))
        ours, theirs = socket.socketpair()
        with ours, theirs, second.inbox:
            for descriptors in ([theirs.fileno()], []):  # none, as where there is no room for it
                socket.send_fds(new.door, [b"+"], descriptors)
                await asyncio.sleep(0.1)
            for each in new.worker, second:
                asyncio.get_running_loop().remove_reader(each.inbox)
        assert len(taken) == 1
        taken[0][0].close()

    alone(story, 2)
    assert caplog.records == []


def test_without_a_next_generation_nothing_is_handed_over(alone, caplog):
    async def story(old, new):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert not old.worker.hand_over(theirs)
            retire(old, new)
            new.worker.inbox.close()
            assert not old.worker.hand_over(theirs)

    alone(story, 2)
    assert "could not hand over a connection: " in caplog.text


def test_a_supervisor_hears_how_far_along_it_is(alone, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.05)

    async def story(world):
        world.worker.ready()
        world.worker.closed()
        assert world.heard() == [READY, CLOSED]
        world.worker.beat()
        await asyncio.sleep(0.5)
        assert 3 < len(world.heard()) < 15
        world.supervisor.close()
        await asyncio.sleep(0.1)
        assert world.listener.closed == []
        world.worker.closed()
        assert world.listener.closed == [1]

    alone(story)


def test_a_supervisor_that_does_not_listen_for_a_while_hears_later_beats(alone, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)

    async def story(world):
        world.worker.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as there is
        world.worker.beat()
        await asyncio.sleep(0.5)
        assert len(world.heard()) < 20  # that is where the room ended
        await asyncio.sleep(0.1)
        assert world.heard()

    alone(story)


def test_the_first_beat_comes_at_once(alone):
    async def story(world):
        world.worker.beat()
        assert world.heard() == [ALIVE]

    alone(story)


@pytest.mark.parametrize("unheard", [False, True])
def test_the_end_of_the_supervisor_is_heard_once_and_leaves_the_grace(alone, unheard, caplog):
    async def story(world):
        calls = []
        world.worker.go = calls.append
        asyncio.get_running_loop().add_reader(world.worker.control, world.worker.obey)
        world.worker.obey()  # nothing was said
        assert calls == []
        if unheard:
            world.worker.beat()
        world.supervisor.close()
        await asyncio.sleep(0.1)
        assert calls == [world.worker.grace]

    alone(story)
    assert caplog.records == []


def test_one_that_gets_no_descriptor_closes_its_connections(alone):
    async def story(world):
        world.supervisor.send(RETIRE)
        world.worker.obey()
        with socket.socket() as connection:
            assert not world.worker.hand_over(connection)
        assert world.worker.stopping.is_set()

    alone(story)

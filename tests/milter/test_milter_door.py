"""The door: who comes while this worker takes nobody waits for another one, or for better times."""

import asyncio
import errno
import os
import resource
import socket
from contextlib import contextmanager

import pytest

from elemta_milter import door as module
from elemta_milter.door import SPARE, Door


@contextmanager
def place():
    """A listener that others share, a door to it, and what libmilter has."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen(5)
        listener.settimeout(10)
        door = Door(listener)
        with socket.socket(fileno=door.descriptor) as ours, door._nobody:
            ours.setblocking(False)
            yield listener, door, ours


def come(listener):
    client = socket.socket(socket.AF_UNIX)
    client.connect(listener.getsockname())
    return client


def test_who_comes_after_the_end_of_listening_waits_for_another_worker():
    with place() as (listener, door, ours):
        door.shut()
        with come(listener):
            with pytest.raises(BlockingIOError):
                ours.accept()
            listener.accept()[0].close()


def test_nobody_is_taken_while_few_descriptors_are_left(monkeypatch, caplog):
    monkeypatch.setattr(module, "LOOK", 0.01)

    async def taken(ours):
        for _ in range(100):
            await asyncio.sleep(0.02)
            try:
                ours.accept()[0].close()
            except BlockingIOError:
                continue
            return True
        return False

    async def run():
        with place() as (listener, door, ours):
            most = [1000]
            monkeypatch.setattr(resource, "getrlimit", lambda _: (most[0], most[0]))
            watching = asyncio.create_task(door.watch())
            with come(listener):
                assert await taken(ours)
            first, *others = (os.dup(0) for _ in range(3 * SPARE))
            os.close(first)  # a low number is free, and many are open above it
            most[0] = len(os.listdir("/proc/self/fd")) + SPARE // 2  # noqa: PTH208
            await asyncio.sleep(0.1)
            with come(listener):
                with pytest.raises(BlockingIOError):
                    ours.accept()
                most[0] = 1000
                assert await taken(ours)  # who waited
            watching.cancel()
            for each in others:
                os.close(each)

    asyncio.run(run())
    told, again = [record.getMessage() for record in caplog.records]
    assert told.startswith("no new connection is taken: this process may open ")
    assert again == "new connections are taken again"


@pytest.mark.parametrize(
    ("number", "left"), [(errno.EMFILE, 0), (errno.ENFILE, 0), (errno.ENOENT, "all"), (errno.EACCES, "all")]
)
def test_where_not_even_a_look_is_possible_none_are_left_but_where_nobody_tells_all_are(monkeypatch, number, left):
    def listdir(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "listdir", listdir)
    assert module._left() == (resource.getrlimit(resource.RLIMIT_NOFILE)[0] if left == "all" else left)

"""A worker's life: what is there before its service begins, and what is given back after that?"""

import asyncio
import os
import signal
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from elemta.daemon import worker as module
from elemta.daemon.worker import ALIVE, Post


class Engine:
    """Stands for the engine; `calls` are what was asked of it."""

    def __init__(self):
        self.calls = []

    async def open(self):
        self.calls.append("open")

    async def ahead(self, stage):
        self.calls.append(f"ahead {stage}")

    def dependencies(self, stage):
        return {("check", stage): ""}

    async def close(self):
        self.calls.append("close")


@pytest.fixture
def live(monkeypatch):
    """Live with this service; what the engine was asked for."""

    @asynccontextmanager
    async def opened(*_):
        yield SimpleNamespace(all=(), dependencies=None)

    def run(name, serve):
        engine = Engine()
        for what in "open_tools", "open_observers":
            monkeypatch.setattr(module, what, opened)
        monkeypatch.setattr(module, "Engine", lambda *_: engine)
        supervisor, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor.settimeout(10)
        inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

        async def served(worker):
            await serve(worker, supervisor)
            engine.calls.append("served")

        with supervisor, control, inbox[0], inbox[1]:
            policy = SimpleNamespace(settings=None)
            asyncio.run(
                module._serve(SimpleNamespace(name=name, serve=served), Post(0, policy, None, control, inbox[0]))
            )
        return engine.calls

    return run


@pytest.mark.parametrize(("name", "stage"), [("milter", "message"), ("policyd", "recipient")])
def test_the_engine_is_open_while_the_service_works(live, name, stage):
    async def serve(worker, _):
        assert worker.opened.dependencies() == {("check", stage): ""}

    assert live(name, serve) == ["open", f"ahead {stage}", "served", "close"]


def test_the_supervisor_is_listened_to_and_hears_of_it_and_nobody_is_waited_for(live):
    async def serve(worker, supervisor):
        assert supervisor.recv(100) == ALIVE
        assert not worker.control.getblocking()  # a supervisor that stands still would hold up all mail
        assert not worker.inbox.getblocking()
        supervisor.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(10):
            await worker.stopping.wait()

    assert live("policyd", serve)[-2:] == ["served", "close"]


def test_it_goes_when_it_is_told_by_a_signal(live):
    async def serve(worker, _):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await worker.stopping.wait()

    assert live("policyd", serve)[-2:] == ["served", "close"]

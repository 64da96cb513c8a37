"""The policy server on a real socket, beside an engine that does what the recipient's address says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from types import SimpleNamespace

import uvloop

from elemta.decision import Decision
from elemta.verdict import Action, ActionKind, Disposition, Verdict
from elemta_policyd.server import Server
from harness.daemon import free_port

END = "END-OF-MESSAGE"


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


async def asked(world):
    """Wait until the engine was asked."""
    await eventually(lambda: world.engine.cases and world.engine.cases[0].asked)


@contextlib.contextmanager
def listen(family):
    """A socket that listens on an address of its own."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with tempfile.TemporaryDirectory() as directory, socket.socket(family) as listener:
        listener.bind(f"{directory}/policyd.sock" if family == socket.AF_UNIX else (host, free_port(host)))
        listener.listen(64)
        listener.setblocking(False)
        yield listener


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

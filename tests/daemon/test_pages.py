"""Pages: one request a connection, answered as RFC 9110 wants it, and no work for who has gone."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvloop

from elemta.config.types import Listen
from elemta.daemon import pages
from harness.daemon import free_port, loopback

GET = b"GET /well HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """A page that is there at once and one that waits, and what became of it."""

    def __init__(self, listen):
        self.listen = listen
        self.begun, self.given_up, self.count = asyncio.Event(), asyncio.Event(), 0
        self.go_on = asyncio.Event()
        self.table = {"/well": self.well, "/slow": self.slow}

    async def well(self):
        return pages.Answer("200 OK", b"well\n")

    async def slow(self):
        self.begun.set()
        self.count += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return pages.Answer("200 OK", b"slow\n")

    async def connect(self, said=b""):
        if self.listen.path:
            reader, writer = await asyncio.open_unix_connection(self.listen.path)
        else:
            reader, writer = await asyncio.open_connection(self.listen.host, self.listen.port)
        writer.write(said)
        return reader, writer

    async def ask(self, said):
        reader, writer = await self.connect(said)
        try:
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def serving(site):
    task = asyncio.create_task(pages.serve(site.table, pages.listener(site.listen)))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def told(tmp_path):
    """Run a story of a site on the loop that the daemons use."""

    def run(story, listen=None):
        async def bounded():
            site = Site(listen or Listen(path=str(tmp_path / "x.sock")))
            async with asyncio.timeout(20), serving(site):
                await story(site)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded())

    return run


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ipv4_and_ipv6(told, host):
    host = loopback() if host == "::1" else host

    async def story(site):
        assert (await site.ask(GET)).endswith(b"\r\n\r\nwell\n")

    told(story, Listen(host=host, port=free_port(host)))


def test_head_says_how_long_the_answer_to_get_is(told):
    async def story(site):
        whole = await site.ask(GET)
        assert await site.ask(GET.replace(b"GET", b"HEAD")) == whole.removesuffix(b"well\n")
        assert b"\r\nContent-Length: 5\r\n" in whole

    told(story)


@pytest.mark.parametrize(
    ("said", "status", "more"),
    [
        (
            GET.replace(b"GET", b"PUT"),
            b"405 Method Not Allowed",
            b"\r\nAllow: GET, HEAD\r\n",
        ),  # RFC 9110 §15.5.6
        (GET.replace(b"HTTP/1.1", b"HTTP/1.1 x"), b"400 Bad Request", b"not HTTP\n"),
        (GET.replace(b"/well", b"/ill"), b"404 Not Found", b"there is only:\n/well\n/slow\n"),
    ],
)
def test_what_is_wrong_is_told(told, said, status, more):
    async def story(site):
        answer = await site.ask(said)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert more in answer

    told(story)


def test_more_than_one_request_is_no_more_work(told):
    async def story(site):
        reader, writer = await site.connect(GET.replace(b"/well", b"/slow"))
        for _ in range(3):
            await asyncio.sleep(0.05)
            writer.write(GET)
        await asyncio.sleep(0.05)
        assert site.count == 1
        site.go_on.set()
        assert (await reader.read()).count(b"HTTP/1.1 ") == 1
        writer.close()

    told(story)


def test_nothing_is_made_for_who_has_gone(told):
    async def story(site):
        _, writer = await site.connect(GET.replace(b"/well", b"/slow"))
        await site.begun.wait()
        writer.transport.abort()
        await site.given_up.wait()

    told(story)


def test_who_ends_before_he_has_asked_is_not_kept(told, monkeypatch):
    monkeypatch.setattr(pages, "TIME", 60.0)

    async def story(site):
        reader, writer = await site.connect(b"GET /well")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()

    told(story)


def test_at_the_end_nobody_is_left_waiting(told, monkeypatch):
    monkeypatch.setattr(pages, "TIME", 60.0)

    async def story(site):
        other = Site(Listen(path=f"{site.listen.path}2"))
        async with serving(other):
            reader, writer = await other.connect(GET.replace(b"/well", b"/slow"))
            await other.begun.wait()
        assert await reader.read() == b""
        writer.close()

    told(story)

"""The keeper: pages over a real socket, readiness of every process, and nothing old stays."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import os
import shutil
import socket
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from importlib import import_module
from pathlib import Path

import pytest
import uvloop

from elemta import clock
from elemta.config.model import Journal, Metrics, Reports, Settings
from elemta.config.types import Listen
from elemta.daemon import keeper, pages
from elemta.daemon.keeper import keep
from elemta.daemon.status import FRESH, WorkerStatus, missing, write_status
from elemta.journal import Reader
from elemta.store import GreyTerms, StoreError
from elemta.store.urls import open_store
from elemta.verdict import Disposition
from harness.decisions import decision
from harness.journal import JournalWriter


@pytest.fixture
def settings(tmp_path):
    return configured(tmp_path, Listen(host="127.0.0.1", port=free_port()))


def configured(tmp_path, listen):
    return Settings(
        host="mx.test", state=f"sqlite://{tmp_path}/state.db", journal=Journal(path=str(tmp_path / "journal.db")),
        metrics=Metrics(listen=listen, directory=str(tmp_path)),
    )  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_the_loop(work):
    """Run `work` on the loop that the daemons use."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def ask(listen, request=b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
    """The status and body of the response; ("", b"") when there was none."""
    opening = (
        asyncio.open_unix_connection(listen.path) if listen.path else asyncio.open_connection(listen.host, listen.port)
    )
    reader, writer = await opening
    try:
        writer.write(request)
        response = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.transport.abort()
    header, _, body = response.partition(b"\r\n\r\n")
    return header.partition(b"\r\n")[0].removeprefix(b"HTTP/1.1 ").decode(), body


async def page(listen, path):
    return await ask(listen, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@asynccontextmanager
async def keeping(settings, daemon="milter"):
    stopping = asyncio.Event()
    task = asyncio.create_task(keep(settings, daemon, stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 5)


async def answering(listen):
    """Wait until somebody listens."""
    for _ in range(500):
        try:
            return await ask(listen)
        except OSError:
            await asyncio.sleep(0.01)
    raise AssertionError("nobody listens")


def test_health_and_readiness_follow_the_processes(settings, tmp_path):
    listen, directory = settings.metrics.listen, str(tmp_path)

    async def run():
        async with keeping(settings):
            assert await answering(listen) == ("200 OK", b"alive\n")
            assert await page(listen, "/readyz") == ("200 OK", b"ready\n")
            write_status(directory, "milter", {"workers": 2, "ready": 1, "pid": 1})
            assert await page(listen, "/readyz") == ("503 Service Unavailable", b"milter: 1 of 2 workers answer\n")
            assert (await page(listen, "/healthz"))[0] == "200 OK"
            write_status(directory, "milter", {"workers": 2, "ready": 2})
            write_status(directory, "policyd", {"workers": 1, "ready": 1})
            assert await page(listen, "/readyz") == ("200 OK", b"ready\n")
            worker = WorkerStatus(directory, "milter-0")
            worker.tell(("check clamav does not answer", "journal: disk full"))
            assert await page(listen, "/readyz") == (
                "503 Service Unavailable",
                b"milter-0: check clamav does not answer\nmilter-0: journal: disk full\n",
            )
            worker.tell(())
            assert (await page(listen, "/readyz"))[0] == "200 OK"
            age(tmp_path / "policyd.status")
            status, text = await page(listen, "/healthz")
            assert status == "503 Service Unavailable"
            assert text.startswith(b"policyd: the daemon is gone")
            assert (await page(listen, "/readyz"))[0] == "503 Service Unavailable"
            write_status(directory, "policyd", None)
            assert (await page(listen, "/healthz"))[0] == "200 OK"

    on_the_loop(run())


def age(path):
    os.utime(path, (time.time() - FRESH - 1,) * 2)


def test_the_keeper_keeps_its_own_supervisors_status_fresh(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "ALIVE", 0.05)
    write_status(str(tmp_path), "milter", {"workers": 1, "ready": 1})

    async def run():
        async with keeping(settings), asyncio.timeout(10):
            for _ in range(3):
                age(tmp_path / "milter.status")
                assert missing(str(tmp_path))[0]
                while missing(str(tmp_path)) != ([], []):  # noqa: ASYNC110 - a file tells nobody
                    await asyncio.sleep(0.01)

    on_the_loop(run())


def test_what_a_dead_worker_said_is_not_heard_for_ever(tmp_path):
    WorkerStatus(str(tmp_path), "milter-0").tell(("journal: disk full",))
    assert missing(str(tmp_path)) == ([], ["milter-0: journal: disk full"])
    age(tmp_path / "milter-0.status")
    assert missing(str(tmp_path)) == ([], [])


def test_a_worker_writes_when_something_changes_and_from_time_to_time(tmp_path, monkeypatch):
    file = tmp_path / "milter-0.status"
    worker = WorkerStatus(str(tmp_path), "milter-0")
    worker.tell(())
    file.unlink()
    worker.tell(())
    assert not file.exists()
    worker.tell(("x",))
    assert json.loads(file.read_text()) == {"trouble": ["x"]}
    file.unlink()
    monkeypatch.setattr(time, "monotonic", lambda: float("inf"))
    worker.tell(("x",))
    assert file.exists()
    worker.gone()
    assert list(tmp_path.iterdir()) == []


def test_metrics_of_all_processes_are_served(settings, tmp_path):
    page_of = keeper.table(str(tmp_path))["/metrics"]
    answer = on_the_loop(page_of())
    assert answer.status == "200 OK"
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    assert b"\nelemta_healthy 1.0\n" in answer.body
    assert b"\nelemta_ready 1.0\n" in answer.body
    WorkerStatus(str(tmp_path), "milter-0").tell(("journal: disk full",))
    assert b"\nelemta_healthy 1.0\n" in (answer := on_the_loop(page_of())).body
    assert b"\nelemta_ready 0.0\n" in answer.body
    write_status(str(tmp_path), "milter", {"workers": 1, "ready": 1})
    age(tmp_path / "milter.status")
    assert b"\nelemta_healthy 0.0\n" in on_the_loop(page_of()).body
    absent = on_the_loop(keeper.table(str(tmp_path / "absent"))["/metrics"]())
    assert absent.status == "503 Service Unavailable"


def test_metrics_are_added_up_for_one_at_a_time(tmp_path, monkeypatch):
    at_work, most = [], []

    def slow(*_, **__):
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.pop()
        return b"metrics"

    monkeypatch.setattr(keeper, "exposition", slow)
    page_of = keeper.table(str(tmp_path))["/metrics"]

    async def run():
        return await asyncio.gather(*(page_of() for _ in range(3)))

    assert [answer.body for answer in on_the_loop(run())] == [b"metrics"] * 3
    assert most == [1, 1, 1]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /\xff\x00 HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /healthz\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\r\n\r\n", "400 Bad Request"),
        (b"GET /healthz?x=y HTTP/1.0\r\n\r\n", "200 OK"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", "431 Request Header Fields Too Large"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 20_000, "431 Request Header Fields Too Large"),
    ],
)
def test_only_a_short_get_of_a_known_page_is_answered(settings, request_, status):
    async def run():
        async with keeping(settings):
            await answering(settings.metrics.listen)
            try:
                found, _ = await ask(settings.metrics.listen, request_)
            except ConnectionResetError:  # octets that were not read when it was closed
                found = "431 Request Header Fields Too Large"
            assert found == status
            assert (await ask(settings.metrics.listen))[0] == "200 OK"

    on_the_loop(run())


def test_head_has_the_length_and_no_body(settings):
    async def run():
        async with keeping(settings):
            await answering(settings.metrics.listen)
            assert await ask(settings.metrics.listen, b"HEAD /healthz HTTP/1.1\r\n\r\n") == ("200 OK", b"")

    on_the_loop(run())


def test_who_has_asked_and_sends_no_more_is_answered(settings):
    async def run():
        listen = settings.metrics.listen
        async with keeping(settings):
            await answering(listen)
            reader, writer = await asyncio.open_connection(listen.host, listen.port)
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")  # which a thread makes
            writer.write_eof()
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()

    on_the_loop(run())


def test_who_says_nothing_is_cut_off_and_too_many_are_not_kept(settings, monkeypatch):
    monkeypatch.setattr(pages, "TIME", 0.3)
    monkeypatch.setattr(pages, "OPEN", 4)
    listen = settings.metrics.listen

    async def run():
        async with keeping(settings):
            await answering(listen)
            silent = [await asyncio.open_connection(listen.host, listen.port) for _ in range(4)]
            await asyncio.sleep(0.05)
            assert await ask(listen) == ("", b"")
            for reader, writer in silent:
                with suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(), 5) == b""
                writer.transport.abort()
            assert (await ask(listen))[0] == "200 OK"

    on_the_loop(run())


def test_two_keepers_share_an_address_and_either_goes_without_harm(settings):
    async def run():
        listen = settings.metrics.listen
        async with keeping(settings, "policyd"):
            await answering(listen)
            pages.listener(listen).close()  # there is room for another
            async with keeping(settings, "milter"):
                for _ in range(20):
                    assert (await ask(listen))[0] == "200 OK"
            for _ in range(5):
                assert (await ask(listen))[0] == "200 OK"

    on_the_loop(run())


@pytest.mark.parametrize("unix", [False, True], ids=["inet", "unix"])
def test_a_taken_address_is_told_once_and_tried_again(settings, monkeypatch, caplog, tmp_path, unix):
    monkeypatch.setattr(keeper, "AGAIN", 0.1)
    monkeypatch.setattr(keeper, "SOON", 0.05)
    caplog.set_level("INFO", "elemta.daemon.keeper")
    if unix:
        settings = configured(tmp_path, Listen(path=str(tmp_path / "metrics.sock")))
        stranger = socket.socket(socket.AF_UNIX)
        stranger.bind(settings.metrics.listen.path)
        stranger.listen(100)
    else:
        stranger = socket.create_server((settings.metrics.listen.host, settings.metrics.listen.port))

    async def run():
        async with keeping(settings):
            await asyncio.sleep(0.3)
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            stranger.close()
            assert (await answering(settings.metrics.listen))[0] == "200 OK"
            assert caplog.records[-1].getMessage().startswith("mended")

    on_the_loop(run())


def test_a_unix_socket_is_taken_over_from_the_dead_but_not_from_the_living(tmp_path):
    listen = Listen(path=str(tmp_path / "metrics.sock"))
    settings = configured(tmp_path, listen)
    left = socket.socket(socket.AF_UNIX)
    left.bind(listen.path)
    left.close()

    async def run():
        async with keeping(settings):
            assert (await answering(listen))[0] == "200 OK"
            with pytest.raises(FileExistsError, match="another process listens"):
                pages.listener(listen)
            assert (tmp_path / "metrics.sock").stat().st_mode & 0o777 == 0o660
            await asyncio.sleep(0.05)

    on_the_loop(run())


def test_at_a_unix_socket_the_keeper_of_the_next_policy_or_the_other_daemon_follows_soon(tmp_path, caplog):
    listen = Listen(path=str(tmp_path / "metrics.sock"))
    settings = configured(tmp_path, listen)

    async def run():
        async with AsyncExitStack() as second:
            async with keeping(settings):
                await answering(listen)
                await second.enter_async_context(keeping(settings))
                await asyncio.sleep(0.1)
            assert (await answering(listen))[0] == "200 OK"

    on_the_loop(run())
    assert caplog.messages == []


def test_a_unix_socket_without_its_directory_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        pages.listener(Listen(path=str(tmp_path / "absent" / "metrics.sock")))


def test_what_is_old_goes_and_what_is_new_stays(settings, monkeypatch):
    monkeypatch.setattr(keeper, "SLICE", 10)
    monkeypatch.setattr(keeper, "REST", 0)
    writer = JournalWriter(settings.journal.path, print)
    writer.open()
    for number in range(25):
        writer.decided(decision(at=time.time() - settings.journal.keep - number))
    writer.decided(decision(sender="new@x.test"))
    held = time.time() - settings.quarantine.longest - keeper.HELD  # older than the journal keeps others
    for name, at in (("held", held + 3600), ("long", held - 3600)):
        writer.decided(decision(sender=f"{name}@x.test", at=at, disposition=Disposition.QUARANTINE))
    assert writer.close() == 0
    assert on_the_loop(keeper.expire_journal(settings, time.time())) == 26
    assert [entry.sender for entry in Reader(settings.journal.path).search()] == ["new@x.test", "held@x.test"]

    async def sets():
        store = keeper.open_store(settings.state)
        await store.add_to_set("frozen", "old", time.time() - 1)
        await store.add_to_set("frozen", "new", time.time() + 1000)
        await store.close()
        return await keeper.expire_store(settings, time.time())

    assert on_the_loop(sets()) == 1


def test_nothing_goes_because_the_clock_leapt(settings, monkeypatch, caplog):
    monkeypatch.setattr(keeper, "MINUTE", 1.0)
    ten_years, seen = 10 * 365 * 86400.0, []

    async def throw_away(_, now):
        seen.append(now)
        if len(seen) == 2:
            monkeypatch.setattr(clock, "look", lambda: leapt)
        if len(seen) == 4:
            raise asyncio.CancelledError
        return 0

    began = clock.look()
    leapt = clock.Moment(began.time + ten_years, began.uptime + 5, began.boot)
    with pytest.raises(asyncio.CancelledError):
        on_the_loop(keeper._expire("the journal", throw_away, settings))
    assert max(seen) < began.time + 60
    assert "the journal expires as if it were 20" in caplog.text
    assert "the clock leapt 87600 hours ahead" in caplog.text


def test_the_state_is_settled_and_goes_on_when_its_file_is_replaced(settings, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(keeper, "SETTLE", 0.05)
    place, copies = Path(settings.state.removeprefix("sqlite://")), iter(range(1000))

    def remove(file):
        for part in ("", "-wal", "-shm"):
            Path(f"{file}{part}").unlink(missing_ok=True)

    async def settled(times):
        for _ in range(times):
            await asyncio.sleep(0.02)
            shutil.copy(place, copy := tmp_path / f"copy{next(copies)}.db")
            with closing(sqlite3.connect(copy)) as database, suppress(sqlite3.OperationalError):  # no table yet
                if database.execute("SELECT * FROM triplets").fetchall():
                    return True
        return False

    async def run():
        stopping = asyncio.Event()
        keeping = asyncio.create_task(keep(settings, "policyd", stopping))
        for _ in range(2):
            store = open_store(settings.state)
            await store.greylist("t", "n", 0.0, GreyTerms(300, 600, 900))
            assert await settled(500)
            await store.close()
            remove(place)
        stopping.set()
        await keeping

    on_the_loop(run())


def test_expiry_that_fails_is_told_and_tried_again(settings, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(keeper, "MINUTE", 0.05)
    monkeypatch.setattr(keeper.random, "uniform", lambda low, high: 0)
    caplog.set_level("INFO", "elemta.daemon.keeper")
    database = sqlite3.connect(settings.journal.path)
    database.execute("CREATE TABLE mine (x)")
    database.close()

    async def run():
        store = keeper.open_store(settings.state)
        await store.add_to_set("frozen", "old", time.time() - 1)
        async with keeping(settings):
            await asyncio.sleep(0.3)
            assert await store.set_entries("frozen", 0.0) == {}  # a broken journal lets the state not grow
            await store.close()
            told = [record.getMessage() for record in caplog.records]
            assert len(told) == 1
            assert told[0].startswith("nothing expires")
            (tmp_path / "journal.db").unlink()
            await asyncio.sleep(0.5)
            assert caplog.records[-1].getMessage().startswith("mended")

    on_the_loop(run())


class Store:
    """A state store that is out of order at first; `open` are those that were not closed."""

    open, ill = 0, 2

    def __init__(self, _):
        Store.open += 1

    async def work(self, *_):
        Store.ill -= 1
        if Store.ill >= 0:
            raise StoreError("no room")

    expire = settle = work

    async def close(self):
        Store.open -= 1


@pytest.mark.parametrize("what", ["nothing expires", "the state is not settled"])
def test_a_state_store_that_is_out_of_order_is_told_once_and_not_left_open(settings, monkeypatch, caplog, what):
    for pause in "MINUTE", "SETTLE":
        monkeypatch.setattr(keeper, pause, 0.01)
    monkeypatch.setattr(keeper.random, "uniform", lambda low, high: 0)
    monkeypatch.setattr(keeper, "open_store", Store)
    monkeypatch.setattr(Store, "open", 0)
    monkeypatch.setattr(Store, "ill", 2)
    caplog.set_level("INFO", keeper._log.name)

    async def run():
        work = keeper._settle(settings) if "settled" in what else keeper._expire("it", keeper.expire_store, settings)
        task = asyncio.create_task(work)
        async with asyncio.timeout(10):
            while Store.ill > -5:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    on_the_loop(run())
    assert caplog.messages == [f"{what}: no room", f"mended: {what}: no room"]
    assert Store.open == 0


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────


class Reporting:
    """Stands for the milter's module that reports."""

    class LedgerError(Exception):
        pass

    def __init__(self):
        self.runs = []

    async def run(self, settings, reports, now):
        self.runs.append((reports, now))
        if len(self.runs) < 3:
            raise (self.LedgerError, OSError)[len(self.runs) - 1]("disk full")
        return [f"report {len(self.runs)}"]


@pytest.mark.parametrize(
    ("daemon", "section", "wanted"), [("milter", True, True), ("policyd", True, False), ("milter", False, False)]
)
def test_the_milters_keeper_reports_where_it_is_asked_to(tmp_path, monkeypatch, caplog, daemon, section, wanted):
    of = configured(tmp_path, Listen(path=str(tmp_path / "metrics.sock")))
    reports = Reports.model_validate({"from": "dmarc@mx.test"}) if section else None
    reporting = Reporting()
    monkeypatch.setattr(keeper, "REPORT", 0.01)
    monkeypatch.setattr(keeper, "import_module", {keeper.REPORTING: reporting}.__getitem__)
    caplog.set_level("INFO", keeper._log.name)

    async def run():
        stopping = asyncio.Event()
        task = asyncio.create_task(keep(of.model_copy(update={"reports": reports}), daemon, stopping))
        for _ in range(100):
            if len(reporting.runs) > 4 or not wanted:
                break
            await asyncio.sleep(0.02)
        stopping.set()
        await task

    on_the_loop(run())
    assert bool(reporting.runs) is wanted
    if wanted:
        assert reporting.runs[0] == (reports, pytest.approx(time.time(), abs=60))
        told = [message for message in caplog.messages if "disk" in message]
        assert told == ["no DMARC reports: disk full", "mended: no DMARC reports: disk full"]
        assert "report 3" in caplog.messages


def test_a_keeper_that_was_just_started_reports_nothing_yet(monkeypatch):
    reporting = Reporting()
    monkeypatch.setattr(keeper, "import_module", {keeper.REPORTING: reporting}.__getitem__)

    async def run():
        task = asyncio.create_task(keeper._report(Settings(host="mx.test")))
        await asyncio.sleep(0.1)
        task.cancel()

    on_the_loop(run())
    assert reporting.runs == []


def test_what_the_keeper_calls_is_there():
    reporting = import_module(keeper.REPORTING)
    assert list(inspect.signature(reporting.run).parameters)[:3] == ["settings", "reports", "now"]
    assert issubclass(reporting.LedgerError, Exception)


def test_a_worker_that_hangs_is_not_ready_and_one_that_was_killed_is_not_missed(tmp_path):
    write_status(str(tmp_path), "milter-0", {"trouble": []})
    age(tmp_path / "milter-0.status")
    lock = tmp_path / "milter-0.lock"
    lock.touch()
    assert missing(str(tmp_path)) == ([], [])
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert missing(str(tmp_path)) == ([], [f"milter-0: no news of it; it hangs, or cannot write to {tmp_path}"])


def test_a_work_that_fails_as_nobody_foresaw_is_told_and_goes_on(settings, monkeypatch, caplog):
    monkeypatch.setattr(keeper, "AGAIN", 0.02)
    runs = []

    async def settled(*_):
        runs.append(1)
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(keeper, "_settled", settled)

    async def run():
        stopping = asyncio.Event()
        keeping = asyncio.create_task(keep(settings, "policyd", stopping))
        while len(runs) < 3:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        stopping.set()
        await keeping

    asyncio.run(asyncio.wait_for(run(), 20))
    assert "nobody foresaw this" in caplog.text

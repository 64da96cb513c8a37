"""The courier: decisions reach the file through a process of their own, whichever of the two dies."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import deque
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from elemta.findings import Finding, Result
from elemta.journal import Courier, JournalError, Reader, write
from elemta.journal import __main__ as main
from elemta.journal import courier as module
from elemta.journal.dispatch import dispatch
from harness.decisions import POLICY, decision

TESTS = Path(__file__).parents[2]


async def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        await asyncio.sleep(0.01)


def opened(path, reports, interval=0.02, **more):
    courier = Courier(str(path), reports.append, interval=interval, **more)
    courier.policy("cafe00", POLICY)
    courier.open()
    return courier


def senders(path):
    with closing(Reader(str(path))) as reader:
        return sorted(entry.sender for entry in reader.search(limit=100_000))


def found(path, reference):
    with closing(Reader(str(path))) as reader:
        [entry] = reader.find(reference)
    return entry


def stored(path):
    try:
        return len(senders(path))
    except JournalError:
        return 0


def test_every_decision_of_a_clean_run_stands_in_the_file_with_the_words_of_its_policy(tmp_path):
    path, reports = tmp_path / "journal.db", []
    given = [decision(sender=f"{number}@x.test") for number in range(1234)]

    async def run():
        courier = opened(path, reports)
        for each in given:
            courier.decided(each)
        assert courier.waiting == len(given)
        assert await courier.close() == 0
        assert (courier.written, courier.waiting, courier.dropped, courier.failures) == (len(given), 0, 0, 0)
        assert (courier._octets, courier._octets_sent) == (0, 0)  # else nothing would be sent one day

    asyncio.run(run())
    assert senders(path) == sorted(each.envelope.sender for each in given)
    assert [rule["id"] for rule in found(path, given[7].id).rules] == ["virus", "executable", "spoofed"]
    assert reports == []


def test_no_module_comes_from_where_the_daemon_was_started(tmp_path, monkeypatch):
    (tmp_path / "msgspec.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    monkeypatch.chdir(tmp_path)
    reports = []

    async def run():
        courier = opened(tmp_path / "journal.db", reports)
        courier.decided(decision())
        await until(lambda: courier.written or reports)
        await courier.close()

    asyncio.run(run())
    assert reports == []


def test_the_words_of_a_policy_that_comes_later_are_kept_too(tmp_path):
    path, later = tmp_path / "journal.db", decision(policy="beef00")

    async def run():
        courier = opened(path, [])
        await until(lambda: courier._process is not None)
        courier.policy("beef00", {"rules": {"message": [{"id": "new", "when": []}]}})
        courier.decided(later)
        assert await courier.close() == 0

    asyncio.run(run())
    assert [rule["id"] for rule in found(path, later.id).rules] == ["new"]


def test_one_decision_does_not_wait_for_others(tmp_path):
    async def run():
        courier = opened(tmp_path / "journal.db", [])
        for number in range(1, 4):
            courier.decided(decision())
            await until(lambda written=number: courier.written == written)
        await courier.close()

    asyncio.run(run())


def test_nor_does_a_hundred_wait_for_the_interval(tmp_path):
    async def run():
        courier = opened(tmp_path / "journal.db", [], interval=1000.0)
        await until(lambda: courier._process is not None)
        for _ in range(module.BATCH):
            courier.decided(decision())
        await until(lambda: courier.written == module.BATCH)
        await courier.close()

    asyncio.run(run())


def test_a_writing_process_that_is_killed_costs_no_decision_and_doubles_none(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)
    path, reports = tmp_path / "journal.db", []

    async def run():
        courier = opened(path, reports)
        for number in range(3000):
            courier.decided(decision(sender=f"{number}@x.test"))
            if number % 1000 == 500:
                await until(lambda: courier._process is not None and courier._sent)
                courier._process.send_signal(signal.SIGKILL)
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        assert await courier.close(20) == 0
        assert courier.dropped == 0
        assert courier.failures >= 3

    asyncio.run(run())
    assert senders(path) == sorted(f"{number}@x.test" for number in range(3000))
    assert any("signal" in text or "exit status -9" in text for text in reports)


def test_a_journal_whose_process_was_replaced_is_well_again_though_no_mail_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)
    reports = []

    async def run():
        courier = opened(tmp_path / "journal.db", reports)
        for number in (1, 2):
            await until(lambda: courier._process is not None and courier.trouble == "")
            courier._process.kill()
            await until(lambda killed=number: courier.failures == killed)
            assert courier.trouble.endswith("exit status -9")
            await until(lambda: courier.trouble == "")
        assert await courier.close() == 0

    asyncio.run(run())
    assert len(reports) == 2


def test_a_writing_process_that_is_killed_when_nothing_waits_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)

    async def run():
        courier = opened(tmp_path / "journal.db", [])
        for number in range(1, 4):
            courier.decided(decision())
            await until(lambda written=number: (courier.written, courier.waiting) == (written, 0))
            await killed(courier)
        assert await courier.close() == 0

    asyncio.run(run())


@contextmanager
def deaf(courier, monkeypatch):
    """While every acknowledgement is lost."""
    with monkeypatch.context() as within:
        within.setattr(courier, "_learn", lambda state: None)
        yield


async def all_stored(courier, path, many):
    """So many new decisions stand in the file, of 0@x.test and so on."""
    for number in range(many):
        courier.decided(decision(sender=f"{number}@x.test"))
    await until(lambda: stored(path) == many)


async def killed(courier):
    """The writing process is dead, and what it still said is read."""
    dead = courier._process
    dead.send_signal(signal.SIGKILL)
    await until(lambda: courier._process is not dead)


def test_what_was_stored_but_not_acknowledged_is_not_stored_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)
    path = tmp_path / "journal.db"

    async def run():
        courier = opened(path, [])
        with deaf(courier, monkeypatch):
            await all_stored(courier, path, 50)
            await killed(courier)
        assert await courier.close(20) == 0
        assert courier.dropped == 0

    asyncio.run(run())
    assert senders(path) == sorted(f"{number}@x.test" for number in range(50))


def test_nor_are_more_of_them_than_one_batch_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)
    path, many = tmp_path / "journal.db", 3 * write.BATCH + 70

    async def run():
        courier = opened(path, [])
        with deaf(courier, monkeypatch):
            await all_stored(courier, path, many)
            await killed(courier)
        assert await courier.close(20) == 0

    asyncio.run(run())
    assert senders(path) == sorted(f"{number}@x.test" for number in range(many))


def test_nothing_is_lost_when_the_process_ends_during_the_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)
    path = tmp_path / "journal.db"

    async def run():
        courier = opened(path, [])
        with deaf(courier, monkeypatch):
            await all_stored(courier, path, 50)
            closing = asyncio.create_task(courier.close(60))
            await until(lambda: courier._process is None)
        assert await asyncio.wait_for(closing, 20) == 0
        assert (courier.written, courier.dropped) == (50, 0)

    asyncio.run(run())
    assert senders(path) == sorted(f"{number}@x.test" for number in range(50))


def test_what_was_counted_too_low_for_a_moment_is_settled_once(tmp_path):
    courier = module.Courier(str(tmp_path / "journal.db"), [].append)
    courier._sent.extend([b"1", b"2", b"3"])
    for settled, waiting in ((2, 1), (1, 1), (3, 0)):
        courier._learn(module.State(settled, settled, 0, ""))
        assert courier.waiting == waiting


MORE = '{"settled": 9, "written": 9, "failures": 0, "trouble": ""}'  # than it was sent


@pytest.mark.parametrize("said", ["nonsense", '{"settled": 1}', "x" * 100_000, MORE])
def test_a_process_that_says_what_is_no_answer_is_replaced(tmp_path, monkeypatch, said):
    monkeypatch.setattr(module, "RETRY", 0.05)
    path, reports, liar = tmp_path / "journal.db", [], tmp_path / "liar"
    liar.write_text(f"#!/bin/sh\nrm $0\necho '{said}'\nexec sleep 60\n")
    liar.chmod(0o755)
    honest = sys.executable
    monkeypatch.setattr(module.sys, "executable", str(liar))

    async def run():
        courier = opened(path, reports)
        courier.decided(decision())
        await until(lambda: not liar.exists())
        monkeypatch.setattr(module.sys, "executable", honest)
        await until(lambda: courier.written == 1)
        assert await courier.close() == 0

    asyncio.run(run())
    assert len(senders(path)) == 1
    assert any("no answer" in words for words in reports)


def test_a_process_that_cannot_be_started_is_told_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.05)
    path, reports, honest = tmp_path / "journal.db", [], sys.executable
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "missing"))

    async def run():
        courier = opened(path, reports)
        courier.decided(decision())
        await until(lambda: courier.failures > 1)
        assert f"ended: it cannot be started: {tmp_path}/missing: No such file" in courier.trouble
        monkeypatch.setattr(module.sys, "executable", honest)
        await until(lambda: courier.written == 1 and courier.trouble == "")
        assert await courier.close() == 0

    asyncio.run(run())
    assert len(senders(path)) == 1
    assert len(reports) == 1  # not once a second
    assert reports[0].endswith("missing: No such file or directory; another is started, 1 waiting, 0 dropped")


def test_a_worker_that_is_killed_costs_at_most_the_last_quarter_of_a_second(tmp_path):
    path = tmp_path / "journal.db"
    code = """
        import asyncio, sys, time
        from harness.decisions import decision
        from elemta.journal import Courier
        async def main():
            courier = Courier(sys.argv[1], print)
            courier.open()
            number = 0
            while True:
                courier.decided(decision(sender=f"{number}@x.test"))
                number += 1
                sys.stdout.write(f"{number} {time.time()}\\n")
                sys.stdout.flush()
                await asyncio.sleep(0.001)
        asyncio.run(main())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    told = [process.stdout.readline() for _ in range(1500)]
    process.send_signal(signal.SIGKILL)
    killed = time.time()
    told += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    due = sum(1 for line in told if line.endswith("\n") and float(line.split()[1]) < killed - 1.0)
    assert due > 0
    end = time.monotonic() + 20
    while stored(path) < due:
        assert time.monotonic() < end, f"{stored(path)} of {due}"
        time.sleep(0.05)


def test_nothing_that_stops_a_daemon_stops_the_writing_process_before_its_work_is_done(tmp_path):
    path = tmp_path / "journal.db"

    async def run():
        courier = opened(path, [])
        courier.decided(decision())
        await until(lambda: courier.written == 1)  # it runs
        for signal_ in (signal.SIGTERM, signal.SIGINT):
            courier._process.send_signal(signal_)
        courier.decided(decision())
        assert await courier.close() == 0
        assert courier.failures == 0

    asyncio.run(run())
    assert len(senders(path)) == 2


def test_trouble_with_the_file_is_told_and_ends(tmp_path):
    directory, reports = tmp_path / "missing", []
    path = directory / "journal.db"

    async def run():
        courier = opened(path, reports)
        courier.decided(decision())
        await until(lambda: "does not exist" in courier.trouble)
        assert courier.waiting == 1
        assert courier.failures > 0
        directory.mkdir()
        await until(lambda: courier.written == 1 and courier.trouble == "")
        assert await courier.close() == 0

    asyncio.run(run())
    assert len(senders(path)) == 1
    assert [words for words in reports if "cannot be written" in words]
    assert [words for words in reports if "written again" in words]


def test_memory_is_bounded_while_nothing_can_be_written_and_the_newest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ON_THE_WAY", 10)
    reports = []

    async def run():
        courier = opened(tmp_path / "missing" / "journal.db", reports, bound=20)
        await until(lambda: courier._process is not None)
        for number in range(100):
            courier.decided(decision(sender=f"{number}@x.test"))
        assert courier.waiting <= 10 + 20 + 90
        await until(lambda: courier.waiting + courier.dropped == 100)
        assert courier.dropped >= 100 - 20 - module.BATCH
        lost = await courier.close(0.2)
        assert lost == 100 - courier.written - (courier.dropped - lost)

    asyncio.run(run())
    assert any("unwritten: " in words and "does not exist" in words for words in reports)


def test_a_stop_that_has_no_time_says_so(tmp_path):
    reports = []
    courier = Courier(str(tmp_path / "journal.db"), reports.append)  # no process is started
    courier.decided(decision())
    assert asyncio.run(courier.close(0.0)) == 1
    assert (courier.waiting, courier.dropped) == (0, 1)
    assert reports == ["journal: stopped with 1 decisions unwritten: out of time"]


def test_memory_is_bounded_in_octets_too(tmp_path, monkeypatch):
    """A thousand recipients, and names of a thousand attachments, stand in one decision of a hostile mail."""
    monkeypatch.setattr(module, "OCTETS", 1 << 20)
    monkeypatch.setattr(module, "OCTETS_ON_THE_WAY", 1 << 18)

    async def run():
        courier = opened(tmp_path / "missing" / "journal.db", [])
        await until(lambda: courier._process is not None)
        recipients = tuple(f"{number:0100}@x.test" for number in range(1000))
        for number in range(200):
            courier.decided(decision(sender=f"{number}@x.test", recipients=recipients))
            if not number % 10:
                await asyncio.sleep(0)
        largest = len(courier._queue[-1])
        assert largest > 100_000
        assert courier._octets == sum(map(len, courier._queue)) <= 1 << 20
        assert b"199@x.test" in courier._queue[-1]
        await until(lambda: courier._sent)
        assert courier._octets_sent == sum(map(len, courier._sent)) <= (1 << 18) + module.BATCH * largest
        assert courier.waiting + courier.dropped == 200
        for number in range(200, 220):  # so many that those on the way find no room when they come back
            courier.decided(decision(sender=f"{number}@x.test", recipients=recipients))
        courier._process.kill()
        await until(lambda: courier.failures and not courier._sent)
        assert courier._octets == sum(map(len, courier._queue)) <= 1 << 20
        assert courier._octets_sent == 0
        assert courier.waiting + courier.dropped == 220
        await courier.close(0.2)

    asyncio.run(run())


CYCLIC: list[object] = []
CYCLIC.append(CYCLIC)
STRANGE = [
    decision(findings=(Finding("odd", Result.PASS, fields={"loop": CYCLIC}),)),
    decision(timings={"spf": float("nan")}),
]


def test_a_writer_that_was_woken_sleeps_again(tmp_path):
    writer = write.Writer(str(tmp_path / "journal.db"), [].append)
    writer.open()
    writer.flush()
    time.sleep(0.1)
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.25
    assert writer.close() == 0


def test_rows_that_the_writer_takes_while_they_are_counted_are_not_dropped():
    writer = write.Writer("journal.db", [].append)

    class Moving(deque):
        def __len__(self):
            writer._taken += 1  # its thread is at work at this moment
            self.popleft()
            return super().__len__()

    writer.take([("a",), ("b",)])
    writer._queue = Moving(writer._queue)
    assert writer.dropped == 0


@pytest.mark.parametrize("strange", STRANGE, ids=["a value without end", "a time that is no number"])
@pytest.mark.parametrize("after", ["before the process runs", "while it runs"])
def test_a_decision_that_cannot_be_written_down_does_not_stop_the_others(tmp_path, after, strange):
    path, reports = tmp_path / "journal.db", []

    async def run():
        courier = opened(path, reports)
        if after == "while it runs":
            await until(lambda: courier._process is not None)
        courier.decided(decision())
        courier.decided(strange)
        courier.decided(decision())
        assert await courier.close() == 0
        assert (courier.written, courier.dropped) == (2, 1)

    asyncio.run(run())
    assert len(senders(path)) == 2
    assert any(f"{strange.id} cannot be written down" in words for words in reports)


def test_findings_that_cannot_be_read_again_cost_their_decision_only():
    good, lost = dispatch(decision()), []
    told, _ = msgspec.msgpack.decode(dispatch(decision(id="0123V56789")))
    unreadable = msgspec.msgpack.encode((told, b"\xc1"))  # which is nothing in msgpack
    rows = list(main._rows([good, unreadable, good], SimpleNamespace(lose=lost.append)))
    assert len(rows) == 2
    [words] = lost
    assert "decision 0123V56789 cannot be written down" in words

"""The SQLite store on real files: shared by processes, killed, damaged, locked, read-only."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from elemta.store import GreyTerms, StoreError, sqlite
from elemta.store.sqlite import SqliteStore
from harness import state

TERMS = GreyTerms(delay=300, window=172800, keep=3024000, proven=5)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state.db")


def use(path, work):
    """Run the coroutine function `work` on an open store."""
    return state.use(f"sqlite://{path}", work)


def rows(path, statement):
    db = sqlite3.connect(path)
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────


def in_the_file(path, into):
    """How many triplets stand in the file itself, its write-ahead log left out."""
    shutil.copy(path, into)
    return len(rows(str(into), "SELECT * FROM triplets"))


@pytest.mark.parametrize("link", [False, True])
def test_writers_leave_the_disk_to_whoever_settles(path, tmp_path, link):
    if link:
        linked(path, tmp_path)

    async def work(store):
        keeper = SqliteStore(path)
        await keeper.settle()
        for number in range(2000):  # twice what SQLite would keep in its log by default
            await store.greylist(f"{number:032}", "n", 0.0, TERMS)
        before = in_the_file(path, tmp_path / "before.db")
        await keeper.settle()
        after = in_the_file(path, tmp_path / "after.db")
        await keeper.close()
        return before, after

    assert use(path, work) == (0, 2000)


def test_settling_is_cheap_when_nothing_was_written_and_notices_another_file(path, monkeypatch):
    async def work(store):
        await store.greylist("t", "n", 0.0, TERMS)
        await store.settle()
        monkeypatch.setattr(sqlite, "_rows", None)
        await store.settle()
        monkeypatch.undo()
        os.rename(path, path + ".away")  # noqa: PTH104
        with pytest.raises(StoreError, match="replaced"):
            await store.settle()

    use(path, work)


def test_a_settling_that_is_cancelled_ends_before_the_file_is_closed(path, monkeypatch):
    done = []

    async def work(store):
        await store.greylist("t", "n", 0.0, TERMS)
        rows, begun = sqlite._rows, threading.Event()

        def slowly(*asked):
            begun.set()
            time.sleep(0.1)
            done.append(rows(*asked))

        monkeypatch.setattr(sqlite, "_rows", slowly)
        settling = asyncio.create_task(store.settle())
        await asyncio.to_thread(begun.wait)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        assert done

    use(path, work)


def test_what_hinders_the_settling_is_told(path, monkeypatch):
    def fails(*_):
        raise sqlite3.OperationalError("disk I/O error")

    async def work(store):
        await store.greylist("t", "n", 0.0, TERMS)
        monkeypatch.setattr(sqlite, "_rows", fails)
        with pytest.raises(StoreError, match=r"state\.db: disk I/O error"):
            await store.settle()

    use(path, work)


# ── greylist ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_known_triplet_costs_no_write(path):
    async def work(store):
        await store.greylist("t", "n", 0.0, TERMS)
        await store.greylist("t", "n", 300.0, TERMS)
        before = store._db.total_changes
        for now in range(301, 400):
            assert (await store.greylist("t", "n", float(now), TERMS)).known
        return store._db.total_changes - before

    assert use(path, work) == 0


def pass_all(path, start, names):
    start.wait()

    async def work(store):
        for name in names:
            await store.greylist(name, "n", 400.0, TERMS)

    use(path, work)


def test_passes_at_once_count_once_for_their_network(path):
    names = [f"t{number}" for number in range(50)]

    async def begin(store):
        for name in names:
            await store.greylist(name, "n", 0.0, TERMS)

    use(path, begin)
    start = FORK.Event()
    processes = [FORK.Process(target=pass_all, args=(path, start, names)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert rows(path, "SELECT passes FROM networks") == [(1,)]
    assert rows(path, "SELECT sum(passed), sum(attempts) FROM triplets") == [(50, 100)]


def write_for_ever(path, started):
    async def work(store):
        for number in range(10**9):
            await store.greylist(f"t{number}", f"n{number % 7}", float(number), TERMS)
            if number == 200:
                started.set()

    use(path, work)


def test_a_process_killed_while_it_writes_leaves_a_good_file(path):
    for _ in range(3):
        started = FORK.Event()
        process = FORK.Process(target=write_for_ever, args=(path, started))
        process.start()
        assert started.wait(30)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert use(path, lambda store: store.greylist("after", "n", 1.0, TERMS)).attempts >= 1


# ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────


def locked(path):
    """The file, opened and locked for writing by somebody else."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_short_lock_is_waited_for_and_the_loop_goes_on(path):
    async def work(store):
        other = locked(path)
        asyncio.get_running_loop().call_later(0.2, other.execute, "ROLLBACK")
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        grey = await store.greylist("t", "n", 0.0, TERMS)
        ticking.cancel()
        other.close()
        return grey.attempts, ticks

    attempts, ticks = use(path, work)
    assert attempts == 1
    assert ticks > 10


def test_a_long_lock_is_trouble_in_bounded_time_and_readers_do_not_wait(path, monkeypatch):
    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)

    async def work(store):
        await store.greylist("t", "n", 0.0, TERMS)
        await store.greylist("t", "n", 300.0, TERMS)
        other = locked(path)
        begin = time.monotonic()
        assert (await store.greylist("t", "n", 301.0, TERMS)).known
        assert time.monotonic() - begin < 0.1
        with pytest.raises(StoreError, match=r"state\.db: database is locked"):
            await store.greylist("new", "n", 0.0, TERMS)
        assert time.monotonic() - begin < 1.0
        other.execute("ROLLBACK")
        other.close()
        assert (await store.greylist("new", "n", 0.0, TERMS)).attempts == 1

    use(path, work)


def test_of_many_that_wait_for_the_lock_one_tries(path, monkeypatch):
    async def work(store):
        tries = []
        store._db.set_trace_callback(lambda text: tries.append(text) if text.startswith("BEGIN") else None)

        def together(name):
            return [asyncio.create_task(store.add_to_set(name, f"{number}", 0.0)) for number in range(300)]

        other = locked(path)
        waiting = together("in time")
        await asyncio.sleep(0.5)
        waiting[7].cancel()
        waiting[0].cancel()  # it is the one that tries
        await asyncio.sleep(0.2)
        assert 300 < len(tries) < 400
        other.execute("ROLLBACK")
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await store.set_size("in time", 0.0) == 298
        monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        told = await asyncio.gather(*together("too late"), return_exceptions=True)
        assert {str(each) for each in told} == {f"{path}: database is locked"}
        assert time.monotonic() - began < 2.0
        other.execute("ROLLBACK")
        other.close()
        await store.add_to_set("too late", "not now", 0.0)

    use(path, work)


def test_a_failed_write_leaves_no_transaction_open(path):
    async def work(store):
        store._db.execute("CREATE TEMP TRIGGER refuse BEFORE INSERT ON sets BEGIN SELECT RAISE(FAIL, 'refused'); END")
        for _ in range(2):
            with pytest.raises(StoreError, match="refused"):
                await store.add_to_set("frozen", "bob", 0.0)
        assert not store._db.in_transaction
        store._db.execute("DROP TRIGGER refuse")
        await store.add_to_set("frozen", "bob", 0.0)
        assert await store.set_size("frozen", 0.0) == 1

    use(path, work)


def test_attempts_of_one_turn_of_the_loop_are_one_transaction_and_see_each_other(path):
    async def work(store):
        begun = []
        store._db.set_trace_callback(lambda text: begun.append(text) if text.startswith("BEGIN") else None)
        keys = [f"t{number % 7}" for number in range(20)]
        answers = await asyncio.gather(*(store.greylist(key, "n", 0.0, TERMS) for key in keys))
        return [each.attempts for each in answers], begun

    assert use(path, work) == ([1] * 7 + [2] * 7 + [3] * 6, ["BEGIN", "BEGIN IMMEDIATE"])


def test_reading_ends_with_the_turn_of_the_loop_or_with_the_next_write(path):
    async def work(store):
        for now in (0.0, 300.0):
            await store.greylist("t", "n", now, TERMS)
        await asyncio.sleep(0)
        for now in (301.0, 302.0):  # neither waits
            assert (await store.greylist("t", "n", now, TERMS)).known
            assert store._db.in_transaction
        await store.add_to_set("s", "bob", 0.0)
        assert not store._db.in_transaction
        assert (await store.greylist("t", "n", 303.0, TERMS)).known
        await asyncio.sleep(0)
        assert not store._db.in_transaction
        with sqlite3.connect(path) as other:
            other.execute("DELETE FROM triplets")
        other.close()
        assert (await store.greylist("t", "n", 304.0, TERMS)).attempts == 1
        assert await store.set_size("s", 0.0) == 1

    use(path, work)


def test_a_store_that_is_closed_in_the_turn_in_which_it_was_read_leaves_nothing_to_do(path):
    async def run():
        wrong = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        store = SqliteStore(path)
        for now in (0.0, 300.0):
            await store.greylist("t", "n", now, TERMS)
        await asyncio.sleep(0)
        for now in (301.0, 302.0):
            assert (await store.greylist("t", "n", now, TERMS)).known
            await store.add_to_set("s", "bob", 0.0)
        assert (await store.greylist("t", "n", 303.0, TERMS)).known
        await store.close()
        await asyncio.sleep(0.01)
        assert wrong == []

    asyncio.run(run())


def test_an_attempt_that_nobody_waits_for_is_counted_and_harms_no_other(path):
    async def work(store):
        first, *others = (asyncio.create_task(store.greylist("t", "n", 0.0, TERMS)) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        answers = await asyncio.gather(*others)
        assert (await store.greylist("t", "n", 1.0, TERMS)).attempts == 4
        return [each.attempts for each in answers]

    assert use(path, work) == [2, 3]


def test_attempts_come_while_others_wait_for_the_lock_and_all_are_told_when_it_never_comes(path, monkeypatch):
    async def work(store):
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [asyncio.create_task(store.greylist("t", "n", 0.0, TERMS))]
            await asyncio.sleep(0.02)
            waiting += [asyncio.create_task(store.greylist("u", "n", 0.0, TERMS)) for _ in range(2)]
            await asyncio.sleep(0.02)
            other.execute("COMMIT")
            assert [each.attempts for each in await asyncio.gather(*waiting)] == [1, 1, 2]
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr(sqlite, "PATIENCE", 0.05)
            told = await asyncio.gather(
                *(store.greylist("v", "n", 0.0, TERMS) for _ in range(3)), return_exceptions=True
            )
            assert [str(each) for each in told] == [f"{path}: database is locked"] * 3
            other.execute("COMMIT")
        other.close()
        assert (await store.greylist("v", "n", 0.0, TERMS)).attempts == 1

    use(path, work)


# ── expiry ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_expire_throws_away_what_has_expired_and_nothing_else(path, monkeypatch):
    monkeypatch.setattr(sqlite, "SLICE", 10)

    async def work(store):
        for number in range(95):
            await store.greylist(f"old{number}", "n", 0.0, TERMS)
        for number in range(33):
            await store.greylist(f"young{number}", "n", 100_000.0, TERMS)
        await store.greylist("known", "n", 0.0, TERMS)
        await store.greylist("known", "n", 300.0, TERMS)
        await store.add_to_set("s", "old", 1000.0)
        await store.add_to_set("s", "ever", 0.0)
        slices, change = [], sqlite._change
        monkeypatch.setattr(sqlite, "_change", lambda *asked: slices.append(change(*asked)) or slices[-1])
        assert await store.expire(172_801.0) == 95 + 1
        monkeypatch.undo()
        assert max(slices) <= 10  # so long others wait to write
        assert await store.expire(172_801.0) == 0
        assert (await store.greylist("known", "n", 172_802.0, TERMS)).known
        assert (await store.greylist("young3", "n", 172_802.0, TERMS)).passed
        assert await store.set_entries("s", 0.0) == {"ever": 0.0}

    use(path, work)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_file_is_not_for_everyone(path):
    use(path, lambda store: store.greylist("t", "n", 0.0, TERMS))
    assert Path(path).stat().st_mode & 0o007 == 0


def open_when_told(path, start):
    start.wait()
    use(path, lambda store: store.sets_version())


def test_many_may_open_a_new_file_at_once(tmp_path):
    for turn in range(10):
        start = FORK.Event()
        processes = [FORK.Process(target=open_when_told, args=(f"{tmp_path}/{turn}.db", start)) for _ in range(8)]
        for process in processes:
            process.start()
        start.set()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 8


def test_a_file_that_is_no_database(path):
    Path(path).write_bytes(b"host: mx.test\n" * 100)
    with pytest.raises(StoreError, match=r"state\.db: damaged \(file is not a database\); move it"):
        SqliteStore(path)


def test_a_row_written_by_hand_is_an_entry_like_any_other(path):
    async def work(store):
        await store.add_to_set("frozen", "anna", 0.0)
        db = sqlite3.connect(path)
        db.execute("INSERT INTO sets VALUES ('frozen', 'bob', 0), ('frozen', 7, 'x')")  # text, number; no octets
        db.commit()
        db.close()
        before = dict(await store.set_entries("frozen", 1.0))
        gone = [await store.remove_from_set("frozen", each) for each in before]
        return before, gone, dict(await store.set_entries("frozen", 1.0))

    everybody = {"7": 0.0, "anna": 0.0, "bob": 0.0}
    assert use(path, work) == (everybody, [True] * 3, {})


@pytest.mark.parametrize("place", [b"tabletriplets", b"attempts"])
def test_a_damaged_name_that_is_no_text(path, place):
    use(path, lambda store: store.sets_version())
    whole = Path(path).read_bytes()
    assert place in whole
    Path(path).write_bytes(whole.replace(place, place[:-1] + b"\xd1"))
    with pytest.raises(StoreError, match=r"state\.db: damaged \(.*\); move it"):
        SqliteStore(path)


def test_a_damaged_file(path):
    use(path, lambda store: store.greylist("t", "n", 0.0, TERMS))
    size = Path(path).stat().st_size
    with Path(path).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreError, match=r"state\.db: .*malformed"):
        SqliteStore(path)


def test_a_truncated_file(path):
    use(path, lambda store: store.greylist("t", "n", 0.0, TERMS))
    os.truncate(path, 6000)
    with pytest.raises(StoreError, match=r"state\.db: .*malformed"):
        SqliteStore(path)


def test_another_programs_database(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mails (x)")
    db.close()
    with pytest.raises(StoreError, match="of something else; let state name"):
        SqliteStore(path)
    assert rows(path, "SELECT name FROM sqlite_schema") == [("mails",)]  # and it was left alone


def test_a_newer_schema(path):
    use(path, lambda store: store.sets_version())
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match=r"newer Elemta \(form 99"):
        SqliteStore(path)


def test_no_directory(tmp_path):
    with pytest.raises(StoreError, match=r"there is no directory .*/nowhere"):
        SqliteStore(str(tmp_path / "nowhere" / "state.db"))


def test_a_directory_instead_of_a_file(tmp_path):
    with pytest.raises(StoreError, match=": Is a directory"):
        SqliteStore(str(tmp_path))


def as_nobody(path, out):
    os.setgid(65534)
    os.setuid(65534)
    try:
        SqliteStore(path)
    except StoreError as error:
        out.put(str(error))
    else:
        out.put("it opened")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_a_file_that_we_may_not_write(tmp_path):
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    path = str(tmp_path / "state.db")
    use(path, lambda store: store.sets_version())
    Path(path).chmod(0o444)
    out = FORK.Queue()
    process = FORK.Process(target=as_nobody, args=(path, out))
    process.start()
    assert out.get(timeout=20) == f"{path}: Permission denied"
    process.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_file_made_by_root_belongs_to_the_daemons_whose_directory_it_is(tmp_path):
    os.chown(tmp_path, 65534, 65533)
    path = tmp_path / "state.db"
    use(str(path), lambda store: store.add_to_set("frozen", "bob", 0.0))  # `elemta sets add` before the first start

    assert {(each.stat().st_uid, each.stat().st_gid) for each in tmp_path.iterdir()} == {(65534, 65533)}
    assert path.stat().st_mode & 0o777 == 0o640


INTO_A_SET = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("INSERT INTO sets VALUES ('frozen', ?, 0)", (sys.argv[2].encode(),))
db.close()
"""


def test_a_second_opening_in_one_process_leaves_the_first_its_locks(path):
    """Else whoever closes the file next elsewhere takes himself for the last, and throws the write-ahead log away."""

    async def work(store):
        await store.add_to_set("frozen", "ann", 0.0)
        second = SqliteStore(path)  # as a keeper has, and a worker after a disk error
        await second.close()
        for entry in ("bob", "cid"):
            subprocess.run([sys.executable, "-c", INTO_A_SET, path, entry], check=True)  # noqa: ASYNC221
            await store.add_to_set("frozen", f"{entry}'s friend", 0.0)
        return set(await store.set_entries("frozen", 0.0))

    everybody = {"ann", "bob", "bob's friend", "cid", "cid's friend"}
    assert use(path, work) == everybody
    assert {entry for (entry,) in rows(path, "SELECT CAST(entry AS TEXT) FROM sets")} == everybody


# ── a file that breaks or goes away while it is open ─────────────────────────────────────────────────────────


async def until(what):
    for _ in range(500):
        if await what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def files(path):
    """The file and its two companions, those that are there."""
    return [each for each in (Path(path), Path(f"{path}-wal"), Path(f"{path}-shm")) if each.exists()]


def remove(path):
    for file in files(path):
        file.unlink()


def fill_with_garbage(path):
    for file in files(path):
        with file.open("r+b") as opened:
            opened.write(os.urandom(file.stat().st_size))


def replace(path, content):
    remove(path)
    Path(path).write_bytes(content)


def test_a_file_that_was_damaged_answers_again_when_it_was_mended(path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)

    async def work(store):
        await store.greylist("t", "n", 1.0, TERMS)
        fill_with_garbage(path)
        for number in range(3):
            with pytest.raises(StoreError, match=r"state\.db: .*(not a database|malformed|disk I/O)"):
                await store.greylist(f"new{number}", "n", 2.0, TERMS)
            await asyncio.sleep(0.02)
        remove(path)

        async def well():
            try:
                return (await store.greylist("again", "n", 3.0, TERMS)).attempts
            except StoreError:
                return False

        await until(well)

    use(path, work)
    assert f"{path}: opened again" in caplog.text
    assert rows(path, "SELECT count(*) FROM triplets") == [(1,)]


def test_a_disk_that_takes_nothing_is_not_told_to_be_opened_again_each_second(path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)

    async def work(store):
        async def asked(number):
            try:
                return await store.greylist(f"t{number}", "n", 1.0, TERMS)
            except StoreError:
                await asyncio.sleep(0.01)
                return None

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))  # writing is an I/O error
        try:
            assert [await asked(number) for number in range(20)] == [None] * 20
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "opened again" not in caplog.text

        async def well():
            return await asked("well") and f"{path}: opened again" in caplog.text

        await until(well)

    use(path, work)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_was_put_in_its_place_is_used(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)
    backup = str(tmp_path / "backup.db")
    use(backup, lambda store: store.add_to_set("frozen", "from the backup", 0.0))

    async def work(store):
        await store.add_to_set("frozen", "lost", 0.0)
        replace(path, Path(backup).read_bytes())  # noqa: ASYNC240 - a small file

        async def there():
            return dict(await store.set_entries("frozen", 1.0)) == {"from the backup": 0.0}

        await until(there)

    use(path, work)


WORKER = """
import asyncio, sys, time
from elemta.store import StoreError, sqlite

async def main():
    sqlite.LOOK = 0.05
    store, number = sqlite.SqliteStore(sys.argv[1]), 0
    print("ready", flush=True)
    while time.time() < float(sys.argv[2]):
        await store.add_to_set("frozen", f"{sys.argv[3]} {number} {'x' * 500}", 0.0)
        number += 1
        await asyncio.sleep(0.001)
    await store.close()

asyncio.run(main())
"""


def test_a_file_that_takes_its_place_does_not_get_the_log_of_the_one_before(path, tmp_path):
    backup, end = tmp_path / "backup.db", time.time() + 6.0
    use(str(backup), lambda store: store.add_to_set("frozen", "from the backup", 0.0))
    command = [sys.executable, "-c", WORKER, path, str(end)]
    workers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in ("one", "two")]
    assert [worker.stdout.readline() for worker in workers] == [b"ready\n"] * 2
    time.sleep(1.0)
    backup.rename(path)  # as mv does it; its companions stay
    assert [(worker.communicate()[0], worker.returncode) for worker in workers] == [(b"", 0)] * 2
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    entries = {entry for (entry,) in rows(path, "SELECT CAST(entry AS TEXT) FROM sets")}
    assert "from the backup" in entries
    assert {entry.split()[0] for entry in entries} == {"from", "one", "two"}
    assert not any(entry.startswith("one 0 ") for entry in entries)  # what the one before held


def test_a_file_moved_away_without_its_log_lacks_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)

    async def work(store):
        keeper = SqliteStore(path)
        await store.add_to_set("frozen", "before", 0.0)
        (tmp_path / "state.db").rename(tmp_path / "away.db")

        async def begun():
            return not await store.set_entries("frozen", 1.0)

        await until(begun)  # a worker may be first to see it
        with pytest.raises(StoreError, match="it was replaced"):
            await keeper.settle()
        await keeper.close()

    use(path, work)
    assert rows(str(tmp_path / "away.db"), "SELECT CAST(entry AS TEXT) FROM sets") == [("before",)]
    assert rows(path, "SELECT * FROM sets") == []


def linked(path, tmp_path):
    """Let `path` be a symbolic link; the file that it leads to."""
    real = tmp_path / "disk" / "real.db"
    real.parent.mkdir()
    real.touch()
    Path(path).symlink_to(real)
    return real


def test_also_where_a_symbolic_link_leads_to_the_file(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)
    real, backup = linked(path, tmp_path), tmp_path / "backup.db"
    use(str(backup), lambda store: store.add_to_set("frozen", "from the backup", 0.0))

    async def work(store):
        await store.add_to_set("frozen", "before", 0.0)
        backup.rename(real)

        async def there():
            return dict(await store.set_entries("frozen", 1.0)) == {"from the backup": 0.0}

        await until(there)

    use(path, work)


def test_a_link_that_leads_elsewhere_leaves_the_file_before_its_log(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)
    real, other, link = linked(path, tmp_path), tmp_path / "other.db", tmp_path / "state.db"
    use(str(other), lambda store: store.add_to_set("frozen", "other", 0.0))

    async def work(store):
        await store.add_to_set("frozen", "before", 0.0)
        link.unlink()
        link.symlink_to(other)

        async def there():
            return dict(await store.set_entries("frozen", 1.0)) == {"other": 0.0}

        await until(there)

    use(path, work)
    assert rows(str(real), "SELECT CAST(entry AS TEXT) FROM sets") == [("before",)]


def test_what_was_open_is_used_while_what_took_its_place_is_no_database(path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)

    async def work(store):
        await store.add_to_set("frozen", "here", 0.0)
        replace(path, b"no database" * 1000)

        async def told():
            assert set(await store.set_entries("frozen", 1.0)) == {"here"}
            return "what was open before is used" in caplog.text

        await until(told)

    use(path, work)


def test_what_cannot_be_opened_again_is_told_once_until_something_else_is_wrong(path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite, "LOOK", 0.0)

    async def work(store):
        async def tried(times=20):
            for _ in range(times):
                await store.sets_version()
                await asyncio.sleep(0.01)
            told = [record.getMessage() for record in caplog.records]
            caplog.clear()
            return told

        replace(path, b"no database" * 1000)
        [told] = await tried()
        assert "file is not a database" in told
        remove(path)
        os.mkdir(path)  # noqa: PTH102
        [told] = await tried()
        assert "Is a directory" in told
        os.rmdir(path)  # noqa: PTH106
        assert set(await tried()) == {f"{path}: opened again"}
        replace(path, b"no database" * 1000)
        assert len(await tried()) == 1, "it is told anew"

    use(path, work)


def test_it_looks_at_the_file_at_most_once_a_second(path, monkeypatch):
    looked = []
    real = sqlite.identity
    monkeypatch.setattr(sqlite, "identity", lambda path: looked.append(1) or real(path))

    async def work(store):
        store._next_look = 0.0  # a second is over
        for number in range(50):
            await store.greylist(f"t{number}", "n", 1.0, TERMS)

    began = time.monotonic()
    use(path, work)
    assert 1 <= len(looked) <= 2 + (time.monotonic() - began) / sqlite.LOOK

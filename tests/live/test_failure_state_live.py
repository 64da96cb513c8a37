"""The state store fails in every way a file can: each class gets what `trouble` says, and people can see why."""

import os
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from harness.daemon import Daemon, free_port
from harness.disk import small_disk
from harness.watching import CLASSES, TROUBLE, WORDS, Watch, by_policyd, wait_until

pytestmark = pytest.mark.live

CHECKS = ("greylist", "limits")
POLICY = f"""
{CLASSES}
checks:
  greylist: {{{TROUBLE}}}
  limits: {{each: {{key: sender, windows: {{1h: 100}}}}, {TROUBLE}}}
rules:
  recipient:
    - {{id: new, when: {{greylist: fail}}, label: new}}
    - {{id: full, when: {{limits: fail}}, then: defer}}
"""


@pytest.fixture(scope="module")
def watch():
    with Daemon("policyd", POLICY, workers=1, metrics=free_port(), own="budget: 2s") as daemon:
        watch = Watch(daemon, by_policyd)
        well(watch)
        yield watch


def state(watch):
    """The file and its two companions, those that are there."""
    base = watch.daemon.directory / "state.db"
    return [path for path in (base, Path(f"{base}-wal"), Path(f"{base}-shm")) if path.exists()]


def well(watch):
    watch.answers_again(*CHECKS)
    assert watch.finding(watch.entry(watch.carry("defer.test").sender), "greylist").fields["attempts"] == 1


def fails(watch, told, within=5.0):
    watch.cell(CHECKS, told, within)
    watch.carry("accept.test")
    wait_until(lambda: all(f"check {check} does not answer" in watch.ready() for check in CHECKS))


@contextmanager
def locked(watch):
    """By somebody else, who goes on and on."""
    with closing(sqlite3.connect(state(watch)[0], isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_locked_for_longer_than_there_is_time(watch):
    with locked(watch):
        fails(watch, "no answer within the mail's budget of 2 s")
    well(watch)


def test_locked_for_long(watch):
    """With the budget that is the default it is the store that gives up first, and says why."""
    watch.daemon.own = ", budget: 10s"
    watch.daemon.reload(POLICY.replace("when: {limits: fail}", "when: {login: nobody}"))
    with locked(watch):
        carried = watch.together(f"{word}.test" for word in WORDS)
    assert [each.verdict for each in carried] == list(WORDS)
    assert max(each.seconds for each in carried) < 9.0
    for each in carried:
        assert "state.db: database is locked" in watch.finding(watch.entry(each.sender), "greylist").reason
    watch.daemon.own = ", budget: 2s"
    watch.daemon.reload(POLICY)
    well(watch)


def test_filled_with_garbage(watch):
    kept = {path: path.read_bytes() for path in state(watch)}
    for path in kept:
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
    fails(watch, r"state\.db: .*(not a database|malformed|disk I/O)")
    for path in kept:
        path.unlink()
    well(watch)
    watch.daemon.wait_for("opened again")


def test_one_that_was_deleted_is_made_anew(watch):
    for path in state(watch):
        path.unlink()
    before = watch.daemon.log().count("opened again")
    wait_until(lambda: watch.carry("accept.test").verdict == "accept" and state(watch))
    watch.daemon.wait_for("opened again", before + 1)
    well(watch)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path, megabytes=1):
        yield tmp_path


@contextmanager
def reading(path):
    """Somebody reads: the write-ahead log cannot begin anew in the room that it has, it must grow."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM triplets").fetchone()
        yield


def test_a_full_disk(disk):
    daemon = Daemon("policyd", "", workers=1, metrics=free_port(), own="budget: 2s")
    fixed = daemon.policy.read_text().replace(f"{daemon.directory}/state.db", f"{disk}/state.db")
    daemon.policy.write_text(fixed + POLICY)
    with daemon:
        watch = Watch(daemon, by_policyd)
        well(watch)
        filling = disk / "filling"
        with reading(disk / "state.db"):
            with filling.open("wb", buffering=0) as file:
                while shutil.disk_usage(disk).free:
                    file.write(bytes(4096))
            wait_until(lambda: watch.finding(watch.entry(watch.carry("accept.test").sender), "greylist").trouble)
            fails(watch, r"state\.db: database or disk is full")
        filling.unlink()
        well(watch)


def test_a_daemon_that_starts_with_a_damaged_file_says_so_and_ends():
    daemon = Daemon("policyd", POLICY, workers=1, metrics=free_port())
    state = daemon.directory / "state.db"
    state.write_bytes(b"no database" * 1000)
    daemon.start(wait=False)
    assert daemon.process.wait(30) == os.EX_SOFTWARE
    assert "state.db: damaged (file is not a database); move it" in daemon.log()
    state.unlink()
    with daemon:
        well(Watch(daemon, by_policyd))


def test_a_reload_with_a_damaged_file_keeps_the_workers_that_there_are(watch):
    pids = watch.daemon.worker_pids()
    [file, *others] = state(watch)
    for path in (file, *others):
        path.unlink()
    file.write_bytes(b"no database" * 1000)
    watch.daemon.reload(POLICY, ok=False)
    assert set(pids) <= set(watch.daemon.worker_pids())
    wait_until(lambda: watch.daemon.worker_pids() == pids)  # the new one, which could not begin, is gone soon
    assert watch.carry("defer.test").verdict == "accept", "what they have open is used"
    file.unlink()
    watch.daemon.reload(POLICY)
    well(watch)

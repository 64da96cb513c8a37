"""Status: is what stands in the metrics directory whole and true, also where nothing can be written there?"""

import os
import time

import pytest

from elemta.daemon.status import WorkerStatus, abandon, missing, write_status


@pytest.fixture
def place(tmp_path):
    return str(tmp_path)


def test_the_status_of_a_killed_supervisor_is_made_old_and_that_of_its_successor_stays(place):
    write_status(place, "policyd", {"workers": 1, "ready": 1, "pid": 8})
    abandon(place, "policyd", 7)
    assert missing(place) == ([], [])
    abandon(place, "policyd", 8)
    [dead], _ = missing(place)
    assert dead.startswith("policyd: the daemon is gone")


@pytest.mark.parametrize("found", [None, "", "half a li"])
def test_one_that_is_not_there_or_damaged_is_no_trouble(place, tmp_path, found):
    if found is not None:
        (tmp_path / "policyd.status").write_text(found)
    abandon(place, "policyd", 7)
    assert missing(place) == ([], [])


def test_who_reads_while_it_is_written_reads_the_old_words(place, tmp_path):
    write_status(place, "milter", {"workers": 1, "ready": 0})
    with (tmp_path / "milter.status").open() as reader:
        write_status(place, "milter", {"workers": 1, "ready": 1})
        assert reader.read() == '{"workers": 1, "ready": 0}'
    assert [path.name for path in tmp_path.iterdir()] == ["milter.status"]


def test_a_worker_that_cannot_write_shows_it_and_tries_again_a_second_later(place, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    worker, file = WorkerStatus(place, "milter-0"), tmp_path / "milter-0.status"
    worker.tell(())
    in_the_way = tmp_path / f"milter-0.{os.getpid()}"
    in_the_way.mkdir()
    worker.tell(("journal: disk full",))
    assert file.stat().st_mtime == 0
    in_the_way.rmdir()
    now[0] += 0.5
    worker.tell(("journal: disk full",))
    assert file.stat().st_mtime == 0
    now[0] += 0.5
    worker.tell(("journal: disk full",))
    assert missing(place) == ([], ["milter-0: journal: disk full"])


def test_one_that_ends_where_it_cannot_take_its_status_away_ends_all_the_same(place, tmp_path):
    (tmp_path / "milter-0.status").mkdir()
    WorkerStatus(place, "milter-0").gone()

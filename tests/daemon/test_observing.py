"""Observing: what does the supervisor count, log and show, once, and where after a reload?"""

import pytest

from elemta.config.model import Journal, Metrics, Settings
from elemta.daemon.observing import Observing
from elemta.daemon.status import lives
from elemta.observe.exposition import exposition


def settings(place):
    return Settings(
        host="mx.test", journal=Journal(path=f"{place}/journal.db"), metrics=Metrics(directory=f"{place}/metrics")
    )


@pytest.fixture
def watch(tmp_path):
    watching = Observing(settings(tmp_path), "policyd")
    watching.start_metrics()
    yield watching
    watching._metrics.close()


def counts(watch):
    """Numbers by name and labels, without that of the daemon."""
    lines = exposition(watch.directory, healthy=True, ready=True).decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.replace('daemon="policyd"', ""): float(number) for name, number in found.items()}


def test_deaths_and_reloads_are_counted_at_once(watch):
    watch.died(0, "signal SIGKILL", 1.0, 0.1)
    assert counts(watch)["elemta_worker_restarts_total{}"] == 1
    watch.reloaded(ok=True)
    for _ in range(2):
        watch.reloaded(ok=False, reason="wrong")
    found = counts(watch)
    assert found['elemta_reloads_total{,outcome="ok"}'] == 1
    assert found['elemta_reloads_total{,outcome="refused"}'] == 2


def test_what_was_counted_before_the_daemon_was_started_is_not_counted_on(watch, tmp_path):
    watch.reloaded(ok=True)
    watch._metrics.close()
    watch.start_metrics()
    assert counts(watch)['elemta_reloads_total{,outcome="ok"}'] == 0


def test_why_nobody_can_connect_is_told_once_until_it_changes(watch, tmp_path, capfd):
    for why in ("gone", "gone", "", "gone"):
        watch.status(unreachable=why, workers=1, ready=1)
    assert capfd.readouterr().err.count("text=gone") == 2


def test_a_status_that_has_not_changed_is_not_written_again(watch, tmp_path):
    watch.status(unreachable="", workers=1, ready=1)
    file = tmp_path / "metrics" / "policyd.status"
    file.unlink()
    watch.status(unreachable="", workers=1, ready=1)
    assert not file.exists()
    watch.status(unreachable="", workers=1, ready=0)
    assert file.exists()


def test_after_a_reload_to_another_directory_it_counts_there_and_leaves_the_old_one(watch, tmp_path):
    watch.status(unreachable="", workers=1, ready=1)
    watch.follow(settings(tmp_path))
    watch.status(unreachable="", workers=1, ready=1)
    assert (tmp_path / "metrics" / "policyd.status").exists()
    (tmp_path / "new" / "metrics").mkdir(parents=True)
    watch.follow(settings(tmp_path / "new"))
    watch.status(unreachable="", workers=1, ready=1)
    watch.reloaded(ok=True)
    assert counts(watch)['elemta_reloads_total{,outcome="ok"}'] == 1
    assert (tmp_path / "new" / "metrics" / "policyd.status").exists()
    assert not (tmp_path / "metrics" / "policyd.status").exists()
    assert not lives(f"{tmp_path}/metrics", "policyd-supervisor")


def test_a_directory_in_which_it_cannot_count_is_told_and_the_old_one_stays(watch, tmp_path, capfd):
    watch.follow(settings(tmp_path / "absent"))
    assert "/readyz is not told how many workers answer" in capfd.readouterr().err
    watch.reloaded(ok=True)
    assert counts(watch)['elemta_reloads_total{,outcome="ok"}'] == 1

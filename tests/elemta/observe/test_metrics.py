"""The metrics: sums over all processes that stay right when processes come, go and are killed."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from elemta.findings import Finding, Result
from elemta.observe import Metrics, exposition
from elemta.observe.metrics import CHILDREN, LABELS, SILENT_FOR, bury, prepare
from elemta.verdict import Action, ActionKind, Disposition
from harness.decisions import decision

TESTS = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # given back afterwards
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    monkeypatch.setattr(prometheus_client.values, "MmapedDict", prometheus_client.values.MmapedDict)
    prepare(str(tmp_path), "milter")
    return str(tmp_path)


def samples(directory):
    """Every sample: {"name{label=value,...}": value}."""
    found = {}
    for family in text_string_to_metric_families(exposition(directory).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.mark.parametrize(
    ("place", "octets"),
    [*((place, b"\xff\xff\xff\x7f") for place in (0, 8, 12, 20)), (0, b"\xff\xff\xff\xff"), (0, b"\x01\x00\x00\x00")],
)
def test_counts_that_are_damaged_begin_anew(directory, caplog, place, octets):
    for _ in range(2):
        metrics = Metrics(directory, "milter")
        metrics.decided(decision())
        metrics.close()
        assert samples(directory)["elemta_shadow_matches_total{rule=executable}"] == 1
        with (Path(directory) / "counter_milter-0.db").open("r+b") as file:
            file.seek(place)
            file.write(octets)
    metrics = Metrics(directory, "milter")
    metrics.close()
    assert "counter_milter-0.db: damaged" in caplog.text


def test_of_a_dead_process_the_gauges_go_and_the_counts_stay(directory):
    metrics = Metrics(directory, "milter")
    metrics.gauge(metrics.connections, lambda: 5)
    metrics.decided(decision())
    metrics.flush()
    bury(directory, "milter")
    assert samples(directory)["elemta_connections{daemon=milter}"] == 5, "it lives"
    metrics._claim.close()
    bury(directory, "milter")
    found = samples(directory)
    assert "elemta_connections{daemon=milter}" not in found
    assert found["elemta_shadow_matches_total{rule=executable}"] == 1


def test_what_a_supervisor_tells_and_what_is_left_when_it_ends(directory):
    metrics = Metrics(directory, "milter", "supervisor")
    metrics.restarted()
    for ok in (True, False, False):
        metrics.reloaded(ok=ok)
    metrics.gauge(metrics.connections, lambda: 5)
    metrics.close()
    found = samples(directory)
    assert found["elemta_worker_restarts_total{daemon=milter}"] == 1
    assert found["elemta_reloads_total{daemon=milter,outcome=ok}"] == 1
    assert found["elemta_reloads_total{daemon=milter,outcome=refused}"] == 2
    assert found["elemta_connections{daemon=milter}"] == 0
    assert any(key.startswith("elemta_build_info{daemon=milter,python=3.") for key in found)


def test_nothing_is_handed_over_after_the_end(directory, monkeypatch):
    monkeypatch.setattr("elemta.observe.metrics.FLUSH", 0.01)
    calls = []

    async def life():
        metrics = Metrics(directory, "milter")
        metrics.each_second(lambda: calls.append(None))
        metrics.open()
        await asyncio.sleep(0.1)
        metrics.close()
        before = len(calls)
        await asyncio.sleep(0.1)
        return before

    assert asyncio.run(life()) == len(calls) > 2


def test_a_decision_is_counted_by_everything_that_is_known_of_it(directory):
    metrics = Metrics(directory, "milter")
    for _ in range(3):
        metrics.decided(decision(actions=(Action(ActionKind.LABEL, value="bulk"),)))
    metrics.decided(decision(rule="", disposition=Disposition.ACCEPT, findings=(), timings=None, shadow=()))
    metrics.flush()
    found = samples(directory)
    assert found["elemta_decisions_total{class=inbound,disposition=reject,rule=spoofed,stage=message}"] == 3
    assert found["elemta_decisions_total{class=inbound,disposition=accept,rule=,stage=message}"] == 1
    assert found["elemta_findings_total{check=spf,result=fail}"] == 3
    assert found["elemta_trouble_total{check=clamav}"] == 3
    assert found["elemta_shadow_matches_total{rule=executable}"] == 3
    assert found["elemta_labels_total{label=bulk}"] == 3
    assert found["elemta_decision_seconds_bucket{le=0.25,stage=message}"] == 0
    assert found["elemta_decision_seconds_bucket{le=0.5,stage=message}"] == 4
    assert found["elemta_decision_seconds_count{stage=message}"] == 4
    assert found["elemta_decision_seconds_sum{stage=message}"] == pytest.approx(4 * 0.2712)
    assert found["elemta_check_seconds_bucket{check=spf,le=0.005}"] == 3
    assert found["elemta_worker_restarts_total{daemon=milter}"] == 0
    assert found["elemta_connections{daemon=milter}"] == 0
    metrics.close()


def test_other_databases_in_the_directory_are_let_be_and_a_damaged_file_is_said(directory):
    (Path(directory) / "journal.db").write_bytes(b"SQLite format 3\0" * 500)
    metrics = Metrics(directory, "milter")
    metrics.close()
    assert samples(directory)["elemta_worker_restarts_total{daemon=milter}"] == 0
    (Path(directory) / "counter_milter-9.db").write_bytes(b"\x7f" * 5000)
    with pytest.raises(ValueError, match="damaged"):
        exposition(directory)
    with pytest.raises(ValueError, match="no such directory"):
        exposition(directory + "/absent")


def test_nothing_is_counted_twice_by_flushing_again(directory):
    metrics = Metrics(directory, "milter")
    metrics.decided(decision())
    metrics.flush()
    before = samples(directory)
    metrics.flush()
    assert samples(directory) == before
    metrics.close()


def test_many_observations_at_once_are_the_same_as_one_by_one(directory):
    metrics = Metrics(directory, "milter")
    amounts = [0.0, 0.0005, 0.00051, 0.3, 25, 26, 1e9]
    metrics.decision_seconds.child("together").add(amounts)
    for amount in amounts:
        metrics.decision_seconds.child("single").observe(amount)
    found = samples(directory)
    together = {name: value for name, value in found.items() if "together" in name}
    assert len(together) == 18
    assert together == {name.replace("single", "together"): value for name, value in found.items() if "single" in name}
    metrics.close()


def test_numbers_that_others_keep_are_followed(directory):
    metrics = Metrics(directory, "milter")
    numbers = {"written": 5, "waiting": 7}
    asked = []
    metrics.count(metrics.journal_written, lambda: numbers["written"])
    metrics.gauge(metrics.journal_queue, lambda: numbers["waiting"])
    metrics.each_second(lambda: asked.append(1))
    for written, waiting in ((5, 7), (8, 2), (7, 2), (9, 0)):
        numbers.update(written=written, waiting=waiting)
        metrics.flush()
        assert samples(directory)["elemta_journal_queue{daemon=milter}"] == waiting
    assert samples(directory)["elemta_journal_written_total{daemon=milter}"] == 9
    assert len(asked) == 4
    metrics.close()
    assert samples(directory)["elemta_journal_queue{daemon=milter}"] == 0


def test_a_dependency_is_silent_after_five_runs_without_an_answer(directory):
    metrics = Metrics(directory, "milter")
    for number in range(1, 7):
        metrics.decided(decision())
        metrics.flush()
        assert metrics.silent == (("clamav",) if number >= 5 else ())
    metrics.decided(decision(findings=(Finding("clamav", Result.NONE, "not made for this class"),), timings={}))
    metrics.flush()
    assert metrics.silent == ("clamav",)
    metrics.decided(decision(findings=(Finding("clamav", Result.PASS),)))
    metrics.flush()
    assert metrics.silent == ()
    metrics.close()


def test_a_silent_dependency_is_told_of_for_a_minute_after_the_last_mail(directory, monkeypatch):
    metrics = Metrics(directory, "milter")
    for _ in range(5):
        metrics.decided(decision())
    metrics.flush()
    assert metrics.silent == ("clamav",)
    later = time.monotonic() + SILENT_FOR
    monkeypatch.setattr("elemta.observe.metrics.time.monotonic", lambda: later)
    metrics.flush()
    assert metrics.silent == ()
    metrics.decided(decision())
    metrics.flush()
    assert metrics.silent == ("clamav",)
    metrics.close()


def test_a_process_that_ended_says_no_more_that_something_does_not_answer(directory):
    metrics = Metrics(directory, "milter")
    metrics.each_second(lambda: metrics.depends({("clamav", "unix:/run/one"): "refused", ("clamav", "b"): ""}))
    metrics.flush()
    one = "elemta_dependency_up{check=clamav,daemon=milter,dependency=unix:/run/one}"
    assert samples(directory)[one] == 0
    metrics.close()
    assert samples(directory)[one] == 1


def test_labels_without_end_are_counted_together(directory):
    metrics = Metrics(directory, "milter")
    for number in range(LABELS + 50):
        metrics.decided(decision(actions=(Action(ActionKind.LABEL, value=f"l{number}"),)))
    for number in range(CHILDREN + 50):
        metrics.decided(decision(rule=f"r{number}", findings=(), timings=None, shadow=()))
    metrics.flush()
    found = samples(directory)
    assert sum(name.startswith("elemta_labels_total") for name in found) == LABELS + 1
    assert found["elemta_labels_total{label=other}"] == 50
    assert found["elemta_decisions_total{class=other,disposition=other,rule=other,stage=other}"] == 51
    metrics.close()


def test_labels_without_end_are_counted_together_over_the_lives_of_many_workers(directory):
    for life in range(4):
        metrics = Metrics(directory, "milter")
        for number in range(40):
            metrics.decided(decision(actions=(Action(ActionKind.LABEL, value=f"l{life}.{number}"),)))
            metrics.decided(decision(actions=(Action(ActionKind.LABEL, value="always"),)))
        metrics.flush()
        metrics.close()
    found = samples(directory)
    assert sum(name.startswith("elemta_labels_total") for name in found) == LABELS + 1
    assert found["elemta_labels_total{label=other}"] == 160 - (LABELS - 1)
    assert found["elemta_labels_total{label=always}"] == 160
    assert found["elemta_decision_seconds_count{stage=message}"] == 320


def test_it_hands_over_every_second_by_itself_and_the_rest_at_the_end(directory, monkeypatch):
    monkeypatch.setattr("elemta.observe.metrics.FLUSH", 0.05)

    async def run():
        metrics = Metrics(directory, "milter")
        metrics.open()
        metrics.decided(decision())
        await asyncio.sleep(0.3)
        during = samples(directory)["elemta_findings_total{check=spf,result=fail}"]
        metrics.decided(decision())
        metrics.close()
        return during, samples(directory)["elemta_findings_total{check=spf,result=fail}"]

    assert asyncio.run(run()) == (1, 2)


WORKER = """
    import os, sys, time
    from harness.decisions import decision
    from elemta.observe import Metrics
    metrics = Metrics(sys.argv[1], sys.argv[2])
    for _ in range(int(sys.argv[3])):
        metrics.decided(decision())
    metrics.connections.child(sys.argv[2]).set(3)
    metrics.flush()
    print(metrics.identity, flush=True)
    sys.stdin.read()
    metrics.close()
"""


def start(directory, daemon, count):
    code = f"import sys; sys.path[:0] = [{str(TESTS)!r}]\n" + textwrap.dedent(WORKER)
    process = subprocess.Popen(
        [sys.executable, "-c", code, directory, daemon, str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def stop(process, number=None):
    if number is not None:
        process.send_signal(number)
    process.communicate()


def test_processes_of_both_daemons_are_added_up_and_numbers_are_used_again(directory):
    one, first = start(directory, "milter", 10)
    two, second = start(directory, "milter", 20)
    other, third = start(directory, "policyd", 30)
    assert (first, second, third) == ("milter-0", "milter-1", "policyd-0")
    found = samples(directory)
    assert found["elemta_findings_total{check=spf,result=fail}"] == 60
    assert found["elemta_connections{daemon=milter}"] == 6
    files = set(Path(directory).iterdir())
    stop(one, signal.SIGKILL)
    again, name = start(directory, "milter", 5)
    assert name == "milter-0"
    found = samples(directory)
    assert found["elemta_findings_total{check=spf,result=fail}"] == 65
    assert found["elemta_connections{daemon=milter}"] == 6
    assert set(Path(directory).iterdir()) == files
    for process in (two, other, again):
        stop(process)
    found = samples(directory)
    assert found["elemta_connections{daemon=milter}"] == 0
    assert found["elemta_findings_total{check=spf,result=fail}"] == 65


def test_the_supervisor_takes_no_number_of_a_worker(directory):
    supervisor = Metrics(directory, "milter", "supervisor")
    first = Metrics(directory, "milter")
    assert (supervisor.identity, first.identity) == ("milter-supervisor", "milter-0")
    supervisor.restarted()
    supervisor.flush()
    first.close()
    supervisor.close()
    assert [name for name in samples(directory) if "restarts" in name]


def test_a_start_forgets_what_an_earlier_run_counted_but_nothing_of_the_living(directory):
    living, name = start(directory, "milter", 7)
    dead, _ = start(directory, "milter", 100)
    other, _ = start(directory, "policyd", 1)
    stop(dead)
    stop(other)
    assert name == "milter-0"
    prepare(directory, "milter")
    assert samples(directory)["elemta_findings_total{check=spf,result=fail}"] == 8
    stop(living)


def test_the_documentation_and_the_code_name_the_same_metrics(directory):
    """docs/monitoring.md has a row `| `name` | type | labels | meaning |` for every metric, and none for any other."""
    metrics = Metrics(directory, "milter")
    families = [each for each in vars(metrics).values() if hasattr(each, "metric")]
    in_code = {}
    for family in families:
        metric = family.metric
        [described] = metric.describe()
        name = described.name + ("_total" if described.type == "counter" else "")
        in_code[name] = (described.type, ", ".join(metric._labelnames))
    metrics.close()
    in_code |= {"elemta_healthy": ("gauge", ""), "elemta_ready": ("gauge", "")}
    text = (TESTS.parent / "docs" / "monitoring.md").read_text("utf-8")
    rows = re.findall(r"^\| `(elemta_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", text, re.MULTILINE)
    assert len(in_code) > 10
    assert {name: (kind, labels.strip().replace("`", "")) for name, kind, labels, _ in rows} == in_code
    assert len(rows) == len(in_code)


def test_what_alerts_ask_for_is_there_and_an_increase_has_a_beginning(directory):
    """Prometheus sees no increase in a series that appears with its first count."""
    metrics = Metrics(directory, "milter")
    known = {family.metric._name for family in vars(metrics).values() if hasattr(family, "metric")}
    known |= {name for name in ("elemta_healthy", "elemta_ready") if f"{name}{{}}" in samples(directory)}
    text = (TESTS.parent / "docs" / "monitoring.md").read_text("utf-8")
    [alerts] = re.findall(r"```yaml\n(groups:.*?)```", text, re.DOTALL)
    assert {re.sub("_(total|bucket)$", "", name) for name in re.findall(r"elemta_\w+", alerts)} <= known
    begun = samples(directory)
    increases = re.findall(r"increase\((elemta_\w+)(?:\{(\w+)=\"(\w+)\"\})?\[", alerts)
    assert len(increases) >= 3
    for name, label, value in increases:
        found = [each for each in begun if each.startswith(name) and (not label or f"{label}={value}" in each)]
        assert [begun[each] for each in found] == [0], name
    metrics.close()


def test_a_file_that_a_killed_process_had_only_begun_is_not_taken_for_damaged(directory):
    metrics = Metrics(directory, "milter")
    (Path(directory) / "counter_milter-9.db").touch()
    assert samples(directory)["elemta_worker_restarts_total{daemon=milter}"] == 0
    metrics.close()


def test_counts_for_which_there_is_no_room_are_told_when_there_is(directory, monkeypatch):
    metrics = Metrics(directory, "milter")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for number in range(600):
            metrics.shadow.child(f"{number:0200}").inc()
        with pytest.raises(OSError, match=r"No space left on device: .*/counter_milter-1\.db"):
            Metrics(directory, "milter")
    names = [f"elemta_shadow_matches_total{{rule={number:0200}}}" for number in range(600)]
    assert 0 < len(set(names).intersection(samples(directory))) < 600
    for number in range(600):
        metrics.shadow.child(f"{number:0200}").inc()
    found = samples(directory)
    assert {found[name] for name in names} == {2}
    metrics.close()


def test_a_label_with_octets_that_are_no_text_is_shown_as_text_and_a_long_one_is_cut(directory):
    metrics = Metrics(directory, "milter")
    for label in ("a\udcffb", "x" * 10_000):
        metrics.decided(decision(actions=(Action(ActionKind.LABEL, value=label),)))
    metrics.flush()
    found = samples(directory)
    assert found[r"elemta_labels_total{label=a\xffb}"] == 1
    assert found[f"elemta_labels_total{{label={'x' * 300}}}"] == 1
    metrics.close()

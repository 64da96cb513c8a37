"""Clock: a leap ahead is not believed until it has stood for a day; all else is."""

import json
import math
from dataclasses import replace

import pytest

from elemta import clock
from elemta.clock import Moment, believed, follow, look

DAY, HOUR, YEAR = 86400.0, 3600.0, 365 * 86400.0
NOON = Moment(1_800_000_000.0, 5000.0, "this boot")


def later(seconds, leap=0.0):
    return Moment(NOON.time + seconds + leap, NOON.uptime + seconds, NOON.boot)


def started(off, uptime, leap=0.0):
    """The machine was off for so long, and has been on for so long since."""
    return Moment(NOON.time + off + uptime + leap, uptime, "next boot")


def seen(seconds):
    """So long after noon the clock was first seen ahead."""
    return replace(later(seconds), stood=0.0)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param(later(60), later(60), id="time goes by"),
        pytest.param(later(30 * DAY), later(30 * DAY), id="nobody looked for a month, and the machine slept perhaps"),
        pytest.param(later(60, HOUR), later(60, HOUR), id="set forward by an hour"),
        pytest.param(later(60, HOUR + 1), seen(60), id="set forward by more"),
        pytest.param(later(60, 10 * YEAR), seen(60), id="ten years"),
        pytest.param(later(30 * DAY, 10 * YEAR), seen(30 * DAY), id="ten years, and nobody looked for a month"),
        pytest.param(later(60, -10 * YEAR), later(60, -10 * YEAR), id="set back"),
        pytest.param(started(600, 30), started(600, 30), id="a restart of ten minutes"),
        pytest.param(started(3 * DAY, 30), Moment(NOON.time, 30, "next boot", 0.0), id="off for days, or a leap"),
        pytest.param(
            started(0, 30, 10 * YEAR), Moment(NOON.time, 30, "next boot", 0.0), id="starts with a wrong clock"
        ),
        pytest.param(started(0, 30, -50 * YEAR), started(0, 30, -50 * YEAR), id="starts in 1970"),
        pytest.param(Moment(NOON.time, 10.0, NOON.boot), Moment(NOON.time, 10.0, NOON.boot), id="less uptime"),
    ],
)
def test_what_is_believed(moment, expected):
    assert follow(NOON, moment) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param(later(60 + HOUR, 10 * YEAR), replace(later(60 + HOUR), stood=HOUR), id="for an hour"),
        pytest.param(later(59 + DAY, 10 * YEAR), replace(later(59 + DAY), stood=DAY - 1), id="for nearly a day"),
        pytest.param(later(60 + DAY, 10 * YEAR), later(60 + DAY, 10 * YEAR), id="for a day"),
        pytest.param(later(DAY, 20 * YEAR), replace(later(DAY), stood=DAY - 60), id="leapt on"),
        pytest.param(later(DAY), later(DAY), id="taken back"),
    ],
)
def test_what_is_believed_when_it_was_seen_ahead(moment, expected):
    assert follow(seen(60), moment) == expected


def test_the_day_may_be_one_of_several_starts(tmp_path):
    """A machine that is off every night: else nothing would ever go there."""
    journal, ahead = str(tmp_path / "journal.db"), []
    for day in range(7):
        for minute in range(600):
            uptime = 30 + 60 * minute
            now = believed(journal, Moment(NOON.time + day * DAY + uptime, uptime, f"boot {day}"))
        ahead.append(round(now.ahead / HOUR))
    assert ahead == [0, 14, 28, 0, 14, 28, 0]


def test_people_are_told_once_a_day(tmp_path):
    journal = str(tmp_path / "journal.db")
    believed(journal, NOON)
    assert len({str(believed(journal, later(minute * 60, YEAR))) for minute in range(1, 1441)}) == 2


def test_after_a_start_with_a_wrong_clock_it_takes_a_day(tmp_path):
    journal = str(tmp_path / "journal.db")
    assert believed(journal, NOON).ahead == 0
    for uptime in (30, 3600, DAY - 1):
        now = believed(journal, started(0, uptime, 10 * YEAR))
        assert now.time == pytest.approx(NOON.time + uptime - 30)
        assert now.ahead == pytest.approx(10 * YEAR + 30)
        assert "leapt 87600 hours ahead" in str(now)
    now = believed(journal, started(0, DAY + 30, 10 * YEAR))
    assert (now.time, now.ahead) == (started(0, DAY + 30, 10 * YEAR).time, 0)


def test_a_leap_that_is_taken_back_leaves_nothing(tmp_path):
    journal = str(tmp_path / "journal.db")
    believed(journal, NOON)
    assert believed(journal, later(60, 10 * YEAR)).ahead > 0
    assert believed(journal, later(120)).ahead == 0
    assert believed(journal, later(180, 10 * YEAR)).ahead > 0


def test_a_leap_that_was_believed_and_is_taken_back_leaves_nothing(tmp_path):
    journal = str(tmp_path / "journal.db")
    believed(journal, NOON)
    assert believed(journal, later(60, 10 * YEAR)).ahead > 0
    assert believed(journal, later(DAY + 60, 10 * YEAR)).ahead == 0
    assert believed(journal, later(DAY + 60)).ahead == 0
    assert believed(journal, later(DAY + 120, 10 * YEAR)).ahead > 0


def test_looks_of_several_processes_are_one(tmp_path):
    journal = str(tmp_path / "journal.db")
    for second in range(0, 3000, 50):
        assert believed(journal, later(second)).ahead == 0
    at, *_ = json.loads((tmp_path / "journal.db-clock").read_bytes())
    assert NOON.time + 2400 <= at <= NOON.time + 2950
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db-clock"]
    assert (tmp_path / "journal.db-clock").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "noted",
    [
        b"",
        b"x",
        b"[]",
        b"[1, 2]",
        b'[NaN, 1, "a", null]',
        b'[1, 1, "a", NaN]',
        b'[1e999, 1, "a", null]',
        b'[-1e99, 1, "a", null]',
        b'["", 1, "a", null]',
        b"[" + b"1" * 350 + b', 1, "a", null]',
        b"{}",
        b"[" * 300,
        b"\xff\xfe",
        b"[" + b"1" * 9000,
    ],
)
def test_a_file_that_says_nothing_is_made_anew(tmp_path, noted):
    (tmp_path / "journal.db-clock").write_bytes(noted)
    assert believed(str(tmp_path / "journal.db"), NOON).time == NOON.time
    assert json.loads((tmp_path / "journal.db-clock").read_bytes()) == [NOON.time, NOON.uptime, NOON.boot, None]


def test_without_a_place_for_the_file_the_clock_is_believed(tmp_path):
    assert believed(str(tmp_path / "nowhere" / "journal.db"), NOON).time == NOON.time
    (tmp_path / "journal.db-clock").mkdir()
    assert believed(str(tmp_path / "journal.db"), NOON).time == NOON.time
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db-clock"]


def test_a_machine_that_hides_which_start_it_was_has_these_clocks_too(monkeypatch, tmp_path):
    monkeypatch.setattr(clock, "_BOOT", tmp_path / "hidden")
    assert look().boot == ""


def test_the_machine_has_these_clocks():
    moment = look()
    assert moment.boot
    assert 0 < moment.uptime < moment.time
    assert math.isclose(look().time - moment.time, look().uptime - moment.uptime, abs_tol=1)

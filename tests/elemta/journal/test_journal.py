"""The journal: what was decided comes back as it was, whatever a stranger wrote and whatever the disk does."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from elemta.decision import MATCHED
from elemta.facts import Client, Envelope
from elemta.findings import AuthResult, Finding, Result
from elemta.journal import BEGINNING, JournalError, Reader, expire, read
from elemta.journal.dispatch import dispatch
from elemta.journal.entry import entry, row
from elemta.journal.schema import FORM, connect
from elemta.verdict import Action, ActionKind, Disposition
from harness.decisions import POLICY, decision
from harness.journal import JournalWriter

TESTS = Path(__file__).parents[2]


class Keeping:
    """A writer that was opened, and what it reported."""

    def __init__(self, path, **more):
        self.path = str(path)
        self.reports = []
        self.writer = JournalWriter(self.path, self.reports.append, interval=0.05, **more)
        self.writer.policy("cafe00", POLICY)
        self.writer.open()

    def keep(self, *decisions):
        for each in decisions:
            self.writer.decided(each)

    def close(self):
        assert self.writer.close() == 0
        return Reader(self.path)


@pytest.fixture
def keeping(tmp_path):
    return Keeping(tmp_path / "journal.db")


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_a_decision_comes_back_with_everything_that_explains_it(keeping):
    given = decision(recipients=("bob@here.test", "Carol@here.test"), instance="12.34.0")
    keeping.keep(given)
    [found] = keeping.close().find(given.id)
    assert (found.id, found.stage, found.klass, found.policy) == (given.id, "message", "inbound", "cafe00")
    assert found.at == pytest.approx(given.at)
    assert (found.queue_id, found.instance) == ("4F3A1B2C3D", "12.34.0")
    assert (found.disposition, found.rule, found.reply) == (Disposition.REJECT, "spoofed", "550 5.7.1 Not allowed")
    assert (found.client, found.client_name, found.helo) == ("192.0.2.7", "mail.sender.test", "mail.sender.test")
    assert (found.sender, found.size) == ("alice@sender.test", 5700)
    assert found.recipients == ("bob@here.test", "Carol@here.test")
    assert (found.header_from, found.message_id) == ("Alice <alice@sender.test>", "<1@sender.test>")
    assert found.findings == tuple(given.findings)
    assert found.values == {"clamav": "pass", "spf": "fail", "subject": "hi", "client.address": "192.0.2.7"}
    assert found.trace == (0, MATCHED, MATCHED)
    assert (found.shadow, found.behind) == (("executable",), ("spf",))
    assert found.timings == {"spf": 0.0031, "clamav": 0.25}
    assert found.seconds == 0.2712
    assert found.actions == (Action(ActionKind.ADD_HEADER, "X-Seen", "yes", 0.0, "tag"),)
    assert [rule["id"] for rule in found.rules] == ["virus", "executable", "spoofed"]


def test_a_decision_about_a_recipient_has_no_header_and_its_own_rules(keeping):
    given = decision(stage="recipient", facts=Envelope(Client(), "", ("bob@here.test",)), values={}, findings=())
    keeping.keep(given)
    [found] = keeping.close().find(given.id)
    assert (found.client, found.sender, found.header_from, found.message_id) == ("", "", "", "")
    assert [rule["id"] for rule in found.rules] == ["greylist"]


def test_an_old_decision_keeps_the_words_of_its_policy_and_an_unknown_policy_is_none(keeping):
    keeping.writer.policy("beef00", {"rules": {"message": [{"id": "new", "when": []}]}})
    old, new, unknown = decision(), decision(policy="beef00"), decision(policy="0000")
    keeping.keep(old, new, unknown)
    reader = keeping.close()
    assert [rule["id"] for rule in reader.find(old.id)[0].rules] == ["virus", "executable", "spoofed"]
    assert [rule["id"] for rule in reader.find(new.id)[0].rules] == ["new"]
    assert reader.find(unknown.id)[0].rules is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("\udcff@x.test", "\\xff@x.test"),
        ("\udc00@x.test", "\\udc00@x.test"),
        *((words,) * 2 for words in ("a\r\nFake: line", "nul\0inside", '"quo\\"ted"@x.test', "пошта@укр", "x" * 5000)),
    ],
    ids=["octets", "surrogate", "line ends", "nul", "quotes", "utf-8", "long"],
)
def test_whatever_a_stranger_writes_is_kept(keeping, words, expected):
    client = Client(ip_address("2001:db8::1"), name=words, helo=words, login=words)
    given = decision(
        client=client, sender=words, recipients=(words, words), reply=f"550 5.7.1 {words}", values={"helo": words},
        headers=((b"FROM", words.encode("utf-8", "surrogatepass")), (b"message-id", b"\xff\xfe")),
        findings=(Finding("spf", Result.NONE, words, {"helo": words, "several": (words,) * 5000}),),
    )  # fmt: skip
    keeping.keep(given)
    [found] = keeping.close().find(given.id)
    assert (found.sender, found.helo, found.recipients) == (expected, expected, (expected, expected))
    assert "\n" not in found.header_from
    assert len(found.header_from) <= 300
    assert found.message_id == "\\xff\\xfe"
    assert len(found.values["helo"]) <= 1000
    assert len(found.findings[0].fields["several"]) == 100


def test_a_size_beyond_sqlite_does_not_stop_the_others(keeping):
    huge, good = decision(size=1 << 70), decision()
    keeping.keep(huge, good)
    reader = keeping.close()
    assert reader.find(huge.id)[0].size == (1 << 63) - 1
    assert reader.find(good.id)


def test_a_batch_that_sqlite_cannot_take_does_not_end_the_writing(keeping):
    keeping.writer.take((("\udcff", *row(dispatch(decision()))[1:]),))
    until(lambda: keeping.writer.dropped == 1)
    keeping.keep(decision(sender="good@x.test"))
    assert [entry.sender for entry in keeping.close().search()] == ["good@x.test"]
    assert "a batch of decisions is lost" in keeping.reports[0]


def test_find_takes_a_reference_as_people_read_it_out_and_a_queue_id_as_it_stands(keeping):
    given = decision(id="0123V56789", queue_id="4bXyZ12")
    before = decision(stage="recipient", queue_id="", instance="77.1", at=given.at - 5)
    between = decision(stage="recipient", queue_id="4bXyZ12", instance="77.1", at=given.at - 4)
    other = decision(instance="", queue_id="")
    keeping.keep(given, before, between, other)
    reader = keeping.close()
    assert [each.id for each in reader.find(" oL23u56789 ")] == [given.id]
    assert [each.id for each in reader.find("4bXyZ12")] == [before.id, between.id, given.id]
    assert reader.find("4BXYZ12") == []  # queue ids are told apart by case
    assert reader.find("") == []


def test_a_queue_id_leads_to_what_was_decided_at_rcpt_to_before_there_was_one(keeping):
    whole = decision(queue_id="4bXyZ12", recipients=("bob@here.test", "carol@here.test"))
    at_rcpt = {"stage": "recipient", "queue_id": "", "recipients": ("bob@here.test",)}
    tried, passed = decision(at=whole.at - 400, **at_rcpt), decision(at=whole.at - 2, **at_rcpt)
    keeping.keep(
        whole, tried, passed, decision(at=whole.at + 1, **at_rcpt), decision(at=whole.at - 4000, **at_rcpt),
        decision(at=whole.at - 1, sender="other@sender.test", **at_rcpt),
        decision(at=whole.at - 1, client=Client(ip_address("192.0.2.8")), **at_rcpt),
        decision(at=whole.at - 1, **{**at_rcpt, "recipients": ("dan@here.test",)}),
    )  # fmt: skip
    reader = keeping.close()
    assert [each.id for each in reader.find("4bXyZ12")] == [passed.id, whole.id]
    assert [each.id for each in reader.find(whole.id)] == [whole.id]


def test_search_by_every_criterion_newest_first(keeping):
    start = time.time() - 1000
    given = [
        decision(
            at=start + i, sender=f"s{i}@a.test", recipients=(f"r{i}@b.test", "all@b.test"), rule="spoofed" if i else ""
        )
        for i in range(10)
    ]
    given.append(decision(
        at=start + 10, rule="greylist", klass="submission", disposition=Disposition.DEFER, stage="recipient",
        client=Client(ip_address("2001:db8::1"), login="carol"), sender="50%_off@c.test",
    ))  # fmt: skip
    keeping.keep(*given)
    reader = keeping.close()
    special = [given[10].id]
    ids = lambda **criteria: [each.id for each in reader.search(**criteria)]  # noqa: E731
    assert ids() == [each.id for each in reversed(given)]
    assert ids(limit=2) == [given[10].id, given[9].id]
    assert ids(since=start + 3, until=start + 5) == [given[4].id, given[3].id]
    assert ids(sender="S3@A.TEST") == [given[3].id]
    assert ids(recipient="R4@b.test") == [given[4].id]
    assert len(ids(recipient="*@b.test")) == 10
    assert len(ids(sender="*@a.test")) == 10
    assert ids(sender="50%_*") == special
    assert ids(sender="5*_*") == special
    assert ids(sender="s_@a*") == ids(sender="s%@a*") == []
    assert ids(rule="") == [given[0].id]
    for criteria in (
        {"rule": "greylist"}, {"klass": "submission"}, {"disposition": "defer"}, {"stage": "recipient"},
        {"client": "2001:db8::1"}, {"client": "2001:*"}, {"login": "carol"},
    ):  # fmt: skip
        assert ids(**criteria) == special
    assert ids(rule="greylist", sender="s1@a.test") == []
    assert len(ids(message_id="<1@sender.test>")) == len(ids(header_from="*alice@*")) == 11
    assert ids(message_id="<2@sender.test>") == []
    with pytest.raises(TypeError, match="no criterion 'colour'; there are id, queue_id"):
        reader.search(colour="red")


def test_a_search_reads_a_few_at_a_time_and_tells_each_once(keeping, monkeypatch):
    now = time.time()
    given = [decision(at=now - number // 4, sender=f"s{number % 2}@a.test") for number in range(20)]
    keeping.keep(*given)
    reader = keeping.close()
    whole = [each.id for each in reader.search()]
    assert sorted(whole) == sorted(each.id for each in given)
    monkeypatch.setattr(read, "SLICE", 3)
    asked = []
    reader._database.set_trace_callback(lambda query: asked.append(query) if "FROM decisions d" in query else None)
    assert [each.id for each in reader.search()] == whole  # several of the same moment, and slices end among them
    assert len(asked) == 1 + 7  # which ones, and each slice
    assert [each.id for each in reader.search(limit=7)] == whole[:7]
    assert len(reader.search(sender="s1@a.test", since=now - 2)) == 6
    asked.clear()
    assert next(reader.each(limit=1_000_000)).id == whole[0]
    assert len(asked) == 1 + 1


def test_what_meets_the_criteria_is_looked_for_once(keeping, monkeypatch):
    """SQLite has no index for some of them in the order of time: each slice would go through all recipients again."""
    keeping.keep(*(decision() for _ in range(10)))
    reader = keeping.close()
    monkeypatch.setattr(read, "SLICE", 3)
    asked = []
    reader._database.set_trace_callback(asked.append)
    assert len(reader.search(recipient="*", sender="*")) == 10
    assert sum("FROM recipients" in query for query in asked) == 1


@pytest.mark.parametrize(
    "criteria",
    [{"id": "X"}, {"queue_id": "X"}, {"sender": "x"}, {"recipient": "x"}, {"client": "x"}, {"rule": "x"}],
    ids=str,
)
def test_what_people_search_for_is_found_by_an_index(keeping, criteria):
    keeping.keep(decision())
    reader = keeping.close()
    plans = []
    reader._database.set_trace_callback(plans.append)
    reader.search(**criteria)
    reader._database.set_trace_callback(None)
    [value] = criteria.values()
    assert f"'{value}'" in plans[0]
    asked = plans[0].replace(f"'{value}'", "?")  # as it is prepared: a partial index must be known to fit any value
    steps = [row[3] for row in reader._database.execute(f"EXPLAIN QUERY PLAN {asked}", (value,) * asked.count("?"))]
    assert not [step for step in steps if step.startswith("SCAN d")], steps
    assert any(step.startswith("SEARCH d") and "decisions_at" not in step for step in steps), steps


def test_expiry_goes_by_slices_and_takes_recipients_and_policies_along(keeping, tmp_path):
    now = time.time()
    keeping.keep(*(decision(at=now - 10_000 + i, policy="old", recipients=(f"r{i}@x.test",)) for i in range(30)))
    keeping.writer.policy("old", {"rules": {}})
    until(lambda: keeping.writer.waiting == 0)
    del keeping.writer._policies["old"]  # no process judges by it any more
    keeping.keep(decision(at=now, recipients=("new@x.test",)))
    keeping.close()
    assert [expire(keeping.path, now - 50, 20) for _ in range(3)] == [20, 10, 0]
    database = sqlite3.connect(keeping.path)
    assert database.execute("SELECT count(*) FROM decisions").fetchone() == (1,)
    assert database.execute("SELECT address FROM recipients").fetchall() == [("new@x.test",)]
    assert database.execute("SELECT fingerprint FROM policies").fetchall() == [("cafe00",)]


def test_expiry_does_not_read_all_that_an_address_ever_got(keeping, monkeypatch):
    now = time.time()
    keeping.keep(*(decision(at=now - 10_000 + i) for i in range(3000)))
    keeping.close()
    steps = []

    def counting(path, **how):
        database = connect(path, **how)
        database.set_progress_handler(lambda: steps.append("a hundred"), 100)
        return database

    monkeypatch.setattr(read, "connect", counting)
    assert expire(keeping.path, now - 10_000 + 10) == 10
    assert 0 < len(steps) < 100


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "journal.db"
    code = """
        import sys
        from harness.decisions import decision
        from harness.journal import JournalWriter
        writer = JournalWriter(sys.argv[1], print, interval=0.01)
        writer.open()
        for number in range(3000):
            writer.decided(decision(sender=f"{sys.argv[2]}-{number}@x.test"))
        sys.exit(writer.close(60))
    """
    processes = [subprocess.Popen(python(code, path, name)) for name in ("one", "two", "three")]
    assert [process.wait() for process in processes] == [0, 0, 0]
    reader = Reader(str(path))
    for name in ("one", "two", "three"):
        senders = {entry.sender for entry in reader.search(sender=f"{name}-*", limit=10_000)}
        assert senders == {f"{name}-{number}@x.test" for number in range(3000)}


def test_kill_9_under_load_costs_at_most_the_last_second(tmp_path):
    path = tmp_path / "journal.db"
    code = """
        import sys, time
        from harness.decisions import decision
        from harness.journal import JournalWriter
        writer = JournalWriter(sys.argv[1], print)
        writer.open()
        number = 0
        while True:
            writer.decided(decision(sender=f"{number}@x.test"))
            number += 1
            sys.stdout.write(f"{number} {time.time()}\\n")
            sys.stdout.flush()
            time.sleep(0.001)
    """
    process = subprocess.Popen(python(code, path), stdout=subprocess.PIPE, text=True)
    told = []
    reader = threading.Thread(target=lambda: told.extend(process.stdout))
    reader.start()
    until(lambda: len(told) > 1200, 60)
    process.send_signal(signal.SIGKILL)
    killed = time.time()
    process.wait()
    reader.join()
    process.stdout.close()
    kept = len(Reader(str(path)).search(limit=100_000))
    due = sum(1 for line in told if float(line.split()[1]) < killed - 1.0)
    assert due > 0
    assert kept >= due


def test_the_file_survives_a_kill_and_the_next_writer_goes_on(tmp_path):
    path = tmp_path / "journal.db"
    code = """
        import os, sys, time
        from harness.decisions import decision
        from harness.journal import JournalWriter
        writer = JournalWriter(sys.argv[1], print, interval=0.01)
        writer.open()
        writer.decided(decision(sender="first@x.test"))
        while not writer.written:
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
    """
    assert subprocess.run(python(code, path), check=False).returncode == -signal.SIGKILL
    keeping = Keeping(path)
    keeping.keep(decision(sender="second@x.test"))
    assert {entry.sender for entry in keeping.close().search()} == {"first@x.test", "second@x.test"}


def test_a_full_disk_loses_nothing_while_memory_lasts_and_says_so_once(keeping):
    keeping.keep(decision())
    until(lambda: keeping.writer.written == 1)
    full = threading.Event()
    full.set()
    commit = keeping.writer._commit

    def fill():  # SQLite's own "database or disk is full"
        if full.is_set():
            database = keeping.writer._connected()
            pages = database.execute("PRAGMA page_count").fetchone()[0]
            database.execute(f"PRAGMA max_page_count = {pages}")
        commit()

    keeping.writer._commit = fill
    keeping.keep(*(decision() for _ in range(700)))
    until(lambda: keeping.writer.failures >= 2)
    assert "full" in keeping.writer.trouble
    assert len(keeping.reports) == 1
    assert keeping.writer.waiting == 700
    full.clear()
    until(lambda: keeping.writer.written == 701)
    until(lambda: len(keeping.reports) == 2)
    assert "written again" in keeping.reports[1]
    assert keeping.writer.dropped == 0
    assert len(keeping.close().search(limit=1000)) == 701


def test_beyond_the_bound_the_oldest_go_and_are_counted(tmp_path):
    path = tmp_path / "absent" / "journal.db"
    keeping = Keeping(path, bound=600)
    given = [decision(sender=f"{number}@x.test") for number in range(2000)]
    for each in given:
        keeping.keep(each)
    until(lambda: keeping.writer.failures)
    assert "directory does not exist" in keeping.writer.trouble
    path.parent.mkdir()
    until(lambda: keeping.writer.waiting == 0)
    reader = keeping.close()
    kept = {entry.sender for entry in reader.search(limit=5000)}
    assert len(kept) == keeping.writer.written
    assert keeping.writer.written + keeping.writer.dropped == 2000
    assert {f"{number}@x.test" for number in range(1500, 2000)} <= kept


def test_a_file_that_stays_unwritable_does_not_hold_up_the_stop(tmp_path):
    keeping = Keeping(tmp_path / "absent" / "journal.db")
    keeping.keep(decision(), decision())
    began = time.monotonic()
    assert keeping.writer.close(grace=0.2) == 2
    assert time.monotonic() - began < 2  # and the writer's own thread does not hold it up longer
    assert keeping.writer.dropped == 2
    assert "2 decisions unwritten: " in keeping.reports[-1]
    assert "does not exist" in keeping.reports[-1]


def test_a_journal_moved_away_without_its_log_lacks_nothing(keeping, tmp_path):
    given = [decision() for _ in range(3)]
    keeping.keep(*given)
    until(lambda: keeping.writer.written == 3)
    other = sqlite3.connect(keeping.path)  # as other workers have: who closes last would empty the log
    other.execute("SELECT count(*) FROM decisions").fetchall()
    Path(keeping.path).rename(tmp_path / "away.db")
    later = decision()
    keeping.keep(later)
    assert [each.id for each in keeping.close().search()] == [later.id]
    other.close()
    assert {each.id for each in Reader(str(tmp_path / "away.db")).search()} == {each.id for each in given}


def test_a_journal_moved_away_is_begun_anew(keeping, tmp_path):
    keeping.keep(decision(sender="before@x.test"))
    until(lambda: keeping.writer.written == 1)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / f"moved-{file.name}")
    keeping.keep(decision(sender="after@x.test"))
    until(lambda: keeping.writer.written == 2)
    assert [entry.sender for entry in keeping.close().search()] == ["after@x.test"]


def test_a_lock_held_by_another_process_is_waited_for(keeping):
    keeping.keep(decision())
    until(lambda: keeping.writer.written == 1)
    other = sqlite3.connect(keeping.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    keeping.keep(decision())
    time.sleep(0.3)
    assert keeping.writer.written == 1
    other.execute("ROLLBACK")
    until(lambda: keeping.writer.written == 2)
    assert keeping.writer.dropped == 0


def test_who_reads_holds_up_nobody_who_writes(keeping):
    keeping.keep(decision())
    until(lambda: keeping.writer.written == 1)
    reading = sqlite3.connect(keeping.path, isolation_level=None)
    reading.execute("BEGIN")
    [before] = reading.execute("SELECT count(*) FROM decisions").fetchall()
    keeping.keep(decision())
    until(lambda: keeping.writer.written == 2, seconds=3.0)
    assert reading.execute("SELECT count(*) FROM decisions").fetchall() == [before] == [(1,)]
    reading.close()
    keeping.close()


def test_the_body_of_a_mail_is_not_kept_in_memory():
    given = decision()
    writer = JournalWriter("/nowhere", print)
    writer.decided(given)
    [columns] = writer._queue
    assert all(isinstance(column, str | int | float) for column in columns)


def newer(path):
    database = connect(str(path), write=True)
    database.execute(f"PRAGMA user_version = {len(FORM.scripts) + 1}")
    database.close()


def foreign(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE mine (x)")
    database.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no journal here; is journal.path right, and has a daemon judged a mail"),
        (lambda path: path.write_bytes(b"This is not SQLite at all, but long enough." * 100), "damaged"),
        (lambda path: path.write_bytes(b""), "no journal of Elemta"),
        (foreign, "of something else; let journal.path"),
        (newer, "of a newer Elemta"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
    ids=["missing", "garbage", "empty", "foreign", "newer", "directory"],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, make, words):
    path = tmp_path / "journal.db"
    make(path)
    with pytest.raises(JournalError, match=words) as raised:
        Reader(str(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        "detail = substr(detail, 9)",
        "detail = '[]'",
        "detail = '{}'",
        "recipients = 1",
        "disposition = 'x'",
        "recipients = '[1]'",
        "recipients = replace(hex(zeroblob(9999)), '0', '[')",
        "at = 1e308",
        "at = 'x'",
        "seconds = 'x'",
        "size = x'ff'",
        "client = x'ff'",
        "rule = x'ff'",
        "queue_id = x'ff'",
    ],
)
def test_a_row_that_cannot_be_read_is_told_as_damage(keeping, change):
    given = decision(id="0123V56789")
    keeping.keep(given)
    reader = keeping.close()
    database = connect(keeping.path, write=True)
    database.execute(f"UPDATE decisions SET {change}")
    database.commit()
    database.close()
    for ask in (lambda: reader.find(given.id), reader.search, lambda: reader.follow(BEGINNING)):
        with pytest.raises(JournalError, match=r"damaged \(a decision in it cannot be read"):
            ask()


def test_a_journal_that_is_damaged_while_it_is_open_is_trouble_and_no_crash(keeping):
    keeping.keep(decision())
    reader = keeping.close()
    database = connect(keeping.path, write=True)
    database.execute("DROP TABLE decisions")
    database.close()
    for ask in (
        lambda: reader.find("X"), reader.search, lambda: reader.follow(BEGINNING), lambda: reader.mark_before(0.0),
        reader.oldest, lambda: expire(keeping.path, 0.0),
    ):  # fmt: skip
        with pytest.raises(JournalError, match=rf"{keeping.path}: no such table"):
            ask()


def test_trouble_with_a_page_says_which_file_and_what_to_do(keeping):
    keeping.keep(*(decision() for _ in range(200)))
    until(lambda: keeping.writer.written == 200)
    reader = keeping.close()
    reader.oldest()  # it knows what stands in the file
    database = connect(keeping.path, write=True)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(keeping.path, "r+b") as file:  # noqa: PTH123
        file.seek(4096)
        file.write(bytes(os.stat(keeping.path).st_size - 4096))  # noqa: PTH116
    told = rf"{keeping.path}: damaged \(database disk image is malformed\); move it and its -wal and -shm files away"
    for ask in (lambda: reader.find("X"), reader.search, reader.oldest, lambda: expire(keeping.path, 2e9)):
        with pytest.raises(JournalError, match=told):
            ask()
    again = Keeping(keeping.path)
    again.keep(decision())
    until(lambda: again.writer.failures)
    assert re.match(told, again.writer.trouble)
    again.writer.close(grace=0.1)


def test_a_lock_that_lasts_is_told_with_its_file(keeping, monkeypatch):
    monkeypatch.setattr("elemta.journal.write.PATIENCE", 0.1)
    keeping.keep(decision())
    until(lambda: keeping.writer.written == 1)
    other = sqlite3.connect(keeping.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    keeping.keep(decision())
    until(lambda: keeping.writer.failures)
    assert keeping.writer.trouble == f"{keeping.path}: another process keeps it locked"
    other.close()


def test_a_path_may_begin_with_two_slashes(tmp_path):
    path = f"/{tmp_path}/journal.db"
    connect(path, write=True).close()

    assert Reader(path).oldest() is None


def test_only_owner_and_group_may_read_who_wrote_to_whom(tmp_path):
    path = tmp_path / "journal.db"
    connect(str(path), write=True).close()

    assert path.stat().st_mode & 0o777 == 0o640


def test_a_journal_in_a_closed_directory_is_not_called_missing(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    if os.geteuid() == 0:  # whom no mode stops
        os.seteuid(65534)
        try:
            with pytest.raises(JournalError, match="you may not look there; ask as root"):
                Reader(str(folder / "journal.db"))
        finally:
            os.seteuid(0)
    else:
        with pytest.raises(JournalError, match="you may not look there; ask as root"):
            Reader(str(folder / "journal.db"))


def test_a_database_of_something_else_is_never_written_to(tmp_path):
    path = tmp_path / "journal.db"
    foreign(path)
    octets = path.read_bytes()
    with pytest.raises(JournalError, match="something else"):
        connect(str(path), write=True)
    assert path.read_bytes() == octets


def test_an_older_file_is_brought_up_to_date_once(tmp_path):
    path = str(tmp_path / "journal.db")
    database = connect(path, write=True)
    later = replace(
        FORM, scripts=(*FORM.scripts, "ALTER TABLE decisions ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
    )
    later.migrate(database)
    later.migrate(database)
    assert later.recognise(database, path) == len(later.scripts)
    assert "colour" in [row[1] for row in database.execute("PRAGMA table_info(decisions)")]


# ── following it ─────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_follows_sees_every_complete_message_once(keeping):
    signed = (AuthResult("dkim", "pass", properties=(("header.d", "a.test"), ("header.s", "s1"))),)
    keeping.keep(*[decision(id=f"M{n}", findings=(Finding("dkim", Result.PASS, authres=signed),)) for n in range(5)])
    keeping.keep(decision(id="R", stage="recipient"), decision(id="M5"))
    reader = keeping.close()
    seen, mark = [], BEGINNING
    while True:
        entries, after = reader.follow(mark, limit=2)
        if after == mark:
            break
        seen, mark = seen + entries, after
    assert [entry.id for entry in seen] == ["M0", "M1", "M2", "M3", "M4", "M5"]
    assert seen[0].findings[0].authres == signed
    assert mark == (7, "M5")


def test_who_begins_to_follow_need_not_read_years(keeping):
    keeping.keep(*[decision(id=f"M{n}", at=1000.0 + n) for n in range(5)])
    reader = keeping.close()
    for at, expected in ((0.0, "M0"), (1003.0, "M3"), (1002.5, "M3")):
        entries, _ = reader.follow(reader.mark_before(at))
        assert entries[0].id == expected
    assert reader.mark_before(9999.0) == (5, "M4")


def test_following_goes_on_after_expiry_and_starts_anew_in_a_new_file(keeping, tmp_path):
    keeping.keep(decision(id="A0", at=1000.0, disposition=Disposition.QUARANTINE))
    keeping.keep(*[decision(id=f"A{n}", at=1000.0 + n) for n in (1, 2)])
    reader = keeping.close()
    _, mark = reader.follow(BEGINNING)
    assert mark == (3, "A2")
    again = Keeping(keeping.path)
    again.keep(decision(id="A3", at=2000.0))
    reader = again.close()
    assert expire(keeping.path, 1500.0, held=500.0) == 2
    entries, mark = reader.follow(mark)
    assert [entry.id for entry in entries] == ["A3"]
    reader.close()
    Path(keeping.path).rename(tmp_path / "away.db")
    for extra in ("-wal", "-shm"):
        Path(keeping.path + extra).unlink(missing_ok=True)
    anew = Keeping(keeping.path)
    anew.keep(*[decision(id=f"B{n}") for n in range(4)])
    reader = anew.close()
    entries, mark = reader.follow(mark)
    assert [entry.id for entry in entries] == ["B0", "B1", "B2", "B3"]
    assert mark == (4, "B3")
    assert reader.follow((9, "A9")) == (entries, mark)


def test_nothing_is_followed_in_an_empty_journal(tmp_path):
    path = str(tmp_path / "journal.db")
    connect(path, write=True).close()
    reader = Reader(path)
    assert reader.mark_before(0.0) == BEGINNING
    for mark in (BEGINNING, (9, "A9")):
        assert reader.follow(mark) == ([], mark)


def python(code, *args):
    start = f"import sys; sys.path[:0] = [{str(TESTS)!r}]\n"
    return [sys.executable, "-c", start + textwrap.dedent(code), *map(str, args)]


def test_a_long_entry_is_cut_but_not_the_rules_that_were_read(keeping):
    trace = [0] * 5000
    given = decision(trace=trace, findings=(Finding("spf", Result.PASS, "why" * 4000),), values={"helo": "h" * 2000})
    keeping.keep(given)
    [found] = keeping.close().find(given.id)
    assert found.trace == tuple(trace)
    assert len(found.findings[0].reason) == len(found.values["helo"]) == 1000


def test_what_a_short_entry_says_is_kept_whole(keeping):
    finding = Finding("dkim", Result.PASS, "r" * 2000, {"domains": ("a.test",) * 300})
    given = decision(findings=(finding,))
    keeping.keep(given)
    [found] = keeping.close().find(given.id)
    assert found.findings == (finding,)


def test_rows_of_the_first_journals_are_read():
    old = list(row(dispatch(decision(findings=(Finding("spf", Result.PASS),)))))
    told = json.loads(old[-1])
    told["findings"][0]["authres"] = [["spf", "pass", [["smtp.mailfrom", "a@b.test"]]]]
    read = entry([*old[:-1], json.dumps(told)])
    assert read.findings[0].authres == (AuthResult("spf", "pass", properties=(("smtp.mailfrom", "a@b.test"),)),)

"""The log: one line a decision, and no mail can write a second one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from select import PIPE_BUF

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.facts import Client, Envelope
from elemta.findings import Finding, Result
from elemta.observe import Log, MailLog
from elemta.observe.log import GATHER
from elemta.printable import clean, quoted, storable
from elemta.verdict import Action, ActionKind, Disposition
from harness.decisions import decision

STRANGE = st.text(st.characters(codec=None), max_size=400) | st.text(alphabet='\r\n\t\x1b\x7f\x9b\u202e\udcff" =\\a')


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A log in a file, and the lines that stand in it."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    file = tmp_path / "log"
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield lambda *args, **more: Log(*args, fd=fd, **more), lambda: file.read_text("utf-8").splitlines()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("elemta").setLevel(logging.NOTSET)
    os.close(fd)


def test_the_text_line_of_a_refused_message(written):
    make, lines = written
    MailLog(make()).decided(decision(id="7K2M9QX1RD", recipients=("bob@here.test", "carol@here.test")))
    assert lines() == [
        (
            "decided id=7K2M9QX1RD stage=message queue_id=4F3A1B2C3D class=inbound disposition=reject rule=spoofed "
            "client=192.0.2.7 helo=mail.sender.test sender=<alice@sender.test> recipients=2 recipient=<bob@here.test> "
            'size=5700 spf=fail clamav=temperror shadow=executable ms=271.2 reply="550 5.7.1 Not allowed"'
        )
    ]


def test_the_json_line_of_a_refused_message(written):
    make, lines = written
    MailLog(make("json")).decided(decision(id="7K2M9QX1RD"))
    [line] = lines()
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told == {
        "level": "info", "event": "decided", "id": "7K2M9QX1RD", "stage": "message", "queue_id": "4F3A1B2C3D",
        "class": "inbound", "disposition": "reject", "rule": "spoofed", "client": "192.0.2.7",
        "helo": "mail.sender.test", "login": "", "sender": "alice@sender.test", "recipients": 1,
        "recipient": "bob@here.test", "size": 5700, "findings": {"spf": "fail", "clamav": "temperror"},
        "shadow": ["executable"], "labels": [], "ms": 271.2, "reply": "550 5.7.1 Not allowed",
    }  # fmt: skip


def test_the_line_of_an_accepted_local_mail_is_short(written):
    make, lines = written
    facts = Envelope(Client(login="carol"), "", ("bob@here.test",))
    labels = (Action(ActionKind.LABEL, value="two words"), Action(ActionKind.LABEL, value="b"))
    MailLog(make()).decided(decision(
        id="X", stage="recipient", facts=facts, findings=(), disposition=Disposition.ACCEPT, rule="", reply="",
        shadow=(), actions=labels, seconds=0.0004,
    ))  # fmt: skip
    assert lines() == [
        (
            'decided id=X stage=recipient class=inbound disposition=accept rule=- client=- helo="" sender=<> '
            'login=carol recipients=1 recipient=<bob@here.test> size=- labels="two words,b" ms=0.4'
        )
    ]


def test_a_check_named_like_a_field_is_told_apart(written):
    make, lines = written
    MailLog(make()).decided(decision(findings=(Finding("size", Result.PASS), Finding("iprev", Result.FAIL))))
    assert " size=5700 check.size=pass iprev=fail " in lines()[0]


@pytest.mark.parametrize("form", ["text", "json"])
@given(words=STRANGE)
def test_no_mail_can_write_a_line_of_its_own(form, words):
    read, write = os.pipe()
    handlers = logging.getLogger().handlers[:]
    try:
        log = Log(form, fd=write)
        client = Client(helo=words, login=words, name=words)
        MailLog(log).decided(decision(client=client, sender=words, recipients=(words,), queue_id=words, reply=words))
        line = os.read(read, 65536).decode("utf-8", "strict")
    finally:
        logging.getLogger().handlers[:] = handlers
        os.close(read)
        os.close(write)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line) < 20_000
    if form == "json":
        told = json.loads(line)
        assert told["helo"] == words[:300]


@given(STRANGE)
def test_a_quoted_value_is_one_word_or_one_json_string(words):
    value = quoted(words, 100_000)
    if value.startswith('"'):
        assert json.loads(value) == words
    else:
        assert value == words
        assert not set(value) & set(' "=\\')


@given(STRANGE)
def test_clean_and_storable_text_can_be_shown_and_written(words):
    assert clean(words).isprintable()
    storable(words).encode("utf-8", "strict")
    if words.isprintable():
        assert clean(words) == words


def test_a_long_value_is_cut():
    assert quoted("x" * 1000) == "x" * 297 + "..."


def test_events_have_their_words_and_levels(written):
    make, lines = written
    log = make("text", "info", daemon="milter")
    log.started(version="1", workers=2)
    log.reloaded(ok=True)
    log.reloaded(ok=False, reason="no such\nfile")
    log.worker_died(1, how="signal SIGKILL")
    log.trouble("disk full")
    log.note("hello")
    log.stopped(lost=0, why=None)
    assert lines() == [
        "started daemon=milter version=1 workers=2",
        "reloaded daemon=milter ok=true",
        'reloaded daemon=milter ok=false reason="no such\\nfile"',
        'worker_died daemon=milter slot=1 how="signal SIGKILL"',
        'trouble daemon=milter text="disk full"',
        "note daemon=milter text=hello",
        "stopped daemon=milter lost=0",
    ]


def test_the_level_silences_what_is_below_it(written):
    make, lines = written
    log = make("text", "warning")
    log.note("quiet")
    MailLog(log).decided(decision())
    logging.getLogger("elemta.dns").info("quiet")
    log.trouble("loud")
    assert lines() == ["trouble text=loud"]
    make("text", "error")
    logging.getLogger("some.library").warning("quiet")
    assert lines()[1:] == []


def test_the_level_stands_in_json(written):
    make, lines = written
    log = make("json")
    log.trouble("disk full")
    log.worker_died(1)
    assert [json.loads(line)["level"] for line in lines()] == ["warning", "error"]


def test_what_modules_and_libraries_log_has_the_same_form(written):
    make, lines = written
    make()
    logging.getLogger("elemta.engine").info("a %s", "b\nc")
    logging.getLogger("elemta.engine").warning("d")
    logging.getLogger("library").info("quiet")
    logging.getLogger("library").error("loud %d", "wrong")
    try:
        raise ValueError("what\x1bhappened")  # noqa: TRY301
    except ValueError:
        logging.getLogger("elemta.engine").exception("crashed")
    found = lines()
    assert found[:3] == [
        'note from=engine text="a b\\nc"', "trouble from=engine text=d", 'trouble from=library text="loud %d"',
    ]  # fmt: skip
    assert len(found) == 4
    assert found[3].startswith('trouble from=engine text=crashed traceback="Traceback')
    assert found[3].endswith('ValueError: what\\u001bhappened"')


def test_lines_have_their_own_time_where_nobody_adds_one(written, monkeypatch):
    make, lines = written
    monkeypatch.delenv("JOURNAL_STREAM")
    make().note("x")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z note text=x", lines()[0])


def test_a_log_that_cannot_be_written_does_not_stop_the_mail(written):
    make, _ = written
    make()
    read, write = os.pipe()
    os.close(read)
    log = Log(fd=write)
    MailLog(log).decided(decision())
    assert log.dropped == 1
    os.close(write)


def test_lines_about_mails_gather_and_go_out_together(written, monkeypatch):
    make, lines = written
    calls = []
    monkeypatch.setattr(Log, "put", lambda self, text, put=Log.put: (calls.append(text), put(self, text)))

    names = [f"N{number:09}" for number in range(60)]

    async def judge():
        of_mails = MailLog(make(), asyncio.get_running_loop())
        for name in names:
            await asyncio.to_thread(of_mails.decided, decision(id=name))
        assert len(lines()) < 60
        await asyncio.sleep(GATHER * 3)
        assert len(lines()) == 60
        of_mails.decided(decision(id="BEFORE"))
        of_mails.close()
        of_mails.decided(decision(id="AFTER"))

    asyncio.run(judge())
    assert re.findall(r" id=(\S+)", "\n".join(lines())) == [*names, "BEFORE", "AFTER"]
    assert all(len(text) <= PIPE_BUF and text.endswith(b"\n") for text in calls), "several processes write to one pipe"
    assert len(calls) < 20


def test_a_line_is_written_also_when_the_loop_has_ended(written):
    make, lines = written
    loop = asyncio.new_event_loop()
    loop.close()
    MailLog(make(), loop).decided(decision())
    assert len(lines()) == 1


def test_a_loop_that_hangs_holds_up_lines_for_a_second_only(written, monkeypatch):
    make, lines = written
    monkeypatch.setattr("elemta.observe.log.LATE", 0.2)

    async def hang():
        of_mails = MailLog(make(), asyncio.get_running_loop())
        of_mails.decided(decision())
        time.sleep(0.3)  # noqa: ASYNC251 - that is the point
        of_mails.decided(decision())
        found = len(lines())
        of_mails.decided(decision())
        await asyncio.sleep(GATHER * 3)
        return found, len(lines())

    assert asyncio.run(hang()) == (2, 3)


def test_threads_that_write_at_once_lose_no_line(written):
    make, lines = written
    of_mails, begin = MailLog(make()), threading.Barrier(8)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def judge(_):
        begin.wait()
        for _ in range(200):
            of_mails.decided(decision())

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(judge, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert len(lines()) == 1600


def test_a_line_longer_than_all_that_may_go_together_is_whole(written):
    make, lines = written
    of_mails = MailLog(make())
    of_mails.decided(decision(findings=tuple(Finding(f"check{number}", Result.PASS) for number in range(400))))
    assert [len(line) > PIPE_BUF for line in lines()] == [True]

"""What was done with held mail, in the journal: kept, told, and thrown away with its decision."""

import sqlite3
from dataclasses import replace

import pytest

from elemta import explain
from elemta.journal import Act, Deed, JournalError, Reader, expire, record
from elemta.journal.schema import FORM, connect
from elemta.verdict import Disposition
from harness.decisions import decision
from harness.journal import JournalWriter

DAY = 86400.0


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "journal.db")
    writer = JournalWriter(path, print)
    writer.open()
    writer.decided(decision(id="HELDAAAAAA", at=10 * DAY, disposition=Disposition.QUARANTINE, queue_id="AzA"))
    writer.decided(decision(id="REFUSEDAAA", at=10 * DAY))
    assert writer.close() == 0
    return path


def entries(path):
    reader = Reader(path)
    try:
        return {entry.id: entry for entry in reader.search()}
    finally:
        reader.close()


def test_acts_are_told_with_their_decision_in_order(path):
    given = [Act("HELDAAAAAA", 11 * DAY, Deed.RELEASED, "root"), Act("HELDAAAAAA", 12 * DAY, Deed.DELETED, "a\x1b[2J")]
    record(path, given)
    record(path, [])
    assert entries(path)["HELDAAAAAA"].acts == tuple(given)
    assert entries(path)["REFUSEDAAA"].acts == ()
    reader = Reader(path)
    [entry] = reader.find("AzA")
    reader.close()
    assert explain.data(entry)["acts"][0] == {"at": "1970-01-12T00:00:00.000+00:00", "deed": "released", "who": "root"}
    story = explain.story(entry)
    assert "Afterwards\n" in story
    assert "released by root\n" in story
    assert "deleted by a\\x1b[2J\n" in story


def test_a_decision_that_was_not_carried_out_is_told_so(path):
    record(path, [Act("HELDAAAAAA", 11 * DAY, Deed.UNDONE, "elemta-milter")])
    assert "not carried out, the mail was deferred by elemta-milter\n" in explain.story(entries(path)["HELDAAAAAA"])


def test_what_holds_mail_stays_as_long_as_the_mail(path):
    record(path, [Act("HELDAAAAAA", 11 * DAY, Deed.RELEASED, "root")])
    assert expire(path, 20 * DAY, held=5 * DAY) == 1
    assert [*entries(path)] == ["HELDAAAAAA"]
    assert len(entries(path)["HELDAAAAAA"].acts) == 1
    assert expire(path, 20 * DAY, held=30 * DAY) == 1, "a shorter time of held mail does not shorten the journal's"
    assert entries(path) == {}
    assert sqlite3.connect(path).execute("SELECT count(*) FROM acts").fetchone() == (0,)


def test_a_journal_from_before_there_were_acts_gets_its_table(tmp_path):
    path = str(tmp_path / "old.db")
    old = sqlite3.connect(path, isolation_level=None)
    replace(FORM, scripts=FORM.scripts[:1]).migrate(old)
    old.close()
    with pytest.raises(JournalError, match="start a daemon once"):
        Reader(path)
    connect(path, write=True).close()
    assert entries(path) == {}

"""Failure reports: off by default, redacted, few; RFC 9991."""

from __future__ import annotations

import email
import email.policy
import sqlite3
from contextlib import closing

import pytest

from elemta.testing import FakeResolver
from elemta_milter.reports import failures
from elemta_milter.reports.counting import published, row
from elemta_milter.reports.failures import failure
from elemta_milter.reports.windows import DAY as LONG
from elemta_milter.reports.windows import HOUR
from harness.reported import DAY, RECORD, TERMS, Postbox, entry, keep, mail, read_by_parsedmarc, run, settings, states

FAILED = {
    "result": "fail",
    "dkim": False,
    "spf": False,
    "spf_result": "fail",
    "signatures": (("sender.test", "s1", "fail"),),
}
LATER = DAY + 10_000 + 2 * HOUR


def seen(record=RECORD, **changes):
    one = entry(record=record, **changes)
    return failure(one, published(one, TERMS), row(one, TERMS))


@pytest.mark.parametrize(
    ("fo", "changes", "wanted"),
    [
        ("", FAILED, True),
        ("fo=0", FAILED, True),
        ("fo=0", {"spf": False}, False),
        ("fo=1", {"spf": False}, True),
        ("fo=1", {"dkim": False}, True),
        ("fo=1", {}, False),
        ("fo=d", FAILED, False),  # that asks for reports of DKIM (RFC 6651), which we do not send
        ("fo=1:d:s", FAILED, True),
        ("psd=y", FAILED, False),  # RFC 9991: never for a public suffix
        ("", {"result": "temperror", "dkim": False, "spf": False}, False),
        ("fo=1", {"result": "temperror", "dkim": False, "spf": False}, False),  # neither passed nor failed
    ],
)
def test_who_asks_for_what(fo, changes, wanted):
    assert (seen(f"{RECORD}; {fo}", **changes) is not None) is wanted


def test_nobody_asks_without_ruf():
    assert seen("v=DMARC1; p=reject; rua=mailto:agg@sender.test", **FAILED) is None


def test_off_by_default(tmp_path):
    keep(tmp_path / "journal.db", mail(**FAILED))
    told, postbox = run(settings(tmp_path), LATER)
    assert (told, postbox.sent) == ([], [])


def sent(tmp_path, *mails, **more):
    keep(tmp_path / "journal.db", *mails)
    zone = {"sender.test": [("TXT", "v=spf1 ip4:192.0.2.1 -all"), ("TXT", 'other "x"')]}
    return run(settings(tmp_path, failures=10, **more), LATER, zone=zone)


def test_like_failures_of_an_hour_are_one_report(tmp_path):
    header = (
        (b"From", b" Anna <anna.secret@sender.test>"),
        (b"Message-ID", b" <1@sender.test>"),
        (b"Subject", b" hush"),
    )
    failed = FAILED | {"headers": header, "sender": "anna.secret@sender.test", "recipients": ("bob.private@here.test",)}
    told, postbox = sent(tmp_path, *[mail(**failed, at=DAY + 10_000.0 + n) for n in range(7)])
    assert states(told) == [("fail@sender.test", "sent")]
    [(_, _, data)] = postbox.sent
    for personal in (b"anna", b"secret", b"bob", b"private", b"here.test", b"hush"):
        assert personal not in data.lower()
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "feedback-report"
    kinds = [part.get_content_type() for part in message.iter_parts()]
    assert kinds == ["text/plain", "message/feedback-report", "text/rfc822-headers"]
    feedback = data.split(b"Feedback-Type", 1)[1].split(b"\r\n\r\n")[0].decode()
    for line in (
        "Auth-Failure: dmarc", "Identity-Alignment: dkim, spf", "Source-IP: 192.0.2.7", "Incidents: 7",
        "DKIM-Domain: sender.test", "DKIM-Selector: s1", "Original-Mail-From: <redacted@sender.test>",
        "Authentication-Results: mx.receiver.test; dmarc=fail header.from=sender.test",
        'SPF-DNS: txt : sender.test : "v=spf1 ip4:192.0.2.1 -all"', "Reported-Domain: sender.test",
    ):  # fmt: skip
        assert line in feedback
    assert run(settings(tmp_path, failures=10), LATER + 600)[1].sent == []


def test_what_failed_of_another_host_of_the_same_organization_is_told(tmp_path):
    """RFC 9991: DKIM-Domain and SPF-DNS are required where an aligned identifier failed; example.com is far from it."""
    signatures = (("example.com", "s1", "fail"), ("mail.sender.test", "s2", "fail"))
    of = {"domain": "news.sender.test", "spf_domain": "bounce.sender.test", "signatures": signatures}
    keep(tmp_path / "journal.db", mail(**FAILED | of))
    zone = {"bounce.sender.test": [("TXT", "v=spf1 -all")]}
    _, postbox = run(settings(tmp_path, failures=10), LATER, zone=zone)
    assert b"DKIM-Domain: mail.sender.test\r\n" in postbox.sent[0][2]
    assert b'SPF-DNS: txt : bounce.sender.test : "v=spf1 -all"\r\n' in postbox.sent[0][2]


def test_what_a_domain_publishes_writes_no_line_of_its_own(tmp_path):
    keep(tmp_path / "journal.db", mail(**FAILED))
    zone = {"sender.test": [("TXT", 'v=spf1 \r\nIncidents: 9\r\n"\\ -all')]}
    _, postbox = run(settings(tmp_path, failures=10), LATER, zone=zone)
    assert b'SPF-DNS: txt : sender.test : "v=spf1 Incidents: 9 -all"\r\n' in postbox.sent[0][2]


def test_mail_that_passed_by_one_mechanism_alone_did_not_fail(tmp_path):
    _, postbox = sent(tmp_path, mail(record=f"{RECORD}; fo=1", spf=False))
    assert b"dmarc=pass header.from=sender.test" in postbox.sent[0][2]
    assert b"dmarc=fail" not in postbox.sent[0][2]
    assert b"Identity-Alignment: spf\r\n" in postbox.sent[0][2]


def test_parsedmarc_reads_it(tmp_path):
    _, postbox = sent(tmp_path, mail(**FAILED))
    found = read_by_parsedmarc(postbox.sent[0][2])
    assert found["report_type"] in {"failure", "forensic"}
    assert found["feedback_type"] == "auth-failure"
    assert found["reported_domain"] == "sender.test"
    assert found["source"]["ip_address"] == "192.0.2.7"


def test_different_clients_are_different_reports_up_to_the_limit(tmp_path):
    keep(tmp_path / "journal.db", *[mail(**FAILED, client=f"192.0.2.{n}") for n in range(6)])
    of = settings(tmp_path, failures=4)
    _, postbox = run(of, LATER)
    assert len(postbox.sent) == 4
    run(of, LATER + 600, postbox)
    assert len(postbox.sent) == 4
    run(of, LATER + HOUR + 1, postbox)
    assert len(postbox.sent) == 6


def test_what_a_clock_that_was_ahead_sent_does_not_use_up_the_limit(tmp_path):
    keep(tmp_path / "journal.db", *[mail(**FAILED, client=f"192.0.2.{n}") for n in range(6)])
    of = settings(tmp_path, failures=4)
    _, postbox = run(of, LATER + 20 * HOUR)
    run(of, LATER, postbox)
    assert len(postbox.sent) == 6


TWO = "v=DMARC1; p=reject; ruf=mailto:fail@sender.test,mailto:slow@sender.test"


def test_one_address_that_must_wait_neither_lifts_the_limit_nor_keeps_the_others_busy(tmp_path):
    keep(tmp_path / "journal.db", *[mail(**FAILED, record=TWO, client=f"192.0.2.{n}") for n in range(4)])
    of = settings(tmp_path, failures=2)
    told, postbox = run(of, LATER, Postbox(slow=("postponed", "451 later")))
    assert states(told) == [("fail@sender.test", "sent"), ("slow@sender.test", "postponed")] * 2
    postbox.answers.clear()
    assert run(of, LATER + 600, postbox)[0] == []
    told, _ = run(of, LATER + HOUR + 1, postbox)
    assert sorted(states(told)) == [("fail@sender.test", "sent")] * 2 + [("slow@sender.test", "sent")] * 4
    assert run(of, LATER + 3 * HOUR, postbox)[0] == []


def test_reports_that_nobody_gets_take_no_place(tmp_path):
    wrong = "v=DMARC1; p=reject; ruf=mailto:x@victim.test"
    others = {"record": wrong, "domain": "evil.test", "policy_domain": "evil.test"}
    keep(tmp_path / "journal.db", *[mail(**FAILED | others, client=f"192.0.2.{n}") for n in range(5)], mail(**FAILED))
    told, _ = run(settings(tmp_path, failures=1), LATER)
    assert states(told) == [("x@victim.test", "not sent")] * 5 + [("fail@sender.test", "sent")]


def test_an_address_whose_host_keeps_silent_is_asked_for_once_a_run(tmp_path):
    slow = "v=DMARC1; p=reject; ruf=mailto:x@slow.test"
    keep(tmp_path / "journal.db", *[mail(**FAILED, record=slow, client=f"192.0.2.{n}") for n in range(5)])
    zone = {"sender.test._report._dmarc.slow.test": [("TXT", "TIMEOUT")]}
    asked = []

    async def query(self, name, rdtype, plain=FakeResolver.query):
        asked.append(name)
        return await plain(self, name, rdtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeResolver, "query", query)
        told, _ = run(settings(tmp_path, failures=2), LATER, zone=zone)
    assert states(told) == [("x@slow.test", "postponed")] * 5
    assert asked.count("sender.test._report._dmarc.slow.test") == 1
    assert "sender.test" not in asked  # its SPF record, for a report that nobody gets


def test_a_flood_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(failures, "KINDS", 5)
    keep(tmp_path / "journal.db", *[mail(**FAILED, client=f"192.0.2.{n}") for n in (*range(20), 0, 19)])
    _, postbox = run(settings(tmp_path, failures=100), LATER)
    incidents = [data.partition(b"Incidents: ")[2][:1] for _, _, data in postbox.sent]
    assert sorted(incidents) == [b"1", b"1", b"1", b"1", b"2"]  # those that are kept are counted on


def test_what_is_old_goes(tmp_path):
    sent(tmp_path, mail(**FAILED))
    kept = []
    for days in (1, 3):
        run(settings(tmp_path, failures=10), LATER + days * LONG)
        with closing(sqlite3.connect(tmp_path / "reports.db")) as database:
            kept += database.execute("SELECT count(*) FROM failures").fetchone()
    assert kept == [1, 0]


def test_external_addresses_are_verified_for_them_too(tmp_path):
    told, postbox = sent(tmp_path, mail(**FAILED, record="v=DMARC1; p=reject; ruf=mailto:x@victim.test"))
    assert states(told) == [("x@victim.test", "not sent")]
    assert postbox.sent == []


def test_a_message_id_cannot_break_the_report(tmp_path):
    header = ((b"From", b" a@sender.test"), (b"Message-ID", b" <1>\r\n\r\nEvil: yes\x00\xff"))
    _, postbox = sent(tmp_path, mail(**FAILED, headers=header))
    assert b"\r\nEvil" not in postbox.sent[0][2]

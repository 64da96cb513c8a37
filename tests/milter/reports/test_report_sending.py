"""From the journal to the mail: each decision counted once, each address written to once, nobody for ever."""

from __future__ import annotations

import asyncio
import email
import email.policy
import subprocess
import sys
import threading
from pathlib import Path

import dkim
import pytest
import xmlschema

from elemta.journal import expire
from elemta_milter.mailauth.signing import SigningKey
from elemta_milter.reports import counts
from elemta_milter.reports.collecting import Ledger
from elemta_milter.reports.ledger_file import LedgerError
from elemta_milter.reports.office import read_journal
from elemta_milter.reports.sending import close_windows, report, send, windows
from elemta_milter.reports.windows import DAY as LONG
from elemta_milter.reports.windows import HOUR, Window, window
from harness.reported import (
    DAY,
    MORNING,
    RECORD,
    Postbox,
    keep,
    mail,
    office,
    read_by_parsedmarc,
    run,
    settings,
    states,
)
from harness.signatures import pem, rsa_private

ROOT = Path(__file__).parents[3]


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.db"


def ledger(tmp_path):
    return Ledger.open(str(tmp_path / "reports.db"))


# ── the way of one report ────────────────────────────────────────────────────────────────────────────────


def test_a_day_becomes_one_mail_that_everybody_can_read(tmp_path, journal):
    keep(journal, *[mail(at=DAY + n * 7200.0) for n in range(12)], mail(result="fail", dkim=False, spf=False))
    told, postbox = run(settings(tmp_path))
    assert states(told) == [("agg@sender.test", "sent")]
    [(sender, recipient, data)] = postbox.sent
    assert recipient == "agg@sender.test"
    assert sender.startswith("dmarc+r")
    assert sender.endswith("@receiver.test")
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert message["from"] == "Receiver <dmarc@receiver.test>"
    assert message["to"] == "agg@sender.test"
    assert message["auto-submitted"] == "auto-generated"
    words = message["subject"].split()
    assert words[:5] == ["Report", "Domain:", "sender.test", "Submitter:", "mx.receiver.test"]
    _, attachment = message.iter_parts()
    assert attachment.get_content_type() == "application/gzip"
    assert attachment.get_filename().startswith(f"mx.receiver.test!sender.test!{DAY}!{DAY + LONG - 1}!")
    assert f"<{attachment.get_filename().split('!')[4].removesuffix('.xml.gz')}>" == words[-1]
    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert b"\n" not in data.replace(b"\r\n", b"")
    found = read_by_parsedmarc(data)
    assert found["report_type"] == "aggregate"
    assert sorted(each["count"] for each in found["records"]) == [1, 12]


def test_it_is_signed_with_the_keys_of_its_domain(tmp_path, journal):
    (tmp_path / "key.pem").write_bytes(pem(rsa_private()))
    (tmp_path / "key.pem").chmod(0o600)
    key = [{"selector": "r", "file": str(tmp_path / "key.pem")}]
    sign = [{"domain": "receiver.test", "keys": key}, {"domain": "unrelated.test", "keys": key}]
    keep(journal, mail())
    _, postbox = run(settings(tmp_path, sign=sign, organization='Empfänger, "GmbH"'))
    [(_, _, data)] = postbox.sent
    record = SigningKey("receiver.test", "r", rsa_private()).record.encode()
    assert data.count(b"DKIM-Signature:") == 1
    assert dkim.verify(data, dnsfunc=lambda name, timeout=5: {b"r._domainkey.receiver.test.": record}[name])
    assert email.message_from_bytes(data, policy=email.policy.default)["from"].addresses[0].display_name == (
        'Empfänger, "GmbH"'
    )


def test_words_about_us_over_several_lines_become_one(tmp_path, journal):
    """As a block scalar of YAML has them; a line end in From would end the keeper."""
    keep(journal, mail())
    _, postbox = run(settings(tmp_path, organization="Receiver\n  Ltd\n", contact="https://receiver.test\n"))
    [(_, _, data)] = postbox.sent
    assert data.startswith(b"From: Receiver Ltd <dmarc@receiver.test>\r\n")
    assert read_by_parsedmarc(data)["report_metadata"]["org_name"] == "Receiver Ltd"


@pytest.mark.parametrize("key", ["organization", "contact"])
def test_words_that_do_not_print_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match="does not print"):
        settings(tmp_path, **{key: "a\x07b"})


def test_without_its_key_it_waits(tmp_path, journal):
    sign = [{"domain": "receiver.test", "keys": [{"selector": "r", "file": str(tmp_path / "missing.pem")}]}]
    keep(journal, mail())
    with pytest.raises(LedgerError, match="cannot be signed"):
        run(settings(tmp_path, sign=sign))


def test_it_goes_to_the_address_as_published(tmp_path, journal):
    """RFC 5321 section 2.4: the case of a local part is its host's matter."""
    keep(journal, mail(record="v=DMARC1; p=none; rua=mailto:Re+AbC@Sender.TEST,mailto:re+abc@sender.test"))
    told, postbox = run(settings(tmp_path))
    assert states(told) == [("re+abc@sender.test", "sent")]
    [(_, recipient, data)] = postbox.sent
    assert recipient == "Re+AbC@sender.test"
    assert b"\r\nTo: <Re+AbC@sender.test>\r\n" in data
    assert run(settings(tmp_path), MORNING + HOUR)[1].sent == []


# ── once, and only once ──────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_sends_nothing(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    _, postbox = run(of)
    for later in (MORNING, MORNING + 60, MORNING + LONG):
        run(of, later, postbox)
    assert len(postbox.sent) == 1


def test_what_comes_late_for_a_sent_window_is_not_sent_again(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    _, postbox = run(of)
    keep(journal, mail(), mail(at=DAY + LONG + 60.0))
    run(of, MORNING + LONG, postbox)
    assert [read_by_parsedmarc(data)["report_metadata"]["begin_date"] for _, _, data in postbox.sent] == [
        "2023-11-15 00:00:00",
        "2023-11-16 00:00:00",
    ]


def begins(postbox):
    return [read_by_parsedmarc(data)["report_metadata"]["begin_date"][:10] for _, _, data in postbox.sent]


def test_a_clock_that_was_ahead_ends_no_reports(tmp_path, journal):
    """A report about a day to come was the last one of its domain until that day."""
    of, ahead = settings(tmp_path), 300 * LONG
    keep(journal, mail(at=DAY + ahead + 300.0))
    _, postbox = run(of, MORNING + ahead)
    for day in range(2):
        keep(journal, mail(at=DAY + day * LONG + 5000.0))
        run(of, MORNING + day * LONG, postbox)
    assert begins(postbox) == ["2024-09-10", "2023-11-15", "2023-11-16"]


def test_what_comes_late_for_a_window_of_no_report_becomes_one_that_ends_where_the_next_begins(tmp_path, journal):
    of, hourly = settings(tmp_path), RECORD + "; ri=3600"
    keep(journal, mail(at=DAY + 5 * HOUR + 60.0, record=hourly))
    _, postbox = run(of, DAY + 6 * HOUR + 700)
    keep(journal, mail(at=DAY + 3 * HOUR + 60.0), mail(at=DAY + 7 * HOUR + 60.0))
    run(of, MORNING, postbox)
    names = [email.message_from_bytes(data).get_payload()[1].get_filename() for _, _, data in postbox.sent]
    spans = [[(int(at) - DAY) // HOUR for at in name.split("!")[2:4]] for name in names]
    assert sorted(spans) == [[0, 4], [5, 5], [6, 23]]
    assert sum(read_by_parsedmarc(data)["records"][0]["count"] for _, _, data in postbox.sent) == 3


def test_nothing_leaves_before_its_hour(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path, hour=3)
    for early in (DAY + LONG - 1, DAY + LONG, DAY + LONG + 3 * HOUR - 1):
        assert run(of, early)[0] == []
    assert states(run(of, DAY + LONG + 3 * HOUR)[0]) == [("agg@sender.test", "sent")]


def test_a_machine_that_slept_catches_up_for_two_days(tmp_path, journal):
    keep(journal, *[mail(at=DAY + day * LONG + 100.0) for day in range(4)])
    told, _ = run(settings(tmp_path), DAY + 4 * LONG + 2 * HOUR)
    assert sorted((one.parcel.window.begin - DAY) // LONG for one in told) == [2, 3]


def test_each_decision_is_counted_once_by_whoever_reads(tmp_path, journal):
    keep(journal, *[mail(client=f"192.0.2.{n % 250}") for n in range(3000)])
    of = settings(tmp_path)
    code = (
        "import sys, asyncio; sys.path[:0] = [sys.argv[1]]\n"
        "from harness.reported import *\n"
        "of = settings(sys.argv[2])\n"
        "from elemta_milter.reports.office import read_journal\n"
        "async def once():\n"
        "    async with office(of, Postbox()) as opened:\n"
        "        await read_journal(opened, of, of.reports, DAY + 20_000)\n"
        "asyncio.run(once())\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "tests"), str(tmp_path)]
    others = [subprocess.Popen(command) for _ in range(3)]
    assert [each.wait(60) for each in others] == [0, 0, 0]
    opened = ledger(tmp_path)
    assert opened.counts.mails(Window("sender.test", DAY, DAY + LONG)) == 3000
    opened.file.close()
    _, postbox = run(of)
    assert sum(each["count"] for each in read_by_parsedmarc(postbox.sent[0][2])["records"]) == 3000


def test_two_senders_at_once_write_to_each_address_once(tmp_path, journal):
    record = "v=DMARC1; p=none; rua=" + ",".join(f"mailto:a{n}@sender.test" for n in range(8))
    keep(journal, *[mail(record=record, policy="none", policy_domain=f"d{n}.sender.test") for n in range(6)])
    of, postbox = settings(tmp_path), Postbox()
    zone = {f"_dmarc.d{n}.sender.test": [("TXT", record)] for n in range(6)}
    threads = [threading.Thread(target=run, args=(of, MORNING, postbox, zone)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    sent = [(recipient, read_by_parsedmarc(data)["policy_published"]["domain"]) for _, recipient, data in postbox.sent]
    assert len(sent) == len(set(sent)) == 48


def test_a_claim_that_was_never_settled_is_not_sent_again(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)

    class Killed(BaseException):
        pass

    class Dying(Postbox):
        def send(self, sender, recipient, data):
            raise Killed

    with pytest.raises(Killed):
        run(of, postbox=Dying())
    _, postbox = run(of, MORNING + 60)
    assert postbox.sent == []
    opened = ledger(tmp_path)
    [due] = opened.outgoing.reports()
    assert [(each.address, each.state) for each in due.deliveries] == [("agg@sender.test", "claimed")]
    opened.file.close()


def test_what_another_process_sends_just_now_and_gives_back_is_sent(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    told = []

    class Slow(Postbox):
        def send(self, sender, recipient, data):
            told.extend(run(of, MORNING + 1)[0])
            return "postponed", "451 later"

    assert states(run(of, postbox=Slow())[0]) == [("agg@sender.test", "postponed")]
    assert states(told) == [("agg@sender.test", "postponed")]
    assert states(run(of, MORNING + 2 * HOUR)[0]) == [("agg@sender.test", "sent")]


def test_a_stop_waits_for_the_report_that_is_being_handed_over(tmp_path, journal):
    """As at every reload: the claim was left behind, and the report unsent or cut in two by QUIT."""
    begun, finish = threading.Event(), threading.Event()

    class Slow(Postbox):
        def send(self, sender, recipient, data):
            begun.set()
            finish.wait(5)
            return super().send(sender, recipient, data)

    async def stopped():
        keep(journal, mail())
        async with office(of := settings(tmp_path), Slow()) as opened:
            await read_journal(opened, of, of.reports, MORNING)
            close_windows(opened, MORNING)
            task = asyncio.create_task(send(opened, MORNING))
            await asyncio.to_thread(begun.wait, 5)
            task.cancel()
            asyncio.get_running_loop().call_later(0.05, finish.set)
            with pytest.raises(asyncio.CancelledError):
                await task
            return [each.state for due in opened.ledger.outgoing.reports() for each in due.deliveries]

    assert asyncio.run(stopped()) == ["sent"]


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hour", "interval", "shortest", "gap", "begin", "hours"),
    [
        (5, 86400, 3600, (0, 30), 0, 24),
        (5, 3600, 3600, (0, 30), 5, 1),
        (5, 1, 3600, (0, 30), 5, 1),
        (5, 7200, 3600, (0, 30), 4, 2),
        (5, 5 * 3600, 3600, (0, 30), 4, 4),
        (5, 40_000, 3600, (0, 30), 0, 8),
        (23, 43_200, 3600, (0, 30), 12, 12),
        (5, 3600, 86400, (0, 30), 0, 24),
        (5, 999_999, 3600, (0, 30), 0, 24),
        (5, 86400, 3600, (4, 30), 4, 20),  # it was reported until 4 o'clock
        (5, 7200, 3600, (5, 30), 5, 1),
        (5, 86400, 3600, (4, 7), 4, 3),  # and from 7 o'clock on
        (5, 3600, 3600, (4, 7), 5, 1),
    ],
)
def test_where_windows_lie(hour, interval, shortest, gap, begin, hours):
    reported, until = gap
    found = window("a.test", DAY + hour * HOUR, interval, shortest, (DAY + reported * HOUR, DAY + until * HOUR))
    assert ((found.begin - DAY) // HOUR, (found.end - found.begin) // HOUR) == (begin, hours)


def test_a_domain_that_asks_for_hourly_reports_gets_them_and_none_twice(tmp_path, journal):
    record = RECORD + "; ri=3600"
    keep(journal, *[mail(record=record, at=DAY + n * 1800.0) for n in range(8)])
    of = settings(tmp_path)
    _, postbox = run(of, DAY + 2 * HOUR + 700)
    run(of, DAY + 4 * HOUR + 700, postbox)
    begins = [read_by_parsedmarc(data)["report_metadata"]["begin_date"][11:] for _, _, data in postbox.sent]
    assert sorted(begins) == ["00:00:00", "01:00:00", "02:00:00", "03:00:00"]
    keep(journal, mail(record=RECORD, at=DAY + 5 * HOUR))  # it has changed its mind
    run(of, MORNING, postbox)
    metadata = read_by_parsedmarc(postbox.sent[-1][2])["report_metadata"]
    assert (metadata["begin_date"], metadata["end_date"]) == ("2023-11-15 04:00:00", "2023-11-15 23:59:59")
    assert sum(each["count"] for _, _, data in postbox.sent for each in read_by_parsedmarc(data)["records"]) == 9


def test_the_policy_that_was_seen_last_is_told_with_all_mail(tmp_path, journal):
    changed = "v=DMARC1; p=none; rua=mailto:agg@sender.test"
    keep(journal, mail(at=DAY + 5000.0, record=changed, policy="none"), mail(at=DAY + 100.0))
    _, postbox = run(settings(tmp_path))
    found = read_by_parsedmarc(postbox.sent[0][2])
    assert found["policy_published"]["p"] == "none"
    assert sum(each["count"] for each in found["records"]) == 2


def test_a_policy_that_comes_back_is_the_last_again(tmp_path, journal):
    changed = {"record": "v=DMARC1; p=none; rua=mailto:agg@sender.test", "policy": "none"}
    for at, more in ((100.0, {}), (200.0, changed), (300.0, {})):
        keep(journal, mail(at=DAY + at, **more))
        run(settings(tmp_path), DAY + 400.0)
    _, postbox = run(settings(tmp_path))
    assert read_by_parsedmarc(postbox.sent[0][2])["policy_published"]["p"] == "reject"


def test_a_record_that_stopped_asking(tmp_path, journal):
    keep(journal, mail(at=DAY + 100.0), mail(at=DAY + 200.0, record="v=DMARC1; p=none", policy="none"))
    _, postbox = run(settings(tmp_path))
    assert len(postbox.sent) == 1  # who does not ask is not counted; what was counted before is told


def test_subdomains_stand_in_the_report_of_the_policy_domain(tmp_path, journal):
    keep(journal, mail(), mail(domain="news.sender.test", policy="quarantine"))
    _, postbox = run(settings(tmp_path))
    records = read_by_parsedmarc(postbox.sent[0][2])["records"]
    assert sorted(each["identifiers"]["header_from"] for each in records) == ["news.sender.test", "sender.test"]


@pytest.mark.parametrize("bounds", [(10, counts.OCTETS), (counts.LINES, 10 * 125)])
def test_too_many_different_rows_are_counted_but_not_listed(tmp_path, journal, monkeypatch, bounds):
    of = settings(tmp_path)
    monkeypatch.setattr(counts.Counts.__init__, "__defaults__", bounds)
    keep(journal, *[mail(client=f"198.51.100.{100 + n}", policy_domain="other.test") for n in range(12)])
    for some in (range(8), range(8, 30)):
        keep(journal, *[mail(client=f"198.51.100.{100 + n}") for n in some])
        run(of, DAY + 20_000.0)
    keep(journal, mail(client="198.51.100.100"))
    _, postbox = run(of)
    found = read_by_parsedmarc(postbox.sent[0][2])
    assert len(found["records"]) == 10
    assert found["report_metadata"]["errors"] == ["20 messages are not listed: there were too many different ones"]


def test_an_hour_without_room_for_its_rows_is_reported_all_the_same(tmp_path, journal, monkeypatch):
    of, hourly = settings(tmp_path), RECORD + "; ri=3600"
    monkeypatch.setattr(counts.Counts.__init__, "__defaults__", (10, counts.OCTETS))
    for hour in (0, 1):
        keep(journal, *[mail(client=f"198.51.100.{n}", record=hourly, at=DAY + hour * HOUR + n) for n in range(15)])
    _, postbox = run(of, MORNING)
    found = [read_by_parsedmarc(data) for _, _, data in postbox.sent]
    assert sorted(len(each["records"]) for each in found) == [1, 10]
    unlisted = [int(each["report_metadata"]["errors"][0].split()[0]) for each in found]
    assert sorted(unlisted) == [5, 14]


def test_a_long_history_is_not_read_when_reports_begin(tmp_path, journal):
    keep(journal, *[mail(at=DAY - n * LONG) for n in range(20, 0, -1)], mail(), mail())
    of = settings(tmp_path)
    _, postbox = run(of)
    assert [each["count"] for each in read_by_parsedmarc(postbox.sent[0][2])["records"]] == [2]
    opened = ledger(tmp_path)
    assert opened.counts.mark()[0] == 22
    opened.file.close()


def test_counting_goes_on_where_the_journal_has_expired(tmp_path, journal):
    of = settings(tmp_path)
    keep(journal, mail(), mail())
    run(of, DAY + 20_000)
    expire(str(journal), DAY + 15_000.0)
    keep(journal, mail(at=DAY + 30_000.0))
    _, postbox = run(of)
    assert sum(each["count"] for each in read_by_parsedmarc(postbox.sent[0][2])["records"]) == 3


# ── sizes, trouble, suppression, loops ───────────────────────────────────────────────────────────────────


def test_a_mail_that_is_too_big_for_one_address_goes_to_the_others(tmp_path, journal):
    record = "v=DMARC1; p=none; rua=mailto:small@sender.test!1k,mailto:big@sender.test!10m,mailto:any@sender.test"
    keep(journal, mail(record=record, policy="none"))
    told, postbox = run(settings(tmp_path))
    assert states(told) == [("small@sender.test", "not sent"), ("big@sender.test", "sent"), ("any@sender.test", "sent")]
    assert told[0].note.endswith("octets, and the address takes 1024")
    assert len(postbox.sent[0][2]) <= 10 << 20


def test_an_external_address_gets_it_when_its_host_agrees_also_later(tmp_path, journal):
    record = "v=DMARC1; p=none; rua=mailto:a@vendor.test,mailto:b@nobody.test,mailto:c@sender.test"
    keep(journal, mail(record=record, policy="none"))
    of, name = settings(tmp_path), "sender.test._report._dmarc.vendor.test"
    told, postbox = run(of, zone={name: [("TXT", "SERVFAIL")]})
    assert states(told) == [("a@vendor.test", "postponed"), ("b@nobody.test", "not sent"), ("c@sender.test", "sent")]
    told, _ = run(of, MORNING + HOUR, postbox, zone={name: [("TXT", "v=DMARC1")]})
    assert states(told) == [("a@vendor.test", "sent"), ("b@nobody.test", "not sent")]
    assert [recipient for _, recipient, _ in postbox.sent] == ["c@sender.test", "a@vendor.test"]
    assert run(of, MORNING + 2 * HOUR, postbox)[0] == []


def test_a_postfix_that_takes_nothing_is_tried_again_with_the_same_report(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    told, _ = run(of, postbox=Postbox(agg=("postponed", "451 later")))
    assert states(told) == [("agg@sender.test", "postponed")]
    assert run(of, MORNING + HOUR - 1)[0] == []
    told, postbox = run(of, MORNING + HOUR)
    assert told[0].parcel.file_name.startswith("mx.receiver.test!")
    assert len(postbox.sent) == 1


def test_what_was_tried_by_a_clock_that_was_ahead_is_tried_again(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    run(of, MORNING + 20 * HOUR, Postbox(agg=("postponed", "451 later")))
    assert states(run(of, MORNING)[0]) == [("agg@sender.test", "sent")]


def test_nothing_is_tried_for_ever(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    for later in (0, LONG, 3 * LONG):
        run(of, MORNING + later, Postbox(agg=("postponed", "451 later")))
    assert run(of, MORNING + 3 * LONG + 60)[1].sent == []
    opened = ledger(tmp_path)
    assert [(due.state, due.note) for due in opened.outgoing.reports()] == [("done", "given up after two days")]
    opened.file.close()


def test_an_address_that_is_refused_three_times_gets_no_more(tmp_path, journal):
    of = settings(tmp_path)
    seen = []
    for day in range(5):
        keep(journal, mail(at=DAY + day * LONG + 100.0))
        told, _ = run(of, MORNING + day * LONG, Postbox(agg=("refused", "550 5.1.1 no such user")))
        seen += [(one.state, one.note) for one in told]
    assert [state for state, _ in seen] == ["refused"] * 3 + ["not sent"] * 2
    assert seen[-1][1] == "suppressed: 3 reports came back: 550 5.1.1 no such user"


def test_a_mail_that_is_rejected_says_nothing_of_its_address(tmp_path, journal):
    of = settings(tmp_path, bounces=1)
    for day in range(3):
        keep(journal, mail(at=DAY + day * LONG + 100.0))
        told, _ = run(of, MORNING + day * LONG, Postbox(agg=("rejected", "552 5.3.4 Message size exceeds fixed limit")))
        assert states(told) == [("agg@sender.test", "rejected")]


def test_reports_that_come_back_are_seen_in_the_journal(tmp_path, journal):
    of = settings(tmp_path, bounces=2)
    postbox = Postbox()
    for day in range(3):
        keep(journal, mail(at=DAY + day * LONG + 100.0))
        told, _ = run(of, MORNING + day * LONG, postbox)
        if day < 2:
            back = postbox.sent[-1][0]
            bounce = {"sender": "", "recipients": (back,), "client": "203.0.113.5", "at": MORNING + day * LONG + 60.0}
            keep(journal, mail(**bounce), mail(**bounce))  # twice the same report: it counts once
    assert states(told) == [("agg@sender.test", "not sent")]
    assert "2 reports came back: a notification from mail.sender.test" in told[0].note
    for one in postbox.sent:  # and bounces are no mail to report about
        assert [each["source"]["ip_address"] for each in read_by_parsedmarc(one[2])["records"]] == ["192.0.2.7"]


def test_a_window_becomes_a_report_once(tmp_path):
    of, window = Ledger.open(str(tmp_path / "reports.db")).outgoing, Window("sender.test", DAY, DAY + LONG)
    assert of.close_windows([(window, 1)]) == 1
    of.finish(window, "sent")
    assert of.close_windows([(window, 2)]) == 0  # by another process, just now
    assert [each.state for each in of.reports()] == ["done"]


def test_only_its_own_bounces_of_a_month_silence_an_address(tmp_path):
    of = Ledger.open(str(tmp_path / "reports.db")).outgoing
    for number, address in enumerate(["a@x.test", "b@x.test", "a@x.test", "a@x.test"]):
        of.claim(f"r{number}", Window("sender.test", number, number + 1), address, 0.0)
    bounces = enumerate([0.0, 40.0 * LONG, 40.0 * LONG, 41.0 * LONG])
    assert [of.bounced(f"r{number}", at, 2) for number, at in bounces] == ["", "", "", "a@x.test"]
    assert of.allow("A@x.test")
    for token, address in (("r4", "a@x.test"), ("r5", "b@x.test")):
        of.claim(token, Window("sender.test", 5, 6), address, 0.0)
    assert [of.bounced(token, 41.0 * LONG, 2) for token in ("r4", "r5")] == ["", "b@x.test"]


def test_automatic_answers_of_an_address_are_no_bounces(tmp_path, journal):
    of = settings(tmp_path, bounces=1)
    keep(journal, mail())
    _, postbox = run(of)
    answer = {"sender": "", "recipients": (postbox.sent[0][0],), "at": MORNING + 60.0}
    keep(journal, mail(**answer, headers=((b"From", b" Ticket <AGG@Sender.test>"),)))
    keep(journal, mail(at=DAY + LONG + 100.0))
    told, _ = run(of, MORNING + LONG, postbox)
    assert states(told) == [("agg@sender.test", "sent")]


def test_forged_bounces_suppress_nobody(tmp_path, journal):
    of = settings(tmp_path, bounces=1)
    keep(
        journal, mail(), mail(sender="", recipients=("dmarc+r0000000000000000@receiver.test",)),
        mail(sender="", recipients=("dmarc@receiver.test",)),
    )  # fmt: skip
    told, _ = run(of)
    assert states(told) == [("agg@sender.test", "sent")]


def test_what_everybody_knows_of_a_report_does_not_tell_its_return_path(tmp_path):
    """Host, domain and window make the Report-ID; whoever could tell the token from it could silence any address."""
    sent = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keep(tmp_path / name / "journal.db", mail())
        sent += run(settings(tmp_path / name))[1].sent
    (mine, _, data), (other, _, same) = sent
    assert email.message_from_bytes(data)["message-id"] == email.message_from_bytes(same)["message-id"]
    assert mine != other


def test_no_report_goes_to_ourselves_or_about_ourselves(tmp_path, journal):
    record = "v=DMARC1; p=none; rua=mailto:dmarc@receiver.test,mailto:dmarc%2Br0123456789abcdef@receiver.test"
    keep(
        journal, mail(record=record, policy="none"),
        mail(policy_domain="receiver.test", domain="receiver.test", record=record),
    )  # fmt: skip
    agreed = {"sender.test._report._dmarc.receiver.test": [("TXT", "v=DMARC1")]}
    told, postbox = run(settings(tmp_path), zone=agreed)
    assert postbox.sent == []
    assert [one.parcel.window.domain for one in told] == ["sender.test", "sender.test"]
    assert {one.note for one in told} == {"is where our own reports come from"}


def test_two_servers_do_not_report_about_reports_for_ever(tmp_path, journal):
    """Their daily report comes to where our own record has it sent; it is the only mail of theirs."""
    keep(journal, mail(sender="noreply@sender.test", recipients=("inbox@receiver.test",)))
    told, postbox = run(settings(tmp_path))
    assert (told, postbox.sent) == ([], [])


def test_the_most_mail_goes_first_and_the_day_is_bounded(tmp_path, journal, monkeypatch):
    from elemta_milter.reports import sending  # noqa: PLC0415

    monkeypatch.setattr(sending, "MAILS_A_DAY", 2)
    record = "v=DMARC1; p=none; rua=mailto:a@{}"
    keep(
        journal,
        *[
            mail(policy_domain=f"d{n}.test", domain=f"d{n}.test", policy="none", record=record.format(f"d{n}.test"))
            for n in range(4)
            for _ in range(n + 1)
        ],
    )
    _, postbox = run(settings(tmp_path))
    assert [recipient for _, recipient, _ in postbox.sent] == ["a@d3.test", "a@d2.test"]


def test_what_never_had_its_turn_is_given_up_too(tmp_path, journal, monkeypatch):
    from elemta_milter.reports import sending  # noqa: PLC0415

    monkeypatch.setattr(sending, "MAILS_A_DAY", 0)
    keep(journal, mail())
    of = settings(tmp_path)
    for later, state in ((MORNING, "open"), (MORNING + LONG, "open"), (MORNING + 2 * LONG, "done")):
        run(of, later)
        opened = ledger(tmp_path)
        [due] = opened.outgoing.reports()
        opened.file.close()
        assert due.state == state
    assert due.note == "given up after two days"


def test_reports_about_hours_leave_room_for_those_about_a_day(tmp_path, journal, monkeypatch):
    """Else whoever has many domains, or one with many names, keeps everybody from hearing of a day."""
    from elemta_milter.reports import sending  # noqa: PLC0415

    monkeypatch.setattr(sending, "MAILS_A_DAY", 4)
    hourly = [
        mail(
            policy_domain=f"d{n}.test", domain=f"d{n}.test", record=f"v=DMARC1; p=none; ri=3600; rua=mailto:a@d{n}.test"
        )
        for n in range(5)
    ]
    keep(journal, *hourly, mail())
    of = settings(tmp_path)
    _, postbox = run(of, DAY + 5 * HOUR)
    assert len(postbox.sent) == 2
    run(of, MORNING, postbox)
    assert [recipient for _, recipient, _ in postbox.sent][2:] == ["agg@sender.test"]


def test_only_one_domain_or_one_day(tmp_path, journal):
    keep(journal, mail(), mail(at=DAY + LONG + 100.0))
    of = settings(tmp_path)
    assert run(of, MORNING + LONG, domain="other.test")[0] == []
    told, _ = run(of, MORNING + LONG, day=DAY + LONG)
    assert [one.parcel.window.begin for one in told] == [DAY + LONG]


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("table", "column"), [("counts", "line"), ("failures", "detail")])
@pytest.mark.parametrize("said", ["'{'", "'[1]'", "7"])
def test_a_row_of_the_ledger_that_cannot_be_read_is_told_as_damage(tmp_path, journal, table, column, said):
    keep(journal, mail(result="fail", dkim=False, spf=False, record=f"{RECORD}; ruf=mailto:fail@sender.test"))
    of = settings(tmp_path, failures=10)
    run(of, DAY + 23 * HOUR, Postbox(fail=("postponed", "451 later")))
    opened = ledger(tmp_path)
    opened.file.all(f"UPDATE {table} SET {column} = {said}")
    opened.file.close()
    with pytest.raises(LedgerError, match=r"reports\.db: damaged \(a row cannot be read: .*\); move it away"):
        run(of)


def test_a_ledger_that_may_not_be_opened_says_so(tmp_path):
    with pytest.raises(LedgerError, match="Is a directory"):
        Ledger.open(str(tmp_path))


def test_a_ledger_that_may_not_be_changed_says_so(tmp_path):
    of = Ledger.open(str(tmp_path / "reports.db"))
    of.file.all("PRAGMA query_only = 1")
    with pytest.raises(LedgerError, match=r"reports\.db: attempt to write a readonly database"):
        of.outgoing.claim("r0", Window("sender.test", 0, DAY), "agg@sender.test", 1.0)


def test_a_ledger_without_its_mark_is_told_as_damaged(tmp_path):
    import sqlite3  # noqa: PLC0415

    path = str(tmp_path / "reports.db")
    of = Ledger.open(path)
    sqlite3.connect(path).execute("DELETE FROM mark").connection.commit()
    with pytest.raises(LedgerError, match=r"reports\.db: damaged \(a row is missing\); move it away"):
        of.counts.mark()


def test_a_file_of_something_else_is_left_alone(tmp_path, journal):
    import sqlite3  # noqa: PLC0415

    other = tmp_path / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE mine (x)").connection.commit()
    with pytest.raises(LedgerError, match="something else"):
        Ledger.open(str(other))
    with pytest.raises(LedgerError, match="there is no directory"):
        Ledger.open(str(tmp_path / "nowhere" / "reports.db"))
    (tmp_path / "junk.db").write_bytes(b"junk" * 1000)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(str(tmp_path / "junk.db"))


def test_many_processes_may_make_the_file(tmp_path):
    code = "import sys; from elemta_milter.reports.collecting import Ledger; sys.stdin.read(); Ledger.open(sys.argv[1])"
    for number in range(3):
        path = str(tmp_path / f"reports{number}.db")
        others = [subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE) for _ in range(6)]
        for each in others:
            each.stdin.close()
        assert [each.wait(60) for each in others] == [0] * 6


def test_without_a_journal_there_is_nothing_to_do(tmp_path):
    assert run(settings(tmp_path))[0] == []


def test_what_is_old_goes(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)
    run(of)
    run(of, MORNING + 40 * LONG)
    opened = ledger(tmp_path)
    for table in ("counts", "policies", "reports", "deliveries"):
        assert opened.file.one(f"SELECT count(*) FROM {table}") == (0,), table
    opened.file.close()


def test_a_report_in_the_making_can_be_looked_at(tmp_path, journal):
    keep(journal, mail())
    of = settings(tmp_path)

    async def look():
        async with office(of, Postbox()) as opened:
            await read_journal(opened, of, of.reports, DAY + 20_000)
            [found] = windows(opened)
            assert report(opened, found).window == Window("sender.test", DAY, DAY + LONG)
            assert report(opened, Window("other.test", DAY, DAY + LONG)) is None

    asyncio.run(look())


def test_the_schema_accepts_what_was_counted(tmp_path, journal):
    """Mail of every kind, all in one report."""
    import gzip  # noqa: PLC0415
    from importlib.resources import files  # noqa: PLC0415

    schema = xmlschema.XMLSchema(str(files("dmarc.report") / "schemas" / "dmarc-2.0.xsd"))
    kinds = [
        {"result": result, "dkim": passed, "spf": passed, "policy": policy, "spf_result": spf, "sender": sender}
        for result, passed in (("pass", True), ("fail", False), ("temperror", False))
        for policy in ("none", "quarantine", "reject")
        for spf in ("none", "neutral", "softfail", "fail", "temperror", "permerror", "policy")
        for sender in ("", "a@b.test", "weird")
    ]
    keep(journal, *[mail(**each) for each in kinds], mail(client="2001:db8::5"), mail(signatures=()))
    _, postbox = run(settings(tmp_path, envelope_to=True, contact="+49 30 1"))
    [(_, _, data)] = postbox.sent
    _, attachment = email.message_from_bytes(data, policy=email.policy.default).iter_parts()
    document = gzip.decompress(attachment.get_content()).decode()
    schema.validate(document)
    assert document.count("<envelope_to>") == len(read_by_parsedmarc(data)["records"])
    assert sum(each["count"] for each in read_by_parsedmarc(data)["records"]) == len(kinds) + 2

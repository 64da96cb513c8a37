"""`elemta dmarc`: what an administrator sees of reports."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from elemta.cli import main
from elemta.clock import Now
from elemta_milter.reports import office
from elemta_milter.reports.collecting import Ledger
from elemta_milter.reports.ledger_file import LedgerError
from elemta_milter.reports.windows import DAY, HOUR, Window
from harness.dns import DnsServer
from harness.reported import RECORD, keep, mail, settings

TODAY = int(time.time()) // DAY * DAY
PAST = TODAY - 2 * DAY  # its reports may leave whatever the time is now
AGG = "agg@sender.test"


@pytest.fixture(scope="module")
def dns():
    zone = {
        "_dmarc.sender.test": [("TXT", RECORD)],
        "_dmarc.receiver.test": [("TXT", "v=DMARC1; p=none")],
    }
    with DnsServer(zone) as server:
        yield server


@pytest.fixture
def elemta(tmp_path, capsys, dns):
    """Run the command; status, standard output, standard error."""
    config = {
        "host": "mx.receiver.test", "dns": {"servers": [f"127.0.0.1:{dns.port}"]},
        "journal": {"path": str(tmp_path / "journal.db")}, "checks": {"spf": None, "dkim": None, "dmarc": None},
        "reports": {"from": "dmarc@receiver.test", "smtp": "127.0.0.1:1", "hour": 0},
    }  # fmt: skip
    (tmp_path / "elemta.yaml").write_text(json.dumps(config))

    def run(*words):
        status = main(["dmarc", *words, "--config", str(tmp_path / "elemta.yaml")])
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def counted(tmp_path):
    keep(
        tmp_path / "journal.db", *[mail(at=PAST + n * 60.0) for n in range(3)],
        mail(domain="x.other.test", policy_domain="other.test", record="v=DMARC1; p=none; rua=mailto:a@b.test",
             policy="none", at=TODAY + 1.0),
    )  # fmt: skip


def day(at):
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def test_without_the_section_it_says_so(tmp_path, capsys):
    (tmp_path / "elemta.yaml").write_text("host: mx.test")
    assert main(["dmarc", "report", "--config", str(tmp_path / "elemta.yaml")]) == os.EX_CONFIG
    assert "no section reports:" in capsys.readouterr().err


def test_nothing_counted(elemta):
    found = elemta("report")
    assert (found.status, found.out) == (os.EX_OK, "")
    assert "nothing is counted" in found.err


def test_what_is_counted(elemta, counted):
    lines = elemta("report").out.splitlines()
    assert [line.split("  ")[1:3] for line in lines] == [["sender.test", "3 mails"], ["other.test", "1 mail"]]
    assert lines[0].startswith(f"{day(PAST)}T00:00Z to {day(PAST + DAY)}T00:00Z")
    assert "leaves at" in lines[0]
    assert elemta("report", "--day", day(TODAY)).out.splitlines() == lines[1:]


def test_the_xml(elemta, counted):
    found = elemta("report", "--show", "sender.test")
    assert found.out.startswith("<?xml")
    assert "<count>3</count>" in found.out
    assert "other.test" not in found.out


def test_a_report_whose_counts_are_gone_says_so(elemta, counted, tmp_path):
    elemta("report", "--send")
    ledger = Ledger.open(str(tmp_path / "reports.db"))
    ledger.counts.forget(TODAY)
    ledger.file.close()
    found = elemta("report", "--show", "sender.test")
    assert (found.status, found.out) == (os.EX_OK, "")
    assert "sender.test: what was counted is thrown away after three days" in found.err


def test_a_clock_that_leapt_throws_nothing_away(elemta, counted, monkeypatch):
    """By a clock that is years ahead all that waits for its report is too old to tell."""
    elemta("report")
    ahead = 400 * DAY
    with monkeypatch.context() as leap:
        leap.setattr("elemta_milter.reports.office.believed", lambda journal: Now(time.time(), ahead))
        leap.setattr("elemta_milter.reports.command.time.time", lambda: TODAY + ahead)
        for words, status in (("--send", os.EX_TEMPFAIL), ("--show", os.EX_OK)):
            found = elemta("report", words)
            assert found.status == status
            assert "the clock leapt 9600 hours ahead" in found.err
        assert "3 mails" in found.out
    assert AGG in elemta("report", "--send").out


@pytest.mark.parametrize(("days", "waits"), [(1.9, False), (2.1, True)])
def test_what_the_keeper_does_waits_for_a_clock_that_is_believed(tmp_path, monkeypatch, dns, days, waits):
    monkeypatch.setattr(office, "believed", lambda journal: Now(time.time(), days * DAY))
    of = settings(tmp_path, dns={"servers": [dns.endpoint]}, smtp="127.0.0.1:1")
    with pytest.raises(LedgerError, match="leapt") if waits else nullcontext():
        asyncio.run(office.run(of, of.reports, TODAY))


def test_dry_run_says_who_would_get_what_and_changes_nothing(elemta, counted, tmp_path):
    found = elemta("report", "--dry-run")
    first, second, third, fourth = found.out.splitlines()
    assert "mx.receiver.test!sender.test!" in first
    assert second.startswith(f"  {AGG}: would get ")
    assert "other.test" in third
    assert "a@b.test: external, and there is no v=DMARC1 at other.test._report._dmarc.b.test" in fourth
    assert elemta("report", "--dry-run").out == found.out
    assert Ledger.open(str(tmp_path / "reports.db")).outgoing.reports() == []


def test_dry_run_does_not_say_that_an_address_would_get_what_it_has(elemta, counted, tmp_path):
    elemta("report", "--send")
    ledger = Ledger.open(str(tmp_path / "reports.db"))
    ledger.outgoing.claim("r0000000000000000", Window("sender.test", PAST, PAST + DAY), AGG, time.time())
    ledger.outgoing.settle("r0000000000000000", "sent", "250 2.0.0 Ok")
    ledger.file.close()
    assert f"  {AGG}: sent, 250 2.0.0 Ok\n" in elemta("report", "--dry-run", "sender.test").out


def test_send_to_a_postfix_that_is_down(elemta, counted):
    found = elemta("report", "--send")
    assert found.status == os.EX_TEMPFAIL
    assert f"report about sender.test to {AGG}: postponed, 127.0.0.1:1 does not answer" in found.out
    assert "3 mails  open" in elemta("report", "--day", day(PAST)).out


def test_send_no_more_than_was_asked_for(elemta, counted):
    assert elemta("report", "--send", "other.test").out == ""
    assert elemta("report", "--send", "--day", day(TODAY)).out == ""
    assert AGG in elemta("report", "--send", "--day", day(PAST), "sender.test").out


def test_suppress_list_and_remove(elemta):
    assert elemta("suppress").out == ""
    assert elemta("suppress", AGG.upper(), "--reason", "they asked").status == os.EX_OK
    assert f"{AGG}  since {day(time.time())}" in elemta("suppress").out
    assert "they asked" in elemta("suppress").out
    assert elemta("suppress", "--remove", AGG).status == os.EX_OK
    assert elemta("suppress").out == ""
    assert elemta("suppress", "--remove", AGG).status == os.EX_DATAERR


def test_an_address_is_suppressed_whatever_becomes_of_keys(elemta, tmp_path, monkeypatch):
    config = json.loads((tmp_path / "elemta.yaml").read_text())
    config["sign"] = [{"domain": "receiver.test", "keys": [{"selector": "s", "file": "gone.pem"}]}]
    (tmp_path / "elemta.yaml").write_text(json.dumps(config))
    assert "reports cannot be signed" in elemta("report").err
    assert elemta("suppress", AGG).status == os.EX_OK
    assert elemta("suppress").out.startswith(AGG)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert elemta("bounce").status == os.EX_OK


def test_an_address_is_suppressed_as_reports_are_sent_to_it(elemta):
    elemta("suppress", "Agg@Bücher.test")
    assert elemta("suppress").out.startswith("agg@xn--bcher-kva.test  since")
    assert elemta("suppress", "--remove", "agg@BÜCHER.test").status == os.EX_OK
    assert elemta("suppress", "--remove").status == os.EX_USAGE


def test_a_suppressed_address_is_told_in_a_dry_run(elemta, counted):
    elemta("suppress", AGG)
    assert f"  {AGG}: suppressed: by hand" in elemta("report", "--dry-run", "sender.test").out


NOTIFICATION = """\
Return-Path: <>
X-Original-To: dmarc+{token}@receiver.test
To: dmarc+{token}@receiver.test
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

I'm sorry.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.receiver.test

Final-Recipient: rfc822; agg@sender.test
Action: {action}
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <agg@sender.test>:
    no such user

--b--
"""


def bounce(elemta, monkeypatch, text):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    return elemta("bounce")


def test_bounces_are_read_and_add_up(elemta, tmp_path, monkeypatch):
    ledger = Ledger.open(str(tmp_path / "reports.db"))
    for number in range(4):
        of = Window("sender.test", PAST + number * HOUR, PAST + (number + 1) * HOUR)
        assert ledger.outgoing.claim(f"r000000000000000{number}", of, AGG, time.time())
    notification = NOTIFICATION.format
    for text in (
        notification(token="r0000000000000000", action="failed"),
        notification(token="r0000000000000000", action="failed"),  # the same report: counts once
        notification(token="r0000000000000001", action="delayed"),  # it may still arrive
        notification(token="rffffffffffffffff", action="failed"),  # never ours
        "From: somebody\nTo: dmarc+r0000000000000001@receiver.test\n\nAction: failed\n",  # no notification
        notification(token="r0000000000000002", action="Failed"),
    ):
        found = bounce(elemta, monkeypatch, text)
        assert (found.status, found.out) == (os.EX_OK, "")
    found = bounce(elemta, monkeypatch, notification(token="r0000000000000003", action="failed"))
    assert found.out == f"{AGG} gets no more reports\n"
    assert "3 reports came back: smtp; 550 5.1.1 <agg@sender.test>: no such user" in elemta("suppress").out
    ledger.file.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("5.3.4", "552 5.3.4 Message size exceeds fixed limit"),
        ("5.7.1", "550 5.7.1 we want none about that domain"),
        ("5.1.8", "550 5.1.8 Sender address rejected: Domain not found"),
        ("5.0.0", "552 too big"),
        ("5.0.0", "554 no"),
    ],
)
def test_a_report_that_is_not_wanted_says_nothing_of_its_address(elemta, tmp_path, monkeypatch, status, code):
    """Else three domains of one owner, with reports too big, kept those of all others from the address."""
    ledger = Ledger.open(str(tmp_path / "reports.db"))
    for number in range(4):
        of = Window(f"d{number}.test", PAST, PAST + HOUR)
        assert ledger.outgoing.claim(f"r000000000000000{number}", of, AGG, time.time())
        text = NOTIFICATION.format(token=f"r000000000000000{number}", action="failed")
        text = text.replace("Status: 5.1.1", f"Status: {status}").replace("550 5.1.1", code)
        assert bounce(elemta, monkeypatch, text).out == ""
    assert elemta("suppress").out == ""
    ledger.file.close()


def test_a_bounce_that_cannot_be_noted_comes_again(elemta, tmp_path, monkeypatch):
    """pipe(8) tries again what ends with 75, and throws a notification away that ends with 66."""
    (tmp_path / "reports.db").write_bytes(b"not a database" * 100)
    found = bounce(elemta, monkeypatch, NOTIFICATION.format(token="r0000000000000000", action="failed"))
    assert (found.status, elemta("suppress").status) == (os.EX_TEMPFAIL, os.EX_NOINPUT)


def test_junk_as_a_bounce_is_no_crash(elemta, monkeypatch):
    for text in (
        "",
        "\x00" * 100,
        "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n\n--b--",
        "Content-Type: message/rfc822\n\n" * 3000,
        "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(2000)),
    ):
        assert bounce(elemta, monkeypatch, text).status == os.EX_OK


def test_mistakes_of_the_command_line(elemta, capsys):
    for words in (
        ["report", "--day", "yesterday"],
        ["report", "--show", "--send"],
        [],
        ["report", "no domain"],
        ["suppress", "nobody"],
        ["suppress", "a@b c"],
    ):
        with pytest.raises(SystemExit) as ended:
            elemta(*words)
        assert ended.value.code == os.EX_USAGE
    assert '"yesterday" is no day' in capsys.readouterr().err

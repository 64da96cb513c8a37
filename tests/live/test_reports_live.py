"""Two real Postfix: mail is judged, counted and reported; the report arrives, passes DMARC, is read, and ends there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import dkim as dkimpy
import pytest

from elemta_milter.mailauth.signing import SigningKey, load_private_key
from harness.daemon import Daemon
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not
from harness.reported import read_by_parsedmarc
from harness.signatures import pem, rsa_private

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

ELEMTA = Path(sys.executable).parent / "elemta"
ADDRESSES = "mailto:agg@vendor.example,mailto:nobody@vendor.example,mailto:away@third.example"
TWO_DAYS = 2 * 86_400
MAIL = "From: Anna <anna@sender.example>\nTo: bert@receiver.example\nSubject: hello\n\nhello\n"

REPORTING = """
checks: {{spf: , dkim: , dmarc: }}
sign: [{{domain: receiver.example, keys: [{{selector: r, file: {key}}}]}}]
rules:
  message:
    - {{id: dmarc, when: {{dmarc: fail, dmarc.policy: reject}}, then: reject}}
reports:
  from: dmarc@receiver.example
  organization: The Receiver
  smtp: 127.0.0.1:{port}
  hour: 0
  bounces: 1
"""
CONSUMING = """
checks: {{spf: , dkim: , dmarc: }}
reports: {{from: dmarc@vendor.example, smtp: "127.0.0.1:{port}"}}
"""


@cache
def key():
    return SigningKey("receiver.example", "r", load_private_key(pem(rsa_private())))


@pytest.fixture(scope="module")
def dns():
    zone = {
        "_dmarc.sender.example": [("TXT", f"v=DMARC1; p=reject; rua={ADDRESSES}")],
        "sender.example": [("TXT", "v=spf1 ip4:192.0.2.7 -all")],
        "sender.example._report._dmarc.vendor.example": [("TXT", "v=DMARC1")],
        "_dmarc.receiver.example": [("TXT", "v=DMARC1; p=reject; rua=mailto:in@receiver.example")],
        "_dmarc.vendor.example": [("TXT", "v=DMARC1; p=reject; rua=mailto:agg@vendor.example")],
        key().record_name: [("TXT", key().record)],
    }
    with DnsServer(zone) as server:
        yield server


@pytest.fixture(scope="module")
def stage(dns, tmp_path_factory):
    """The receiver's Postfix and daemon, the vendor's Postfix and daemon."""
    path = tmp_path_factory.mktemp("keys") / "r.pem"
    path.write_bytes(pem(rsa_private()))
    path.chmod(0o600)
    with PrivatePostfix(
        milter=True, domains=["vendor.example"], hostname="mx.vendor.example",
        recipients=["agg@vendor.example", "dmarc@vendor.example"],
    ) as vendor:  # fmt: skip
        way = {"relay_domains": "vendor.example", "relay_transport": f"smtp:[127.0.0.1]:{vendor.port}"}
        with (
            PrivatePostfix(milter=True, domains=["receiver.example"], main=way) as receiver,
            Daemon(
                "milter", CONSUMING.format(port=vendor.port), dns=dns, listen=f"unix:{vendor.milter_socket}"
            ) as other,
            Daemon(
                "milter", REPORTING.format(port=receiver.port, key=path), dns=dns,
                listen=f"unix:{receiver.milter_socket}",
            ) as daemon,
        ):  # fmt: skip
            yield receiver, daemon, vendor, other


def elemta(daemon, *words, given=b""):
    done = subprocess.run(
        [ELEMTA, "dmarc", *words, "--config", daemon.policy], input=given, capture_output=True, check=False
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.stdout.decode()


def let_two_days_pass(daemon):
    """What was decided so far was decided two days ago."""
    with sqlite3.connect(daemon.directory / "journal.db", timeout=10) as journal:
        journal.execute("UPDATE decisions SET at = at - ?", (TWO_DAYS,))
    journal.close()


def kept(daemon):
    """How many decisions stand in the journal."""
    with sqlite3.connect(daemon.directory / "journal.db", timeout=10) as journal:
        found = journal.execute("SELECT count(*) FROM decisions").fetchone()[0]
    journal.close()
    return found


def journaled(daemon, count):
    for _ in range(500):
        with contextlib.suppress(sqlite3.OperationalError):  # the journal is being made
            if (daemon.directory / "journal.db").exists() and kept(daemon) >= count:
                return
        time.sleep(0.02)
    raise AssertionError("decisions are missing in the journal")


def test_a_report_arrives_passes_and_ends_there(stage):
    receiver, daemon, vendor, other = stage
    for address, accepted in (("192.0.2.7", True), ("192.0.2.7", True), ("203.0.113.66", False)):
        outcome = receiver.send(
            "anna@sender.example", "bert@receiver.example", MAIL, xclient={"addr": address}, helo="mx.sender.example"
        )
        assert outcome.accepted is accepted
    receiver.wait_delivered(2)
    journaled(daemon, 3)
    let_two_days_pass(daemon)

    # the rehearsal says who will get it, and sends nothing
    rehearsed = elemta(daemon, "report", "--dry-run")
    assert "agg@vendor.example: would get" in rehearsed
    assert "away@third.example: external, and there is no v=DMARC1" in rehearsed
    told = elemta(daemon, "report", "--send")
    assert "report about sender.example to agg@vendor.example: sent, 250" in told
    assert elemta(daemon, "report", "--send") == ""

    # it arrives, signed and aligned
    [mail] = vendor.wait_delivered(1)
    mail = re.sub(rb"\r?\n", b"\r\n", mail)
    assert b"dmarc=pass header.from=receiver.example" in re.sub(rb"\s+", b" ", mail)
    records = {f"{key().record_name}.".encode(): key().record.encode()}
    assert dkimpy.verify(mail, dnsfunc=lambda name, timeout=5: records.get(name))
    assert re.search(rb"(?m)^Return-Path: <dmarc\+r[0-9a-f]{16}@receiver\.example>", mail)

    # it says what happened
    found = read_by_parsedmarc(mail)
    assert found["report_type"] == "aggregate"
    assert found["report_metadata"]["org_name"] == "The Receiver"
    rows = {each["source"]["ip_address"]: each for each in found["records"]}
    assert {address: row["count"] for address, row in rows.items()} == {"192.0.2.7": 2, "203.0.113.66": 1}
    assert rows["192.0.2.7"]["policy_evaluated"]["disposition"] == "pass"
    assert rows["203.0.113.66"]["policy_evaluated"]["disposition"] == "reject"
    assert rows["203.0.113.66"]["policy_evaluated"]["policy_override_reasons"] == []
    assert rows["203.0.113.66"]["auth_results"]["spf"][0]["result"] == "fail"

    # and nobody reports about it
    journaled(other, 1)
    let_two_days_pass(other)
    done = subprocess.run(
        [ELEMTA, "dmarc", "report", "--config", other.policy], capture_output=True, text=True, check=False
    )
    assert (done.stdout, "nothing is counted" in done.stderr) == ("", True)


def test_an_address_that_does_not_exist_is_written_to_no_more(stage):
    receiver, daemon, _, _ = stage
    # the vendor refused it, so the receiver's Postfix sent a notification to the report's own return path
    bounces = [mail for mail in receiver.wait_delivered(3) if b"delivery-status" in mail]
    assert len(bounces) == 1
    as_piped = re.sub(rb"(?m)^(?:X-Original-To|Delivered-To|Return-Path): .*\n", b"", bounces[0])
    assert elemta(daemon, "bounce", given=as_piped) == "nobody@vendor.example gets no more reports\n"
    assert re.search(r"nobody@vendor\.example  since .*  1 report came back: smtp; 550", elemta(daemon, "suppress"))
    before = kept(daemon)
    receiver.send("anna@sender.example", "bert@receiver.example", MAIL, xclient={"addr": "192.0.2.7"})
    receiver.wait_delivered(4)
    journaled(daemon, before + 1)
    assert "nobody@vendor.example: suppressed" in elemta(daemon, "report", "--dry-run", "sender.example")

"""`elemta explain` and `elemta journal`: what an administrator types, and what comes back."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from elemta.cli import main
from elemta.config.load import load
from elemta.facts import Client
from elemta.policy import Policy
from elemta.store.urls import open_store
from elemta.verdict import Disposition
from harness.decisions import decision
from harness.dns import DnsServer, reverse
from harness.journal import JournalWriter

MAIL = b"""Return-Path: <eve@sender.test>
From: Alice <alice@here.test>
To: bob@here.test
Subject: =?utf-8?q?hello?=
 world
Message-ID: <1@sender.test>

Hello
"""
POLICY = """
host: mx.here.test
dns: {{servers: ["{dns}"], timeout: 1s}}
state: sqlite://{directory}/state.db
journal: {{path: {directory}/journal.db}}
sets: {{frozen: {{dynamic: true}}, ours: [here.test]}}
checks:
  spf:
  greylist: {{delay: 5m}}
rules:
  recipient:
    - {{id: frozen, when: {{login: {{in: frozen}}}}, then: reject}}
    - {{id: known, when: {{client.name: {{glob: "*.known.test"}}}}, then: accept}}
    - {{id: greylist, class: inbound, when: {{greylist: fail}}, then: defer}}
  message:
    - {{id: world, mode: shadow, when: {{subject: {{glob: "*world*"}}}}, then: reject}}
    - {{id: spoofed, class: inbound, when: {{header_from.domain: {{in: ours}}, spf: {{not: pass}}}}, then: reject}}
"""


@pytest.fixture(scope="module")
def dns():
    zone = {
        "sender.test": [("TXT", "v=spf1 -all")],
        reverse("192.0.2.1"): [("PTR", "mx.known.test")],
        "mx.known.test": [("A", "192.0.2.1")],
        reverse("192.0.2.2"): [("PTR", "liar.known.test")],
        "liar.known.test": [("A", "192.0.2.99")],
    }
    with DnsServer(zone) as server:
        yield server


@pytest.fixture
def config(tmp_path, dns):
    path = tmp_path / "elemta.yaml"
    path.write_text(POLICY.format(directory=tmp_path, dns=dns.endpoint))
    (tmp_path / "mail.eml").write_bytes(MAIL)
    return path


@pytest.fixture
def elemta(config, capsys):
    """Run the command; (status, standard output, standard error)."""

    def run(command, *args):
        try:
            status = main([command, "--config", str(config), *map(str, args)])
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def kept(config, *decisions):
    settings = load(config).settings
    writer = JournalWriter(settings.journal.path, print)
    policy = Policy.compile(load(config))
    writer.policy("cafe00", policy.describe())
    writer.open()
    for each in decisions:
        writer.decided(each)
    assert writer.close() == 0


def rehearsal(elemta, config, *args):
    status, out, err = elemta("explain", "--json", "--mail", config.parent / "mail.eml", *args)
    assert (status, err) == (0, "")
    return json.loads(out)["decisions"]


def test_a_kept_decision_is_explained_by_its_reference(elemta, config):
    given = decision(id="7K2M9QX1RD", trace=[0, -1])
    kept(config, given, decision(queue_id="other"))
    status, out, _ = elemta("explain", "7k2m9qxird")  # I for 1, small letters
    assert status == 0
    assert out.startswith("7K2M9QX1RD  rejected by rule spoofed\n  550 5.7.1 Not allowed\n")
    assert "world    no   shadow; wants subject looks like *world*; subject was hi" in out
    assert "spoofed  yes  rejected: this rule decided" in out
    assert out.count("\nMail\n") == 1
    assert "\x1b" not in out


def test_a_queue_id_tells_the_whole_history_as_a_table_first(elemta, config):
    first = decision(stage="recipient", queue_id="", instance="1.2", rule="greylist", disposition=Disposition.DEFER)
    second = decision(stage="recipient", queue_id="4bXyZ", instance="1.2", rule="", disposition=Disposition.ACCEPT)
    kept(config, first, second, decision(queue_id="4bXyZ"))
    status, out, _ = elemta("explain", "4bXyZ")
    assert status == 0
    assert out.startswith("TIME ")
    assert out.count("\nMail\n") == 3
    assert [each["stage"] for each in json.loads(elemta("explain", "4bXyZ", "--json")[1])["decisions"]] == [
        "recipient",
        "recipient",
        "message",
    ]


def test_what_is_not_there_is_said_with_the_reach_of_the_journal(elemta, config):
    status, out, err = elemta("explain", "NOSUCH")
    assert (status, out) == (os.EX_NOINPUT, "")
    assert "no journal here" in err
    kept(config, decision(at=1_700_000_000.0))
    status, out, err = elemta("explain", "NOSUCH")
    assert (status, out) == (1, "")
    assert 'no decision with reference or queue id "NOSUCH"' in err
    assert "2023-11-1" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give a reference id or queue id, or --mail FILE"),
        (("X", "--mail", "y"), "give a reference id or queue id, or --mail FILE"),
        (("",), "give a reference id or queue id, or --mail FILE"),
        ((__file__,), f"is a file; to judge the mail in it, write --mail {__file__}"),
        (("X", "--client", "192.0.2.1"), "--client and the like go with --mail"),
        (("--mail", "/dev/null", "--client", "localhost"), '"localhost" is no IP address'),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(elemta, args, words):
    status, out, err = elemta("explain", *args)
    assert (status, out) == (os.EX_USAGE, "")
    assert words in err


def test_a_mail_is_judged_at_rcpt_and_as_a_whole_without_sending_it(elemta, config):
    args = ("--client", "192.0.2.3", "--helo", "mx.sender.test", "--from", "eve@sender.test")
    first, second, whole = rehearsal(elemta, config, *args, "--rcpt", "bob@here.test", "--rcpt", "carol@here.test")
    assert (first["stage"], first["rule"], first["recipients"]) == ("recipient", "greylist", ["bob@here.test"])
    assert (second["disposition"], second["recipients"]) == ("defer", ["carol@here.test"])
    assert (whole["stage"], whole["rule"], whole["disposition"]) == ("message", "spoofed", "reject")
    assert whole["shadow"] == ["world"]
    assert whole["recipients"] == ["bob@here.test", "carol@here.test"]
    assert whole["size"] == len(MAIL.replace(b"\n", b"\r\n"))  # as it is sent
    assert {each["check"]: each["result"] for each in whole["findings"]}["spf"] == "fail"
    assert not (config.parent / "journal.db").exists()
    assert not (config.parent / "state.db").exists()
    status, out, _ = elemta("explain", "--mail", config.parent / "mail.eml", *args, "--rcpt", "bob@here.test")
    assert status == 0
    assert out.startswith("A rehearsal: nothing was sent, kept or changed.\nEvery recipient would be refused;")


def test_addresses_beyond_ascii_are_sent_with_smtputf8(elemta, config):
    rule = "- {id: utf8, when: {smtputf8: true}, then: defer}"
    config.write_text(config.read_text().replace("message:\n", f"message:\n    {rule}\n"))
    assert rehearsal(elemta, config, "--login", "carol", "--rcpt", "jörg@here.test")[-1]["rule"] == "utf8"
    assert rehearsal(elemta, config, "--login", "carol", "--rcpt", "joerg@here.test")[-1]["rule"] == ""


def test_a_mail_that_is_discarded_at_rcpt_is_said_to_be(elemta, config):
    config.write_text(config.read_text().replace("when: {greylist: fail}, then: defer", "then: discard"))
    mail = ("--mail", config.parent / "mail.eml", "--client", "192.0.2.3", "--rcpt", "bob@here.test")
    assert "\nAll of it would be discarded at RCPT TO;" in elemta("explain", *mail)[1]
    known = elemta("explain", *mail, "--login", "carol")[1]
    assert "discarded at RCPT TO" not in known
    assert "Every recipient would be refused" not in known


def test_the_recipients_of_one_mail_use_the_limits_of_one_mail(elemta, config):
    limited = "limits: {one: {key: client.address, count: messages, windows: {1h: 1}}}"
    over = "- {id: over, when: {limits: fail}, then: defer}"
    policy = config.read_text().replace("greylist: {delay: 5m}", limited)
    config.write_text(policy.replace("- {id: greylist, class: inbound, when: {greylist: fail}, then: defer}", over))
    recipients = ("--rcpt", "bob@here.test", "--rcpt", "carol@here.test", "--rcpt", "dora@here.test")
    *asked, _ = rehearsal(elemta, config, "--client", "192.0.2.3", *recipients)
    assert [each["rule"] for each in asked] == ["", "", ""]


def test_the_header_that_a_rule_adds_at_rcpt_is_seen_by_the_rules_for_the_message(elemta, config):
    told = '- {id: told, when: {client.name: {exists: false}}, add_header: {X-Stranger: "yes, für {recipient}"}}'
    seen = '- {id: seen, when: {header.x-stranger: "yes, f?r bob@here.test"}, then: defer}'
    policy = config.read_text().replace("recipient:\n", f"recipient:\n    {told}\n    - {{id: all, then: accept}}\n")
    policy = re.sub("(?m)^    - {id: (known|greylist|frozen),.*\n", "", policy)
    config.write_text(policy.replace("message:\n", f"message:\n    {seen}\n"))
    recipients = ("--rcpt", "bob@here.test", "--rcpt", "carol@here.test")
    *_, whole = rehearsal(elemta, config, "--client", "192.0.2.3", *recipients)
    assert (whole["rule"], whole["size"]) == ("seen", len(MAIL.replace(b"\n", b"\r\n")) + 36)


def test_the_client_is_named_as_postfix_names_it(elemta, config):
    accepted = rehearsal(elemta, config, "--client", "192.0.2.1", "--rcpt", "bob@here.test")[0]
    assert (accepted["client"]["name"], accepted["rule"]) == ("mx.known.test", "known")
    liar = rehearsal(elemta, config, "--client", "192.0.2.2", "--rcpt", "bob@here.test")[0]
    assert (liar["client"]["name"], liar["rule"]) == ("", "greylist")
    told = rehearsal(elemta, config, "--client", "192.0.2.2", "--name", "a.known.test", "--rcpt", "bob@here.test")[0]
    assert told["rule"] == "known"


def test_the_sender_is_taken_from_the_mail_where_it_is_not_given(elemta, config):
    assert rehearsal(elemta, config)[0]["sender"] == "eve@sender.test"
    assert rehearsal(elemta, config, "--from", "<>")[0]["sender"] == ""
    assert rehearsal(elemta, config, "--from", "Eve <@relay.test:eve@b.test>")[0]["sender"] == "eve@b.test"
    for recipient in ("<bob@here.test>", "Bob <bob@here.test>", " bob@here.test"):
        assert rehearsal(elemta, config, "--rcpt", recipient)[0]["recipients"] == ["bob@here.test"]
    (config.parent / "mail.eml").write_bytes(MAIL.partition(b"\n")[2])
    assert rehearsal(elemta, config)[0]["sender"] == "alice@here.test"


def test_a_rehearsal_sees_the_state_and_does_not_change_it(elemta, config):
    args = ("--login", "carol", "--client", "192.0.2.3", "--rcpt", "bob@here.test")
    assert rehearsal(elemta, config, *args)[0]["rule"] == ""
    state = config.parent / "state.db"

    async def freeze():
        store = open_store(f"sqlite://{state}")
        await store.add_to_set("frozen", "carol", 0.0)
        await store.close()

    asyncio.run(freeze())
    before = dump(state)
    assert rehearsal(elemta, config, *args)[0]["rule"] == "frozen"
    for _ in range(2):
        [first, _] = rehearsal(elemta, config, "--client", "192.0.2.3", "--rcpt", "bob@here.test")
        greylist = next(each for each in first["findings"] if each["check"] == "greylist")
        assert greylist["fields"]["attempts"] == 1
    assert dump(state) == before


def dump(path):
    database = sqlite3.connect(path)
    try:
        return list(database.iterdump())
    finally:
        database.close()


def test_the_journal_lists_what_meets_the_criteria(elemta, config):
    now = time.time()
    given = [
        decision(id="AAAAAAAAAA", at=now - 7200),
        decision(id="BBBBBBBBBB", at=now - 60, sender="mallory@evil.test", rule="", disposition=Disposition.ACCEPT),
        decision(id="CCCCCCCCCC", at=now - 30, klass="submission"),
    ]
    kept(config, *given)
    references = lambda *args: [line.split()[2] for line in elemta("journal", *args)[1].splitlines()[1:]]  # noqa: E731
    assert references() == ["CCCCCCCCCC", "BBBBBBBBBB", "AAAAAAAAAA"]
    assert references("--since", "1h") == ["CCCCCCCCCC", "BBBBBBBBBB"]
    assert references("--until", "1h") == ["AAAAAAAAAA"]
    assert references("--since", "2001-01-01T10:00", "--limit", "1") == ["CCCCCCCCCC"]
    assert references("--sender", "*@evil.test") == ["BBBBBBBBBB"]
    assert references("--class", "submission") == ["CCCCCCCCCC"]
    assert references("--disposition", "accept") == ["BBBBBBBBBB"]
    assert references(
        "--rule", "spoofed", "--recipient", "BOB@here.test", "--client", "192.0.2.7", "--since", "1h"
    ) == ["CCCCCCCCCC"]
    status, out, err = elemta("journal", "--sender", "nobody@nowhere.test")
    assert (status, out, err) == (0, "", "no decision meets these criteria\n")
    lines = elemta("journal", "--json")[1].splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["CCCCCCCCCC", "BBBBBBBBBB", "AAAAAAAAAA"]
    out, err = elemta("journal", "--limit", "2")[1:]
    assert (out.count("\n"), err) == (3, "(the newest 2; --limit shows more)\n")
    assert elemta("journal", "--limit", "3")[2] == ""  # that is all
    page = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text("utf-8")
    table = page.partition("### For programs")[2].partition("\n## ")[0]
    documented = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)))
    assert set(json.loads(lines[0])) == set(documented)


@pytest.mark.parametrize(
    "args",
    [
        ("--sender", "<>"), ("--sender", ""), ("--client", "2001:DB8:0::1"), ("--recipient", "<bob@here.test>"),
        ("--message-id", "7@bounce.test"), ("--message-id", "<7@bounce.test>"), ("--message-id", "*@BOUNCE.test>"),
        ("--header-from", "daemon@bounce.test"), ("--header-from", "Mail System"),
    ],
)  # fmt: skip
def test_a_criterion_may_be_written_as_tables_and_logs_show_it(elemta, config, args):
    headers = ((b"From", b" Mail System <daemon@bounce.test>"), (b"Message-ID", b" <7@bounce.test>"))
    bounce = decision(
        id="AAAAAAAAAA", sender="", client=Client(ip_address("2001:db8::1")), recipients=("bob@here.test",),
        headers=headers,
    )  # fmt: skip
    kept(config, bounce, decision(id="BBBBBBBBBB", recipients=("carol@here.test",)))
    told = elemta("journal", *args)[1]

    assert "AAAAAAAAAA" in told
    assert "BBBBBBBBBB" not in told


@pytest.mark.parametrize("args", [("--since", "yesterday"), ("--disposition", "eaten"), ("--limit", "many")])
def test_a_criterion_that_makes_no_sense_is_a_usage_error(elemta, args):
    status, _, err = elemta("journal", *args)
    assert status == os.EX_USAGE
    assert args[1] in err


def test_while_the_policy_has_mistakes_what_was_decided_can_be_asked_for(elemta, config):
    reference = "7K2M9QX1RD"
    kept(config, decision(id=reference))
    good = config.read_text()
    config.write_text(good + "tests: [{name: x, expect: {then: perhaps}}]\nclasses: {late: {hello: x}}\n")

    status, told, warning = elemta("explain", reference)
    assert (status, told.split()[0]) == (os.EX_OK, reference)
    assert warning == f"warning: {config} has mistakes, `elemta config check {config}` tells them\n"
    status, told, _ = elemta("journal")
    assert status == os.EX_OK
    assert reference in told

    for mistake in (
        good.replace("journal: {path", "jornal: {path"),
        good.replace("journal: {path", "journal: {keep: 1x, path"),
    ):
        config.write_text(mistake)
        assert elemta("explain", reference)[0] == os.EX_CONFIG  # it may be another journal that is meant

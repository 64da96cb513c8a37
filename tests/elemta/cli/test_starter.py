"""`elemta config init`: the starter policy loads, passes its own tests, and does to mail what its comments say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from elemta.cli import main
from elemta.cli._starter import starter
from elemta.config.load import load
from elemta.policy import Policy
from elemta.testing import FakeResolver, envelope, judge, message

STRANGER = "192.0.2.1"
ZONE = {
    "bank.test": [("TXT", "v=spf1 -all")],
    "lame.bank.test": [("TXT", "SERVFAIL")],
    "_dmarc.bank.test": [("TXT", "v=DMARC1; p=reject")],
    "_dmarc.shop.test": [("TXT", "v=DMARC1; p=quarantine")],
    "_dmarc.testing.test": [("TXT", "v=DMARC1; p=reject; t=y")],
    "_dmarc.none.test": [("TXT", "v=DMARC1; p=none")],
    "vouched.test": [("TXT", "v=spf1 ip4:192.0.2.1 -all")],
    "forged.test": [("TXT", "v=spf1 -all")],
    "example.org": [("TXT", "v=spf1 ip4:192.0.2.1 -all")],
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "elemta.yaml"
    text = starter().replace("list_servers: []", 'list_servers: [lists.example.com, "198.51.100.0/24"]')
    path.write_text(text, encoding="utf-8")
    return Policy.compile(load(path))


def verdict(policy, author, sender="a@elsewhere.test", **more):
    mail = message(envelope(STRANGER, sender, **more), [("From", author), ("Subject", "x")])
    found = judge(policy, mail, resolver=FakeResolver(ZONE)).verdict
    return found.disposition.value, found.rule


def at_rcpt(policy, sender, **more):
    found = judge(policy, envelope(STRANGER, sender, **more), resolver=FakeResolver(ZONE)).verdict
    return found.disposition.value, found.reply


def test_it_is_written_once_and_checks(tmp_path, capsys):
    path = tmp_path / "etc" / "elemta.yaml"
    assert main(["config", "init", str(path)]) == os.EX_OK
    assert main(["config", "check", str(path)]) == os.EX_OK
    out, error = capsys.readouterr()
    assert "tests passed: 17" in out
    assert error == ""  # no warning either
    path.write_text("host: mine.test")
    assert main(["config", "init", str(path)]) == os.EX_CANTCREAT
    assert path.read_text() == "host: mine.test"
    assert "is there already" in capsys.readouterr().err


def test_names_are_filled_in_and_its_tests_still_hold(tmp_path, capsys):
    path = tmp_path / "elemta.yaml"
    assert main(["config", "init", "--host", "mail.firm.test", "--domain", "firm.test", str(path)]) == os.EX_OK
    assert main(["config", "check", str(path)]) == os.EX_OK
    settings = load(path).settings
    assert (settings.host, settings.sets["local_domains"]) == ("mail.firm.test", ("firm.test",))
    assert "example.org" not in path.read_text()
    capsys.readouterr()


def test_it_can_be_brought_in_as_the_documentation_says(tmp_path, capsys):
    """Step 1 of "Bring it in", docs/operations.md: nothing of it has an effect, and it is no mistake."""
    path, shadow = tmp_path / "elemta.yaml", yaml.safe_load(starter())
    for stage in shadow["rules"].values():
        for rule in stage:
            rule["mode"] = "shadow"
    shadow["checks"] = {name: {**(options or {}), "trouble": "accept"} for name, options in shadow["checks"].items()}
    for test in shadow["tests"]:
        if "rule" in test["expect"]:
            del test["expect"]["then"]
    path.write_text(yaml.safe_dump(shadow, sort_keys=False), encoding="utf-8")
    assert main(["config", "check", str(path)]) == os.EX_OK, capsys.readouterr().err
    policy = Policy.compile(load(path))
    assert verdict(policy, "a@bank.test", "a@bank.test")[0] == "accept"
    assert at_rcpt(policy, "a@elsewhere.test")[0] == "accept"


def test_it_may_go_to_standard_output(capsys):
    assert main(["config", "init", "-"]) == os.EX_OK
    assert yaml.safe_load(capsys.readouterr().out)["host"] == "mx1.example.org"


def test_a_name_that_is_none(tmp_path, capsys):
    assert main(["config", "init", "--domain", "no domain", str(tmp_path / "x.yaml")]) == os.EX_USAGE
    assert "is not a host name" in capsys.readouterr().err
    assert not (tmp_path / "x.yaml").exists()


def test_every_key_and_rule_is_explained():
    text = starter()
    assert max(map(len, text.splitlines())) <= 120
    for section in ("sets", "checks"):
        block = re.search(rf"^{section}:\n((?:  .*\n)+)", text, re.MULTILINE)
        assert block is not None
        assert [line for line in block[1].splitlines() if "#" not in line] == []


@pytest.mark.parametrize("name", ["sender_login", "clamav", "rspamd", "sign"])
def test_what_is_commented_out_is_yaml_too(name):
    """Taking the signs away gives the same file with that part in it."""
    lines = [re.sub(r"^( *)#(?! |$)|^( *)#(?=  +\S)", r"\1\2", line) for line in starter().splitlines()[14:]]
    data = yaml.safe_load("\n".join(lines))
    assert name in data["checks"] or name in data


# ── what happens to mail ─────────────────────────────────────────────────────────────────────────────────


def test_dmarc_is_obeyed(policy):
    assert verdict(policy, "ceo@bank.test") == ("reject", "dmarc-reject")
    assert verdict(policy, "ceo@shop.test") == ("quarantine", "dmarc-quarantine")
    assert verdict(policy, "ceo@none.test") == ("accept", "")
    assert verdict(policy, "ceo@nowhere.test") == ("accept", "")


def test_an_owner_who_is_testing_is_obeyed_one_step_milder(policy):
    assert verdict(policy, "ceo@testing.test") == ("quarantine", "dmarc-quarantine")


def test_what_a_silent_name_server_leaves_open_passes_unless_the_rule_for_it_is_switched_on(policy, tmp_path):
    forged = {"author": "ceo@bank.test", "sender": "x@lame.bank.test"}
    assert verdict(policy, **forged) == ("accept", "")
    path = tmp_path / "elemta.yaml"
    block = r"    #- id: dmarc-unknown\n(?:    #  .*\n)+"
    path.write_text(re.sub(block, lambda found: found[0].replace("    #", "    "), starter()), encoding="utf-8")
    waiting = Policy.compile(load(path))
    assert verdict(waiting, **forged) == ("defer", "dmarc-unknown")
    assert verdict(waiting, "ceo@bank.test") == ("reject", "dmarc-reject")


def test_our_users_are_not_judged_by_dmarc(policy):
    assert verdict(policy, "ceo@bank.test", login="anna") == ("accept", "")


def test_known_lists_pass(policy):
    assert verdict(policy, "ceo@bank.test", name="lists.example.com") == ("accept", "known-list")
    mail = message(envelope("198.51.100.9", "a@elsewhere.test"), [("From", "ceo@bank.test")])
    assert judge(policy, mail, resolver=FakeResolver(ZONE)).verdict.rule == "known-list"


def test_nobody_is_us(policy):
    assert verdict(policy, "boss@example.org") == ("reject", "own-domain-spoofed")
    assert verdict(policy, "boss@example.org", sender="boss@example.org") == ("accept", "")  # SPF names this client


def test_what_our_users_wrote_to_a_known_list_comes_back(policy):
    assert verdict(policy, "boss@example.org", name="lists.example.com") == ("accept", "")  # without a DMARC record
    assert verdict(policy, "boss@example.org", name="lists.example.net") == ("reject", "own-domain-spoofed")


def test_an_unclear_author_is_held(policy):
    assert verdict(policy, "a@none.test, b@bank.test")[1] != ""
    mail = message(envelope(STRANGER, "a@x.test"), [("From", "a@none.test"), ("From", "b@bank.test")])
    assert judge(policy, mail, resolver=FakeResolver(ZONE)).verdict.rule == "unclear-author"
    crowd = ", ".join(f"a@n{number}.test" for number in range(6))  # more than DMARC looks at
    assert verdict(policy, f"{crowd}, ceo@bank.test") == ("quarantine", "unjudged-author")
    assert verdict(policy, '"ceo@bank.test":;') == ("quarantine", "unclear-author")


def test_spf_is_evidence_only(policy):
    mail = message(envelope(STRANGER, "a@forged.test"), [("From", "a@forged.test")])
    found = judge(policy, mail, resolver=FakeResolver(ZONE)).verdict
    assert (found.disposition.value, [action.value for action in found.actions]) == ("accept", ["spf-failed"])
    assert verdict(policy, "ceo@none.test", sender="a@vouched.test") == ("accept", "")


def test_strangers_wait_others_do_not(policy):
    refused, reply = at_rcpt(policy, "a@forged.test")
    assert refused == "defer"
    assert reply.startswith("450 4.7.1 Greylisted, try again in 5m.")
    assert at_rcpt(policy, "a@vouched.test")[0] == "accept"
    assert at_rcpt(policy, "a@forged.test", login="anna")[0] == "accept"


def test_it_is_part_of_the_package():
    import elemta  # noqa: PLC0415

    assert (Path(elemta.__file__).parent / "config" / "starter.yaml").is_file()


@pytest.mark.parametrize("local", ["anna%example.org", "example.org!anna", '"anna@example.org"'])
def test_no_recipient_hides_behind_another_of_ours(policy, local):
    hidden = f"{local}@mx1.example.org"
    assert at_rcpt(policy, "a@vouched.test", recipients=[hidden])[0] == "reject"
    assert at_rcpt(policy, "a@vouched.test", recipients=[hidden], login="anna")[0] == "accept"
    assert at_rcpt(policy, "a@vouched.test", recipients=["anna+x=y@example.org"])[0] == "accept"

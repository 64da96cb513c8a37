"""sender_login: MAIL FROM against the map of logins, and both checks in rules of both stages."""

from __future__ import annotations

import asyncio
import time

import pytest

from elemta.case import Case
from elemta.check import Stage
from elemta.checks.from_login import FromLogin
from elemta.checks.sender_login import SenderLogin
from elemta.config.load import load
from elemta.config.problems import ConfigErrors
from elemta.engine import Engine
from elemta.facts import BytesBody, Message
from elemta.policy import Policy
from elemta.rules import refresh
from elemta.testing import envelope, judge, message, run, tools


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "senders.txt"
    path.write_text("anna anna@example.org, @shop.test\nroot *\n")
    return path


@pytest.mark.parametrize(
    ("login", "sender", "result", "reason", "listed"),
    [
        ("", "anna@example.org", "none", "the client is not authenticated", None),
        ("anna", "anna@example.org", "pass", "anna may use anna@example.org", True),
        ("Anna", "ANNA@EXAMPLE.ORG", "pass", "Anna may use ANNA@EXAMPLE.ORG", True),
        ("anna", "any@shop.test", "pass", "anna may use any@shop.test", True),
        ("anna", "bert@example.org", "fail", "anna may not use bert@example.org", True),
        ("anna", "", "pass", "the null sender", True),
        ("root", "whoever@anywhere.test", "pass", "root may use whoever@anywhere.test", True),
        ("bert", "bert@example.org", "fail", "the map does not name this login", False),
    ],
)
def test_mail_from(file, login, sender, result, reason, listed):
    found = run(SenderLogin, envelope(sender=sender, login=login), map={"file": str(file)})
    assert (found.result, found.fields.get("listed"), found.trouble) == (result, listed, False)
    assert reason in found.reason


def test_the_file_is_followed_no_more_after_the_end(file):
    async def go():
        check = SenderLogin(SenderLogin.Options(map={"file": str(file)}), tools())
        await check.open()
        await check.close()
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(go()) == set()


def test_extensions_are_an_option(file):
    mail = envelope(sender="anna+x@example.org", login="anna")
    assert run(SenderLogin, mail, map={"file": str(file)}).result == "pass"
    assert run(SenderLogin, mail, map={"file": str(file)}, delimiter="").result == "fail"
    assert (
        run(SenderLogin, envelope(sender="anna-x@example.org", login="anna"), map={"file": str(file)}).result == "fail"
    )


def test_it_is_known_at_mail_from_for_all_recipients():
    assert SenderLogin.stage() is Stage.ENVELOPE
    assert not SenderLogin.per_recipient
    assert FromLogin.stage() is Stage.MESSAGE


POLICY = """
host: mx.test
checks:
  sender_login: {{map: {{file: {file}}}}}
  from_login:
rules:
  recipient:
    - id: not-your-address
      class: submission
      when: {{sender_login: fail}}
      then: reject
      reply: "553 5.7.1 {{login}} may not send as {{sender}}"
  message:
    - id: not-your-from
      when: {{from_login: fail}}
      then: reject
      reply: "553 5.7.1 {{login}} may not write as {{from_login.address}}"
"""


def policy(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return Policy.compile(load(path))


def test_rules_of_both_stages(file, tmp_path):
    rules = policy(tmp_path, POLICY.format(file="senders.txt"))
    assert judge(rules, envelope(sender="boss@example.org", login="anna")).verdict.reply == (
        "553 5.7.1 anna may not send as boss@example.org"
    )
    assert judge(rules, envelope(sender="boss@example.org")).verdict.rule == ""
    mail = message(envelope(sender="anna@example.org", login="anna"), [("From", "boss@example.org")])
    assert judge(rules, mail).verdict.reply == "553 5.7.1 anna may not write as boss@example.org"
    assert judge(rules, Message(mail.envelope, ((b"From", b" anna@example.org"),), BytesBody(b""))).verdict.rule == ""


def test_a_wrong_map_is_a_mistake_of_the_configuration(file, tmp_path):
    file.write_text("anna anna@example.org\nbert\n")
    with pytest.raises(ConfigErrors) as caught:
        policy(tmp_path, POLICY.format(file="senders.txt"))
    assert f'policy.yaml:4:30: checks.sender_login.map.file: {file}:2: the login "bert" has no address' in str(
        caught.value
    )
    with pytest.raises(ConfigErrors, match=r"cannot read .*gone\.txt"):
        policy(tmp_path, POLICY.format(file="gone.txt"))


@pytest.mark.parametrize("later", ["bert\n", None])
def test_a_worker_that_begins_when_the_map_is_wrong_has_the_one_before(file, tmp_path, caplog, later):
    rules = policy(tmp_path, POLICY.format(file="senders.txt"))
    if later is None:
        file.unlink()
    else:
        file.write_text(later)

    assert judge(rules, envelope(sender="anna@example.org", login="anna")).verdict.rule == ""
    assert judge(rules, envelope(sender="bert@example.org", login="bert")).verdict.rule == "not-your-address"
    assert "the map of sender_login stays as it was" in caplog.text


def test_a_worker_that_begins_after_the_map_changed_has_the_new_one(file, tmp_path):
    rules = policy(tmp_path, POLICY.format(file="senders.txt"))
    file.write_text("bert bert@example.org\n")

    assert judge(rules, envelope(sender="bert@example.org", login="bert")).verdict.rule == ""


def test_a_changed_file_is_read_again(file, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(refresh, "INTERVAL", 0.02)
    rules = policy(tmp_path, POLICY.format(file="senders.txt"))
    mail = envelope(sender="bert@example.org", login="bert")

    async def live():
        engine = Engine(rules, tools())
        await engine.open()

        async def becomes(rule):
            deadline = time.monotonic() + 10
            while (await Case(engine).recipient(mail)).verdict.rule != rule:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

        await becomes("not-your-address")
        file.write_text("bert bert@example.org\n")
        await becomes("")
        file.write_text("bert\n")
        while "stays as it was" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.02)
        await becomes("")
        await engine.close()

    asyncio.run(asyncio.wait_for(live(), 30))
    assert "the map of sender_login stays as it was" in caplog.text

"""The rspamd check: what its answers mean, and what it asks."""

import json

import pytest

from elemta.config.load import loaded_and
from elemta.config.problems import ConfigErrors
from elemta.facts import Message
from elemta.findings import AuthResult, Finding, Result
from elemta.policy import Policy
from elemta.servers import ServerError
from elemta.testing import envelope, judge, message, policy, run
from elemta.verdict import Action, ActionKind, Disposition
from elemta_milter.checks.rspamd import RspamdCheck, RspamdOptions
from harness.web import OK, send, server

SYMBOLS = {
    "BAYES_SPAM": {"score": 5.1, "options": ["99%"]},
    "R_SPF_ALLOW": {"score": -0.2, "options": ["+mx"]},
    "ZERO": {"score": 0},
}


def answer(action="no action", score=1.5, **more):
    data = json.dumps({"action": action, "score": score, **more}).encode()
    return send(OK % (len(data), data))


def look(talk, mail=None, seen=None, **options):
    with server(talk) as there:
        return run(RspamdCheck, mail or message(), seen, url=there.url, **options), there


@pytest.mark.parametrize(
    ("action", "result"),
    [
        ("no action", Result.PASS),
        ("greylist", Result.NEUTRAL),
        ("soft reject", Result.NEUTRAL),
        ("add header", Result.POLICY),
        ("rewrite subject", Result.POLICY),
        ("quarantine", Result.POLICY),
        ("my own", Result.POLICY),
        ("reject", Result.FAIL),
        ("discard", Result.FAIL),
    ],
)
def test_what_an_action_is_called(action, result):
    found, _ = look(answer(action))
    assert (found.result, found.fields["action"]) == (result, action)
    assert not found.trouble


def test_all_facts():
    found, there = look(
        answer(
            "reject", 17.25, required_score=15, symbols=SYMBOLS, groups={"statistics": {"score": 5.1}},
            messages={"smtp_message": "Go away"},
        )
    )  # fmt: skip
    assert found.reason == "reject, 17.25 of 15, BAYES_SPAM 5.1 R_SPF_ALLOW -0.2"
    assert found.fields == {
        "action": "reject",
        "score": 17.25,
        "required": 15.0,
        "symbols": ("BAYES_SPAM", "R_SPF_ALLOW", "ZERO"),
        "scores": ("BAYES_SPAM=5.1", "R_SPF_ALLOW=-0.2", "ZERO=0"),
        "options": ("BAYES_SPAM=99%", "R_SPF_ALLOW=+mx"),
        "groups": ("statistics=5.1",),
        "message": "Go away",
        "subject": None,
        "skipped": False,
        "server": there.url,
    }
    assert set(found.fields) == set(RspamdCheck.fields)


def test_its_modules_may_change_the_action():
    assert look(answer("reject", milter={"reject": "quarantine"}))[0].fields["action"] == "quarantine"
    assert look(answer("add header", milter={"reject": "discard"}))[0].fields["action"] == "add header"
    assert look(answer("reject", milter={"no_action": True}))[0].result is Result.PASS


def test_a_mail_that_was_not_looked_at_does_not_pass():
    found, _ = look(answer(is_skipped=True))
    assert (found.result, found.fields["skipped"]) == (Result.NEUTRAL, True)
    found, _ = look(answer("reject", is_skipped=True))
    assert found.result is Result.FAIL
    found, _ = look(answer(), Message(envelope(), ((b"From", b" a@b.test"),), truncated="4,000 header fields"))
    assert (found.result, found.fields["skipped"]) == (Result.NEUTRAL, True)
    assert "not all of it was seen: more than 4,000 header fields" in found.reason


def test_a_mail_that_is_too_large_is_not_sent():
    mail = message(headers=[("From", "a@b.test")], body=b"x" * 1000)
    found, there = look(answer(), mail, max_size=1000)
    assert (found.result, found.fields, there.requests) == (Result.NEUTRAL, {"skipped": True}, [])
    assert "1018 octets, more than max_size 1000" in found.reason
    found, there = look(answer(), mail, max_size=1018)
    assert found.result is Result.PASS


def test_changes_are_proposed_and_what_was_left_out_is_a_warning():
    found, there = look(
        answer(milter={"add_headers": {"X-A": "1", "X Bad": "2"}, "spam_header": 1}, **{"dkim-signature": ["v=1"]})
    )
    assert found.edits == (Action(ActionKind.ADD_HEADER, "X-A", "1"),)
    assert found.warning.startswith(there.url)
    for word in ("spam_header is no text", "'X Bad' is no header field's name", "turn its dkim_signing off"):
        assert word in found.warning


def test_no_clear_answer_is_an_error_that_the_engine_makes_trouble():
    for talk in (send(b"HTTP/1.1 500 Oops\r\n\r\n"), answer(score="1"), send(b"")):
        with pytest.raises(ServerError):
            look(talk)


def test_our_results_are_handed_over_when_that_is_wanted():
    seen = {"spf": Finding("spf", Result.PASS, authres=(AuthResult("spf", "pass"),))}
    _, there = look(answer(), seen=seen)
    assert "Settings" not in dict(there.requests[0][1])
    _, there = look(answer(), seen=seen, hand_over=True)
    asked = json.loads(dict(there.requests[0][1])["Settings"])
    assert asked["symbols_disabled"] == ["SPF_CHECK"]
    assert list(asked["symbols"]) == ["R_SPF_ALLOW"]


def test_several_servers_the_next_answers():
    with server(send(b"HTTP/1.1 503 Busy\r\n\r\n")) as bad, server(answer("reject")) as good:
        found = run(RspamdCheck, message(), url=(bad.url, good.url))
    assert (found.result, found.fields["server"]) == (Result.FAIL, good.url)


POLICY = """
host: mx1.example.org
checks: {{rspamd: {{url: "{url}", trouble: {{inbound: defer, internal: accept}}, {more}}}}}
classes: {{internal: {{client.address: 192.0.2.99}}, inbound: {{}}}}
rules:
  message:
    - {{id: spam, when: {{rspamd: fail}}, then: reject, reply: "550 5.7.1 {{rspamd.message}}. Reference {{id}}"}}
    - {{id: bayes, when: {{rspamd.symbols: [BAYES_SPAM], rspamd.score: {{ge: 5}}}}, then: quarantine}}
    - {{id: tag, when: {{rspamd.action: add header}}, add_header: {{X-Spam: "Yes"}}}}
"""


def decide(talk, mail=None, more=""):
    with server(talk) as there:
        return judge(policy(POLICY.format(url=there.url, more=more)), mail or message())


def test_rules_judge_and_edits_are_made():
    decision = decide(answer("reject", 20, messages={"smtp_message": "Go\r\naway"}))
    assert decision.verdict.reply == f"550 5.7.1 Go away. Reference {decision.id}"
    assert decide(answer("reject", 20, milter={"add_headers": {"X-A": "1"}})).verdict.actions == ()
    decision = decide(answer("add header", 7, symbols=SYMBOLS))
    assert (decision.verdict.disposition, decision.verdict.rule) == (Disposition.QUARANTINE, "bayes")
    decision = decide(answer("add header", 7, milter={"add_headers": {"X-A": "1"}}))
    assert decision.verdict.actions == (
        Action(ActionKind.ADD_HEADER, "X-Spam", "Yes", rule="tag"),
        Action(ActionKind.ADD_HEADER, "X-A", "1", rule="check:rspamd"),
    )
    assert decide(answer(milter={"add_headers": {"X-A": "1"}}), more="edits: false").verdict.actions == ()


def test_trouble_is_by_class():
    assert decide(send(b"")).verdict.disposition is Disposition.DEFER
    assert decide(send(b""), message(envelope("192.0.2.99"))).verdict.disposition is Disposition.ACCEPT


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("url: 127.0.0.1:11333", "is no address of Rspamd; write http://127.0.0.1:11333"),
        ("url: ftp://127.0.0.1/", "is no address of Rspamd"),
        ("url: http://a:b@127.0.0.1/", "is no address of Rspamd"),
        ("url: http://127.0.0.1/?x=y", "is no address of Rspamd"),
        ("url: http://127.0.0.1:99999", "is no address of Rspamd"),
        ('url: "http://a b/"', "is no address of Rspamd"),
        ("url: []", "rspamd needs a url"),
        ("ca: {file: nowhere.pem}", "there is no file"),
        (f"ca: {{file: {__file__}}}", "holds no certificates in PEM"),
        ("settings_id: a, hand_over: true", "exclude each other"),
    ],
)
def test_mistakes(options, says):
    with pytest.raises(ConfigErrors, match=says):
        policy(f"host: mx1.example.org\nchecks: {{rspamd: {{{options}}}}}\n")


def test_addresses_of_servers():
    assert RspamdOptions(url="http://127.0.0.1:11333/").urls == ("http://127.0.0.1:11333",)
    assert RspamdOptions(url=("https://[::1]/scan/", "http://rspamd:11333")).urls == (
        "https://[::1]/scan",
        "http://rspamd:11333",
    )
    assert "s3cret" not in repr(RspamdOptions(password="s3cret"))


@pytest.mark.parametrize("password", ["s3cret\nmore", " s3cret", "s3cret\n"])
def test_a_password_that_http_cannot_send_is_told_before_mail_comes(tmp_path, password):
    (tmp_path / "password").write_text(f"{password}\n", newline="")
    (tmp_path / "elemta.yaml").write_text("host: mx.test\nchecks: {rspamd: {password: file:password}}\n")

    with pytest.raises(ConfigErrors) as found:
        loaded_and(Policy.compile, tmp_path / "elemta.yaml")

    assert "elemta.yaml:2:29: checks.rspamd.password: the password has several lines" in str(found.value)
    assert "s3cret" not in str(found.value)

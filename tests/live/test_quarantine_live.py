"""A real Postfix with our milter: is held mail listed, released as judged, deleted, and is nobody else's touched?"""

import contextlib
import json
import os
import re
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from elemta import clock
from elemta.cli import main
from elemta.journal import JournalError, Reader
from elemta.quarantine import HoldQueue
from elemta.quarantine.telling import subject_of
from harness.daemon import Daemon
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

TO = "r@example.org"
ELSEWHERE = "r@elsewhere.test"  # to which nothing is delivered
POLICY = """
sign:
  - {{domain: b.test, classes: [inbound], keys: [{{selector: s, file: {key}}}]}}
classes: {{newsletters: {{sender.domain: news.test}}, inbound: {{}}}}
quarantine: {{keep: 1h, classes: {{newsletters: 1s}}, postfix: {postfix}}}
rules:
  message:
    - {{id: hold, when: {{subject: {{glob: "*hold*"}}}}, then: quarantine, add_header: {{X-Judged: "{{id}}"}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    key.chmod(0o600)
    with Daemon("milter") as milter:
        main_cf = {"non_smtpd_milters": milter.address, "maximal_queue_lifetime": "1d"}
        with PrivatePostfix(milter=milter.address, main=main_cf) as postfix:
            milter.reload(POLICY.format(key=key, postfix=postfix.config))
            yield milter, postfix


@pytest.fixture
def postfix(place):
    _, postfix = place
    yield postfix
    postfix.delete()


@pytest.fixture
def journal(place):
    """Wait until the journal holds so many decisions about this queue id; they."""
    milter, _ = place

    def read(queue_id, count=1):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(JournalError):  # the daemon is about to make it
                reader = Reader(str(milter.directory / "journal.db"))
                found = reader.find(queue_id)
                reader.close()
                if len(found) >= count:
                    return found
            time.sleep(0.05)
        raise AssertionError(f"no decision about {queue_id}")

    return read


@pytest.fixture
def elemta(place, capsys):
    """Run `elemta quarantine`; (status, standard output, standard error)."""
    milter, _ = place

    def run(*args, command="quarantine"):
        status = main([command, *map(str, args), "--config", str(milter.policy)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def hold(postfix, journal):
    """Send a mail that the rule holds; its queue id and its one decision."""

    def send(subject="please hold", sender="a@b.test", to=TO):
        before = set(postfix.held())
        mail = f"From: {sender or 'a@b.test'}\r\nSubject: {subject}\r\n\r\nhello\r\n"
        assert postfix.send(sender, to, mail).accepted
        [queue_id] = set(postfix.held()) - before
        [decision] = journal(queue_id)
        return queue_id, decision

    return send


def deferred(postfix):
    """Wait until Postfix has tried to deliver the mails that are not on hold; their queue ids."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [each for each in postfix.queue() if each["queue_name"] != "hold"]
        if found and all("delay_reason" in each["recipients"][0] for each in found):
            return [each["queue_id"] for each in found]
        time.sleep(0.05)
    raise AssertionError(postfix.log())


def listed(elemta, *args):
    status, out, _ = elemta("list", "--json", *args)
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


def test_a_held_mail_is_listed_shown_and_released_as_it_was_judged(postfix, elemta, hold, journal):
    queue_id, decision = hold("please =?utf-8?q?h=C3=B6ld?= hold")
    [mail] = listed(elemta)
    assert (mail["queue_id"], mail["id"], mail["class"], mail["rule"]) == (queue_id, decision.id, "inbound", "hold")
    assert (mail["sender"], mail["recipients"], mail["subject"]) == ("a@b.test", [TO], "please höld hold")
    assert mail["held_by"] == "elemta"
    assert f"rule hold, reference {decision.id}" in elemta("list")[1]
    _, out, _ = elemta("show", decision.id.lower())
    assert f"{decision.id}  quarantined by rule hold" in out
    assert f"  X-Judged: {decision.id}\n" in out
    assert "hello" not in out

    before = len(postfix.delivered())
    kept = postfix.postcat(queue_id)
    status, out, _ = elemta("release", decision.id)
    assert (status, out) == (0, f"{queue_id}  released  from a@b.test to {TO}\n")
    delivered = postfix.wait_delivered(before + 1)[-1]
    assert delivered.endswith(b"\n\nhello\n")
    assert delivered.partition(b"\nDelivered-To: r@example.org\n")[2] == kept, "to the octet as it was judged"
    assert (b"DKIM-Signature:" in kept, kept.count(b"X-Judged:")) == (True, 1)
    assert len(journal(queue_id)) == 1, "it was not judged again"
    assert postfix.queue() == []
    _, out, _ = elemta(queue_id, command="explain")
    assert re.search(r"Afterwards\n  \S+ \S+ \S+  released by root", out)
    status, _, err = elemta("release", queue_id)
    assert (status, "is not on hold" in err) == (1, True)


def test_an_old_mail_is_released_as_a_new_one_and_not_judged_again(postfix, elemta, hold, journal, place):
    """Postfix gives a mail up at the first 4xx that is older than maximal_queue_lifetime; this one is, as it says."""
    milter, _ = place
    queue_id, decision = hold()
    postfix.postconf(maximal_queue_lifetime="1s")
    judged = milter.log().count("rule=hold")
    deadline = time.monotonic() + 10
    while listed(elemta)[0]["age"] < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    before = len(postfix.delivered())
    status, out, _ = elemta("release", queue_id)
    postfix.postconf(maximal_queue_lifetime="1d")
    assert (status, out) == (0, f"{queue_id}  released as a new message  from a@b.test to {TO}\n")
    # pickup(8) looks once a minute, or when a mail is submitted here; that mail the milter does see
    command = ["sendmail", "-C", postfix.config, "-f", "local@b.test", TO]
    subprocess.run(command, input=b"Subject: please hold\n\nlocal\n", check=True)
    delivered = postfix.wait_delivered(before + 1)[-1]
    assert delivered.count(b"X-Judged:") == 1
    assert f"X-Judged: {decision.id}".encode() in delivered
    milter.wait_for("rule=hold", judged + 1)
    [local] = postfix.held()
    journal(local)
    assert [mail["sender"] for mail in listed(elemta)] == ["local@b.test"], "what is submitted here is judged and held"
    assert milter.log().count("rule=hold") == judged + 1
    assert "released as a new message" in elemta(decision.id, command="explain")[1]


def test_what_is_deleted_is_gone_and_the_journal_says_who_did_it(postfix, elemta, hold):
    first, _ = hold("hold", sender="a@b.test")
    second, decision = hold("hold", sender="c@d.test")
    third, _ = hold("hold", sender="e@d.test")
    status, out, err = elemta("delete", "--sender", "*@d.test")
    assert (status, "say so with --yes" in err, first in out, second in out) == (os.EX_USAGE, True, False, True)
    assert set(postfix.held()) == {first, second, third}
    assert elemta("delete", second)[0] == 0
    assert elemta("delete", "--sender", "*@d.test", "--yes")[:2] == (0, f"{third}  deleted  from e@d.test to {TO}\n")
    assert postfix.held() == [first]
    assert "deleted by root" in elemta(decision.id, command="explain")[1]


def test_expiry_goes_by_class_and_leaves_what_others_hold(postfix, elemta, hold, journal):
    kept, _ = hold()
    short, decision = hold(sender="n@news.test")
    postfix.send("x@news.test", ELSEWHERE, "Subject: other\r\n\r\nx\r\n")
    [by_hand] = deferred(postfix)
    postfix.hold(by_hand)
    journal(by_hand)

    [other] = [mail for mail in listed(elemta, "--all") if mail["held_by"] == "other"]
    assert (other["queue_id"], other["subject"]) == (by_hand, "other")
    status, _, err = elemta("delete", by_hand)
    assert (status, "put on hold by somebody else" in err) == (1, True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and elemta("expire", "--dry-run")[1].count("its time is over") < 1:
        time.sleep(0.05)
    status, out, _ = elemta("expire")
    assert (status, out) == (0, f"{short}  deleted  from n@news.test to {TO}\n")
    assert sorted(postfix.held()) == sorted([kept, by_hand])
    assert "deleted, since its time was over, by root" in elemta(decision.id, command="explain")[1]
    assert elemta("expire")[:2] == (0, "")


def test_a_clock_that_leaps_ahead_deletes_nothing(postfix, elemta, hold, monkeypatch):
    kept, _ = hold()
    assert elemta("expire")[:2] == (0, "")
    moment, years = clock.look(), 10 * 365 * 86400
    monkeypatch.setattr(clock, "look", lambda: replace(moment, time=moment.time + years))
    monkeypatch.setattr("elemta.cli.quarantine.time", SimpleNamespace(time=lambda: moment.time + years))
    status, out, err = elemta("expire")
    assert (status, out) == (0, "")
    assert "some mails are kept, as if it were 20" in err
    assert "the clock leapt 87600 hours ahead" in err
    assert postfix.held() == [kept]


def test_a_mail_held_by_hand_after_we_released_it_is_not_ours_any_more(postfix, elemta, hold):
    queue_id, _ = hold(to=ELSEWHERE)
    assert elemta("release", queue_id)[0] == 0
    assert deferred(postfix) == [queue_id]
    postfix.hold(queue_id)
    assert [mail["held_by"] for mail in listed(elemta, "--all")] == ["other"]
    assert elemta("delete", queue_id)[0] == 1
    assert elemta("delete", "--older", "0", "--yes")[:2] == (0, "")
    assert postfix.held() == [queue_id]


def test_headers_of_many_mails_are_read_at_once_and_one_that_is_gone_costs_no_other(postfix, hold):
    mark = "*** MESSAGE CONTENTS hold/0z0 ***"
    first, _ = hold(f"hold this\r\n{mark}\r\n {mark}")
    second, _ = hold(f"hold that\r\nX-Long: {'y' * 5000}\r\nX-Last: 1")
    queue = HoldQueue(str(postfix.config))
    headers = queue.headers([first, "4jYKBx3MzfzJXXG", second])
    assert [subject_of(headers.get(each, b"")) for each in (first, second)] == ["hold this", "hold that"]
    assert list(headers) == [first, second]
    assert b"\nX-Last: 1\n" in headers[second]
    assert {each.queue_id for each in queue.mails()} == {first, second}


def test_a_release_while_postfix_is_down_is_delivered_when_it_is_up(postfix, elemta, hold):
    queue_id, _ = hold()
    before = len(postfix.delivered())
    postfix.stop()
    try:
        assert [mail["queue_id"] for mail in listed(elemta)] == [queue_id]
        assert elemta("release", queue_id)[0] == 0
    finally:
        postfix.start()
    assert len(postfix.wait_delivered(before + 1)) == before + 1


def test_a_bounce_with_a_short_queue_id_is_recognised(postfix, elemta, hold):
    postfix.postconf(enable_long_queue_ids="no")
    postfix.reload()
    try:
        queue_id, decision = hold(sender="")
        [mail] = listed(elemta)
    finally:
        postfix.postconf(enable_long_queue_ids="yes")
        postfix.reload()
    assert re.fullmatch("[0-9A-F]{6,}", queue_id)
    assert (mail["queue_id"], mail["id"], mail["sender"]) == (queue_id, decision.id, "")


def test_a_hold_by_a_rule_at_the_recipient_is_recognised_without_a_queue_id(capsys):
    with Daemon("policyd") as policyd, PrivatePostfix(policyd=policyd.address) as postfix:
        rule = "{id: early, when: {sender.domain: held.test}, then: quarantine}"
        policyd.reload(f"quarantine: {{postfix: {postfix.config}}}\nrules: {{recipient: [{rule}]}}\n")
        for sender in ("a@held.test", "a@other.test"):
            assert postfix.send(sender, [TO, "s@example.org"], "Subject: x\r\n\r\nhello\r\n").accepted
        assert len(postfix.wait_delivered(2)) == 2
        [queue_id] = postfix.held()
        deadline = time.monotonic() + 10
        said = ""
        while not said and time.monotonic() < deadline:
            with contextlib.suppress(JournalError):
                main(["quarantine", "list", "--json", "--config", str(policyd.policy)])
            said = capsys.readouterr().out
            time.sleep(0.05)
        told = json.loads(said)
        assert (told["queue_id"], told["rule"], told["held_by"]) == (queue_id, "early", "elemta")
        assert main(["quarantine", "delete", told["id"], "--config", str(policyd.policy)]) == 0
        assert postfix.held() == []


def test_it_says_what_is_missing(place, elemta):
    _, postfix = place
    status, _, err = elemta("list", "--postfix", "/nowhere")
    assert (status, "quarantine.postfix" in err) == (os.EX_CONFIG, True)
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "postsuper", "-c", postfix.config, "-H", "ABC"]
    assert b"superuser" in subprocess.run(nobody, capture_output=True, check=False).stderr, "what the message goes by"

"""Which decision holds this mail: ids, times, senders, and what was done before."""

import time

import pytest

from elemta.config.model import Quarantine
from elemta.findings import Finding, Result
from elemta.journal import Act, Deed, Reader, record
from elemta.quarantine import Choice, Queued, held
from elemta.verdict import Action, ActionKind, Disposition
from harness.decisions import decision
from harness.journal import JournalWriter

NOW = float(int(time.time()))
LONG, SHORT = "4jYKBx3MzfzJXXG", "4F3A1B2C3D"
TIMES = Quarantine(keep="30d", classes={"newsletters": "2d"})


@pytest.fixture
def journal(tmp_path):
    """Keep decisions; the path of the journal."""
    path = str(tmp_path / "journal.db")

    def keep(*decisions):
        writer = JournalWriter(path, print)
        writer.open()
        for each in decisions:
            writer.decided(each)
        assert writer.close() == 0
        return path

    return keep


def holding(**changes):
    given = {"disposition": Disposition.QUARANTINE, "rule": "hold", "reply": "", "at": NOW + 0.4, "queue_id": LONG}
    return decision(**{**given, **changes})


def queued(queue_id=LONG, **changes):
    given = {"arrived": NOW, "size": 5700, "sender": "alice@sender.test", "recipients": ("bob@here.test",)}
    return Queued(queue_id, **{**given, **changes})


def looked_up(path, *mails):
    reader = Reader(path)
    try:
        return list(held(mails, reader, TIMES))
    finally:
        reader.close()


def test_the_decision_that_holds_a_mail_says_until_when_and_why(journal):
    path = journal(holding(), holding(queue_id="other", klass="newsletters"))
    mine, other, nobodys = looked_up(path, queued(), queued("other"), queued("unknown"))
    assert (mine.decision.rule, mine.expires) == ("hold", NOW + 0.4 + 30 * 86400)
    assert other.expires == NOW + 0.4 + 2 * 86400
    assert mine.reason == "spf: -all matched"
    assert (nobodys.decision, nobodys.expires, nobodys.reason) == (None, None, "")


def test_a_check_in_trouble_is_the_reason_too(journal):
    finding = Finding("clamav", Result.TEMPERROR, "refused", trouble=True)
    [mail] = looked_up(journal(holding(rule="trouble:clamav", findings=(finding,))), queued())
    assert mail.reason == "clamav: refused"


@pytest.mark.parametrize("when", [{}, {"stage": "recipient", "queue_id": ""}], ids=["message", "recipient"])
@pytest.mark.parametrize("disposition", [Disposition.ACCEPT, Disposition.DISCARD])
def test_what_was_let_pass_is_held_by_somebody_else(journal, disposition, when):
    [mail] = looked_up(journal(holding(disposition=disposition, **when)), queued())
    assert mail.decision is None


@pytest.mark.parametrize(
    ("queue_id", "changes", "ours"),
    [
        (SHORT, {}, True),
        (SHORT, {"sender": "ALICE@sender.test"}, True),
        (SHORT, {"sender": "changed@here.test"}, True),
        (SHORT, {"sender": "mallory@sender.test"}, False),
        (SHORT, {"arrived": NOW - 7200}, False),
        (SHORT, {"arrived": NOW + 60}, False),
        (LONG, {"sender": "canonical@sender.test", "arrived": NOW - 7200}, True),
    ],
)
def test_a_short_queue_id_alone_proves_nothing(journal, queue_id, changes, ours):
    action = Action(ActionKind.CHANGE_SENDER, "", "changed@here.test")
    [mail] = looked_up(journal(holding(queue_id=queue_id, actions=(action,))), queued(queue_id, **changes))
    assert (mail.decision is not None) == ours


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"recipients": ("carol@here.test", "Bob@here.test")}, True),
        ({"sender": "other@sender.test"}, False),
        ({"recipients": ("carol@here.test",)}, False),
        ({"arrived": NOW + 60}, False),
        ({"arrived": NOW - 60}, False),
    ],
)
def test_a_hold_at_the_first_recipient_is_found_without_a_queue_id(journal, changes, ours):
    [mail] = looked_up(journal(holding(stage="recipient", queue_id="")), queued(**changes))
    assert (mail.decision is not None) == ours


@pytest.mark.parametrize("queue_id", [LONG, SHORT])
@pytest.mark.parametrize("told", ["queue_id", ""])
def test_postfix_tells_a_policy_service_an_address_without_its_quotes(journal, queue_id, told):
    entry = holding(
        stage="recipient", queue_id=told and queue_id, sender='Ann "x" Lee@sender.test', recipients=("b ob@here.test",)
    )
    quoted = {"sender": '"ann \\"x\\" lee"@sender.test', "recipients": ('"b ob"@here.test',)}
    [mail] = looked_up(journal(entry), queued(queue_id, **quoted))
    assert mail.decision is not None


def test_a_burst_from_one_sender_is_recognised_to_its_last(journal):
    many = [f"r{number}@here.test" for number in range(70)]
    path = journal(*(holding(stage="recipient", queue_id="", recipients=(each,)) for each in many))
    mails = looked_up(path, *(queued(f"z{each[:3]}", recipients=("alias@here.test", each)) for each in many))
    assert all(mail.decision is not None for mail in mails)


@pytest.mark.parametrize(("deed", "ours"), [(Deed.DELETED, True), (Deed.EXPIRED, True), (Deed.RELEASED, False)])
def test_one_of_two_alike_is_still_ours_when_the_other_was_deleted(journal, deed, ours):
    """They came within seconds from one sender to one recipient, and were held before they had a queue id."""
    first, second = (holding(id=each * 10, stage="recipient", queue_id="") for each in "AB")
    path = journal(first, second)
    [mail] = looked_up(path, queued())
    record(path, [Act(mail.decision.id, NOW + 9, deed, "root")])
    [other] = looked_up(path, queued("another"))
    assert (other.decision is not None) == ours
    if ours:
        record(path, [Act(other.decision.id, NOW + 9, deed, "root")])
        assert looked_up(path, queued("third"))[0].decision is None, "both are gone: this is somebody else's"


def test_a_star_in_a_sender_is_no_wildcard(journal):
    [mail] = looked_up(journal(holding(stage="recipient", queue_id="")), queued(sender="*@sender.test"))
    assert mail.decision is None


def test_the_rules_of_the_message_come_first(journal):
    path = journal(holding(stage="recipient", rule="early"), holding(rule="late"))
    assert looked_up(path, queued())[0].decision.rule == "late"


@pytest.mark.parametrize("deed", [Deed.RELEASED, Deed.REQUEUED])
def test_what_was_released_and_is_held_again_is_not_ours(journal, deed):
    path = journal(holding(id="AAAAAAAAAA"), holding(id="BBBBBBBBBB", queue_id="other"))
    record(path, [Act("AAAAAAAAAA", NOW + 9, deed, "root")])
    assert [mail.decision is None for mail in looked_up(path, queued(), queued("other"))] == [True, False]


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ({}, True),
        ({"rule": "hold"}, True),
        ({"rule": "ho*"}, True),
        ({"rule": "hol"}, False),
        ({"klass": "inbound", "sender": "*@SENDER.test"}, True),
        ({"klass": "inbound", "sender": "*@other.test"}, False),
        ({"recipient": "bob@*"}, True),
        ({"recipient": "carol@*"}, False),
        ({"reason": "SPF"}, True),
        ({"reason": "all matched"}, True),
        ({"reason": "clamav"}, False),
        ({"older": 50}, True),
        ({"older": 70}, False),
        ({"newer": 70}, True),
        ({"newer": 50}, False),
    ],
)
def test_criteria_choose(journal, criteria, fits):
    [mail] = looked_up(journal(holding()), queued())
    choice = Choice(**criteria)
    assert bool(choice) == bool(criteria)
    assert choice.fits(mail, NOW + 60) == fits

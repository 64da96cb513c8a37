"""Which of the changes that Rspamd asks for are made?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.decision import Decision
from elemta.facts import Message
from elemta.testing import message
from elemta.verdict import Action, ActionKind, Verdict
from elemta_milter.planning import plan
from elemta_milter.scanners.rspamd_edits import edits
from elemta_milter.scanners.rspamd_reply import Changes, Reply

HOST = "mx1.example.org"
ADD, SET, REMOVE = ActionKind.ADD_HEADER, ActionKind.SET_HEADER, ActionKind.REMOVE_HEADER
PLAIN = message()


def made(changes=None, action="no action", mail=PLAIN, **reply):
    problems = []
    return list(
        edits(Reply(action, 0.0, changes=changes or Changes(), **reply), action, mail, HOST, problems)
    ), problems


def test_nothing():
    assert made() == ([], [])


def test_header_fields_are_removed_before_others_are_added():
    mail = message(headers=[("X-Spam", "Yes"), ("From", "a@b.test"), ("x-spam", "No")])
    changes = Changes(
        remove_headers=(("X-Spam", 0), ("X-Bar", 0), ("From", 1)), add_headers=(("X-Bar", "+"), ("X-Bar", "-"))
    )
    assert made(changes, mail=mail) == (
        [
            Action(REMOVE, value="X-Spam", nth=2),
            Action(REMOVE, value="X-Spam", nth=1),
            Action(REMOVE, value="From", nth=1),
            Action(ADD, "X-Bar", "+"),
            Action(ADD, "X-Bar", "-"),
        ],
        [],
    )


def test_a_thousand_fields_of_one_name_are_one_action():
    mail = Message(headers=((b"X-Spam", b" Yes"),) * 1000)
    assert made(Changes(remove_headers=(("X-Spam", 0),)), mail=mail)[0] == [Action(REMOVE, value="X-Spam")]


def test_the_envelope():
    changes = Changes(add_recipients=("<c@x.test>", "d@x.test"), remove_recipients=("r@x.test",), sender="<new@x.test>")
    assert made(changes)[0] == [
        Action(ActionKind.CHANGE_SENDER, value="new@x.test"),
        Action(ActionKind.ADD_RECIPIENT, value="c@x.test"),
        Action(ActionKind.ADD_RECIPIENT, value="d@x.test"),
        Action(ActionKind.REMOVE_RECIPIENT, value="r@x.test"),
    ]
    for null in ("", "<>"):
        assert made(Changes(sender=null)) == ([Action(ActionKind.CHANGE_SENDER)], [])


def test_the_spam_header_and_the_subject_are_for_their_actions():
    changes = Changes(spam_headers=(("Deliver-To", "Junk"),))
    assert made(changes, "add header")[0] == [Action(SET, "Deliver-To", "Junk")]
    assert made(changes, "no action")[0] == []
    assert made(action="rewrite subject", subject="*** a")[0] == [Action(SET, "Subject", "*** a")]
    assert made(action="rewrite subject")[0] == []
    assert made(action="add header", subject="*** a")[0] == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (Changes(add_headers=(("X Bad", "v"),)), "'X Bad' is no header field's name"),
        (Changes(add_headers=(("", "v"),)), "'' is no header field's name"),
        (Changes(add_headers=(("X:\r\nBcc", "v"),)), "is no header field's name"),
        (Changes(add_headers=(("X-Grün", "v"),)), "is no header field's name"),
        (Changes(remove_headers=(("X Bad", 0),)), "'X Bad' is no header field's name"),
        (Changes(add_recipients=("a b@x.test",)), "'a b@x.test' is no address"),
        (Changes(add_recipients=("",)), "'' is no address"),
        (Changes(remove_recipients=("a@x.test>\r\nRCPT TO:<b@x.test",)), "is no address"),
        (Changes(sender="a\nb@x.test"), "is no address"),
        (Changes(add_headers=(("DKIM-Signature", "v=1"),)), "its DKIM-Signature is left out"),
        (Changes(add_headers=(("ARC-Seal", "i=1"),)), "its ARC-Seal is left out"),
        (Changes(add_headers=(("authentication-results", f"{HOST}; spf=pass"),)), "in our name is left out"),
    ],
)
def test_what_no_mail_may_hold_and_what_is_ours_to_say(changes, problem):
    found, problems = made(changes)
    assert found == []
    assert problem in problems[0]


def test_results_in_another_name_are_added():
    field = ("Authentication-Results", "rspamd.example.org; spf=pass")
    assert made(Changes(add_headers=(field,)))[0] == [Action(ADD, *field)]


def test_a_signature_is_told():
    assert "dkim_signing" in made(signed=True)[1][0]


TEXT = st.text(max_size=12) | st.sampled_from(["From", "X-A", "a@b.test", "<a@b.test>", "", "\r\nX: y"])
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
WANTED = st.builds(
    Changes,
    remove_headers=st.lists(st.tuples(TEXT, st.integers(-5, 5)), max_size=4).map(tuple),
    add_headers=PAIRS,
    spam_headers=PAIRS,
    add_recipients=st.lists(TEXT, max_size=3).map(tuple),
    remove_recipients=st.lists(TEXT, max_size=3).map(tuple),
    sender=st.none() | TEXT,
)


@settings(deadline=None)
@given(WANTED, st.sampled_from(["no action", "add header", "rewrite subject"]), TEXT)
def test_whatever_it_asks_for_can_be_planned(changes, action, subject):
    actions, _ = made(changes, action, subject=subject)
    decision = Decision(
        id="0123456789", at=0.0, stage="message", klass="inbound", facts=PLAIN, values={}, findings=(),
        verdict=Verdict(actions=tuple(actions)),
    )  # fmt: skip
    plan(decision, PLAIN, HOST)  # would raise Unlawful, and the mail would be deferred

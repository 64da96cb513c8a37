"""What must Postfix change in a message so that the verdict is carried out?"""

import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.decision import Decision
from elemta.facts import Envelope, Message
from elemta.findings import AuthResult, Finding, Result
from elemta.verdict import Action, ActionKind, Disposition, Verdict
from elemta_milter.bounds import BOUNDS, NAMELESS
from elemta_milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteHeader,
    InsertHeader,
    Quarantine,
    RemoveRecipient,
    ReplaceBody,
    Unlawful,
)
from elemta_milter.planning import plan
from elemta_milter.rewriting.change import Change, Rewritten, Splice

HOST = "mx1.example.org"
AR = b"Authentication-Results"
OURS = b" mx1.example.org; spf=pass"
THEIRS = b" other.example; spf=pass"


def decide(*actions, then=Disposition.ACCEPT, findings=(), rule="a-rule"):
    return Decision(
        id="0123456789", at=0.0, stage="message", klass="inbound", facts=Message(), values={}, findings=findings,
        verdict=Verdict(then, rule, actions=actions),
    )  # fmt: skip


def mail(*headers, recipients=("a@example.org", "b@example.org")):
    return Message(Envelope(recipients=recipients), headers)


def asked(kind, name="", value=""):
    return Action(ActionKind(kind), name, value)


X3 = mail((b"X", b" 1"), (b"Y", b" 1"), (b"x", b" 2"), (b"X", b" 3"))


@pytest.mark.parametrize(
    ("actions", "message", "edits"),
    [
        ([], X3, []),
        ([("add_header", "X", "4")], X3, [AddHeader("X", "4")]),
        ([("remove_header", "", "X")], X3, [DeleteHeader("X", 3), DeleteHeader("X", 2), DeleteHeader("X", 1)]),
        ([("remove_header", "", "x")], X3, [DeleteHeader("x", 3), DeleteHeader("x", 2), DeleteHeader("x", 1)]),
        ([("remove_header", "", "Z")], X3, []),
        ([("set_header", "X", "9")], X3, [DeleteHeader("X", 3), DeleteHeader("X", 2), ChangeHeader("X", 1, "9")]),
        ([("set_header", "Y", "9")], X3, [ChangeHeader("Y", 1, "9")]),
        ([("set_header", "Z", "9")], X3, [AddHeader("Z", "9")]),
        ([("add_header", "Z", "1"), ("set_header", "Z", "2")], X3, [AddHeader("Z", "1"), ChangeHeader("Z", 1, "2")]),
        ([("remove_header", "", "Y"), ("set_header", "Y", "2")], X3, [DeleteHeader("Y", 1), AddHeader("Y", "2")]),
        ([("add_header", "Y", "2"), ("remove_header", "", "Y")], X3,
         [AddHeader("Y", "2"), DeleteHeader("Y", 2), DeleteHeader("Y", 1)]),
        ([("add_recipient", "", "c@example.org")], X3, [AddRecipient("c@example.org")]),
        ([("add_recipient", "", "A@Example.org")], X3, []),
        ([("add_recipient", "", "c@x.test"), ("add_recipient", "", "c@x.test")], X3, [AddRecipient("c@x.test")]),
        ([("remove_recipient", "", "B@EXAMPLE.ORG")], X3, [RemoveRecipient("b@example.org")]),
        ([("remove_recipient", "", "b@x.test")], mail(recipients=("b@x.test", "c@x.test", "B@x.test", "b@x.test")),
         [RemoveRecipient("b@x.test"), RemoveRecipient("B@x.test")]),
        ([("remove_recipient", "", "b@x.test")], mail(recipients=('"b"@x.test', "b@x.test.", "bc@x.test")),
         [RemoveRecipient('"b"@x.test'), RemoveRecipient("b@x.test.")]),
        ([("add_recipient", "", "b@x.test")], mail(recipients=('"b"@x.test',)), []),
        ([("add_recipient", "", "b@bücher.test")], mail(recipients=("b@xn--bcher-kva.test",)), []),
        ([("remove_recipient", "", "b@xn--bcher-kva.test")], mail(recipients=("b@bücher.test",)),
         [RemoveRecipient("b@bücher.test")]),
        ([("remove_recipient", "", "nobody@example.org")], X3, []),
        ([("change_sender", "", "new@example.org")], X3, [ChangeSender("new@example.org")]),
        ([("change_sender", "", "")], X3, [ChangeSender("")]),
        ([("change_sender", "", "one@x.test"), ("change_sender", "", "two@x.test")], X3, [ChangeSender("two@x.test")]),
        ([("label", "", "word"), ("add_to_set", "set", "word")], X3, []),
        ([("replace_body", "", "Gone.\nAll.")], mail((b"Content-Type", b" text/html")), [
            AddHeader("MIME-Version", "1.0"),
            ChangeHeader("Content-Type", 1, "text/plain; charset=utf-8"),
            AddHeader("Content-Transfer-Encoding", "7bit"),
            ReplaceBody(b"Gone.\r\nAll.\r\n"),
        ]),
        # order: header, recipients, sender, body
        ([("change_sender", "", "s@x.test"), ("add_recipient", "", "c@x.test"), ("add_header", "A", "b")], X3,
         [AddRecipient("c@x.test"), AddHeader("A", "b"), ChangeSender("s@x.test")]),
    ],
)  # fmt: skip
def test_what_rules_ask_for(actions, message, edits):
    assert plan(decide(*(asked(*each) for each in actions)), message, HOST) == tuple(edits)


@pytest.mark.parametrize("then", [Disposition.REJECT, Disposition.DEFER, Disposition.DISCARD])
def test_a_mail_that_is_not_kept_is_not_edited(then):
    decision = decide(asked("add_header", "X", "1"), then=then, findings=[spf("pass")])
    assert plan(decision, mail((AR, OURS)), HOST) == ()


def test_quarantine_comes_last_and_says_why():
    decision = decide(asked("add_header", "X", "1"), then=Disposition.QUARANTINE)
    assert plan(decision, mail(), HOST) == (AddHeader("X", "1"), Quarantine("a-rule 0123456789"))
    assert plan(decide(then=Disposition.QUARANTINE, rule=""), mail(), HOST) == (Quarantine("quarantine 0123456789"),)


def spf(word):
    return Finding("spf", Result(word), authres=(AuthResult("spf", word, "", (("smtp.mailfrom", "a@b.test"),)),))


def test_our_results_go_on_top_as_one_field():
    iprev = Finding("iprev", Result.FAIL, authres=(AuthResult("iprev", "fail", "", (("policy.iprev", "192.0.2.7"),)),))
    [edit] = plan(decide(findings=[spf("pass"), Finding("rspamd", Result.NONE), iprev]), mail(), HOST)
    assert isinstance(edit, InsertHeader)
    assert (edit.index, edit.name) == (0, "Authentication-Results")
    assert edit.value.startswith("mx1.example.org;")
    assert edit.value.index("spf=pass smtp.mailfrom=a@b.test") < edit.value.index("iprev=fail policy.iprev=192.0.2.7")


def test_evidence_in_a_form_of_its_own_stands_on_top_too():
    found = Finding("spf", Result.PASS, header=(("Received-SPF", "pass (mx1.example.org: it may) x=1"),))
    edits = plan(decide(findings=[found, spf("pass")]), mail(), HOST)
    assert edits[0] == InsertHeader(0, "Received-SPF", "pass (mx1.example.org: it may) x=1")
    assert [edit.name for edit in edits] == ["Received-SPF", "Authentication-Results"]


def test_what_becomes_of_the_content_changes_fields_too():
    change = Change(memoryview(b"hello\r\n"), (Splice(0, 0, b"note\r\n"),), {"Content-Type": None, "X-New": "1"})
    banner, taken = asked("banner", "", "note"), asked("replace_attachments", "", "note")
    decision = decide(banner, taken, findings=[Finding("rewrite", Result.NONE, detail=Rewritten(change))])
    assert plan(decision, mail((b"Content-Type", b" text/html")), HOST) == (
        DeleteHeader("Content-Type", 1),
        AddHeader("X-New", "1"),
        ReplaceBody(b"note\r\nhello\r\n"),
    )
    assert plan(decide(banner), mail(), HOST) == ()  # nobody looked: a banner is not worth the mail
    with pytest.raises(Unlawful, match="the mail was not looked through"):
        plan(decide(banner, taken), mail(), HOST)


def test_without_results_no_field_is_added():
    assert plan(decide(findings=[Finding("rspamd", Result.PASS)]), mail(), HOST) == ()


def test_forged_fields_go_the_last_one_first_before_all_else():
    message = mail((AR, OURS), (b"Subject", OURS), (AR, THEIRS), (b"authentication-results", OURS), (AR, OURS))
    edits = plan(decide(asked("add_header", "X", "1"), findings=[spf("fail")]), message, HOST)
    assert edits[:3] == (DeleteHeader("Authentication-Results", 4), DeleteHeader("authentication-results", 3),
                         DeleteHeader("Authentication-Results", 1))  # fmt: skip
    assert edits[3] == AddHeader("X", "1")
    assert isinstance(edits[4], InsertHeader)
    assert len(edits) == 5


def test_names_with_spaces_are_counted_apart():
    message = mail((AR + b" ", OURS), (AR, THEIRS), (AR, OURS))
    assert plan(decide(), message, HOST) == (
        DeleteHeader("Authentication-Results", 2),
        DeleteHeader("Authentication-Results ", 1),
    )


def test_a_trusted_client_keeps_its_evidence():
    message = mail((AR, OURS))
    [edit] = plan(decide(findings=[spf("pass")]), message, HOST, trusted=True)
    assert isinstance(edit, InsertHeader)


def test_where_the_mta_allows_no_marks_rules_still_act():
    decision = decide(asked("add_recipient", "", "c@x.test"), findings=[spf("pass")])
    assert plan(decision, mail((AR, OURS)), HOST, mark=False) == (AddRecipient("c@x.test"),)


def test_a_rule_that_removes_all_results_leaves_ours():
    decision = decide(asked("remove_header", "", "Authentication-Results"), findings=[spf("pass")])
    edits = plan(decision, mail((AR, THEIRS), (AR, OURS), (AR, THEIRS)), HOST)
    assert edits[:3] == tuple(DeleteHeader("Authentication-Results", nth) for nth in (2, 2, 1))
    assert isinstance(edits[3], InsertHeader)


def test_fields_that_nobody_read_go_too():
    assert plan(decide(), mail((AR, THEIRS), (AR, OURS)), HOST, unkept={AR.lower(): 2}) == (
        DeleteHeader("Authentication-Results", 4),
        DeleteHeader("Authentication-Results", 3),
        DeleteHeader("Authentication-Results", 2),
    )


def test_more_forgeries_than_can_be_taken_out():
    forged = [(AR, OURS)] * BOUNDS.removals
    assert len(plan(decide(), mail(*forged), HOST)) == BOUNDS.removals
    with pytest.raises(Unlawful, match="1,001"):
        plan(decide(), mail(*forged, (AR, OURS)), HOST)
    with pytest.raises(Unlawful):
        plan(decide(), mail(), HOST, unkept={AR.lower(): BOUNDS.removals + 1})
    with pytest.raises(Unlawful, match="1,001"):  # those that were read and those that were not
        plan(decide(), mail(*forged), HOST, unkept={AR.lower(): 1})


def test_a_rule_reaches_fields_that_nobody_read():
    unkept = {b"x": 2, b"z": 1, AR.lower(): 1}
    assert plan(decide(asked("remove_header", "", "X")), mail((b"X", b" 1")), HOST, unkept=unkept)[1:] == tuple(
        DeleteHeader("X", nth) for nth in (3, 2, 1)
    )
    assert plan(decide(asked("set_header", "Z", "9")), mail(), HOST, unkept=unkept)[1:] == (ChangeHeader("Z", 1, "9"),)
    added = plan(decide(asked("set_header", AR.decode(), "9")), mail(), HOST, unkept=unkept)
    assert added == (DeleteHeader(AR.decode(), 1), AddHeader(AR.decode(), "9"))
    most = plan(decide(asked("set_header", "X", "9")), mail(), HOST, unkept={b"x": BOUNDS.header_fields + 1})
    assert (len(most), most[0], most[-1]) == (4001, DeleteHeader("X", 4001), ChangeHeader("X", 1, "9"))
    with pytest.raises(Unlawful, match="4,001 fields X to take out"):
        plan(decide(asked("remove_header", "", "X")), mail(), HOST, unkept={b"x": BOUNDS.header_fields + 1})


def test_results_that_nobody_read_go_however_their_name_is_written():
    assert plan(decide(), mail((AR + b" ", OURS)), HOST, unkept={AR.lower() + b" ": 1, AR.lower(): 2}) == (
        DeleteHeader("Authentication-Results", 2),
        DeleteHeader("Authentication-Results", 1),
        DeleteHeader("Authentication-Results ", 2),
        DeleteHeader("Authentication-Results ", 1),
    )
    with pytest.raises(Unlawful, match="1,001"):
        plan(decide(), mail(), HOST, unkept={AR.lower() + b" ": 1, AR.lower(): BOUNDS.removals})


@pytest.mark.parametrize(
    "action",
    [
        asked("remove_header", "", "X"),
        Action(ActionKind.REMOVE_HEADER, value="X", nth=1),
        asked("set_header", "X", "9"),
        asked("tag_subject", "", "[tag]"),
        asked("replace_body", "", "Gone"),
    ],
)
def test_where_not_even_the_names_of_all_fields_are_known_none_is_taken_out_by_name(action):
    """It would be delivered with those that the rule wants gone."""
    with pytest.raises(Unlawful, match="1,234 header fields"):
        plan(decide(action), mail((b"X", b" 1")), HOST, unkept={NAMELESS: 1234})
    assert len(plan(decide(asked("add_header", "X", "9")), mail((AR, OURS)), HOST, unkept={NAMELESS: 1234})) == 2


@pytest.mark.parametrize("name", ["", "X Y", "X:", "Ä", "X\n", "X\0", "x" * 200])
def test_names_that_no_field_may_have(name):
    for action in (asked("add_header", name, "1"), asked("set_header", name, "1"), asked("remove_header", "", name)):
        with pytest.raises(Unlawful):
            plan(decide(action), mail(), HOST)


@pytest.mark.parametrize(
    "address", ["a b@c.test", "a@b.test>", "<a@b.test", "a@b.test\r\nX: y", "a\0@b.test", "\udcff@b.test"]
)
def test_addresses_that_are_none(address):
    for kind in ("add_recipient", "change_sender"):
        with pytest.raises(Unlawful):
            plan(decide(asked(kind, "", address)), mail(), HOST)


@pytest.mark.parametrize(
    ("value", "lawful"),
    [
        ("plain", "plain"),
        ("  both ends  ", "both ends"),
        ("a\r\nX-Injected: 1", "a X-Injected: 1"),
        ("a\n\tfolded", "a folded"),
        ("a\n\n.\n", "a ."),
        ("nul\0 bell\a del\x7f", "nul? bell? del?"),
        ("tab\tstays", "tab\tstays"),
        ("grün", "grün"),
        ("not \udcff utf-8", "not ? utf-8"),
        ("", ""),
    ],
)
def test_values(value, lawful):
    assert plan(decide(asked("add_header", "X", value)), mail(), HOST) == (AddHeader("X", lawful),)


@given(st.text() | st.text("ab \n\r\t\0ä", max_size=4000), st.sampled_from(["X", "X" * 100]))
def test_any_value_becomes_a_lawful_field(value, name):
    [edit] = plan(decide(asked("add_header", name, value * 9)), mail(), HOST)
    first, *more = edit.value.encode().split(b"\n")
    assert len(first) + len(name) + 2 <= 998
    for line in more:
        assert line[:1] == b"\t"
        assert line.strip(), "a folded line may not be empty"
        assert len(line) <= 998
    assert b"\r" not in edit.value.encode()
    assert b"\0" not in edit.value.encode()


@pytest.mark.parametrize("words", ["\U0001f4e7" * 200 + " words" * 60, "a " + "b" * 994])
def test_a_long_value_is_folded_at_blanks_whatever_its_characters_take(words):
    [edit] = plan(decide(asked("add_header", "X", words)), mail(), HOST)
    assert "\n" in edit.value
    assert edit.value.split() == words.split()


@given(st.text(max_size=300))
def test_any_text_becomes_a_lawful_body(text):
    edits = plan(decide(asked("replace_body", "", text)), mail(), HOST)
    [data] = [edit.data for edit in edits if isinstance(edit, ReplaceBody)]
    [encoding] = [
        edit.value for edit in edits if isinstance(edit, AddHeader) and edit.name == "Content-Transfer-Encoding"
    ]
    assert data.endswith(b"\r\n")
    assert data.replace(b"\r\n", b"").count(b"\n") == data.replace(b"\r\n", b"").count(b"\r") == 0
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    assert data.isascii()
    assert b"\0" not in data
    shown = quopri.decodestring(data) if encoding == "quoted-printable" else data
    assert shown.split() == text.encode("utf-8", "replace").replace(b"\r", b"\n").split()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add_header", "set_header", "remove_header"]), st.sampled_from("XY"), st.just("new")
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from([b"X", b"x", b"Y", b"Z"]), max_size=8),
)
def test_the_numbers_fit_an_mta_that_counts_anew_after_each_edit(actions, names):
    fields = [[name.decode(), "old"] for name in names]
    asked_for = [
        asked(kind, "", name) if kind == "remove_header" else asked(kind, name, new) for kind, name, new in actions
    ]
    for edit in plan(decide(*asked_for), mail(*((name, b" old") for name in names)), HOST):
        same = [field for field in fields if field[0].lower() == edit.name.lower()]
        match edit:
            case AddHeader(name, value):
                fields.append([name, value])
            case ChangeHeader(_, nth, value):
                same[nth - 1][1] = value
            case DeleteHeader(_, nth):
                fields = [field for field in fields if field is not same[nth - 1]]
    expected = [(name.decode(), "old") for name in names]
    for kind, name, value in actions:
        here = [place for place, field in enumerate(expected) if field[0].lower() == name.lower()]
        if kind == "remove_header" or (kind == "set_header" and here):
            gone = here if kind == "remove_header" else here[1:]
            if kind == "set_header":
                expected[here[0]] = (expected[here[0]][0], value)
            expected = [field for place, field in enumerate(expected) if place not in gone]
        else:
            expected.append((name, value))
    assert [tuple(field) for field in fields] == expected


@pytest.mark.parametrize(
    ("numbers", "left"),
    [
        ([1], "234"), ([4], "123"), ([-1], "123"), ([-4], "234"), ([1, 2], "34"), ([2, 1], "34"), ([2, 2], "134"),
        ([-1, 4], "123"), ([1, 3, -1], "2"), ([5], "1234"), ([-5], "1234"), ([1, 0], ""), ([0, 1], ""),
    ],
)  # fmt: skip
def test_single_fields_are_removed_by_their_number_in_the_mail_as_it_came(numbers, left):
    message = mail(*((b"X-Number", b" %d" % number) for number in range(1, 5)))
    actions = [Action(ActionKind.REMOVE_HEADER, value="x-number", nth=number) for number in numbers]
    fields = [value.decode().strip() for _, value in message.headers]
    for edit in plan(decide(*actions), message, HOST):
        assert isinstance(edit, DeleteHeader)
        del fields[edit.nth - 1]  # as Postfix does: it counts anew after each
    assert "".join(fields) == left


def test_numbers_of_fields_hold_beside_other_edits():
    message = mail((AR, THEIRS), (AR, OURS), (AR, THEIRS), (b"X", b" 1"))
    remove = [Action(ActionKind.REMOVE_HEADER, value=name, nth=nth) for name, nth in (("Authentication-Results", 3),)]
    assert plan(decide(*remove), message, HOST) == (
        DeleteHeader("Authentication-Results", 2), DeleteHeader("Authentication-Results", 2),
    )  # fmt: skip
    kept = plan(
        decide(asked("add_header", "X", "ours"), Action(ActionKind.REMOVE_HEADER, value="X", nth=1)), message, HOST
    )
    assert kept[1:] == (AddHeader("X", "ours"), DeleteHeader("X", 1))
    again = plan(
        decide(asked("set_header", "X", "2"), Action(ActionKind.REMOVE_HEADER, value="X", nth=1)), message, HOST
    )
    assert again[1:] == (ChangeHeader("X", 1, "2"),)

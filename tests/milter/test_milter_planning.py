"""Edits as the MTA carries them out: is the header what the rules asked for, read one after the other?"""

from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.decision import Decision
from elemta.facts import Envelope, Message
from elemta.verdict import Action, ActionKind, Disposition, Verdict
from elemta_milter.edits import AddHeader, ChangeHeader, DeleteHeader
from elemta_milter.planning import plan

HOST = "mx.test"
RESULTS = "Authentication-Results"
FORGED, UNREAD = " mx.test; spf=pass", " nobody saw this"

NAMES = st.sampled_from(["A", "a", "B", RESULTS])
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([FORGED, " other.test; spf=pass", " 1", " 2"])), max_size=8)
UNKEPT = st.lists(st.tuples(NAMES.map(str.lower), st.just(UNREAD)), max_size=4)
VALUES = st.sampled_from(["x", "y"])
ACTIONS = st.lists(
    st.builds(Action, st.just(ActionKind.ADD_HEADER), NAMES, VALUES)
    | st.builds(Action, st.just(ActionKind.SET_HEADER), NAMES, VALUES)
    | st.builds(
        Action, st.just(ActionKind.REMOVE_HEADER), value=NAMES, nth=st.sampled_from([0, 0, 1, 2, 3, 9, -1, -2])
    ),
    max_size=5,
)


@settings(max_examples=1500, deadline=None)
@given(FIELDS, UNKEPT, ACTIONS)
def test_the_header_is_as_the_rules_asked(fields, below, actions):
    came = [[name, value] for name, value in (*fields, *below)]
    unkept = {name.encode(): [each for each, _ in below].count(name) for name, _ in below}
    message = Message(Envelope(), tuple((name.encode(), value.encode()) for name, value in fields))
    verdict = Verdict(Disposition.ACCEPT, "a-rule", actions=tuple(actions))
    decision = Decision("0123456789", 0.0, "message", "inbound", message, {}, (), verdict)
    assert _carried_out(plan(decision, message, HOST, unkept=unkept), came) == _asked(actions, came)


def _carried_out(edits, came):
    """The MTA's part."""
    header = [list(field) for field in came]
    for edit in edits:
        if isinstance(edit, AddHeader):
            header.append([edit.name, f" {edit.value}"])
            continue
        assert isinstance(edit, ChangeHeader | DeleteHeader)
        field = _called(header, edit.name)[edit.nth - 1]
        if isinstance(edit, ChangeHeader):
            field[:] = [edit.name, f" {edit.value}"]
        else:
            header = [each for each in header if each is not field]
    return header


def _asked(actions, came):
    """The rules' words, one after the other; those that count fields count the mail's own, as it came."""
    fields = [list(field) for field in came]
    own = {name.lower(): _called(fields, name) for name, _ in fields}
    header = [field for field in fields if field[0].lower() != RESULTS.lower() or field[1] not in (FORGED, UNREAD)]
    for action in actions:
        name = action.name or action.value
        there = _called(header, name)
        gone = there
        if action.kind is ActionKind.ADD_HEADER or (action.kind is ActionKind.SET_HEADER and not there):
            header.append([action.name, f" {action.value}"])
            continue
        if action.kind is ActionKind.SET_HEADER:
            gone = there[1:]
            own[name.lower()] = []  # the one that is left is the rule's
            there[0][:] = [action.name, f" {action.value}"]
        elif action.nth:
            mine = own.get(name.lower(), [])
            place = action.nth - 1 if action.nth > 0 else len(mine) + action.nth
            gone = mine[place : place + 1] if place >= 0 else []
        header = [field for field in header if not any(field is each for each in gone)]
    return header


def _called(header, name):
    return [field for field in header if field[0].lower() == name.lower()]

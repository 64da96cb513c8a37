"""Facts go to a plugin's process and come there as they were; what comes back is lawful or refused, whatever it is."""

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta import Action, ActionKind, AuthResult, Check, Client, Envelope, Field, Finding, Message, Result
from elemta.facts import BytesBody
from elemta.plugins.answer import finding_data, read_answer, read_finding
from elemta.plugins.wire import facts_data, read_facts, read_seen, seen_data

texts = st.text(max_size=20) | st.binary(max_size=20).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
addresses = st.none() | st.ip_addresses()
clients = st.builds(Client, addresses, texts, texts, st.integers(0, 65535), texts, texts)
envelopes = st.builds(Envelope, clients, texts, st.lists(texts, max_size=3).map(tuple), smtputf8=st.booleans())
headers = st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=30)), max_size=5).map(tuple)
messages = st.builds(Message, envelopes, headers, st.just(BytesBody()), texts)
values = st.none() | texts | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.ip_addresses()
values |= st.lists(texts, max_size=3).map(tuple)
evidence = st.builds(AuthResult, texts, texts, texts, st.lists(st.tuples(texts, texts), max_size=2).map(tuple))
findings = st.builds(
    Finding,
    st.just("spf"),
    st.sampled_from(Result),
    texts,
    st.dictionaries(texts, values, max_size=3),
    st.lists(evidence, max_size=2).map(tuple),
    st.booleans(),
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


class Probe(Check[Message]):
    """What is a field of each type?"""

    name = "probe"
    fields: ClassVar = {
        "text": Field(str, "t"), "number": Field(int, "n"), "share": Field(float, "s"), "yes": Field(bool, "y"),
        "where": Field(IPv4Address, "w"), "words": Field(tuple, "ws"),
    }  # fmt: skip
    results: ClassVar = (Result.PASS, Result.FAIL)

    async def run(self, facts, seen):
        return self.finding(Result.PASS)


def over_the_wire(data):
    return json.loads(json.dumps(data).encode())


@given(clients | envelopes | messages)
def test_facts_arrive_as_they_were(facts):
    assert read_facts(over_the_wire(facts_data(facts)), None) == facts


@given(st.dictionaries(st.just("spf"), findings))
def test_findings_arrive_as_they_were(seen):
    assert read_seen(over_the_wire(seen_data(seen))) == seen


FULL = Finding(
    "probe",
    Result.FAIL,
    "why",
    {"text": "ü\udcff", "number": 7, "share": 0.5, "yes": True, "where": IPv6Address("2001:db8::1"), "words": ("a",)},
    (AuthResult("probe", "fail", "why", (("policy.words", "a"),)), AuthResult("x-other", "pass")),
    warning="mend me",
    edits=(Action(ActionKind.ADD_HEADER, "X-A", "1"), Action(ActionKind.CHANGE_SENDER, "", "")),
)


def test_a_lawful_finding_comes_back_whole():
    assert read_finding(Probe, over_the_wire(finding_data(FULL))) == FULL


def test_a_field_without_a_value_is_absent():
    assert read_finding(Probe, {"result": "pass", "fields": {"text": None}}).fields == {}


@given(junk)
def test_whatever_comes_back_is_a_finding_or_refused(data):
    try:
        found = read_finding(Probe, data)
    except ValueError:
        return
    assert found.result in Probe.results


@given(st.dictionaries(st.sampled_from(sorted(over_the_wire(finding_data(FULL)))), junk, max_size=4))
@settings(max_examples=400)
def test_a_finding_with_junk_in_it_is_read_or_refused(junk):
    data = over_the_wire(finding_data(FULL)) | junk
    try:
        found = read_finding(Probe, data)
    except ValueError:
        return
    for name, value in found.fields.items():
        of = Probe.fields[name].type
        assert isinstance(value, (IPv4Address, IPv6Address) if of is IPv4Address else (of, int) if of is float else of)
    assert all(action.kind is not ActionKind.ADD_TO_SET for action in found.edits)
    assert not found.header


@given(st.binary(max_size=300))
def test_octets_are_an_answer_or_refused(octets):
    try:
        found = read_answer(octets)
    except ValueError:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    "fields",
    [
        {"number": True}, {"number": 1.0}, {"number": 1 << 63}, {"number": 10**400}, {"share": 10**400},
        {"share": True}, {"share": "0.5"}, {"yes": 1}, {"text": 1}, {"text": ["a"]}, {"words": "a"},
        {"words": ["a", 1]}, {"where": "nowhere"}, {"where": 1}, {"other": 1},
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_refused(fields):
    with pytest.raises(ValueError, match=r"must be|not declared|does not appear to be"):
        read_finding(Probe, {"result": "pass", "fields": fields})


def test_numbers_that_are_none_are_refused():
    for text in ("NaN", "Infinity", "1e999"):
        with pytest.raises(ValueError, match="share must be float"):
            read_finding(Probe, json.loads(f'{{"result": "pass", "fields": {{"share": {text}}}}}'))


@pytest.mark.parametrize(
    "edit",
    [
        ["add_to_set", "a", "b"], ["add_header", "X A", "b"], ["add_header", "", "b"], ["remove_header", "", ""],
        ["add_recipient", "", "a b@c.test"], ["add_recipient", "", ""], ["change_sender", "", "<a@b.test>"],
        ["explode", "", ""], ["add_header", "X-A"], "add_header", ["add_header", 1, 2],
        ["remove_recipient", "", "a@b.test\r\nDATA"],
    ],
)  # fmt: skip
def test_edits_that_no_mail_may_see_are_refused(edit):
    with pytest.raises(ValueError, match=r"is no |no change"):
        read_finding(Probe, {"result": "pass", "edits": [edit]})


@pytest.mark.parametrize(
    "evidence",
    [
        ["spf", "pass", "", []], ["x-a b", "pass", "", []], ["x-a\r\nb", "pass", "", []], ["probe", "pa;ss", "", []],
        ["probe", "pass", "", [["policy.a", "b"], ["policy", "a"]]], ["probe", "pass", "", ["policy.a"]],
        ["probe", "pass", None, []],
    ],
)  # fmt: skip
def test_evidence_that_is_not_its_own_or_breaks_the_header_is_refused(evidence):
    with pytest.raises(ValueError, match=r"authres"):
        read_finding(Probe, {"result": "pass", "authres": [evidence]})


@pytest.mark.parametrize(
    "data",
    [
        {"result": "softfail"}, {"result": "softfail", "trouble": True}, {"result": "temperror"},
        {"result": "pass", "header": [["X-A", "b"]]}, {"result": "pass", "edits": [["add_header", "X-A", "b"]] * 101},
    ],
)  # fmt: skip
def test_what_it_did_not_declare_or_may_not_say_is_refused(data):
    with pytest.raises(ValueError, match=r"among those it declares|is for checks in process|at most 100"):
        read_finding(Probe, data)


def test_trouble_and_lawful_edits_are_taken():
    assert read_finding(Probe, {"result": "temperror", "trouble": True}).trouble
    edits = [["add_header", "X-A", "two words"], ["change_sender", "", ""], ["add_recipient", "", "a@b.test"]]
    found = read_finding(Probe, {"result": "pass", "edits": edits}).edits
    assert [[each.kind, each.name, each.value] for each in found] == edits


def test_ip_address_means_both_kinds():
    assert ip_address("::1") == read_finding(Probe, {"result": "pass", "fields": {"where": "::1"}}).fields["where"]

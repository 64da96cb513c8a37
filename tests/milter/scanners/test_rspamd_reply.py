"""Rspamd's reply: only a clear answer is one; changes that cannot be read are told and left out."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.servers import Declined, ServerError
from elemta_milter.scanners.rspamd_reply import CHANGES, Changes, Reply, Symbol, parse

LEAST = {"action": "no action", "score": 1.5}


def read(status=200, **more):
    return parse(status, json.dumps(LEAST | more).encode())


def changes(**milter):
    return read(milter=milter).changes


def test_the_least_answer():
    assert read() == Reply("no action", 1.5)


def test_all_that_it_says():
    found = read(
        action="rewrite subject", score=7, required_score=15, is_skipped=True, subject="*** a", unknown=[{}],
        symbols={"LIGHT": {"name": "LIGHT", "score": 0.5, "metric_score": 0.5, "description": "x"},
                 "GOOD": {"score": -6.5, "options": ["a", "b"]}, "NONE": {"score": None, "options": None}},
        groups={"headers": {"score": 1.0, "description": "x"}}, messages={"smtp_message": "Go away"},
        **{"dkim-signature": "v=1"},
    )  # fmt: skip
    assert found == Reply(
        "rewrite subject", 7.0, 15.0, skipped=True,
        symbols=(Symbol("GOOD", -6.5, ("a", "b")), Symbol("LIGHT", 0.5), Symbol("NONE", 0.0)),
        groups=(("headers", 1.0),), message="Go away", subject="*** a", signed=True,
    )  # fmt: skip


def test_an_empty_lua_table_is_a_list():
    assert read(symbols=[], groups=[], messages=[], milter=[]) == Reply("no action", 1.5)


@pytest.mark.parametrize("score", [None, 0, -3, 1e300])
def test_scores(score):
    assert read(score=score, required_score=score).score == score


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"pong",
        b"{}",
        b"[]",
        b"null",
        b'{"action": "reject"}',
        b'{"score": 1}',
        b'{"action": "", "score": 1}',
        b'{"action": null, "score": 1}',
        b'{"action": "no action", "score": "1"}',
        b'{"action": "no action", "score": true}',
        b'{"action": "no action", "score": NaN}',
        b'{"action": "no action", "score": 1e999}',
        b'{"action": "no action", "score": 1',
        b'{"action": "no action", "score": 1}{',
        b'{"action": "no action", "score": 1, "symbols": {"A": 1}}',
        b'{"action": "no action", "score": 1, "symbols": [1]}',
        b'{"action": "no action", "score": 1, "milter": ' + b"[" * 100_000,
        b'{"action": "no action", "score": 1, "x": ' + b'{"a":' * 100_000,
        b'{"error": "invalid command", "error_domain": "protocol-error"}',
        b"<html>HTTP 200</html>",
    ],
)
def test_garbage_is_no_answer(body):
    with pytest.raises(ServerError, match="garbage instead of an answer"):
        parse(200, body)


@pytest.mark.parametrize("status", [100, 201, 204, 301, 400, 403, 404, 500, 502, 503])
def test_another_status_is_no_answer_whatever_it_says(status):
    with pytest.raises(ServerError, match=f"HTTP status {status}: .*no action"):
        read(status)
    with pytest.raises(ServerError, match=f"HTTP status {status}$"):
        parse(status, b"")


@pytest.mark.parametrize(
    ("status", "of_this_mail"), [(400, True), (413, True), (403, False), (404, False), (500, False)]
)
def test_a_status_tells_whether_it_is_about_this_mail(status, of_this_mail):
    with pytest.raises(ServerError) as told:
        parse(status, b"")
    assert isinstance(told.value, Declined) is of_this_mail


def test_an_error_reply_is_told_in_part():
    with pytest.raises(ServerError) as caught:
        parse(500, b"\xff\r\n" + b"x" * 100_000)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_octets_of_the_mail_that_are_no_utf8_do_not_cost_the_answer():
    found = parse(
        200, b'{"action":"reject","score":20,"symbols":{"URL":{"score":1,"options":["caf\xe9"]}},"subject":"\xff"}'
    )
    assert (found.action, found.symbols, found.subject) == ("reject", (Symbol("URL", 1.0, ("caf\ufffd",)),), "\ufffd")


def test_header_fields_in_all_their_forms():
    found = changes(
        remove_headers={"X-Spam": 0, "X-A": 2, "X-B": [1, -1]},
        add_headers={
            "X-1": "a",
            "X-2": {"value": "b", "order": -1},
            "X-3": ["c", {"value": "d"}],
            "X-4": {"value": "", "order": 1},
        },
    )
    assert found.remove_headers == (("X-Spam", 0), ("X-A", 2), ("X-B", 1), ("X-B", -1))
    assert found.add_headers == (("X-1", "a"), ("X-2", "b"), ("X-3", "c"), ("X-3", "d"), ("X-4", ""))


def test_the_other_changes():
    found = changes(
        change_from="new@example.org", add_rcpt=["a@example.org"], del_rcpt=["b@example.org"], reject="discard",
        no_action=True, spam_header={"Deliver-To": "Junk"},
    )  # fmt: skip
    assert found == Changes(
        spam_headers=(("Deliver-To", "Junk"),), add_recipients=("a@example.org",), remove_recipients=("b@example.org",),
        sender="new@example.org", instead="discard", no_action=True,
    )  # fmt: skip
    assert changes(spam_header="Yes").spam_headers == (("X-Spam", "Yes"),)
    assert changes(reject="quarantine").instead == "quarantine"
    assert changes(reject="tempfail").instead == ""
    assert changes(change_from="").sender == ""


@pytest.mark.parametrize(
    ("milter", "problem"),
    [
        ("x", "milter is no object"),
        ({"remove_headers": [1]}, "remove_headers is no object"),
        ({"remove_headers": {"X": "1"}}, "'X' has no number"),
        ({"remove_headers": {"X": True}}, "'X' has no number"),
        ({"add_headers": "x"}, "add_headers is no object"),
        ({"add_headers": {"X": 1}}, "'X' is no text"),
        ({"add_headers": {"X": {"order": 1}}}, "'X' is no text"),
        ({"add_headers": {"X": [["v"]]}}, "'X' is no text"),
        ({"change_from": 1}, "change_from is no text"),
        ({"add_rcpt": "a@example.org"}, "add_rcpt is no list"),
        ({"del_rcpt": [1]}, "del_rcpt: 1 is no text"),
        ({"spam_header": 1}, "spam_header is no text"),
    ],
)
def test_a_change_that_cannot_be_read_is_left_out_and_told(milter, problem):
    found = read(milter=milter)
    assert found.changes == Changes()
    assert problem in found.problems[0]


def test_changes_are_bounded():
    found = read(milter={"add_headers": {"X": ["v"] * 100_000, **{f"X-{number}": "v" for number in range(1000)}}})
    assert len(found.changes.add_headers) == CHANGES
    assert f"{CHANGES} are taken" in found.problems[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
KEYS = [*LEAST, "required_score", "is_skipped", "symbols", "groups", "messages", "subject", "milter", "dkim-signature"]
HEADERS = ["remove_headers", "add_headers", "spam_header"]
MILTER = [*HEADERS, "change_from", "add_rcpt", "del_rcpt", "reject", "no_action"]


def lawful(status, body):
    """What `parse` gives, or None; it must do nothing else than give a `Reply` or raise `ServerError`."""
    try:
        found = parse(status, body)
    except ServerError:
        return None
    assert isinstance(found.action, str)
    assert found.action
    assert found.score is None or isinstance(found.score, float)
    for name, value in (*found.changes.add_headers, *found.changes.spam_headers):
        assert isinstance(name, str)
        assert isinstance(value, str)
    assert all(isinstance(nth, int) for _, nth in found.changes.remove_headers)
    return found


@settings(deadline=None)
@given(st.integers(0, 999), st.binary(max_size=300))
def test_any_octets_give_an_answer_or_an_error(status, body):
    lawful(status, body)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.dictionaries(st.sampled_from(MILTER), JSON))
def test_any_json_gives_an_answer_or_an_error(answer, milter):
    lawful(200, json.dumps(answer).encode())
    assert lawful(200, json.dumps(LEAST | {"milter": milter, "messages": milter}).encode())


@settings(deadline=None)
@given(st.data())
def test_a_part_of_an_answer_is_none(data):
    whole = json.dumps(LEAST | {"symbols": {"A": {"score": 1.0, "options": ["x"]}}}).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert lawful(200, whole[:cut]) is None

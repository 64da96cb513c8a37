"""Which answer does each request get, and what becomes of a message?  Over real unix and inet sockets."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from elemta.verdict import Action, ActionKind, Disposition, Verdict
from elemta_policyd.protocol import MAX_REQUEST
from harness.policy_server import END, request, serve


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6])
def test_one_request_then_another(family):
    async def test(world):
        client = await world.client()
        assert await client.ask(request("ok@a")) == ["DUNNO"]
        assert await client.ask(request("no@a")) == ["550 5.7.1 no"]

    serve(test, family)


def test_many_in_one_packet_are_answered_in_order():
    async def test(world):
        client = await world.client()
        names = [f"{'slow' if number % 7 == 0 else 'n'}{number}" for number in range(200)]
        assert await client.ask(*(request(f"{name}@a") for name in names)) == [f"550 5.7.1 {name}" for name in names]

    serve(test)


def test_one_in_many_packets():
    async def test(world):
        client = await world.client()
        for octet in request("no@a"):
            client.send(bytes([octet]))
            await asyncio.sleep(0)
        assert await client.answers(1) == ["550 5.7.1 no"]

    serve(test)


def test_connections_do_not_wait_for_each_other():
    async def test(world):
        waiting, other = await world.client(), await world.client()
        waiting.send(request("wait@a"))
        assert await other.ask(request("no@a")) == ["550 5.7.1 no"]
        world.engine.release.set()
        assert await waiting.answers(1) == ["DUNNO"]

    serve(test)


STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", "NEW", "")


@pytest.mark.parametrize("state", STATES)
def test_only_rcpt_is_judged(state):
    async def test(world):
        client = await world.client()
        assert await client.ask(request("no@a", state=state)) == ["DUNNO"]
        assert world.engine.cases == []

    serve(test)


def test_a_message_is_one_case():
    async def test(world):
        client = await world.client()
        await client.ask(request("a@a"), request("b@a"), request("", state="DATA"), request("c@a"))
        await client.ask(request("d@a", "i.2"), request("e@a", ""), request("f@a", ""))
        await client.ask(request("g@a", "i.3"), request("h@a", "i.3", sender="other@sender.test"))
        asked = [case.asked for case in world.engine.cases]
        assert asked == [["a@a", "b@a", "c@a"], ["d@a"], ["e@a"], ["f@a"], ["g@a"], ["h@a"]]

    serve(test)


def told(*requests, of_whole=None):
    """What the engine is told, and the answers, where some check counts."""
    found = []

    async def test(world):
        world.engine.of_whole = of_whole or Verdict()
        client = await world.client()
        found.append(await client.ask(*requests))
        found.append(world.engine.told)

    serve(test, counts=True)
    return found


def test_the_end_of_a_message_says_that_it_is_accepted():
    answers, heard = told(request("ok@a"), request("", state="DATA"), request("", state=END, recipient_count="3"))
    assert answers == ["DUNNO"] * 3
    assert heard == [("accepted", "i.1", 3)]


def test_another_message_says_that_the_one_before_was_given_up():
    requests = (request("ok@a"), request("ok@a", "i.2"), request("", "i.2", END), request("ok@a", "i.3"))
    assert told(*requests)[1] == [("given up", "i.1", 0), ("accepted", "i.2", 0)]


@pytest.mark.parametrize("state", ["DATA", END])
def test_a_message_of_which_nothing_was_asked_is_judged_whole(state):
    answers, heard = told(request("", state=state, recipient_count="4"))
    assert answers == ["DUNNO"]
    assert heard == [("whole, not sure", "i.1", 4), ("accepted", "i.1", 4)][: 1 if state == "DATA" else 2]
    refusal = Verdict(Disposition.REJECT, "r", "550 5.7.1 too much")
    answers, heard = told(request("", state=state, recipient_count="4"), of_whole=refusal)
    assert answers == ["550 5.7.1 too much"]
    assert heard == [("whole, not sure", "i.1", 4), ("given up", "i.1", 4)]


def test_a_message_without_an_instance_is_judged_whole_too():
    refusal = Verdict(Disposition.REJECT, "r", "550 5.7.1 too much")
    assert told(request("", "", END), of_whole=refusal)[0] == ["550 5.7.1 too much"]


def test_the_first_message_of_a_connection_may_have_been_judged_by_a_worker_that_died():
    heard = told(*(request("", instance, END) for instance in ("i.1", "i.2", "i.3")))[1]
    assert [what for what, *_ in heard[::2]] == ["whole, not sure", "whole", "whole"]


@pytest.mark.parametrize("state", ["DATA", END])
def test_a_message_with_one_recipient_of_which_nothing_was_asked_is_judged_as_at_rcpt(state):
    """A rule that accepts this recipient may stand above one that refuses the rest."""
    refusal = Verdict(Disposition.REJECT, "rest", "550 5.7.1 no")
    answers, heard = told(request("ok@a", state=state, recipient_count="1"), of_whole=refusal)
    assert answers == ["DUNNO"]
    assert heard == [("accepted", "i.1", 1)][: state == END]
    answers, heard = told(request("no@a", state=state, recipient_count="1"))
    assert answers == ["550 5.7.1 no"]
    assert heard == [("given up", "i.1", 1)]


def test_who_says_data_again_after_a_refusal_is_judged_again():
    """Postfix keeps the recipients, and asks with the same instance."""
    refusal = Verdict(Disposition.DEFER, "r", "450 4.7.1 too much")
    answers, heard = told(request("", state="DATA"), request("", state="DATA"), of_whole=refusal)
    assert answers == ["450 4.7.1 too much"] * 2
    assert heard == [("whole, not sure", "i.1", 0), ("given up", "i.1", 0)] * 2
    assert told(*[request("no@a", state="DATA")] * 2)[0] == ["550 5.7.1 no"] * 2
    discarded = told(request("", state="DATA"), request("", state=END), of_whole=Verdict(Disposition.DISCARD, "r"))
    assert discarded[0] == ["DISCARD discarded by rule r, reference ID", "DUNNO"]


def test_a_whole_message_is_held_and_counts():
    answers, heard = told(request("", state=END), of_whole=Verdict(Disposition.QUARANTINE, "r"))
    assert answers == ["HOLD held by rule r, reference ID"]
    assert heard == [("whole, not sure", "i.1", 0), ("accepted", "i.1", 0)]


def test_a_header_is_prepended_at_data_but_not_when_the_message_is_there():
    marked = Verdict(Disposition.ACCEPT, actions=(Action(ActionKind.ADD_HEADER, "X-Seen", "yes"),))
    data, end = request("", state="DATA"), request("", state=END)
    assert told(data, end, of_whole=marked)[0] == ["PREPEND X-Seen: yes", "DUNNO"]
    assert told(end, of_whole=marked)[0] == ["DUNNO"]  # Postfix would log a warning, and do nothing


def test_a_whole_message_is_judged_once():
    heard = told(request("", state="DATA"), request("", state=END))[1]
    assert [what for what, *_ in heard] == ["whole, not sure", "accepted"]


def test_other_states_tell_nothing():
    assert told(*(request("", state=state) for state in STATES if state not in ("DATA", END)))[1] == []


def test_a_header_is_prepended_once_a_message():
    async def test(world):
        client = await world.client()
        requests = [request("ok@a"), request("header@a"), request("header@b"), request("header@a", "i.2")]
        prepend = "PREPEND X-Seen: header@a"
        assert await client.ask(*requests) == ["DUNNO", prepend, "DUNNO", prepend]

    serve(test)


@pytest.mark.parametrize("junk", [b"\n", b"junk\n\n", b"request=other\n\n", b"x" * MAX_REQUEST * 2, request("a\0b")])
def test_junk_closes_the_connection_after_what_was_asked_before(junk, caplog):
    async def test(world):
        client, other = await world.client(), await world.client()
        client.send(request("no@a"), junk, request("no@b"))
        assert await client.rest() in {b"action=550 5.7.1 no\n\n", b""}  # b"": a reset may overtake the answer
        assert await other.ask(request("ok@a")) == ["DUNNO"]

    with caplog.at_level(logging.WARNING, "elemta.policyd"):
        serve(test)
    assert len([record for record in caplog.records if "closed a connection" in record.message]) == 1


def test_without_a_decision_there_is_no_answer(caplog):
    async def test(world):
        client = await world.client()
        client.send(request("no@a"), request("crash@a"), request("no@b"))
        assert await client.rest() == b"action=550 5.7.1 no\n\n"

    serve(test)
    assert "a mistake in the engine" in caplog.text

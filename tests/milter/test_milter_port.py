"""How does a step on libmilter's thread reach the loop, and a decision come back?"""

import asyncio
import threading
import time
from unittest.mock import Mock

import pytest

from elemta.facts import Envelope, Message
from elemta_milter import port
from elemta_milter.bounds import Bounds
from elemta_milter.port import Port


class Case:
    """Notes on which thread it is called; decides as it was told."""

    def __init__(self, now=None, later=None, wait=0.0):
        self.now, self.later, self.wait = now, later, wait
        self.calls = []

    def start(self, envelope):
        self.calls.append(("start", threading.current_thread().name))

    def start_now(self, envelope):
        return False

    def cancel(self):
        self.calls.append(("cancel", threading.current_thread().name))

    def message_now(self, message):
        self.calls.append(("message_now", threading.current_thread().name))
        return self.now

    async def message(self, message):
        self.calls.append(("message", threading.current_thread().name))
        await asyncio.sleep(self.wait)
        if isinstance(self.later, Exception):
            raise self.later
        return self.later


@pytest.fixture
def loop():
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, name="loop")
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


def test_a_decision_that_is_at_hand_comes_without_the_loop(loop):
    case = Case(now="decision")
    assert Port(lambda: case, loop, 1, pytest.fail).decide(case, Message(), lambda: None) == "decision"
    assert case.calls == [("message_now", "MainThread")]


def test_else_the_loop_is_waited_for(loop):
    case = Case(later="decision", wait=0.05)
    assert Port(Case, loop, 1, pytest.fail).decide(case, Message(), lambda: None) == "decision"
    assert case.calls == [("message_now", "MainThread"), ("message", "loop")]


def test_a_mail_that_was_not_started_is_begun_at_its_end(loop):
    case = Case(later="decision")
    assert Port(lambda: case, loop, 1, pytest.fail).decide(None, Message(), lambda: None) == "decision"
    assert case.calls == [("message", "loop")]


def test_what_was_started_at_once_is_not_started_again(loop):
    case = Case(later="decision")
    case.start_now = lambda envelope: True
    port = Port(Mock(return_value=case), loop, 1, pytest.fail)
    port.decide(port.start(Envelope()), Message(), lambda: None)
    assert ("start", "loop") not in case.calls


def test_starting_and_cancelling_do_not_wait_and_keep_their_order(loop):
    case = Case(later="decision")
    port = Port(lambda: case, loop, 1, pytest.fail)
    blocked = threading.Event()
    loop.call_soon_threadsafe(blocked.wait)
    assert port.start(Envelope()) is case
    port.cancel(case)
    assert case.calls == []
    blocked.set()
    port.decide(None, Message(), lambda: None)
    assert case.calls == [("start", "loop"), ("cancel", "loop"), ("message", "loop")]


@pytest.mark.parametrize("error", [RuntimeError("broken"), TimeoutError("of the engine")])
def test_what_the_engine_raises_comes_back(loop, error):
    with pytest.raises(type(error), match=str(error)):
        Port(lambda: Case(later=error), loop, 1, pytest.fail).decide(None, Message(), lambda: None)


def test_progress_is_told_until_the_decision_is_overdue(loop, monkeypatch):
    monkeypatch.setattr(port, "BOUNDS", Bounds(progress=0.05, margin=0.1))
    case, told = Case(wait=60), []
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.2 s"):
        Port(lambda: case, loop, 0.1, pytest.fail).decide(None, Message(), lambda: told.append(1))
    assert time.monotonic() - began < 5
    assert len(told) >= 3
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    assert ("cancel", "loop") in case.calls
    assert not asyncio.all_tasks(loop)


def test_when_the_mta_is_gone_nothing_is_decided_any_more(loop, monkeypatch):
    """A decision would be kept in the journal as if it had been carried out."""
    monkeypatch.setattr(port, "BOUNDS", Bounds(progress=0.05))
    case, gone = Case(wait=60), Mock(side_effect=OSError("cannot notify progress"))
    with pytest.raises(OSError, match="progress"):
        Port(lambda: case, loop, 60, pytest.fail).decide(None, Message(), gone)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    assert ("cancel", "loop") in case.calls
    assert not asyncio.all_tasks(loop)


def test_what_is_overdue_before_the_loop_comes_to_it_is_not_decided_any_more(loop, monkeypatch):
    monkeypatch.setattr(port, "BOUNDS", Bounds(progress=0.05, margin=0.1))
    case, blocked = Case(later="decision"), threading.Event()
    loop.call_soon_threadsafe(blocked.wait)
    with pytest.raises(TimeoutError):
        Port(lambda: case, loop, 0.1, pytest.fail).decide(None, Message(), lambda: None)
    blocked.set()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
    assert case.calls == [("cancel", "loop")]


@pytest.mark.parametrize("patience", [0.01, 60])
def test_an_mta_that_waited_long_is_asked_whether_it_is_there(loop, monkeypatch, patience):
    """One that has given up hears of no verdict, and a mail without edits would pass for accepted."""
    monkeypatch.setattr(port, "BOUNDS", Bounds(patience=patience))
    undone, gone = [], Mock(side_effect=OSError("cannot notify progress"))
    decide = Port(lambda: Case(later="decision", wait=0.05), loop, 60, undone.append).decide
    if patience == 60:
        assert decide(None, Message(), gone) == "decision"
        return
    with pytest.raises(OSError, match="progress"):
        decide(None, Message(), gone)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
    assert undone == ["decision"]


@pytest.mark.parametrize("later", ["decision", RuntimeError("broken")])
def test_a_decision_that_comes_when_the_mta_is_gone_is_told_as_undone(loop, monkeypatch, later):
    monkeypatch.setattr(port, "BOUNDS", Bounds(progress=0.05))
    undone, given_up = [], threading.Event()

    class Late(Case):
        async def message(self, message):
            given_up.wait(10)
            if isinstance(later, Exception):
                raise later
            return later

    with pytest.raises(OSError, match="progress"):
        Port(Late, loop, 60, undone.append).decide(None, Message(), Mock(side_effect=OSError("no progress")))
    given_up.set()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
    assert undone == (["decision"] if later == "decision" else [])


def test_after_the_loop_has_ended_nothing_hangs(loop):
    ended = asyncio.new_event_loop()
    ended.close()
    with pytest.raises(RuntimeError, match="closed"):
        Port(Case, ended, 60, pytest.fail).decide(None, Message(), lambda: None)

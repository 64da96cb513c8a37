"""One connection from Postfix: every request is answered, in order, or the connection is closed without an answer.

An smtpd process keeps its connection for its life and asks one question at a time; nothing here relies on that.
Requests that come at once are answered one after the other.  Who sends faster than we answer, or does not read our
answers, is not read any further; who sends junk is closed, as Postfix's SMTPD_POLICY_README asks of a service in
trouble.

A message is one `instance`: all its requests share one `Case`, so that what does not depend on the recipient is
looked at once.  RCPT is judged.  Where checks count (limits), END-OF-MESSAGE says that the message is accepted, a new
instance that the one before is over, and DATA and END-OF-MESSAGE are judged if nothing was asked at RCPT.  In every
other state the answer is DUNNO.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import cast

from elemta.case import Case
from elemta.daemon.worker import WORD
from elemta.decision import Decision
from elemta.facts import Envelope
from elemta.verdict import KEPT, REFUSED
from elemta_policyd.protocol import MAX_REQUEST, Attributes, ProtocolError, Requests, answer
from elemta_policyd.translate import DUNNO, action, envelope

SLOW = 30.0  # seconds for a request to arrive whole, or for our answers to be read

_log = logging.getLogger("elemta.policyd")
_END = "END-OF-MESSAGE"
_WHOLE = ("DATA", _END)
_MESSAGE = ("instance", "client_address", "sasl_username", "sender")  # attributes that all requests of a message share

HandOver = Callable[[socket.socket, bytes], bool]
"""Takes a connection for the next worker, and the message under way on it; False when there is no other worker."""


class Connection(asyncio.Protocol):
    """The service's side of one connection."""

    def __init__(
        self,
        new_case: Callable[[], Case],
        idle: float,
        flush_soon: Callable[[Connection], None],
        lost: Callable[[Connection], None],
        *,
        counts: bool = False,
        under_way: bytes = b"",
    ) -> None:
        """Wait to be connected.

        Args:
            new_case: begins a message.
            idle: seconds that the peer may be silent between requests.
            flush_soon: called when there are answers to send; calls `flush` when all that can be judged now is judged.
            lost: called once, when the connection is over.
            counts: some check wants to know which messages are accepted.
            under_way: the instance of the message that another worker judged at RCPT, before a reload.
        """
        self._new_case = new_case
        self._idle = idle
        self._flush_soon = flush_soon
        self._lost = lost
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()  # when the last answer went, or the first octets of a request came
        self._requests = Requests()
        self._answers: list[bytes] = []  # not yet sent
        self._work: asyncio.Task[None] | None = None  # answers what arrives; one for all requests, a task costs 5 us
        self._arrival: asyncio.Future[None] | None = None  # it has answered all, and waits for this
        self._drained: asyncio.Future[None] | None = None  # the peer does not read our answers until it is done
        self._ended = False  # the peer sends no more
        self._hand_over: HandOver | None = None  # set when this process is to end
        self._message: tuple[str | None, ...] = ()
        self._case: Case | None = None
        self._asked: Envelope | None = None  # what was last asked about the message, until it is accepted
        self._prepended = False
        self._under_way = under_way
        self._first = True  # the message is the first one here

    # ── what the event loop calls ────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._work = self._loop.create_task(self._answer_all())

    def data_received(self, data: bytes) -> None:
        """Take octets, and answer them unless that is under way."""
        if not self._requests.pending:
            self._since = self._loop.time()
        self._requests.feed(data)
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set_result(None)
        elif self._requests.pending > MAX_REQUEST:
            self._transport.pause_reading()  # `_more` goes on reading

    def eof_received(self) -> bool:
        """Answer what has been asked, then close."""
        self._ended = True
        self.flush()  # what was answered in this turn of the loop
        return self._arrival is None

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def connection_lost(self, _error: Exception | None) -> None:
        """Nobody waits for an answer any more."""
        if self._work is not None:
            self._work.cancel()
        if self._case is not None:
            self._case.cancel()
        self._lost(self)

    # ── what the server calls ────────────────────────────────────────────────────────────────────────────

    def cut_off_if_late(self, now: float) -> None:
        """Close if the peer is silent, half done or deaf for too long. What we owe it is not its fault."""
        if self._work is None:
            return  # it was accepted just now, and begins in the loop's next turn
        waiting = now - self._since
        if self._drained is not None:
            late, why = waiting > SLOW, "it does not read our answers"
        elif self._arrival is None and not self._transport.is_closing():
            return  # we are at work
        elif self._requests.pending:
            late, why = waiting > SLOW, "its request does not end"
        else:
            late, why = waiting > self._idle, ""  # as Postfix's own smtpd processes may be
        if late:
            if why:
                _log.warning("closed a connection from %s: %s", self._peer(), why)
            self._transport.abort()

    def retire(self, hand_over: HandOver) -> None:
        """Go when what is under way is answered: to the next generation of workers, or for good."""
        self._hand_over = hand_over
        if self._arrival is not None and not self._requests.pending:
            self._leave(hand_over)

    def abort(self) -> None:
        """Go now."""
        self._transport.abort()

    def flush(self) -> None:
        """Send the answers."""
        if self._answers and not self._transport.is_closing():
            self._transport.write(b"".join(self._answers))
        self._answers.clear()

    # ── answering ────────────────────────────────────────────────────────────────────────────────────────

    async def _answer_all(self) -> None:
        """Answer request after request, until the connection ends."""
        try:
            while (attributes := self._requests.next()) is not None or await self._more():
                if attributes is None:
                    continue
                octets = answer(await self._action(attributes))
                if not self._answers:
                    self._flush_soon(self)
                self._answers.append(octets)
                self._since = self._loop.time()
                if self._drained is not None:
                    await self._drained
        except ProtocolError as error:
            _log.warning("closed a connection from %s: %s", self._peer(), error)
            self._close()
        except Exception:  # noqa: BLE001 - without a decision the only lawful answer is none
            _log.exception("closed a connection: its request could not be judged")
            self._close()

    async def _more(self) -> bool:
        """Wait for more octets; False when the connection is over."""
        transport = self._transport
        if self._ended or transport.is_closing():
            self._close()
            return False
        if self._hand_over is not None and not self._requests.pending:
            self._leave(self._hand_over)
            return False
        if not transport.is_reading():
            transport.resume_reading()
        self._arrival = self._loop.create_future()
        await self._arrival
        return True

    async def _action(self, attributes: Attributes) -> str:
        """The action for one request."""
        message = tuple(map(attributes.get, _MESSAGE))
        if message != self._message or not message[0]:  # without an instance nothing says that it is the same message
            if self._counts:
                await self._given_up()
            self._first = not self._message
            self._message = message
            self._case = None
            self._prepended = False
        state = attributes.get("protocol_state")
        if state == "RCPT":
            facts = self._asked = envelope(attributes)
            if self._case is None:
                self._case = self._new_case()
            return self._answer(await self._case.recipient(facts))
        return await self._of_whole(attributes, state) if self._counts and state in _WHOLE else DUNNO

    async def _of_whole(self, attributes: Attributes, state: str | None) -> str:
        """The action for DATA or END-OF-MESSAGE: judged only if nothing was asked at RCPT; then it may be accepted."""
        facts = self._asked = envelope(attributes)
        case, found = self._case, DUNNO
        if case is None:
            case = self._case = self._new_case()
            self._prepended = state == _END  # access(5): nothing can be prepended any more
            if not self._judged_before(facts):
                one = bool(facts.recipients)  # Postfix names an only one
                decision = await (case.recipient(facts) if one else case.whole(facts, sure=not self._first))
                found = self._answer(decision)
                if decision.verdict.disposition in REFUSED:
                    await self._given_up()
                    self._case = None  # whoever says DATA once more is judged once more
                if decision.verdict.disposition not in KEPT:
                    return found
        if state == _END:
            await case.accepted(facts)
            self._asked = None
        return found

    def _judged_before(self, facts: Envelope) -> bool:
        """Whether another worker judged this message at RCPT, before a reload."""
        return bool(self._under_way) and _word(facts.instance) == self._under_way

    async def _given_up(self) -> None:
        """Another message begins: the one before is complete or was given up (SMTPD_POLICY_README)."""
        if self._case is not None and self._asked is not None:
            await self._case.given_up(self._asked)
        self._asked = None

    def _answer(self, decision: Decision) -> str:
        found = action(decision, may_prepend=not self._prepended)
        self._prepended = self._prepended or found.startswith("PREPEND")
        return found

    def _peer(self) -> object:
        return self._transport.get_extra_info("peername") or "a socket"

    def _leave(self, hand_over: HandOver) -> None:
        """Give the connection to `hand_over` (it takes a copy), and close it here, which does not end it there."""
        transport = self._transport
        if transport.is_closing():
            return
        self.flush()
        transport.pause_reading()  # what arrives from now on is for the next worker
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
            hand_over(connection, _word(self._message[0]) if self._asked is not None else self._under_way)
        transport.close()

    def _close(self) -> None:
        """Send the answers, then close."""
        self.flush()
        self._transport.close()


def _word(instance: str | None) -> bytes:
    """The message in the word that goes with a connection."""
    return (instance or "").encode("utf-8", "surrogateescape")[:WORD]

"""A case: one mail as it goes by, from MAIL FROM to its decision.

`Looking` lets the checks run; a case says when, judges what they saw, and tells the observers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from elemta.check import CLASS, Check
from elemta.decision import Decision, StageName, new_id
from elemta.engine import Engine
from elemta.facts import Envelope, Message
from elemta.looking import Looking
from elemta.rules.judge import judge
from elemta.rules.ruleset import Judgement, Ruleset
from elemta.rules.view import View, Wanted
from elemta.verdict import KEPT

BIG = 16 << 10
"""Octets of a body from which on a mail is judged in a thread, where something is done to kept mail that looks at its
body: others on the loop would wait until the place of a banner in 30 MB is found."""
GIVE_UP = 1.0
"""Seconds to count that a message was given up: the request that told so is about the next one."""


class Case(Looking):
    """One mail as it goes by."""

    __slots__ = ("_started", "kept")

    def __init__(self, engine: Engine, budget: float = 25.0) -> None:
        super().__init__(engine, budget)
        self.kept: dict[str, None] = {}  # the recipients of it that were not refused
        self._started = False  # every early check was launched; set last, since `message_now` runs on other threads

    # ── what the daemons call ────────────────────────────────────────────────────────────────────────────

    def start(self, envelope: Envelope) -> None:
        """MAIL FROM is known: let the early checks run in the background."""
        self._begin(envelope)
        if self.engine.early:
            self._arm()
            self._launch(self.engine.early, envelope)
        self._started = True

    def start_now(self, envelope: Envelope) -> bool:
        """Do what `start` does at once, on any thread; False if a check must wait: then let the loop call `start`."""
        engine = self.engine
        if not engine.early_at_once:
            return False
        self.klass = engine.policy.klass(View(envelope))
        self._started = all(self._look_at_once(plan, envelope) for plan in engine.early)
        return self._started

    async def message(self, message: Message) -> Decision:
        """The message is complete: judge it."""
        began = time.perf_counter()
        if not self._started:
            self.start(message.envelope)
        if self.engine.late:
            self._limit_dns()
            self._arm()
            self._launch(self.engine.late, message)
        await self._settle()
        if self.engine.parts_read_body and message.body.size > BIG:
            return await self._judge_in_thread(message, began)
        return self._judge_message(message, began)

    def message_now(self, message: Message) -> Decision | None:
        """The decision, if nothing is left to wait for; else None, and `message` must be awaited on the loop.

        May be called from any thread.  Checks that ask the name system are made here, if all it has to say is known.
        """
        engine = self.engine
        if not self._started or not engine.late_at_once or not all(task.done() for task in self._tasks.values()):
            return None
        began = time.perf_counter()
        for name, task in self._tasks.items():
            self.findings[name] = task.result()
        if all(self._look_at_once(plan, message) for plan in engine.late):
            return self._judge_message(message, began)
        return None

    async def recipient(self, envelope: Envelope) -> Decision:
        """One recipient is asked about: judge it. May be called for every recipient of the mail."""
        if self.kept and not envelope.recipient_count:  # Postfix tells it at DATA and later only
            count = len(self.kept) + sum(each not in self.kept for each in envelope.recipients)
            envelope = replace(envelope, recipient_count=count)
        decision = await self._judge_recipient(self.engine.policy.rules["recipient"], envelope)
        if decision.verdict.disposition in KEPT:
            self.kept |= dict.fromkeys(envelope.recipients)
        elif any(finding.check == check.name for check in self.engine.counting for finding in decision.findings):
            facts = self._with_kept(envelope)
            await self._tell(lambda check: check.recipient_refused(facts, only=not self.kept))
        return decision

    async def whole(self, envelope: Envelope, *, sure: bool = True) -> Decision:
        """Postfix asks about the whole message and has not asked about its recipients: judge it by the other rules.

        Where that is not `sure`, since a worker that died may have accepted them, it is refused for now only.
        """
        engine = self.engine
        return await self._judge_recipient(
            engine.without_recipient if sure else engine.without_recipient_for_now, envelope
        )

    async def accepted(self, envelope: Envelope) -> None:
        """Postfix has the whole message and takes it."""
        if not self.klass:  # it was judged elsewhere, before a reload
            self._begin(envelope)
        self._until = time.monotonic() + self.budget
        facts = replace(envelope, recipients=tuple(self.kept)) if self.kept else envelope
        await self._tell(lambda check: check.message_accepted(facts))

    async def given_up(self, envelope: Envelope) -> None:
        """The message, last asked about with this envelope, was never accepted."""
        self._until = time.monotonic() + min(GIVE_UP, self.budget)
        await self._tell(lambda check: check.message_given_up(envelope))

    async def _tell(self, what: Callable[[Check[Any]], Awaitable[None]]) -> None:
        CLASS.set(self.klass)
        await self.engine.tell(what, self._until)

    def _with_kept(self, envelope: Envelope) -> Envelope:
        return replace(envelope, recipients=(*self.kept, *envelope.recipients)) if self.kept else envelope

    def _begin(self, envelope: Envelope) -> None:
        view = View(envelope)
        self.klass = self.engine.policy.klass(view)
        self._limit_dns()

    # ── judging ──────────────────────────────────────────────────────────────────────────────────────────

    async def _judge_recipient(self, rules: Ruleset, envelope: Envelope) -> Decision:
        """Judge by `rules`, and let checks run that they ask for; those that look at no recipient once a mail."""
        began = time.perf_counter()
        self._until = time.monotonic() + self.budget
        if self.klass:
            self._limit_dns()
        else:
            self._begin(envelope)
            if self.engine.asked_at_rcpt:
                self._arm()
                self._launch(self.engine.asked_at_rcpt, envelope)
                await self._settle()
        view = View(envelope, None, self.findings)
        view.look = partial(self._look_now, envelope)
        reference, begun = new_id(), Judgement()
        while True:
            try:
                return self._judge(rules, view, reference, began, begun)
            except Wanted as wanted:
                view.findings[wanted.check] = await self._rest(wanted)

    def _judge_message(self, message: Message, began: float) -> Decision:
        view = View(message.envelope, message, self.findings | self.engine.absent["message"])
        return self._judge(self.engine.policy.rules["message"], view, new_id(), began)

    async def _judge_in_thread(self, message: Message, began: float) -> Decision:
        """A thread goes on when this is cancelled, and observers hear of the decision: it comes all the same then."""
        judged = asyncio.ensure_future(self.engine.tools.in_thread(self._judge_message, message, began))
        try:
            return await asyncio.shield(judged)
        except asyncio.CancelledError:
            return await judged  # type: ignore[no-any-return]

    def _judge(
        self, rules: Ruleset, view: View, reference: str, began: float, begun: Judgement | None = None
    ) -> Decision:
        """Judge, and tell the observers.

        Raises:
            Wanted: a rule asks for a check that has to wait; wait for it and judge again.
        """
        engine, policy, message, found = self.engine, self.engine.policy, view.message, view.findings
        view.klass = self.klass
        stage: StageName = "recipient" if message is None else "message"
        verdict, judgement = judge(rules, engine.weighing[stage], view, reference, begun)
        if message is None:
            found = found | engine.absent["recipient"] | found  # what was seen stands first
        findings = tuple(found.values())
        if message is not None and verdict.disposition in KEPT:
            findings += tuple(part.see(self.klass, message, found, verdict) for part in policy.parts.values())
        decision = Decision(
            id=reference,
            at=engine.tools.clock(),
            stage=stage,
            klass=self.klass,
            facts=message or view.envelope,
            values=dict(view),
            findings=findings,
            verdict=verdict,
            trace=judgement.trace,
            shadow=tuple(judgement.shadow),
            timings=dict(self.timings),
            seconds=time.perf_counter() - began,
            policy=policy.fingerprint,
        )
        engine.decided(decision)
        return decision

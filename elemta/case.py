"""A case: one mail as it goes by, from MAIL FROM to its decision.

Lets checks run as soon as their facts are known, within the mail's budget; what a check cannot answer becomes a finding
with trouble.  This is the only place with time limits and `except Exception`: checks contain none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from elemta.at_once import at_once, eager_task, resumed
from elemta.check import CLASS, UNTIL, Check, Seen, Stage
from elemta.decision import Decision, StageName, new_id
from elemta.dns import DEADLINE, DnsError
from elemta.facts import Client, Envelope, Message
from elemta.findings import Finding, Result
from elemta.policy import CheckPlan
from elemta.rules.catalogue import View, Wanted
from elemta.rules.judge import judge
from elemta.rules.ruleset import Ruleset
from elemta.store import StoreError
from elemta.verdict import KEPT

if TYPE_CHECKING:
    from elemta.engine import Engine

_log = logging.getLogger("elemta.engine")

_EXPECTED = (DnsError, StoreError, OSError, TimeoutError, EOFError)
"""What the world does to a check. Anything else is a mistake of the check, and is logged with its traceback."""


class Case:
    """One mail as it goes by."""

    __slots__ = (
        "_expired",
        "_started",
        "_tasks",
        "_timer",
        "_until",
        "budget",
        "engine",
        "findings",
        "kept",
        "klass",
        "timings",
    )

    def __init__(self, engine: Engine, budget: float) -> None:
        self.engine = engine
        self.budget = budget
        self.klass = ""
        self.findings: dict[str, Finding] = {}
        self.timings: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[Finding]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._until = math.inf
        self._expired = False
        self.kept = False  # a recipient of it was not refused
        self._started = False  # every early check was launched; set last, since `message_now` runs on other threads

    # ── what the daemons call ────────────────────────────────────────────────────────────────────────────

    def start(self, envelope: Envelope) -> None:
        """MAIL FROM is known: let the early checks run in the background."""
        self._begin(envelope)
        if self.engine.early:
            self._arm()
            for plan in self.engine.early:
                self._launch(plan, envelope)
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
            for plan in self.engine.late:
                self._launch(plan, message)
        await self._settle()
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
        decision = await self._judge_recipient(self.engine.policy.rules["recipient"], envelope)
        if decision.verdict.disposition in KEPT:
            self.kept = True
        elif any(finding.check == check.name for check in self.engine.counting for finding in decision.findings):
            await self._tell(lambda check: check.recipient_refused(envelope, only=not self.kept))
        return decision

    async def whole(self, envelope: Envelope) -> Decision:
        """Postfix asks about the whole message and has not asked about its recipients: judge it by the other rules."""
        return await self._judge_recipient(self.engine.without_recipient, envelope)

    async def accepted(self, envelope: Envelope) -> None:
        """Postfix has the whole message and takes it."""
        await self._tell(lambda check: check.message_accepted(envelope))

    async def given_up(self, envelope: Envelope) -> None:
        """The message, last asked about with this envelope, was never accepted."""
        await self._tell(lambda check: check.message_given_up(envelope))

    def cancel(self) -> None:
        """Nobody waits for the verdict any more."""
        self._disarm()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _tell(self, what: Callable[[Check[Any]], Awaitable[None]]) -> None:
        CLASS.set(self.klass)
        await self.engine.tell(what)

    # ── running checks ───────────────────────────────────────────────────────────────────────────────────

    def _begin(self, envelope: Envelope) -> None:
        view = View(envelope)
        self.klass = self.engine.policy.klass(view)
        self._limit_dns()

    def _limit_dns(self) -> None:
        """Let the time for DNS begin, for this task and those it launches."""
        DEADLINE.set(time.monotonic() + self.engine.policy.settings.dns.budget)

    def _launch(self, plan: CheckPlan, facts: Client | Envelope | Message) -> None:
        if isinstance(facts, Envelope) and plan.stage is Stage.CLIENT:
            facts = facts.client
        self._tasks[plan.name] = eager_task(self._look(plan, facts))

    def _look_at_once(self, plan: CheckPlan, facts: Envelope | Message) -> bool:
        """Let one check run here and now; False if it must wait."""
        looked_at = facts.client if isinstance(facts, Envelope) and plan.stage is Stage.CLIENT else facts
        finding = at_once(self._look(plan, looked_at))
        if finding is not None:
            self.findings[plan.name] = finding
        return finding is not None

    async def _settle(self) -> None:
        """Wait until every check that was launched has left its finding."""
        if not self._tasks:
            return
        for name, task in self._tasks.items():
            self.findings[name] = await task
        self._tasks.clear()
        self._disarm()

    async def _look(self, plan: CheckPlan, facts: Any) -> Finding:  # noqa: ANN401 - the type its class names
        """Let one check run: the only place where its time, its crash and its absence are dealt with."""
        if plan.classes is not None and self.klass not in plan.classes:
            return Finding(plan.name, Result.NONE, f"not made for class {self.klass}")
        began = time.perf_counter()
        CLASS.set(self.klass)
        try:
            seen = await self._seen(plan) if plan.after else {}
            began = time.perf_counter()
            check = self.engine.checks[plan.name]
            if plan.options.timeout is None:
                UNTIL.set(self._until)
                finding = await check.run(facts, seen)
            else:
                UNTIL.set(min(self._until, time.monotonic() + plan.options.timeout))
                async with asyncio.timeout(plan.options.timeout):
                    finding = await check.run(facts, seen)
        except asyncio.CancelledError:
            if not self._expired:
                raise
            return _trouble(plan.name, f"no answer within the mail's budget of {self.budget:g} s")
        except TimeoutError:
            return _trouble(plan.name, f"no answer within {plan.options.timeout or self.budget:g} s")
        except _EXPECTED as error:
            return _trouble(plan.name, f"{type(error).__name__}: {error}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a crash of a check costs its finding, not the mail
            _log.exception("check %s crashed", plan.name)
            return _trouble(plan.name, f"crashed: {type(error).__name__}: {error}")
        else:
            if finding.warning:
                self.engine.warn(plan.name, finding.warning)
            return finding
        finally:
            self.timings[plan.name] = time.perf_counter() - began

    async def _seen(self, plan: CheckPlan) -> Seen:
        """The findings that `plan` waits for."""
        for name in plan.after:
            task = self._tasks.get(name)
            if task is not None and name not in self.findings:
                self.findings[name] = await asyncio.shield(task)
        return {name: self.findings[name] for name in plan.after if name in self.findings}

    def _arm(self) -> None:
        """Start the clock of this stage."""
        self._disarm()
        self._until = time.monotonic() + self.budget
        self._timer = asyncio.get_running_loop().call_later(self.budget, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """The budget is spent: whoever has not answered is in trouble."""
        self._expired = True
        for task in self._tasks.values():
            task.cancel()

    # ── judging ──────────────────────────────────────────────────────────────────────────────────────────

    async def _judge_recipient(self, rules: Ruleset, envelope: Envelope) -> Decision:
        """Judge by `rules`, and let checks run that they ask for; those that look at no recipient once a mail."""
        began = time.perf_counter()
        if not self.klass:
            self._begin(envelope)
            if self.engine.asked_at_rcpt:
                self._arm()
                for plan in self.engine.asked_at_rcpt:
                    self._launch(plan, envelope)
                await self._settle()
        view = View(envelope)
        view.findings.update(self.findings)
        reference = new_id()
        while True:
            try:
                return self._judge(rules, view, reference, envelope, began)
            except Wanted as wanted:
                plan = self.engine.at_rcpt[wanted.check]
                view.findings[wanted.check] = await self._look_now(plan, envelope)

    def _judge_message(self, message: Message, began: float) -> Decision:
        view = View(message.envelope, message)
        view.findings.update(self.findings)
        for finding in self.engine.unasked["message"]:
            view.findings[finding.check] = finding
        return self._judge(self.engine.policy.rules["message"], view, new_id(), message, began)

    def _judge(self, rules: Ruleset, view: View, reference: str, facts: Envelope | Message, began: float) -> Decision:
        """Judge, and tell the observers.

        Raises:
            Wanted: a rule asks for a check that has not run; run it and judge again.
        """
        engine = self.engine
        view.klass = self.klass
        stage: StageName = "message" if isinstance(facts, Message) else "recipient"
        verdict, judgement = judge(rules, engine.policy.checks, view, reference)
        findings = tuple(view.findings.values())
        if isinstance(facts, Envelope):
            findings += engine.unasked["recipient"]
        elif verdict.disposition in KEPT:
            findings += tuple(
                part.see(self.klass, facts, view.findings, verdict) for part in engine.policy.parts.values()
            )
        decision = Decision(
            id=reference,
            at=engine.tools.clock(),
            stage=stage,
            klass=self.klass,
            facts=facts,
            values=dict(view),
            findings=findings,
            verdict=verdict,
            trace=judgement.trace,
            shadow=tuple(judgement.shadow),
            timings=dict(self.timings),
            seconds=time.perf_counter() - began,
            policy=engine.policy.fingerprint,
        )
        engine.decided(decision)
        return decision

    async def _look_now(self, plan: CheckPlan, envelope: Envelope) -> Finding:
        """Run a check that a rule asked for, within the budget; the clock starts only if it has to wait."""
        self._until = time.monotonic() + self.budget
        look = self._look(plan, envelope.client if plan.stage is Stage.CLIENT else envelope)
        try:
            waits_for = look.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        self._arm_current()
        try:
            return await resumed(look, waits_for)
        finally:
            self._disarm()

    def _arm_current(self) -> None:
        """Start the clock for a check that runs in the caller's own task."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks = {}
            self._timer = asyncio.get_running_loop().call_later(self.budget, self._expire_current, task)

    def _expire_current(self, task: asyncio.Task[Any]) -> None:
        self._expired = True
        task.cancel()
        task.uncancel()  # it ends the check, not the caller


def _trouble(check: str, reason: str) -> Finding:
    return Finding(check, Result.TEMPERROR, reason, trouble=True)

"""The engine: one mail is seen by every check, judged by the rules, and becomes a decision.

    engine = Engine(policy, tools, observers)      # in the worker, after the fork
    await engine.open()
    case = engine.case()                           # one mail; both daemons
    case.start(envelope)                           # milter, at MAIL: early checks run in the background
    decision = await case.message(message)         # milter, at the end of the message; or, where nothing is left
    decision = case.message_now(message)           #   to wait for, at once and on any thread (None: await the other)
    decision = await case.recipient(envelope)      # policy service, for each RCPT TO
    case.cancel()                                  # the client went away
    await engine.close()

A `Decision` always comes: trouble of any check is inside it.  Nothing raises but cancellation.  This is the
only place with time limits, `except Exception` and clocks: checks contain none.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elemta.check import Check, Seen, Stage, Tools
from elemta.decision import Decision, Observer, StageName, new_id
from elemta.dns import DEADLINE, DnsError
from elemta.facts import Client, Envelope, Message
from elemta.findings import Finding, Result
from elemta.policy import CheckPlan, Policy
from elemta.rules.catalogue import View, Wanted
from elemta.rules.judge import judge
from elemta.rules.refresh import first_snapshot, refresh_sets
from elemta.store import StoreError
from elemta.verdict import KEPT, Action, ActionKind

_log = logging.getLogger("elemta.engine")

WARN_EVERY = 3600.0  # seconds
WARNINGS = 1000  # different warnings remembered

_EXPECTED = (DnsError, StoreError, OSError, TimeoutError, EOFError)
"""What the world does to a check. Anything else is a mistake of the check, and is logged with its traceback."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What the policy needs to see of a mail; the milter negotiates by it.

    Attributes:
        early: some check runs before the message is complete.
        body: some check, or a part that acts on kept mail, looks at the body.
    """

    early: bool
    body: bool


class Engine:
    """A policy with its checks made and opened, in one worker.

    Attributes:
        policy: what it judges by.
        tools: what its checks may use of the world.
        wants: see `Wants`.
    """

    def __init__(self, policy: Policy, tools: Tools, observers: Sequence[Observer] = ()) -> None:
        self.policy = policy
        self.tools = tools
        self.observers = tuple(observers)
        self.checks: Mapping[str, Check[Any]] = {plan.name: plan.kind(plan.options, tools) for plan in policy.checks}
        plans = policy.checks
        self.early = tuple(plan for plan in plans if plan.stage < Stage.MESSAGE and not plan.kind.per_recipient)
        self.late = tuple(plan for plan in plans if plan.stage is Stage.MESSAGE)
        self.at_rcpt = {plan.name: plan for plan in plans if plan.kind.per_recipient}
        self.asked_at_rcpt = self._asked_at_rcpt()
        reads_body = any(plan.kind.needs_body for plan in self.late)
        reads_body |= any(part.needs_body for part in policy.parts.values())
        self.wants = Wants(early=bool(self.early), body=reads_body)
        self.unasked: Mapping[StageName, tuple[Finding, ...]] = {
            "recipient": tuple(
                Finding(plan.name, Result.NONE, "no rule at RCPT TO asks for it")
                for plan in self.early
                if plan not in self.asked_at_rcpt
            ),
            "message": tuple(Finding(name, Result.NONE, "judged at RCPT TO") for name in self.at_rcpt),
        }
        self._warned: dict[str, float] = {}
        self._telling = threading.Lock()
        self._adding: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refresher: asyncio.Task[None] | None = None

    def _asked_at_rcpt(self) -> tuple[CheckPlan, ...]:
        """The early checks that rules at RCPT TO need, with those they wait for."""
        names = {fact.partition(".")[0] for fact in self.policy.rules["recipient"].facts}
        for plan in reversed(self.policy.checks):
            if plan.name in names:
                names.update(plan.after)
        return tuple(plan for plan in self.early if plan.name in names)

    async def open(self) -> None:
        """Let every check prepare, and keep the named sets current.

        Raises:
            Exception: a check cannot prepare; the worker cannot start.
        """
        self._loop = asyncio.get_running_loop()
        for check in self.checks.values():
            await check.open()
        if any(named.path or named.dynamic for named in self.policy.sets.values()):
            version = await first_snapshot(self.policy.sets, self.tools)
            self._refresher = asyncio.create_task(refresh_sets(self.policy.sets, self.tools, version))

    async def close(self) -> None:
        """Give back what `open` took."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
        await asyncio.gather(*self._adding)
        for check in self.checks.values():
            await check.close()

    def warn(self, check: str, text: str) -> None:
        """Log what the administrator should mend: the same text at most once an hour."""
        now = time.monotonic()
        if now - self._warned.get(text, -WARN_EVERY) >= WARN_EVERY:
            if len(self._warned) >= WARNINGS:
                self._warned.clear()
            self._warned[text] = now
            _log.warning("%s: %s", check, text)

    def decided(self, decision: Decision) -> None:
        """Tell the observers, one at a time, and do what rules asked of the state store. Any thread may call it."""
        with self._telling:
            for observer in self.observers:
                observer.decided(decision)
        for action in decision.verdict.actions:
            if action.kind is ActionKind.ADD_TO_SET and self._loop is not None:
                self._loop.call_soon_threadsafe(self._add_to_set, action, decision.at)

    def _add_to_set(self, action: Action, at: float) -> None:
        task = asyncio.get_running_loop().create_task(self._added(action, at))
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def _added(self, action: Action, at: float) -> None:
        until = at + action.seconds if action.seconds else 0.0
        try:
            await self.tools.store.add_to_set(action.name, action.value, until)
        except StoreError as error:
            _log.error("rule %s could not add %r to set %s: %s", action.rule, action.value, action.name, error)

    def case(self, budget: float = 25.0) -> Case:
        """A new mail.

        Args:
            budget: seconds that checks may take, counted anew at each stage.
        """
        return Case(self, budget)


class Case:
    """One mail as it goes by."""

    __slots__ = ("_expired", "_started", "_tasks", "_timer", "budget", "engine", "findings", "klass", "timings")

    def __init__(self, engine: Engine, budget: float) -> None:
        self.engine = engine
        self.budget = budget
        self.klass = ""
        self.findings: dict[str, Finding] = {}
        self.timings: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[Finding]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False
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

    async def message(self, message: Message) -> Decision:
        """The message is complete: judge it."""
        began = time.perf_counter()
        if not self._started:
            self.start(message.envelope)
        if self.engine.late:
            self._arm()
            for plan in self.engine.late:
                self._launch(plan, message)
        await self._settle()
        return self._judge_message(message, began)

    def message_now(self, message: Message) -> Decision | None:
        """The decision, if nothing is left to wait for; else None, and `message` must be awaited on the loop.

        May be called from any thread: nothing but pure judging is done.
        """
        if not self._started or self.engine.late or not all(task.done() for task in self._tasks.values()):
            return None
        began = time.perf_counter()
        for name, task in self._tasks.items():
            self.findings[name] = task.result()
        return self._judge_message(message, began)

    async def recipient(self, envelope: Envelope) -> Decision:
        """One recipient is asked about: judge it. May be called for every recipient of the mail."""
        began = time.perf_counter()
        engine = self.engine
        if not self.klass:
            self._begin(envelope)
            if engine.asked_at_rcpt:
                self._arm()
                for plan in engine.asked_at_rcpt:
                    self._launch(plan, envelope)
                await self._settle()
        view = View(envelope)
        view.findings.update(self.findings)
        reference = new_id()
        while True:
            try:
                return self._judge("recipient", view, reference, envelope, began)
            except Wanted as wanted:
                plan = engine.at_rcpt[wanted.check]
                view.findings[wanted.check] = await self._look_now(plan, envelope)

    def cancel(self) -> None:
        """Nobody waits for the verdict any more."""
        self._disarm()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    # ── running checks ───────────────────────────────────────────────────────────────────────────────────

    def _begin(self, envelope: Envelope) -> None:
        view = View(envelope)
        self.klass = self.engine.policy.klass(view)
        DEADLINE.set(time.monotonic() + self.engine.policy.settings.dns.budget)

    def _launch(self, plan: CheckPlan, facts: Client | Envelope | Message) -> None:
        if isinstance(facts, Envelope) and plan.stage is Stage.CLIENT:
            facts = facts.client
        self._tasks[plan.name] = _task(self._look(plan, facts))

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
        try:
            seen = await self._seen(plan) if plan.after else {}
            began = time.perf_counter()
            check = self.engine.checks[plan.name]
            if plan.options.timeout is None:
                finding = await check.run(facts, seen)
            else:
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
        except Exception as error:  # noqa: BLE001 - a crash of a check costs its finding, not the mail
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

    def _judge_message(self, message: Message, began: float) -> Decision:
        view = View(message.envelope, message)
        view.findings.update(self.findings)
        for finding in self.engine.unasked["message"]:
            view.findings[finding.check] = finding
        return self._judge("message", view, new_id(), message, began)

    def _judge(self, stage: StageName, view: View, reference: str, facts: Envelope | Message, began: float) -> Decision:
        """Judge, and tell the observers.

        Raises:
            Wanted: a rule asks for a check that has not run; run it and judge again.
        """
        engine = self.engine
        view.klass = self.klass
        verdict, judgement = judge(engine.policy.rules[stage], engine.policy.checks, view, reference)
        findings = tuple(view.findings.values())
        if isinstance(facts, Envelope):
            findings += engine.unasked["recipient"]
        elif verdict.disposition in KEPT:
            findings += tuple(part.see(self.klass, facts, view.findings) for part in engine.policy.parts.values())
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
            timings=self.timings,
            seconds=time.perf_counter() - began,
            policy=engine.policy.fingerprint,
        )
        engine.decided(decision)
        return decision

    async def _look_now(self, plan: CheckPlan, envelope: Envelope) -> Finding:
        """Run a check that a rule asked for, within the budget."""
        if not plan.after and plan.options.timeout is None and self._timer is None:
            self._arm_current()
        try:
            return await self._look(plan, envelope.client if plan.stage is Stage.CLIENT else envelope)
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


def _task(coroutine: Coroutine[Any, Any, Finding]) -> asyncio.Task[Finding]:
    """A task; where Python can, it begins at once: a check that need not wait needs no turn of the loop."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return loop.create_task(coroutine)


def _trouble(check: str, reason: str) -> Finding:
    return Finding(check, Result.TEMPERROR, reason, trouble=True)

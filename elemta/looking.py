"""Looking: which checks run for one mail now, and when is none waited for any more?

Lets checks run as soon as their facts are known, within the mail's budget; what a check cannot answer becomes a finding
with trouble.  This is the only place with time limits and `except Exception`: checks contain none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from typing import Any

from elemta.at_once import at_once, eager_task, resumed
from elemta.check import CLASS, UNTIL, Seen, Stage
from elemta.dns import DEADLINE, DnsError
from elemta.engine import Engine
from elemta.facts import Client, Envelope, Message
from elemta.findings import Finding, Result
from elemta.patience import within
from elemta.plans import CheckPlan
from elemta.rules.view import Wanted
from elemta.servers import ServerError
from elemta.store import StoreError

_log = logging.getLogger("elemta.engine")

_EXPECTED = (DnsError, StoreError, OSError, TimeoutError, EOFError)
"""What the world does to a check. Anything else is a mistake of the check, and is logged with its traceback."""
_IN_WORDS = (DnsError, StoreError, ServerError)
"""Those of them whose text says all to an administrator."""


class Looking:
    """The checks of one mail.

    Attributes:
        engine: whose checks.
        budget: seconds that they may take, counted anew at each stage.
        klass: the mail's class, "" before it is known.
        findings: what they saw, by name.
        timings: seconds that they took.
    """

    __slots__ = ("_expired", "_tasks", "_timer", "_until", "budget", "engine", "findings", "klass", "timings")

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

    def cancel(self) -> None:
        """Nobody waits for the verdict any more."""
        self._disarm()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _limit_dns(self) -> None:
        """Let the time for DNS begin, for this task and those it launches."""
        DEADLINE.set(time.monotonic() + self.engine.policy.settings.dns.budget)

    def _launch(self, plans: Iterable[CheckPlan], facts: Envelope | Message) -> None:
        """Let checks run in the background, but for those that have run at once."""
        for plan in plans:
            if plan.name not in self.findings:
                self._tasks[plan.name] = eager_task(self._look(plan, _of_stage(plan, facts)))

    def _look_at_once(self, plan: CheckPlan, facts: Envelope | Message) -> bool:
        """Let one check run here and now; False if it must wait."""
        finding = at_once(self._look(plan, _of_stage(plan, facts)))
        if finding is not None:
            self.findings[plan.name] = finding
        return finding is not None

    async def _settle(self) -> None:
        """Wait until every check that was launched has left its finding."""
        for name, task in self._tasks.items():
            self.findings[name] = await task
        self._tasks.clear()
        self._disarm()
        self._expired = False  # who is cancelled from now on was not late

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
            return _trouble(plan.name, self._too_late())
        except TimeoutError:
            return _trouble(plan.name, f"no answer within {plan.options.timeout or self.budget:g} s")
        except _EXPECTED as error:
            return _trouble(plan.name, _words(error))
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
        """The findings that `plan` waits for.  Its time for DNS begins after them, whom the sender can make slow."""
        for name in plan.after:
            task = self._tasks.get(name)
            if task is not None and name not in self.findings:
                self.findings[name] = await asyncio.shield(task)
                self._limit_dns()
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

    def _look_now(self, facts: Envelope, check: str) -> Finding:
        """Let a check run that a rule asks for.

        Raises:
            Wanted: it has to wait; its finding is what `_rest` gives.
        """
        plan = self.engine.at_rcpt[check]
        look = self._look(plan, _of_stage(plan, facts))
        try:
            waits_for = look.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise Wanted(check, resumed(look, waits_for))

    async def _rest(self, wanted: Wanted) -> Finding:
        """The finding of a check that had to wait, within what is left of the budget."""
        if wanted.rest is None:
            raise wanted
        try:
            return await within(self._until - time.monotonic(), wanted.rest)
        except TimeoutError:
            return _trouble(wanted.check, self._too_late())

    def _too_late(self) -> str:
        return f"no answer within the mail's budget of {self.budget:g} s"


def _of_stage(plan: CheckPlan, facts: Envelope | Message) -> Client | Envelope | Message:
    """What a check of this stage looks at."""
    return facts.client if isinstance(facts, Envelope) and plan.stage is Stage.CLIENT else facts


def _trouble(check: str, reason: str) -> Finding:
    return Finding(check, Result.TEMPERROR, reason, trouble=True)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, _IN_WORDS) else f"{type(error).__name__}: {error}"

"""The engine: one mail is seen by every check, judged by the rules, and becomes a decision.

    engine = Engine(policy, tools, observers)      # in the worker, after the fork
    await engine.open()
    case = Case(engine)                            # elemta.case: one mail; both daemons
    case.start(envelope)                           # milter, at MAIL: early checks run in the background
    decision = await case.message(message)         # milter, at the end of the message; or, where nothing is left
    decision = case.message_now(message)           #   to wait for, at once and on any thread (None: await the other)
    decision = await case.recipient(envelope)      # policy service, for each RCPT TO
    await case.accepted(envelope)                  # policy service: what became of it, for checks that count;
    await case.given_up(envelope)                  #   whole(envelope) judges where nothing was asked at RCPT TO
    case.cancel()                                  # the client went away
    await engine.close()

A `Decision` always comes: trouble of any check is inside it.  Nothing raises but cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elemta.check import Check, Stage, Tools
from elemta.decision import Decision, Observer, StageName
from elemta.facts import Envelope, Message
from elemta.findings import Finding, Result
from elemta.plans import CheckPlan, needed
from elemta.plugins.contract import depends
from elemta.plugins.isolated import Isolated
from elemta.policy import Policy
from elemta.rules.refresh import first_snapshot, refresh_sets
from elemta.store import StoreError
from elemta.verdict import KEPT, Action, ActionKind, Disposition

_log = logging.getLogger("elemta.engine")

_OF_A_RECIPIENT = ("recipient", "recipient.local", "recipient.domain")
WARN_EVERY = 3600.0  # seconds
WARNINGS = 1000  # different warnings remembered
UNCOUNTED_EVERY = 60.0  # seconds between two lines about one check that cannot count


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
        parts_read_body: something is done to kept mail that looks at its body.
    """

    def __init__(
        self, policy: Policy, tools: Tools, observers: Sequence[Observer] = (), *, isolate: bool = True
    ) -> None:
        """Make the checks.

        Args:
            policy: see above.
            tools: see above.
            observers: hear of each decision.
            isolate: plugins that are not trusted run in processes of their own, which open tools of their own. A
                rehearsal lets them use `tools` instead.
        """
        self.policy = policy
        self.tools = tools
        self.observers = tuple(observers)
        self.isolated = {plan.name for plan in policy.checks if isolate and plan.plugin and not plan.plugin.trusted}
        self.checks: Mapping[str, Check[Any]] = {plan.name: self._make(plan) for plan in policy.checks}
        plans = policy.checks
        self.early = tuple(plan for plan in plans if plan.stage < Stage.MESSAGE and not plan.kind.per_recipient)
        self.late = tuple(plan for plan in plans if plan.stage is Stage.MESSAGE)
        self.early_at_once, self.late_at_once = self._at_once(self.early), self._at_once(self.late)
        self.at_rcpt = {plan.name: plan for plan in plans if plan.kind.per_recipient}
        self.asked_at_rcpt = self._asked_at_rcpt()
        self.weighing: Mapping[StageName, Sequence[CheckPlan]] = {
            stage: policy.weighing(stage) for stage in policy.rules
        }
        self.counting = self._counting()
        self.remembering = tuple(
            self.checks[plan.name] for plan in self.late if plan.kind.message_kept is not Check.message_kept
        )
        self.without_recipient = policy.rules["recipient"].without(_OF_A_RECIPIENT)
        self.without_recipient_for_now = self.without_recipient.for_now()
        self.parts_read_body = any(part.needs_body for part in policy.parts.values())
        reads_body = self.parts_read_body or any(plan.kind.needs_body for plan in self.late)
        reads_body |= "size" in policy.rules["message"].facts  # the client may announce any
        self.wants = Wants(early=bool(self.early), body=reads_body)
        self.absent: Mapping[StageName, dict[str, Finding]] = self._absent()
        self._warned: dict[str, float] = {}
        self._uncounted: dict[str, tuple[float, int]] = {}  # by check: when the log was told of it, how many since then
        self._adding: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refresher: asyncio.Task[None] | None = None

    def _make(self, plan: CheckPlan) -> Check[Any]:
        if plan.plugin is not None and plan.name in self.isolated:
            return Isolated(plan.plugin, plan.options, self.tools, self.policy.settings)
        return plan.kind(plan.options, self.tools)

    def _at_once(self, plans: Sequence[CheckPlan]) -> bool:
        """Whether these checks can be made without the loop, as far as they need not wait."""
        return all(
            plan.kind.only_dns and plan.options.timeout is None and plan.name not in self.isolated for plan in plans
        )

    def _asked_at_rcpt(self) -> tuple[CheckPlan, ...]:
        """The early checks that rules at RCPT TO need, with those they wait for."""
        names = needed(self.policy.checks, self.policy.rules["recipient"].sources)
        return tuple(plan for plan in self.early if plan.name in names)

    def _absent(self) -> Mapping[StageName, dict[str, Finding]]:
        """What there is to say of checks that are not made at a stage."""
        unasked = [plan.name for plan in self.early if plan not in self.asked_at_rcpt]
        at_rcpt, elsewhere = self.at_rcpt, "made at RCPT TO only, where a rule asks for it"
        return {
            "recipient": {
                plan.name: Finding(plan.name, Result.NONE, f"no rule {where} asks for it")
                for plan in self.policy.checks
                for names, where in ((at_rcpt, "that was read"), (unasked, "at RCPT TO"))
                if plan.name in names
            },
            "message": {name: Finding(name, Result.NONE, elsewhere) for name in at_rcpt},
        }

    def _counting(self) -> tuple[Check[Any], ...]:
        """The checks that rules at RCPT TO need and that want to know which messages are accepted."""
        asked = self.policy.rules["recipient"].sources
        return tuple(
            self.checks[name]
            for name, plan in self.at_rcpt.items()
            if name in asked and plan.kind.message_accepted is not Check.message_accepted
        )

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

    async def ahead(self, stage: StageName) -> None:
        """Start the processes of isolated plugins that will be asked at this stage, before the first mail comes."""
        checks = self._asked(stage).values()
        await asyncio.gather(*(check.ahead() for check in checks if isinstance(check, Isolated)))

    def _asked(self, stage: StageName) -> Mapping[str, Check[Any]]:
        """The checks that may be made at this stage, by name."""
        asked = (*self.early, *self.late)
        if stage == "recipient":
            sources = self.policy.rules["recipient"].sources
            asked = (*self.asked_at_rcpt, *(plan for name, plan in self.at_rcpt.items() if name in sources))
        return {plan.name: self.checks[plan.name] for plan in asked}

    async def close(self) -> None:
        """Give back what `open` took."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
        await asyncio.sleep(0)  # what a decision just asked for begins
        await asyncio.gather(*self._adding)
        for check in self.checks.values():
            await check.close()

    def dependencies(self, stage: StageName) -> Mapping[tuple[str, str], str]:
        """By check and name of what it depends on: why that does not answer at present; "" when it does.

        Only of checks that are made at this stage: the others' servers are not asked, so nothing is known of them.
        """
        return {
            (name, dependency): why
            for name, check in self._asked(stage).items()
            for dependency, why in depends(check).items()
        }

    def warn(self, check: str, text: str) -> None:
        """Log what the administrator should mend: the same text at most once an hour."""
        now = time.monotonic()
        if now - self._warned.get(text, -WARN_EVERY) >= WARN_EVERY:
            if len(self._warned) >= WARNINGS:
                self._warned.clear()
            self._warned[text] = now
            _log.warning("%s: %s", check, text)

    def decided(self, decision: Decision) -> None:
        """Tell the observers, and do what rules asked of the state store. Any thread may call it."""
        for observer in self.observers:
            observer.decided(decision)
        if self._loop is None:
            return
        for action in decision.verdict.actions:
            if action.kind is ActionKind.ADD_TO_SET and action.value.strip():  # "{login}" of a mail without one
                self._loop.call_soon_threadsafe(self._soon, self._add_to_set(action, decision.at))
        facts = decision.facts
        if isinstance(facts, Message):
            disposition = decision.verdict.disposition
            if disposition not in KEPT:
                self._refused(facts.envelope)
            if self.remembering and disposition is Disposition.ACCEPT:
                self._loop.call_soon_threadsafe(self._soon, self._kept(facts, decision.klass))

    def undone(self, decision: Decision) -> None:
        """A mail that should be kept could not be edited, and was deferred. Any thread may call it."""
        if isinstance(decision.facts, Message) and decision.verdict.disposition in KEPT:
            self._refused(decision.facts.envelope)

    def _refused(self, envelope: Envelope) -> None:
        if self.counting and self._loop is not None:
            told = self.tell(lambda check: check.message_refused(envelope))
            self._loop.call_soon_threadsafe(self._soon, told)

    async def _kept(self, message: Message, klass: str) -> None:
        """Tell the checks that remember mail of its acceptance."""
        told = [each for each in self.remembering if each.options.classes is None or klass in each.options.classes]
        await self._tell(told, lambda check: check.message_kept(message))

    async def tell(self, what: Callable[[Check[Any]], Awaitable[None]], until: float = math.inf) -> None:
        """Tell the checks that count what became of a mail; until `time.monotonic()` is `until`, if somebody waits."""
        await self._tell(self.counting, what, until)

    async def _tell(
        self, checks: Sequence[Check[Any]], what: Callable[[Check[Any]], Awaitable[None]], until: float = math.inf
    ) -> None:
        """Tell checks what became of a mail. A state store that does not answer is logged, not for each mail."""
        for check in checks:
            try:
                async with asyncio.timeout(None if until == math.inf else max(0.0, until - time.monotonic())):
                    await what(check)
            except TimeoutError:
                self._not_counted(check.name, "no answer in time")
            except StoreError as error:
                self._not_counted(check.name, str(error))
            except Exception:  # noqa: BLE001 - a crash of a check costs its count, not the mail
                _log.exception("check %s crashed while it counted", check.name)
            else:
                if check.name in self._uncounted:
                    self._counts_again(check.name)

    def _not_counted(self, check: str, why: str) -> None:
        """Log that a check did not count a mail; the next ones are only counted, and told of once a minute."""
        told, more = self._uncounted.get(check, (-math.inf, 0))
        now = time.monotonic()
        if now - told < UNCOUNTED_EVERY:
            self._uncounted[check] = told, more + 1
            return
        self._uncounted[check] = now, 0
        _log.error("check %s did not count: %s%s", check, why, _more(more))

    def _counts_again(self, check: str) -> None:
        """Log that a check counts again, when it is a minute since the log was told that it does not."""
        told, more = self._uncounted[check]
        if time.monotonic() - told >= UNCOUNTED_EVERY:
            del self._uncounted[check]
            _log.info("check %s counts again%s", check, _more(more))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def _add_to_set(self, action: Action, at: float) -> None:
        until = at + action.seconds if action.seconds else 0.0
        try:
            await self.tools.store.add_to_set(action.name, action.value, until)
        except StoreError as error:
            _log.error("rule %s could not add %r to set %s: %s", action.rule, action.value, action.name, error)


def _more(mails: int) -> str:
    return f"; {mails} more were not counted since it was told last" if mails else ""

"""Checks: the contract of everything that sees.

A check is one class in one file in a `checks/` folder (or behind the entry point `elemta.checks`).  It
takes facts, asks its tools, returns one `Finding`, and never decides, logs, counts, times or catches
`Exception`: the engine does that for all of them in one place.

    class Iprev(Check[Client]):
        "Does the client's address have a name that leads back to it?"   # first line = what it answers
        name = "iprev"
        fields = {"name": Field(str, "the name that was confirmed")}

        async def run(self, facts: Client, seen: Seen) -> Finding: ...

The argument's type (`Client`, `Envelope`, `Message`) says how early the check can run.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Setting

from elemta.config.section import Positive
from elemta.dns import Resolver
from elemta.facts import Client, Envelope, Message
from elemta.findings import Finding, Result, Value
from elemta.store import Store

FactsT = TypeVar("FactsT", Client, Envelope, Message)
Seen = Mapping[str, Finding]
Trouble = Literal["accept", "defer", "reject", "quarantine"]


CLASS: ContextVar[str] = ContextVar("mail_class", default="")
"""The class of the mail that a check looks at; set by the engine."""

UNTIL: ContextVar[float] = ContextVar("answer_until", default=float("inf"))
"""`time.monotonic()` at which nobody waits for a check's answer any more; set by the engine. Whoever blocks in a thread
takes what is left of it as its time limit."""


FEW = 4
"""Calls of `Tools.in_few` at once in one worker."""


class Stage(IntEnum):
    """How early something is known."""

    CLIENT = 0  # at HELO
    ENVELOPE = 1  # at MAIL and RCPT
    MESSAGE = 2  # at the end of the message


STAGE_OF: Mapping[type, Stage] = {Client: Stage.CLIENT, Envelope: Stage.ENVELOPE, Message: Stage.MESSAGE}


@dataclass(frozen=True, slots=True)
class Field:
    """A fact that a check gives.

    Attributes:
        type: str, int, float, bool, IPv4Address (any IP address), or tuple (several texts).
        doc: one line for `elemta config facts`.
        unit: "s", "octets"; "" for none.
        words: of texts, the words they can be; () for any.
        domain: of texts, whether they are domains, which rules compare as A-labels.
        never: of texts, what they never begin with, though people write it; "" for nothing.
    """

    type: type[str | int | float | bool | IPv4Address | tuple[str, ...]]
    doc: str
    unit: str = ""
    words: tuple[str, ...] = ()
    domain: bool = False
    never: str = ""


class Options(BaseModel):
    """What every check can be told; a check adds its own by subclassing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] | None = Setting(None, description="run for these classes of mail only; default: all")
    timeout: Positive | None = Setting(None, description="give up after this time; default: what is left of the budget")
    trouble: Trouble | dict[str, Trouble] | None = Setting(
        None, description="what it means when the check cannot answer; one word, or a word by class"
    )
    edits: bool = Setting(False, description="make the changes to kept mail that the check itself asks for")

    def named_classes(self) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Where classes of mail are named, and which: each must exist."""
        yield ("classes",), self.classes or ()


@dataclass(frozen=True)
class Tools:
    """What a check may use of the world.

    Attributes:
        host: our own name, the authserv-id.
        resolver: asks DNS, within the mail's budget.
        store: state that outlives the mail, shared by all workers.
        clock: seconds since 1970.
        threads: where blocking calls go: `await tools.in_thread(function, ...)`.
        turn: held while one call of `in_turn` runs.
        few: held while a call of `in_few` runs.
    """

    host: str
    resolver: Resolver
    store: Store
    clock: Callable[[], float]
    threads: Executor | None = field(default=None, repr=False)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    few: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FEW), repr=False)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:  # noqa: ANN401
        """Run a blocking call in the bounded pool of threads."""
        return asyncio.get_running_loop().run_in_executor(self.threads, function, *args)

    async def in_turn(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """Run a blocking call that takes much memory: one at a time in this worker, whichever checks ask."""
        return await self._held(self.turn, function, *args)

    async def in_few(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """Run a call that takes processor time: FEW at a time in this worker.

        More would not be faster, since one thread at a time runs Python, and the loop would wait for each of them.
        """
        return await self._held(self.few, function, *args)

    async def _held(self, gate: asyncio.Lock | asyncio.Semaphore, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        def done(work: asyncio.Future[Any]) -> None:
            gate.release()
            if not work.cancelled():
                work.exception()  # it may be that nobody waits for it any more

        await gate.acquire()
        try:
            work = asyncio.ensure_future(self.in_thread(function, *args))
        except BaseException:  # there is no room for one more thread, say
            gate.release()
            raise
        work.add_done_callback(done)
        return await asyncio.shield(work)  # the thread goes on when nobody waits any more, and holds the gate


class Check(ABC, Generic[FactsT]):
    """One thing that sees. The class docstring's first line is the question it answers.

    Attributes:
        name: as written in the YAML under `checks:` and in rules.
        after: checks whose findings `run` wants in `seen`; they run first where they are enabled.
        fields: the facts `name.FIELD` that rules may use.
        results: the result words it can give, for the documentation and for errors that teach.
        trouble: what "could not answer" means where the YAML does not say.
        needs_body: False when a message check looks at the header only.
        only_dns: `run` waits for nothing but the resolver: with all answers at hand it is made on the thread that
            holds the mail, where no event loop runs (`elemta.at_once`).
        per_recipient: it asks about one recipient and may count (greylisting): it runs in the policy
            service only, and only when a rule asks for it.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[Mapping[str, Field]] = {}
    results: ClassVar[tuple[Result, ...]] = tuple(Result)
    trouble: ClassVar[Trouble] = "defer"
    needs_body: ClassVar[bool] = True
    only_dns: ClassVar[bool] = False
    per_recipient: ClassVar[bool] = False
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: Any, tools: Tools) -> None:  # noqa: ANN401 - each check names its own Options
        self.options = options
        self.tools = tools

    async def open(self) -> None:
        """Prepare in the worker, before the first mail: load files, connect."""

    async def close(self) -> None:
        """Give back what `open` took."""

    def dependencies(self) -> Mapping[str, str]:
        """What it depends on, by name: why that does not answer at present, "" when it does; asked every second."""
        return {}

    @abstractmethod
    async def run(self, facts: FactsT, seen: Seen) -> Finding:
        """Look at `facts` and say what was seen; raise when it could not be seen (that is trouble)."""

    # What becomes of a mail is told to checks that count (`per_recipient`) and have run for it.

    async def recipient_refused(self, facts: Envelope, *, only: bool) -> None:
        """A rule refused the last of the recipients; `only`: the message has no other so far (policy service)."""

    async def message_accepted(self, facts: Envelope) -> None:
        """Postfix has the whole message and takes it, unless the milter refuses it (policy service).

        Its recipients are those that were asked about and not refused, or none where another worker was asked.
        """

    async def message_given_up(self, facts: Envelope) -> None:
        """The message was never accepted; `facts` are those last asked about (policy service)."""

    async def message_refused(self, facts: Envelope) -> None:
        """The complete message was refused by a rule, after it was accepted (milter)."""

    async def message_kept(self, facts: Message) -> None:
        """The message, which this check has looked at, was accepted by all rules (milter): not held, not dropped."""

    @classmethod
    def waits_for(cls, options: Any) -> tuple[str, ...]:  # noqa: ANN401, ARG003 - each check names its own Options
        """Of `after` those that it waits for with these options (None: they are wrong)."""
        return cls.after

    @classmethod
    def stage(cls) -> Stage:
        """How early the check can run: from the type argument of `Check[...]`."""
        for base in cls.__mro__:
            for parent in getattr(base, "__orig_bases__", ()):
                if get_origin(parent) is Check and get_args(parent)[0] in STAGE_OF:
                    return STAGE_OF[get_args(parent)[0]]
        raise TypeError(f"{cls.__name__} must say what it looks at: Check[Client], Check[Envelope] or Check[Message]")

    def finding(self, result: Result, reason: str = "", **fields: Value) -> Finding:
        """A finding in this check's name."""
        return Finding(self.name, result, reason, fields)

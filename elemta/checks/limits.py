"""Limits: would this message use more than somebody may use within an hour, a day?

Takes the envelope with the one recipient asked about, and for each named limit what it counts for: a login, a client's
address, any fact of the envelope.  Reports `fail` while a limit is used up, with which, how much and how long still;
`pass` when there is room in all; `none` when no limit is about this mail.

    per_login: {key: login, count: recipients, windows: {1h: 200, 1d: 1000}}

Asked at RCPT TO, where it reserves; final once Postfix has the whole message and takes it (END-OF-MESSAGE), and given
back when a rule refuses the recipient, the client gives the message up, or the milter refuses it in the end.  What was
reserved lapses after five minutes, or after the window where that is shorter.  Octets are those announced (SIZE=) until
the message is there.  Where Postfix never says END-OF-MESSAGE, messages count as accepted when the next one begins, and
the administrator is told.  The windows slide and are never exceeded; see `elemta.store.counting` for how exactly.

Values are compared without case and kept as digests: the state file does not tell who sends how much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Annotated, ClassVar, Literal, NamedTuple

from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic import Field as Setting

from elemta.addresses import compared
from elemta.check import CLASS, Check, Field, Options, Seen, Stage, Tools
from elemta.config.names import Name
from elemta.config.problems import quoted, suggest
from elemta.config.types import Duration, Size, duration, duration_text
from elemta.decision import new_id
from elemta.facts import Envelope
from elemta.findings import Finding, Result, Value
from elemta.rules.view import MAIL_FACTS, View
from elemta.store import Quota, Use

_COUNTABLE = ("text", "domain", "address", "ip")
_KEYS = sorted(fact.name for fact in MAIL_FACTS if fact.stage < Stage.MESSAGE and fact.kind in _COUNTABLE)
SILENT = 50
"""Messages given up without one that was accepted, after which it is certain that Postfix does not say so."""


def _fact(name: str) -> str:
    """A fact of the envelope that has many values."""
    if name not in _KEYS:
        hint = suggest(name, _KEYS) or "; write login, client.address, sender or another fact of the envelope"
        raise ValueError(f"{quoted(name)} is nothing that can be counted for{hint}")
    return name


def _window(seconds: float) -> float:
    """A span of time in which something can be counted: a sixtieth of it must still be some."""
    if seconds < 1:
        raise ValueError("a window is a second at least; write 1s or more")
    return seconds


def _each_once(windows: object) -> object:
    """Windows of which none is another one in other words."""
    known: dict[float, str] = {}
    for text in windows if isinstance(windows, dict) else ():
        try:
            other = known.setdefault(duration(text), text)
        except ValueError:
            continue  # told where it is read
        if other != text:
            raise ValueError(f"{quoted(text)} is as long as {quoted(other)}; keep one")
    return windows


class Limit(BaseModel):
    """One limit; `{key: login, count: recipients, windows: {1h: 200, 1d: 1000}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, AfterValidator(_fact)] = Setting(
        description="each value of this fact of the envelope has a count of its own: login, client.address, sender, …"
    )
    count: Literal["messages", "recipients", "octets"] = Setting("messages", description="what is counted")
    windows: Annotated[
        Mapping[Annotated[Duration, AfterValidator(_window)], Annotated[Size, Setting(ge=1)]],
        BeforeValidator(_each_once),
    ] = Setting(min_length=1, description="how much is allowed within any span of that length: {1h: 200, 1d: 1000}")
    classes: tuple[str, ...] | None = Setting(None, description="for these classes of mail only; default: all")


class LimitsOptions(Options):
    """Any number of limits, each under a name of its own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[Name, Limit]

    @property
    def named(self) -> Mapping[str, Limit]:
        """The limits by name."""
        return self.__pydantic_extra__

    def named_classes(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """See `Options`."""
        yield from super().named_classes()
        for name, limit in self.named.items():
            yield (name, "classes"), limit.classes or ()


class _Asked(NamedTuple):
    """A quota and whose it is."""

    quota: Quota
    name: str
    value: str


class Limits(Check[Envelope]):
    """Would this message use more than somebody may use within an hour, a day?"""

    name = "limits"
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.TEMPERROR)
    fields: ClassVar = {
        "name": Field(str, "the limit that is used up; where there is room, the one that is fullest"),
        "value": Field(str, "for whom it counts: the login, the address"),
        "used": Field(int, "how much was used before this"),
        "max": Field(int, "how much may be used"),
        "window": Field(float, "within which time", "s"),
        "wait": Field(float, "how long until there is room; 0 when there is", "s"),
    }
    per_recipient = True
    Options = LimitsOptions
    options: LimitsOptions

    def __init__(self, options: LimitsOptions, tools: Tools) -> None:
        super().__init__(options, tools)
        self._accepted = self._given_up = 0

    async def run(self, facts: Envelope, seen: Seen) -> Finding:
        """Reserve what this recipient, or the whole message where no recipient is named, would use."""
        asked = list(self._asked(facts))
        if not asked:
            return self.finding(Result.NONE, "no limit is about this mail")
        uses = await self.tools.store.reserve(_message(facts), [each.quota for each in asked], self.tools.clock())
        return self._told(list(zip(asked, uses, strict=True)))

    async def recipient_refused(self, facts: Envelope, *, only: bool) -> None:
        """Reserve nothing for this recipient; nor for the message, where it has no other."""
        if only:
            await self.tools.store.release(_message(facts))
        elif _key(facts.recipients[-1]) not in map(_key, facts.recipients[:-1]):  # else it was named before, and kept
            await self.tools.store.release(_message(facts), _part(facts), self._alone(facts))

    async def message_accepted(self, facts: Envelope) -> None:
        """Make final what was reserved, by what the message really uses."""
        self._accepted += 1
        await self._consume(facts)

    async def message_given_up(self, facts: Envelope) -> None:
        """Reserve nothing for it any more; what was refused had nothing reserved, and says nothing of Postfix."""
        if not self._accepted and self._given_up + 1 >= SILENT:
            held = await self._consume(facts)
        else:
            held = await self.tools.store.release(_message(facts))
        self._given_up += held > 0

    async def message_refused(self, facts: Envelope) -> None:
        """Give back what was final."""
        if facts.queue_id:
            await self.tools.store.give_back(facts.queue_id)

    @property
    def _silent(self) -> bool:
        """Postfix does not say when a message was accepted."""
        return not self._accepted and self._given_up >= SILENT

    def _alone(self, facts: Envelope) -> list[str]:
        """The keys that count whole messages, and that only the last of the recipients has."""
        last, others = (replace(facts, recipients=part) for part in (facts.recipients[-1:], facts.recipients[:-1]))
        return [
            _digest(name, limit.key, window, value)
            for name, limit in self.options.named.items()
            if limit.key.startswith("recipient") and limit.count != "recipients"
            for value in set(_values(limit.key, last)).difference(_values(limit.key, others))
            for window in limit.windows
        ]

    async def _consume(self, facts: Envelope) -> int:
        within: dict[str, tuple[int, int]] = {}
        for name, limit in self.options.named.items():
            bounds = _really(limit, facts)
            if bounds is None:
                continue
            for value in _values(limit.key, facts):
                within |= {_digest(name, limit.key, window, value): bounds for window in limit.windows}
        return await self.tools.store.consume(_message(facts), facts.queue_id, within, self.tools.clock())

    def _asked(self, facts: Envelope) -> Iterator[_Asked]:
        klass = CLASS.get()
        for name, limit in self.options.named.items():
            if limit.classes is not None and klass not in limit.classes:
                continue
            part, amount = _wants(limit, facts)
            for value in _values(limit.key, facts):
                for window, most in limit.windows.items():
                    quota = Quota(_digest(name, limit.key, window, value), part, amount, window, most)
                    yield _Asked(quota, name, value)

    def _told(self, found: list[tuple[_Asked, Use]]) -> Finding:
        full = [each for each in found if each[1].wait]
        if full:
            asked, use = max(full, key=lambda each: each[1].wait)
        else:
            asked, use = max(found, key=lambda each: (each[1].used + each[0].quota.amount) / each[0].quota.most)
        quota = asked.quota
        fields: dict[str, Value] = {
            "name": asked.name,
            "value": asked.value,
            "used": use.used,
            "max": quota.most,
            "window": quota.window,
            "wait": use.wait,
        }
        counted = self.options.named[asked.name].count
        span = duration_text(quota.window)
        reason = f"{asked.name} of {asked.value}: {use.used} of {quota.most} {counted} in {span} were used before"
        warning = ""
        if self._silent:
            warning = (
                "Postfix never says END-OF-MESSAGE; put the policy service into smtpd_end_of_data_restrictions too"
            )
        return Finding(self.name, Result.FAIL if full else Result.PASS, reason, fields, warning=warning)


def _wants(limit: Limit, facts: Envelope) -> tuple[str, int]:
    """The part of the message that is asked about, and how much it would use."""
    if limit.count == "octets":
        return "", facts.size
    if limit.count == "messages":
        return "", 1
    return (_part(facts), 1) if facts.recipients else ("", facts.recipient_count)


def _really(limit: Limit, facts: Envelope) -> tuple[int, int] | None:
    """The least and the most that the whole message uses; None where only its parts can tell."""
    if limit.count == "octets" and facts.size:
        return facts.size, facts.size
    if limit.count == "recipients" and facts.recipient_count and not limit.key.startswith("recipient"):
        return 0, facts.recipient_count  # Postfix may have refused some after us
    return None


def _values(key: str, facts: Envelope) -> tuple[str, ...]:
    """The values that are counted for, without case."""
    view = View(facts)
    view.klass = CLASS.get()
    value = view[key]
    if value is None:
        return ()
    values = value if isinstance(value, tuple) else (value,)
    return tuple(dict.fromkeys(str(each).lower() for each in values))


def _part(facts: Envelope) -> str:
    return _hashed(_key(facts.recipients[-1]))


def _key(address: str) -> str:
    return compared(address).lower()


def _digest(name: str, key: str, window: float, value: str) -> str:
    return _hashed(name, key, f"{window:g}", value)


def _message(facts: Envelope) -> str:
    """One message: Postfix's instance, which is the server's own (several may share the state), and whose it is."""
    instance = facts.instance or new_id()  # every Postfix since 2.2 gives one; without it nothing can be made final
    return _hashed(instance, str(facts.client.address), facts.client.login, facts.sender)


def _hashed(*parts: str) -> str:
    """A digest of the parts: of one size however long they are, and not to be read back."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

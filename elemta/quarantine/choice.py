"""Choice: which of the held mails are meant?"""

from __future__ import annotations

from dataclasses import dataclass, fields

from elemta.quarantine.holding import Held
from elemta.rules.patterns import glob


@dataclass(frozen=True, slots=True)
class Choice:
    """Criteria; all that are given must hold. In texts * stands for anything; they compare without case.

    Attributes:
        rule: the rule that decided.
        klass: the class of the mail.
        sender: the envelope sender.
        recipient: one of the recipients.
        reason: a check behind the verdict, or a part of what it said.
        older: seconds that it has been on hold, at least.
        newer: seconds that it has been on hold, at most.
    """

    rule: str | None = None
    klass: str | None = None
    sender: str | None = None
    recipient: str | None = None
    reason: str | None = None
    older: float | None = None
    newer: float | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) is not None for each in fields(self))

    def fits(self, held: Held, now: float) -> bool:
        """Whether `held` is one of those; `now` is seconds since 1970."""
        entry, mail = held.decision, held.mail
        age = now - mail.arrived
        return (
            (self.older is None or age >= self.older)
            and (self.newer is None or age <= self.newer)
            and _looks(self.rule, entry.rule if entry else "")
            and _looks(self.klass, entry.klass if entry else "")
            and _looks(self.sender, mail.sender)
            and (self.recipient is None or any(_looks(self.recipient, each) for each in mail.recipients))
            and (self.reason is None or self.reason.lower() in held.reason.lower())
        )


def _looks(pattern: str | None, text: str) -> bool:
    return pattern is None or glob(pattern.lower())(text.lower())

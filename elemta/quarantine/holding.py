"""Holding: which decision keeps this mail on hold, and until when?

Joins what Postfix has on hold with the journal.  A mail is Elemta's when a decision `quarantine` fits it and nobody has
released it since: one with its queue id, or one made at RCPT TO, before there was a queue id, for its sender and one of
its recipients in the seconds in which it arrived.  Short queue ids are reused (enable_long_queue_ids in postconf(5)):
with those the time and the sender must fit as well.  Whatever is in doubt counts as held by somebody else, and that is
never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from elemta.config.model import Quarantine
from elemta.journal import Entry, Reader
from elemta.quarantine.queue import Queued
from elemta.verdict import ActionKind, Disposition

SESSION = 3600.0  # seconds from a mail's arrival (its first recipient) to its decision, at most
MOMENT = 5.0  # seconds between the answer at RCPT TO and the queue file that Postfix opens upon it, at most
_SHORT = re.compile(r"[0-9A-F]+")  # a short queue id; a long one has a z in it, and is never given again


@dataclass(frozen=True, slots=True)
class Held:
    """A mail on hold.

    Attributes:
        mail: as Postfix has it.
        decision: the one that put it there; None when somebody else did.
        expires: when its time is over, seconds since 1970; None for a mail of somebody else, which never ends.
    """

    mail: Queued
    decision: Entry | None = None
    expires: float | None = None

    @property
    def reason(self) -> str:
        """What the checks behind the verdict saw, for people."""
        entry = self.decision
        if entry is None:
            return ""
        behind = {*entry.behind, entry.rule.removeprefix("trouble:")}
        return "; ".join(
            f"{each.check}: {each.reason or each.result}" for each in entry.findings if each.check in behind
        )


def held(mails: Iterable[Queued], reader: Reader, times: Quarantine) -> Iterator[Held]:
    """Each of `mails` with what holds it, in their order.

    Args:
        mails: what is on hold.
        reader: the journal.
        times: how long mail may stay.

    Raises:
        JournalError: the journal cannot be read.
    """
    for mail in mails:
        entry = _holder(mail, reader)
        expires = None if entry is None else entry.at + times.classes.get(entry.klass, times.keep)
        yield Held(mail, entry, expires)


def fits(mail: Queued, entry: Entry) -> bool:
    """A decision made while `mail` came in."""
    return mail.arrived - MOMENT <= entry.at <= mail.arrived + SESSION


def _holder(mail: Queued, reader: Reader) -> Entry | None:
    found = [
        entry
        for entry in reader.search(queue_id=mail.queue_id, disposition=Disposition.QUARANTINE)
        if not _SHORT.fullmatch(mail.queue_id) or (fits(mail, entry) and mail.sender.lower() in _senders(entry))
    ]
    if not found:
        found = list(_at_recipient(mail, reader))
    if any(entry.acts for entry in found):  # released, and on hold again: that was not us
        return None
    return min(found, key=lambda entry: entry.stage != "message", default=None)


def _at_recipient(mail: Queued, reader: Reader) -> Iterator[Entry]:
    """Decisions about its first recipient."""
    recipients = {address.lower() for address in mail.recipients}
    for entry in reader.search(
        stage="recipient", disposition=Disposition.QUARANTINE, sender=mail.sender,
        since=mail.arrived - MOMENT, until=mail.arrived + MOMENT,
    ):  # fmt: skip
        same = mail.sender.lower() == entry.sender.lower()  # a * in a sender stands for itself here
        if same and not entry.queue_id and recipients & {address.lower() for address in entry.recipients}:
            yield entry


def _senders(entry: Entry) -> set[str]:
    """The sender that was judged, and the one that a rule may have put in its place."""
    changed = (each.value for each in entry.actions if each.kind is ActionKind.CHANGE_SENDER)
    return {address.lower() for address in (entry.sender, *changed)}

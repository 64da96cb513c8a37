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

from elemta.addresses import split
from elemta.config.model import Quarantine
from elemta.journal import Deed, Entry, Reader
from elemta.quarantine.queue import Queued
from elemta.verdict import ActionKind, Disposition

SESSION = 3600.0  # seconds from a mail's arrival (its first recipient) to its decision, at most
MOMENT = 5.0  # seconds between the answer at RCPT TO and the queue file that Postfix opens upon it, at most
MOST = 1000  # decisions about one sender and recipient within a moment that are looked at
_PAIR = re.compile(r"\\(.)")  # RFC 5321 section 4.1.2: quoted-pairSMTP
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

    def told_by(self, entry: Entry) -> bool:
        """Whether a decision is about this mail: the one that holds it, or one of another step or recipient."""
        same, decision = entry.queue_id == self.mail.queue_id, self.decision
        if decision is not None:
            if entry.id == decision.id:
                return True
            if decision.instance:  # at RCPT TO there is no queue id yet
                same |= entry.instance == decision.instance
        return same and fits(self.mail, entry)


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
        if not _SHORT.fullmatch(mail.queue_id)
        or (fits(mail, entry) and any(_same(sender, _senders(entry)) for sender in _forms(mail.sender)))
    ]
    if not found:
        found = _at_recipient(mail, reader)
    if any(entry.acts for entry in found):  # released, and on hold again: that was not us
        return None
    return min(found, key=lambda entry: entry.stage != "message", default=None)


def _at_recipient(mail: Queued, reader: Reader) -> list[Entry]:
    """Decisions about its first recipient; that of a mail like it, which was deleted since, is none of them."""
    for recipient in mail.recipients:
        found = [
            entry
            for to in _forms(recipient)
            for sender in _forms(mail.sender)
            for entry in reader.search(
                stage="recipient", disposition=Disposition.QUARANTINE, queue_id="", sender=sender, recipient=to,
                since=mail.arrived - MOMENT, until=mail.arrived + MOMENT, limit=MOST,
            )  # a * in an address stands for itself here
            if _same(sender, [entry.sender]) and _same(to, entry.recipients)
            and not any(act.deed in {Deed.DELETED, Deed.EXPIRED} for act in entry.acts)
        ]  # fmt: skip
        if found:
            return found
    return []


def _forms(address: str) -> list[str]:
    """The address as the queue and a milter have it, and without its quotes, as Postfix tells it a policy service."""
    local, domain = split(address)
    if not local.startswith('"'):
        return [address]
    return [address, _PAIR.sub(r"\1", local[1:-1]) + f"@{domain}"]


def _same(address: str, among: Iterable[str]) -> bool:
    return address.lower() in {each.lower() for each in among}


def _senders(entry: Entry) -> list[str]:
    """The sender that was judged, and the one that a rule may have put in its place."""
    return [entry.sender, *(each.value for each in entry.actions if each.kind is ActionKind.CHANGE_SENDER)]

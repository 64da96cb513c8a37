"""first_contact: have this author and this recipient written to each other before?

Takes the author in From and the recipients; reports `pass` when every recipient has had mail of this author, or has
written to them from an own login; `neutral` for a first contact of any of them.  A message counts once all rules have
accepted it: what is refused, held or dropped makes nobody known.  Anybody can write an author into From, so a rule that
trusts known authors asks for `dmarc: pass` as well.

Pairs of addresses are kept as digests: the state file does not tell who writes to whom.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import ClassVar

from pydantic import Field as Setting

from elemta.addresses import a_label, split
from elemta.check import Check, Field, Options, Seen, Trouble
from elemta.config.types import Duration
from elemta.facts import Message
from elemta.findings import Finding, Result

MOST = 100  # recipients looked at; a mail to more is no letter
DAY = 86_400.0


class FirstContactOptions(Options):
    """Options of `first_contact`."""

    keep: Duration = Setting(365 * DAY, ge=DAY, description="a contact is forgotten this long after its last mail")
    delimiter: str = Setting("+", max_length=1, description="jane+list@ is jane@ too; empty: no")


class FirstContact(Check[Message]):
    """Have this author and this recipient written to each other before?"""

    name = "first_contact"
    fields: ClassVar = {
        "days": Field(int, "whole days since the first mail between them; of several recipients the fewest"),
        "strangers": Field(int, "recipients for whom the author is new"),
        "outgoing": Field(bool, "one of our own logins writes: then the recipients become known to it"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.NEUTRAL, Result.TEMPERROR)
    trouble: ClassVar[Trouble] = "accept"
    needs_body = False
    Options = FirstContactOptions

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Look up each recipient; nothing is remembered here."""
        if facts.envelope.client.login:
            return self.finding(Result.NONE, "one of our own logins writes", outgoing=True)
        pairs = self._incoming(facts)
        if not pairs:
            return self.finding(Result.NONE, "no author or no recipient", outgoing=False)
        now = self.tools.clock()
        known = await self.tools.store.contacts(pairs, now)
        strangers = sum(pair not in known for pair in pairs)
        if strangers:
            reason = f"new to {strangers} of {len(pairs)} recipients"
            return self.finding(Result.NEUTRAL, reason, strangers=strangers, outgoing=False)
        days = int((now - max(known.values())) / DAY)
        return self.finding(Result.PASS, f"known for {days} days", days=days, strangers=0, outgoing=False)

    async def message_kept(self, facts: Message) -> None:
        """Remember who wrote to whom."""
        pairs = self._outgoing(facts) if facts.envelope.client.login else self._incoming(facts)
        if pairs:
            now = self.tools.clock()
            await self.tools.store.remember_contacts(pairs, now, now + self.options.keep)

    def _incoming(self, facts: Message) -> list[str]:
        return self._pairs(self._authors(facts)[:1], facts.envelope.recipients)

    def _outgoing(self, facts: Message) -> list[str]:
        """An answer may come to the author's address, or to that of the envelope."""
        ours = dict.fromkeys((*self._authors(facts), self._key(facts.envelope.sender)))
        return [pair for each in facts.envelope.recipients[:MOST] for pair in self._pairs([self._key(each)], ours)]

    def _pairs(self, outside: Iterable[str], inside: Iterable[str]) -> list[str]:
        ours = [key for key in (self._key(each) for each in tuple(inside)[:MOST]) if key]
        return list(dict.fromkeys(_digest(theirs, key) for theirs in outside if theirs for key in ours))

    def _authors(self, facts: Message) -> list[str]:
        """The author, if nobody can read From in two ways; else who stands in the envelope."""
        boxes = facts.authors.mailboxes
        if boxes and not facts.authors.trouble:
            return [self._key(f"{boxes[0].local}@{boxes[0].domain}")]
        return [self._key(facts.envelope.sender)]

    def _key(self, address: str) -> str:
        """An address as one key for all that reaches the same mailbox; "" for none."""
        local, domain = split(address)
        if not domain:
            return ""
        delimiter = self.options.delimiter
        plain = local[:1] + local[1:].partition(delimiter)[0] if delimiter else local
        return f"{plain.lower()}@{a_label(domain) or domain.lower()}"


def _digest(theirs: str, ours: str) -> str:
    """A pair as a digest: of one size however long the addresses are, and not to be read back."""
    return blake2b(f"{theirs}\0{ours}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

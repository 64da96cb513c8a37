"""SPF look-ups: do the names that this term speaks of lead to the client?

`Lookups.matches` answers for a, mx, ptr and exists; `target` expands a term's domain-spec; `validated` finds the name
behind %{p}.  It counts what RFC 7208 section 4.6.4 limits.  One object serves one check_host().

RFC 7208 sections 4.6.4 (limits), 4.8 (domain-spec), 5.3 to 5.5, 5.7 (mechanisms), 7.3 (%{p}).
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address

from elemta.addresses import is_within
from elemta.dns import DEADLINE, Answer, DnsError, Record, Resolver
from elemta.spf.macro import Facts, MacroString, shown, target_name
from elemta.spf.record import Term
from elemta.spf.result import PERMERROR, TEMPERROR, Limits


class Stop(Exception):  # noqa: N818 -- not an error of ours: the evaluation ends here
    """The evaluation ends with none, temperror or permerror, whatever stands around the term that led here."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(result, reason)
        self.result = result
        self.reason = reason


class Lookups:
    """The questions that one evaluation asks, and how many they were.

    Attributes:
        address: the client as an integer.
        v4: it is an IPv4 address.
        terms: evaluated terms that ask the DNS.
        voids: those that got no answer and did not match.
    """

    __slots__ = (
        "_names", "_own", "_resolver", "_type", "_until", "_untold",
        "address", "facts", "limits", "terms", "v4", "voids",
    )  # fmt: skip

    def __init__(self, resolver: Resolver, facts: Facts, limits: Limits) -> None:
        self.facts = facts
        self.limits = limits
        self.address = int(facts.ip)
        self.v4 = facts.ip.version == 4
        self.terms = 0
        self.voids = 0
        self._resolver = resolver
        self._type = "A" if self.v4 else "AAAA"  # RFC 7208 section 5: the client's family
        self._names: tuple[str, ...] | None = None  # of the client, by PTR
        self._untold = False  # nobody could say which they are
        self._own: dict[str, bool] = {}  # which of them are really the client's
        self._until = 0.0  # when the time for all of that ends; 0 before it has begun

    async def ask(self, name: str, rdtype: str) -> Answer:
        """Ask one question.

        Raises:
            Stop: with temperror, nobody could say (RFC 7208 sections 4.4 and 5).
        """
        try:
            return await self._resolver.query(name, rdtype)
        except DnsError as error:
            raise Stop(TEMPERROR, shown(f"{rdtype} {name}: {error.reason}", 400)) from None

    def count_term(self) -> None:
        """Count a term that asks the DNS; Stop with permerror over the limit (RFC 7208 section 4.6.4)."""
        self.terms += 1
        if self.terms > self.limits.terms:
            raise Stop(PERMERROR, f"more than {self.limits.terms} terms that ask the DNS")

    async def target(self, spec: MacroString | None, domain: str, *, counts: bool = True) -> str:
        """Give the name that a domain-spec stands for, "" where no such name can exist (RFC 7208 section 4.8)."""
        if spec is None:
            return domain
        if spec.name is not None:
            return spec.name
        if not spec.asks_ptr:
            return target_name(spec, self.facts, domain)
        if counts and self._names is None:
            self.count_term()  # RFC 7208 section 4.6.4: the question for %{p} is one of the ten
        return target_name(spec, self.facts, domain, await self.validated(domain))

    async def matches(self, term: Term, domain: str) -> bool:
        """Evaluate an a, mx, ptr or exists (RFC 7208 sections 5.3, 5.4, 5.5, 5.7)."""
        self.count_term()
        name = await self.target(term.spec, domain)
        if not name:
            return False  # RFC 7208 section 4.8: a malformed target is nobody's
        match term.name:
            case "a":
                found = await self._at_address(name, term.mask)
            case "mx":
                found = await self._at_exchange(name, term.mask)
            case "exists":
                found = True if (await self.ask(name, "A")).records else None  # always A, RFC 7208 section 5.7
            case _:
                found = await self._at_name(name)
        if found is None:
            self._count_void()
        return bool(found)

    async def validated(self, domain: str) -> str:
        """Give the client's name for %{p}, "unknown" where it has none (RFC 7208 section 7.3)."""
        below = "." + domain
        names = await self._client_names()
        ranked = sorted(names, key=lambda name: (name != domain, not name.endswith(below)))
        for name in ranked:  # <domain> itself, then a name below it, then any
            if await self._is_own(name):
                return name
        return "unknown"

    def _count_void(self) -> None:
        self.voids += 1
        if self.voids > self.limits.voids:  # RFC 7208 section 4.6.4
            raise Stop(PERMERROR, f"more than {self.limits.voids} terms that name nothing in the DNS")

    # The following answer True (the client is there), False, or None: the DNS has nothing under that name.

    async def _at_address(self, name: str, mask: int) -> bool | None:
        records = (await self.ask(name, self._type)).records
        client = self.address & mask
        for record in records:  # RFC 7208 section 5.3
            if isinstance(record, IPv4Address | IPv6Address) and int(record) & mask == client:
                return True
        return False if records else None

    async def _at_exchange(self, name: str, mask: int) -> bool | None:
        hosts = [record for record in (await self.ask(name, "MX")).records if isinstance(record, tuple)]
        found: bool | None = False if hosts else None
        if len(hosts) > self.limits.mx:
            hosts.sort()  # the same ones are left over each time
        for number, (_, host) in enumerate(hosts):  # RFC 7208 section 5.4; no implicit MX
            if number == self.limits.mx:
                raise Stop(PERMERROR, f"{shown(name, 253)} has more than {self.limits.mx} MX hosts")  # 4.6.4
            at = await self._at_address(host, mask) if host else False  # RFC 7505 section 3: "." is no host
            if at:
                return True
            if at is None:
                found = None
        return found

    async def _at_name(self, target: str) -> bool | None:
        target = target.lower()
        names = await self._client_names()
        for name in names:  # RFC 7208 section 5.5; the target is compared first, that costs no look-up
            if is_within(name, target) and await self._is_own(name):
                return True
        return False if names or self._untold else None

    async def _client_names(self) -> tuple[str, ...]:
        """Ask once for the client's PTR names; give the first ten (RFC 7208 sections 4.6.4 and 5.5)."""
        if self._names is None:
            try:
                records = await self._of_client(self.facts.ip.reverse_pointer, "PTR")
            except DnsError:
                records, self._untold = (), True  # RFC 7208 section 5.5: the mechanism fails to match
            self._names = tuple(record.lower() for record in records if isinstance(record, str))[: self.limits.ptr]
        return self._names

    async def _is_own(self, name: str) -> bool:
        """Tell whether the client's name leads back to it.  The names are the client's choice: no void counts."""
        own = self._own.get(name)
        if own is None:
            try:
                records = await self._of_client(name, self._type)
            except DnsError:
                records = ()  # RFC 7208 section 5.5: the name is skipped
            own = self._own[name] = self.facts.ip in records
        return own

    async def _of_client(self, name: str, rdtype: str) -> tuple[Record, ...]:
        """Ask about the client's names, where the client says how long an answer takes.

        Half of the mail's time for DNS at most goes there: the terms after it are the domain's own.
        """
        end, now = DEADLINE.get(), time.monotonic()
        if not self._until:
            self._until = now + (end - now) / 2
        DEADLINE.set(min(end, self._until))
        try:
            return (await self._resolver.query(name, rdtype)).records
        finally:
            DEADLINE.set(end)

"""SPF: may this client send mail in the name of the sender's domain?

Evaluates MAIL FROM and HELO (RFC 7208 sections 2.3, 2.4).  The result is MAIL FROM's; for the null sender it is
HELO's, as postmaster@HELO.  `spf.helo` holds HELO's result in both cases; it is evaluated last, within what is left of
the time for DNS, because the client chose that name and with it how long the answers take.  A `temperror` is an answer
that rules can ask for; DNS trouble behind it means what the policy's `trouble` says (default accept: RFC 7208 section
8.6 leaves it to the receiver).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field as Setting

from elemta.check import Check, Field, Options, Seen, Trouble
from elemta.facts import Envelope
from elemta.findings import AuthResult, Finding, Result
from elemta.spf import DEFAULT_LIMITS, Limits, SpfResult, check_host
from elemta.spf.received import NAME, received_spf

DOTLESS = Limits(labels=1)
"""RFC 7208 section 4.3 gives `none` to a domain of one label. For HELO that is a host without a domain; in MAIL FROM
Postfix has already asked for a domain, and networks that use one of one label publish SPF for it."""

_RESULTS = (Result.NONE, Result.NEUTRAL, Result.PASS, Result.FAIL, Result.SOFTFAIL, Result.TEMPERROR, Result.PERMERROR)


class SpfOptions(Options):
    """Options of `spf`."""

    explanation: bool = Setting(True, description="fetch what the domain wants to tell the sender of a refused mail")
    received_spf: bool = Setting(False, description="add Received-SPF too, besides Authentication-Results")


class Spf(Check[Envelope]):
    """May this client send mail in the name of the sender's domain?

    RFC 7208.
    """

    name = "spf"
    fields: ClassVar = {
        "domain": Field(str, "the domain that was asked, as A-labels", domain=True),
        "identity": Field(str, "which identity gave the result", words=("mailfrom", "helo")),
        "helo": Field(str, "the result for HELO", words=_RESULTS),
        "mechanism": Field(str, 'the term that matched, as published: "-all"'),
        "explanation": Field(str, "what the domain tells the sender of a refused mail; a stranger's words"),
    }
    results = _RESULTS
    trouble: ClassVar[Trouble] = "accept"
    only_dns = True
    Options = SpfOptions

    async def run(self, facts: Envelope, seen: Seen) -> Finding:
        """Evaluate both identities."""
        client = facts.client
        if client.address is None:
            return self.finding(Result.NONE, "the client has no IP address")
        tell = self.options.explanation
        of_helo = f"postmaster@{client.helo}"
        if facts.sender:
            local, domain = facts.sender_parts
            # RFC 7208 section 4.3: a sender without local part is postmaster
            main = await self._check(facts, domain, f"{local or 'postmaster'}@{domain}", DOTLESS, tell=tell)
            helo = await self._check(facts, client.helo, of_helo, tell=False)
        else:
            main = helo = await self._check(facts, client.helo, of_helo, tell=tell)
        identity = "mailfrom" if facts.sender else "helo"
        value = facts.sender or client.helo
        fields = {
            "domain": main.domain,
            "identity": identity,
            "helo": helo.result,
            "mechanism": main.mechanism or None,
            "explanation": main.explanation or None,
        }
        # RFC 8601 section 2.7.2
        evidence = AuthResult("spf", main.result, properties=((f"smtp.{identity}", value),) if value else ())
        return Finding(
            self.name,
            Result(main.result),
            main.reason,
            fields,
            (evidence,),
            trouble=main.result == Result.TEMPERROR,
            header=((NAME, self._received(facts, main, identity)),) if self.options.received_spf else (),
        )

    def _received(self, facts: Envelope, main: SpfResult, identity: str) -> str:
        """Give Received-SPF (RFC 7208 section 9.1)."""
        host = self.tools.host
        pairs = (
            ("client-ip", facts.client.address_text),
            ("envelope-from", facts.sender),
            ("helo", facts.client.helo),
            ("receiver", host),
            ("identity", identity),
            ("mechanism", main.mechanism),
            ("problem", main.reason if main.result in (Result.TEMPERROR, Result.PERMERROR) else ""),
        )
        return received_spf(main.result, f"{host}: {main.reason}" if main.reason else host, pairs)

    async def _check(
        self, facts: Envelope, domain: str, sender: str, limits: Limits = DEFAULT_LIMITS, *, tell: bool
    ) -> SpfResult:
        client, tools = facts.client, self.tools
        assert client.address is not None  # noqa: S101 - run() has looked
        return await check_host(
            tools.resolver,
            client.address,
            domain,
            sender,
            client.helo,
            receiver=tools.host,
            now=int(tools.clock()),
            want_explanation=tell,
            limits=limits,
        )

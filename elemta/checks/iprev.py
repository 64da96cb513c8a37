"""iprev: does the client's address have a name that leads back to it?

Asks PTR for the address, then A or AAAA for each name found (ten at most).  RFC 8601 section 2.7.3 names the results:
pass = a name leads back, fail = names exist and none does, permerror = there is no name.
"""

from __future__ import annotations

from typing import ClassVar

from elemta.check import Check, Field, Seen, Trouble
from elemta.dns import DnsError
from elemta.facts import Client
from elemta.findings import AuthResult, Finding, Result

NAMES = 10  # PTR names that are followed (the bound of RFC 7208 section 4.6.4)


class Iprev(Check[Client]):
    """Does the client's address have a name that leads back to it?

    RFC 8601 section 2.7.3.
    """

    name = "iprev"
    fields: ClassVar = {"name": Field(str, "the name that leads back to the address", domain=True)}
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.TEMPERROR, Result.PERMERROR)
    trouble: ClassVar[Trouble] = "accept"
    only_dns = True

    async def run(self, facts: Client, seen: Seen) -> Finding:
        """Look there and back."""
        address = facts.address
        if address is None:
            return self.finding(Result.NONE, "the client has no IP address")
        try:
            pointers = await self.tools.resolver.query(address.reverse_pointer, "PTR")
        except DnsError as error:
            return self._evidence(facts, Result.TEMPERROR, str(error), trouble=True)
        failed = ""
        for name in pointers.records[:NAMES]:
            try:
                back = await self.tools.resolver.query(str(name), "A" if address.version == 4 else "AAAA")
            except DnsError as error:
                failed = str(error)
                continue
            if address in back.records:
                return self._evidence(facts, Result.PASS, f"{name!s} leads back to {address}", str(name))
        if failed:
            return self._evidence(facts, Result.TEMPERROR, failed, trouble=True)
        if not pointers.records:
            return self._evidence(facts, Result.PERMERROR, f"{address} has no name")
        return self._evidence(facts, Result.FAIL, f"no name of {address} leads back to it: {pointers.records[0]!s}")

    def _evidence(
        self, facts: Client, result: Result, reason: str, name: str = "", *, trouble: bool = False
    ) -> Finding:
        evidence = AuthResult("iprev", result.value, properties=(("policy.iprev", str(facts.address)),))
        return Finding(self.name, result, reason, {"name": name or None}, (evidence,), trouble=trouble)

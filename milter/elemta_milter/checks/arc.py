"""ARC: does the chain of those who handled this message hold, and do we trust all of them?

Validates the chain.  A chain that holds proves who touched the message, not that they are honest: whoever sealed could
have invented all that stands below his seal.  So `arc.trusted` is true only when the chain passes and *every* sealer is
named in `trusted_sealers`.  What the first sealer says he saw is `arc.spf`, `arc.dkim` and `arc.dmarc`: worth as much
as the trust.  No other check depends on this one.

RFC 8617 sections 5.2 and 7.2.1; RFC 8601 section 2.7 (`smtp.remote-ip`, `header.oldest-pass` and `arc.chain`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator
from pydantic import Field as Setting

from elemta.addresses import a_label
from elemta.check import Check, Field, Options, Seen, Tools, Trouble
from elemta.facts import Message
from elemta.findings import AuthResult, Finding, Result, Value
from elemta_milter.feeding import feed
from elemta_milter.mailauth import authres
from elemta_milter.mailauth.arc import ChainResult, ChainValidator, Sealer
from elemta_milter.mailauth.canonical import BodyHasher
from elemta_milter.mailauth.fields import HeaderFields

FIELDS = ("ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results")
SHOWN = 5  # sealers told of in the reason
_NO_CHAIN = (AuthResult("arc", "none"),)
CLAIMS = ("spf", "dkim", "dmarc")
"""Methods whose results, as the first sealer tells them, are facts."""


def _domain(text: str) -> str:
    """A domain as A-labels."""
    found = a_label(text)
    if found is None:
        raise ValueError(f'"{text}" is no domain; write the d= of a sealer, such as lists.example.com')
    return found


class ArcOptions(Options):
    """Options of `arc`."""

    trusted_sealers: tuple[Annotated[str, AfterValidator(_domain)], ...] = Setting(
        (), description="domains (d=) whose word on what they received is believed"
    )


class Arc(Check[Message]):
    """Does the chain of those who handled this message hold, and do we trust all of them?

    RFC 8617.
    """

    name = "arc"
    fields: ClassVar = {
        "trusted": Field(bool, "the chain passes and every sealer is one of trusted_sealers"),
        "sealer": Field(str, "the newest sealer (d=)", domain=True),
        "sealers": Field(tuple, "all sealers, the first one first", domain=True),
        "length": Field(int, "sets in the chain"),
        "oldest_pass": Field(int, "the oldest set from which on the message is unchanged, 0 = from the first on"),
        "spf": Field(str, "the result of SPF as the first sealer tells it"),
        "dkim": Field(str, "the best result of DKIM as the first sealer tells it"),
        "dmarc": Field(str, "the result of DMARC as the first sealer tells it"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.NEUTRAL, Result.TEMPERROR)
    trouble: ClassVar[Trouble] = "accept"
    only_dns = True
    Options = ArcOptions

    def __init__(self, options: ArcOptions, tools: Tools) -> None:
        super().__init__(options, tools)
        self._trusted = frozenset(options.trusted_sealers)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Validate the chain; `detail` is its `ChainResult`."""
        if facts.truncated:
            return self.finding(Result.NEUTRAL, f"not evaluated: more than {facts.truncated}")
        if not any(facts.header(name) for name in FIELDS):
            return Finding(
                self.name, Result.NONE, "no ARC set", {"trusted": False}, _NO_CHAIN, detail=ChainResult(Result.NONE)
            )
        body = BodyHasher()
        validator = ChainValidator(HeaderFields(facts.headers), body=body, now=int(self.tools.clock()))
        await validator.fetch_keys(self.tools.resolver)
        await feed(body, facts.body, self.tools)
        return self._told(await validator.finish(self.tools.resolver), facts)

    def _told(self, chain: ChainResult, facts: Message) -> Finding:
        sealers = tuple(sealer.domain for sealer in chain.sealers)
        fields: dict[str, Value] = {"trusted": chain.result is Result.PASS and self._trusted.issuperset(sealers)}
        if sealers:
            fields |= {"sealer": sealers[-1], "sealers": sealers, "length": len(sealers)}
            fields |= _claimed(chain.sealers[0])
        if chain.oldest_pass is not None:
            fields["oldest_pass"] = chain.oldest_pass
        return Finding(
            self.name,
            chain.result,
            chain.reason or _sealed(sealers),
            fields,
            (_evidence(chain, sealers, facts),),
            trouble=chain.result is Result.TEMPERROR,
            detail=chain,
        )


def _sealed(sealers: tuple[str, ...]) -> str:
    """Who sealed a chain that holds, the first one first."""
    named = ", then ".join(sealers[:SHOWN]) + (f" and {len(sealers) - SHOWN} more" if len(sealers) > SHOWN else "")
    return f"{len(sealers)} {'set' if len(sealers) == 1 else 'sets'}, sealed by {named}" if sealers else ""


def _claimed(first: Sealer) -> dict[str, Value]:
    """What the first sealer says he saw; a stranger's words."""
    found: dict[str, Value] = {}
    results = authres.parse(first.results).results
    for resinfo in sorted(results, key=_is_of_helo):  # RFC 9989 section 4.4.2: DMARC too asks for MAIL FROM only
        if _is_of_helo(resinfo) and "spf" in found:
            continue
        if resinfo.method in CLAIMS and (resinfo.method not in found or resinfo.result == "pass"):
            found[resinfo.method] = resinfo.result
    return found


def _is_of_helo(resinfo: authres.Resinfo) -> bool:
    """RFC 8601 section 2.7.2: SPF of the HELO name alone, which proves nothing of the sender."""
    names = [name for name, _ in resinfo.properties]
    return resinfo.method == "spf" and "smtp.helo" in names and "smtp.mailfrom" not in names


def _evidence(chain: ChainResult, sealers: tuple[str, ...], facts: Message) -> AuthResult:
    """Give the `resinfo` of the chain (RFC 8617 section 10.2)."""
    properties = []
    if chain.result is not Result.NONE:
        if facts.envelope.client.address is not None:
            properties.append(("smtp.remote-ip", facts.envelope.client.address_text))
        if chain.oldest_pass is not None:
            properties.append(("header.oldest-pass", str(chain.oldest_pass)))
        if sealers:
            properties.append(("arc.chain", ":".join(sealers)))
    return AuthResult("arc", chain.result, chain.reason, tuple(properties))

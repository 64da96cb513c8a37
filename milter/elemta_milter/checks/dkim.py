"""DKIM: which domains take responsibility for this message, and can they prove it?

Verifies every DKIM-Signature up to a bound.  The result is `pass` when any signature passes (RFC 6376 section 6.1);
else that of the signature that says most, in this order: temperror (another try may bring a pass), fail, policy,
neutral, permerror.  A broken signature of a domain that is testing counts as none (RFC 6376 section 3.6.1, t=y).  Never
says which domain matters: that is DMARC's part, or a rule's (`dkim.domains`).

RFC 6376 sections 6, 8.2 and 8.15; RFC 8301; RFC 8463; RFC 8601 section 2.7.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field as Setting

from elemta.addresses import is_near
from elemta.at_once import on_loop
from elemta.check import Check, Field, Options, Seen, Tools, Trouble
from elemta.facts import Message
from elemta.findings import AuthResult, Finding, Result, Value
from elemta_milter.feeding import BIG, feed
from elemta_milter.mailauth.canonical import BodyHasher
from elemta_milter.mailauth.dkim import FIELD, SignatureResult, Verifier
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.limits import DEFAULT_LIMITS

TELLING = (Result.PASS, Result.TEMPERROR, Result.FAIL, Result.POLICY, Result.NEUTRAL, Result.PERMERROR, Result.NONE)
"""Result words, the most telling first."""
SHOWN = 5  # signatures told of in the reason
NOTED = 16
"""Signatures told of in Authentication-Results, at most 1.7 KB each: Postfix cuts a field at 60,000 octets."""
SEEN = ("from", "sender", "reply-to", "to", "cc", "subject", "date", "content-type", "content-transfer-encoding")
"""Header fields that mail programs show, or show the body by."""


class DkimOptions(Options):
    """Options of `dkim`."""

    min_rsa_bits: int = Setting(1024, ge=1024, le=4096, description="shorter RSA keys prove nothing (RFC 8301)")
    signatures: int = Setting(8, ge=1, le=50, description="signatures verified; those of the author's domain first")
    trust_length: bool = Setting(
        False, description="let a signature pass whose l= leaves a part of the body unsigned (RFC 6376 section 8.2)"
    )


class Dkim(Check[Message]):
    """Which domains take responsibility for this message, and can they prove it?

    RFC 6376, RFC 8301, RFC 8463.
    """

    name = "dkim"
    fields: ClassVar = {
        "domains": Field(tuple, "d= of the signatures that pass, as A-labels", domain=True),
        "selectors": Field(tuple, "s= of the signatures that pass"),
        "signers": Field(tuple, "d= of all signatures, good or bad", domain=True),
        "results": Field(tuple, "the result of each signature, from top to bottom"),
        "algorithm": Field(str, "a= of the signature that gave the result"),
        "identity": Field(str, "i= of that signature; a stranger's words"),
        "key_bits": Field(int, "the size of its key, 0 when none was read"),
        "testing": Field(bool, "its domain says that it is testing (t=y)"),
        "expired": Field(bool, "its time (x=) has passed"),
        "length_uncovered": Field(int, "octets of the body that its l= leaves unsigned", unit="octets"),
        "unsigned": Field(
            tuple,
            "header fields that people see and no signature that passes covers, such as the second of two subjects;"
            " where the author's domain or one above or below it signed, its signatures count alone",
        ),
    }
    trouble: ClassVar[Trouble] = "accept"
    only_dns = True
    Options = DkimOptions

    def __init__(self, options: DkimOptions, tools: Tools) -> None:
        super().__init__(options, tools)
        self._limits = replace(DEFAULT_LIMITS, rsa_bits_least=options.min_rsa_bits, signatures=options.signatures)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Verify all signatures; `detail` is their `SignatureResult`s."""
        fields = HeaderFields(facts.headers)
        if not fields.places(FIELD):
            return Finding(self.name, Result.NONE, "no signature", authres=(AuthResult("dkim", "none"),))
        if facts.truncated:
            reason = f"not evaluated: more than {facts.truncated}"
            return Finding(self.name, Result.NEUTRAL, reason, authres=(AuthResult("dkim", "neutral", reason),))
        body = BodyHasher()
        verifier = Verifier(
            fields,
            body=body,
            now=int(self.tools.clock()),
            limits=self._limits,
            prefer=facts.authors.domains,
            trust_length=self.options.trust_length,
        )
        # Postfix hands a message on when it has it all, in one go: keys could not be asked for any earlier than here
        if facts.body.size > BIG and on_loop():
            await asyncio.gather(verifier.fetch_keys(self.tools.resolver), feed(body, facts.body, self.tools))
        else:
            await verifier.fetch_keys(self.tools.resolver)
            await feed(body, facts.body, self.tools)
        return self._told(await verifier.finish(self.tools.resolver), facts)

    def _told(self, results: Sequence[SignatureResult], facts: Message) -> Finding:
        telling = min(results, key=lambda each: TELLING.index(_word(each)))
        passed = [each for each in results if each.result is Result.PASS]
        result = _word(telling)
        fields: dict[str, Value] = {
            "domains": _unique(each.domain for each in passed),
            "selectors": _unique(each.selector for each in passed),
            "signers": _unique(each.domain for each in results),
            "results": tuple(each.result.value for each in results),
            "algorithm": telling.algorithm or None,
            "identity": telling.identity or None,
            "key_bits": telling.key_bits,
            "testing": telling.testing,
            "expired": telling.expired,
            "length_uncovered": telling.length_uncovered,
            "unsigned": _unsigned(passed, facts),
        }
        reason = "; ".join(_sentence(each) for each in results[:SHOWN])
        authres = tuple(_all_evidence(results))
        return Finding(
            self.name, result, reason, fields, authres, trouble=result is Result.TEMPERROR, detail=tuple(results)
        )


def _word(one: SignatureResult) -> Result:
    """What a signature counts as: RFC 6376 section 3.6.1, t=y: a broken one of a testing domain as none."""
    return Result.NONE if one.testing and one.result is not Result.PASS else one.result


def _unsigned(passed: Sequence[SignatureResult], facts: Message) -> tuple[str, ...]:
    """RFC 6376 section 8.15: a field of which there are more than h= names, or any that it does not name.

    Whoever adds a field to the author's mail can sign that in a name of his own.
    """
    authors = [each for each in passed if any(is_near(each.domain, author) for author in facts.authors.domains)]
    signed = [each.signed_names for each in authors or passed]
    found = []
    for name in SEEN if signed else ():
        there = len(facts.header(name))
        if there and there > max([names.count(name) for names in signed]):
            found.append(name)
    return tuple(found)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def _sentence(one: SignatureResult) -> str:
    return f"{one.domain or 'unreadable'}: {one.result}" + (f" ({one.reason})" if one.reason else "")


def _all_evidence(results: Sequence[SignatureResult]) -> Iterator[AuthResult]:
    """The `resinfo` of each signature, from top to bottom; of the most telling where there are very many."""
    noted = sorted(results, key=lambda each: TELLING.index(each.result))[:NOTED]
    for each in sorted(noted, key=lambda each: each.place):
        yield _evidence(each)
    if len(results) > NOTED:
        yield AuthResult("dkim", Result.POLICY, f"and {len(results) - NOTED} more signatures")


def _evidence(one: SignatureResult) -> AuthResult:
    """Give the `resinfo` of one signature (RFC 8601 section 2.7.1, RFC 6008)."""
    identity = "" if one.identity == f"@{one.domain}" else one.identity  # that is what a missing i= means
    properties = (
        ("header.d", one.domain),
        ("header.i", identity),
        ("header.s", one.selector),
        ("header.a", one.algorithm),
        ("header.b", one.b),
    )
    return AuthResult("dkim", one.result, one.reason, tuple(each for each in properties if each[1]))

"""ARC: does the chain of those who handled this message hold?

Takes the header when it is complete, the body through a `BodyHasher`, and keys through the resolver; reports one
`ChainResult`, with who sealed and what they say they saw.  Never says whether a sealer is to be believed: a chain
that holds proves who touched the message, not that they are honest.  DKIM and DMARC know nothing of this module.

RFC 8617 sections 4 and 5.2.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256

from msgspec import Struct

from elemta.at_once import on_loop
from elemta.dns import Resolver
from elemta.findings import Result
from elemta_milter.mailauth import keys, signature
from elemta_milter.mailauth.canonical import CRLF, BodyHasher, Canon, header_field
from elemta_milter.mailauth.fields import HeaderFields, without_b
from elemta_milter.mailauth.limits import DEFAULT_LIMITS, Limits
from elemta_milter.mailauth.signature import Seal, Signature, Source
from elemta_milter.mailauth.taglist import WHITE, TagListError

RESULTS = b"arc-authentication-results"
MESSAGE = b"arc-message-signature"
SEAL = b"arc-seal"

AT_ONCE = 4
"""Sets that are validated before the loop has a turn."""
FARTHEST = 1000
"""Characters of ARC-Authentication-Results within which its instance stands: comments are read one by one."""
_INSTANCE = tuple(map(re.compile, ("i", "=", "[0-9]+", ";")))  # comments may stand between them


class Sealer(Struct, frozen=True):
    """One set of the chain, as it claims to be.

    Attributes:
        instance: its number, from 1.
        domain: d= of the ARC-Seal, A-labels: who vouches for the results.
        selector: s= of the ARC-Seal.
        validation: cv=, what this sealer thought of the chain before it.
        results: the ARC-Authentication-Results after "i=N;", as it is on the wire; not checked for form.
    """

    instance: int
    domain: str
    selector: str
    validation: str
    results: str


class ChainResult(Struct, frozen=True):
    """What became of the chain.

    Attributes:
        result: none, pass, fail, or temperror when the DNS could not be asked.
        reason: for people; "" for none and pass.
        sealers: the sets from the first to the newest; () unless the structure holds.
        oldest_pass: the oldest instance from which on no ARC-Message-Signature is broken, 0 when even the first one
            holds (RFC 8617 section 5.2 step 5); None unless the chain passes.
        next_instance: the number that a new set takes; None where none may be added.
        scope: the fields of the chain, raw, in the order in which a new seal covers them; () unless all seals hold.
    """

    result: Result
    reason: str = ""
    sealers: tuple[Sealer, ...] = ()
    oldest_pass: int | None = None
    next_instance: int | None = 1
    scope: tuple[tuple[bytes, bytes], ...] = ()


class _Set(Struct, frozen=True):
    """One set: the places of its three fields, and what they claim."""

    places: tuple[int, int, int]
    message: Signature
    seal: Seal
    results: str


class _BrokenError(Exception):
    """The chain fails; says why."""


class ChainValidator:
    """Validates the ARC chain of one message.

    Args:
        fields: the complete header.
        body: asked here for the hashes needed, so make the validator before feeding it.
        now: seconds since 1970.
        limits: bounds.
    """

    def __init__(self, fields: HeaderFields, *, body: BodyHasher, now: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self._fields = fields
        self._body = body
        self._now = now
        self._limits = limits
        self._published: dict[str, keys.Published] | None = None
        self._next: int | None = 1
        self._sets: list[_Set] = []
        self._settled: ChainResult | None = None
        try:
            self._sets = self._read()
        except _BrokenError as broken:
            self._settled = ChainResult(Result.FAIL, str(broken), next_instance=self._next)
        else:
            if not self._sets:
                self._settled = ChainResult(Result.NONE)  # RFC 8617 section 5.2 step 1
        for one in self._sets:
            body.want(one.message.body)

    async def fetch_keys(self, resolver: Resolver) -> None:
        """Ask for the keys that the verdict needs; a second call asks nothing."""
        if self._published is None:
            names = [one.message.source.key_name for one in self._sets[-1:]]
            names += [one.seal.source.key_name for one in self._sets]
            self._published = await keys.fetch(resolver, names)

    async def finish(self, resolver: Resolver) -> ChainResult:
        """Validate, once the body was fed."""
        if self._settled is None:
            await self.fetch_keys(resolver)
            self._body.finish()
            self._settled = await self._validate(resolver)
        return self._settled

    def _read(self) -> list[_Set]:
        """Read the sets and check the structure (RFC 8617 section 5.2 steps 1 to 3)."""
        fields, limits = self._fields, self._limits
        if not any(fields.places(kind) for kind in (RESULTS, MESSAGE, SEAL)):
            return []
        if len(fields.headers) > limits.header_fields or fields.octets > limits.header_octets:
            self._next = None
            raise _BrokenError("not evaluated: the header is too large")
        results, messages, seals = (self._by_instance(kind) for kind in (RESULTS, MESSAGE, SEAL))
        problems = [problem for found, problem in (results, messages, seals) if problem]
        highest = max((number for found, _ in (results, messages, seals) for number in found), default=0)
        self._next = highest + 1 if highest < limits.arc_sets else None
        newest = seals[0].get(highest)
        if newest is not None and self._tags(newest).get("cv") == "fail":
            self._next = None  # RFC 8617 section 5.1: nothing is added to a chain that is known to have failed
            raise _BrokenError(f"set {highest} says that the chain failed")  # RFC 8617 section 5.2 step 2
        if problems:
            raise _BrokenError(problems[0])
        numbers = range(1, highest + 1)
        if not all(set(found) == set(numbers) for found, _ in (results, messages, seals)):
            raise _BrokenError("a field is missing in the chain")  # RFC 8617 section 5.2 step 3 A and B
        return [self._set(number, results[0][number], messages[0][number], seals[0][number]) for number in numbers]

    def _by_instance(self, kind: bytes) -> tuple[dict[int, int], str]:
        """Give the places of the fields of a kind by instance, and the first thing wrong among them."""
        found: dict[int, int] = {}
        problem = ""
        places = self._fields.places(kind)
        if len(places) > self._limits.arc_sets:  # RFC 8617 section 4.2.1
            problem = f"more than {self._limits.arc_sets} sets"
        for place in places[: self._limits.arc_sets]:
            try:
                text = _split(self._fields.headers[place][1])[0] if kind == RESULTS else self._tags(place).get("i", "")
                number = signature.instance(text, self._limits)
            except TagListError as error:
                problem = problem or f"{kind.decode()}: {error}"
                continue
            if number in found:  # RFC 8617 section 5.2 step 3 A
                problem = problem or f"{kind.decode()}: i={number} occurs twice"
            found[number] = place
        return found, problem

    def _tags(self, place: int) -> dict[str, str]:
        return signature.tags_of(self._fields.headers[place][1], self._limits)

    def _set(self, number: int, results: int, message: int, seal: int) -> _Set:
        try:
            claim = signature.arc_message(self._tags(message), self._limits)
        except TagListError as error:
            raise _BrokenError(f"message signature {number}: {error}") from None
        try:
            sealed = signature.arc_seal(self._tags(seal))
        except TagListError as error:
            raise _BrokenError(f"seal {number}: {error}") from None
        if sealed.validation != ("none" if number == 1 else "pass"):  # RFC 8617 section 5.2 step 3 C
            raise _BrokenError(f"seal {number}: cv={sealed.validation}")
        return _Set((results, message, seal), claim, sealed, _split(self._fields.headers[results][1])[1])

    async def _validate(self, resolver: Resolver) -> ChainResult:
        seals = await self._seals()  # RFC 8617 section 5.2 step 6
        verdicts = [("message signature", len(self._sets), self._message(self._sets[-1]))]  # RFC 8617 5.2 step 4
        verdicts += [("seal", number, verdict) for number, verdict in seals]
        sealers = tuple(_sealer(number, one) for number, one in enumerate(self._sets, 1))
        scope: tuple[tuple[bytes, bytes], ...] = ()
        if all(result is Result.PASS for _, (result, _) in seals):
            scope = tuple(self._fields.headers[place] for one in self._sets for place in one.places)
        for worst in (Result.FAIL, Result.TEMPERROR):
            for what, number, (result, reason) in verdicts:
                if result is worst:
                    following = self._next if worst is Result.FAIL else None
                    return ChainResult(worst, f"{what} {number}: {reason}", sealers, None, following, scope)
        return ChainResult(Result.PASS, "", sealers, await self._oldest_pass(resolver), self._next, scope)

    def _message(self, one: _Set) -> tuple[Result, str]:
        """Verify an ARC-Message-Signature as one of DKIM (RFC 8617 section 4.1.2)."""
        claim = one.message
        if claim.expires_at is not None and claim.expires_at + self._limits.clock_skew < self._now:
            return Result.FAIL, "expired"
        digest = self._fields.digest(claim.names, claim.header_canon, one.places[1])
        result, reason = self._prove(claim.source, digest)
        if result is Result.PASS:
            if self._body.digest(claim.body) != claim.body_hash:
                return Result.FAIL, "body hash did not verify"
            if claim.body.length is not None and claim.body.length < self._body.size(claim.body.canon):
                return Result.FAIL, "l= leaves content uncovered"
        return result, reason

    async def _seals(self) -> list[tuple[int, tuple[Result, str]]]:
        """Verify the seals, the newest first; each covers all sets up to its own (RFC 8617 section 5.1.1)."""
        covered = sha256()
        verdicts = []
        for number, one in enumerate(self._sets, 1):
            results, message, seal = (self._fields.canonical(place, Canon.RELAXED) for place in one.places)
            covered.update(results + CRLF + message + CRLF)
            name, value = self._fields.headers[one.places[2]]
            last = covered.copy()
            last.update(header_field(Canon.RELAXED, name, without_b(value)))
            verdicts.append((number, self._prove(one.seal.source, last.digest())))
            covered.update(seal + CRLF)
            await _other_turns(number)
        return verdicts[::-1]

    def _prove(self, source: Source, digest: bytes) -> tuple[Result, str]:
        proof = keys.prove(
            (self._published or {})[source.key_name],
            kind=source.kind,
            signature=source.signature,
            digest=digest,
            limits=self._limits,
        )
        if proof.result in {Result.PASS, Result.TEMPERROR}:
            return proof.result, proof.reason
        return Result.FAIL, proof.reason

    async def _oldest_pass(self, resolver: Resolver) -> int:
        published = self._published or {}
        names = {one.message.source.key_name for one in self._sets} - published.keys()
        self._published = published | await keys.fetch(resolver, names)
        for number in range(len(self._sets) - 1, 0, -1):
            if self._message(self._sets[number - 1])[0] is not Result.PASS:
                return number + 1
            await _other_turns(number)
        return 0


async def _other_turns(number: int) -> None:
    """Let others work on the loop after some sets: a long chain with large keys takes half a second."""
    if not number % AT_ONCE and on_loop():
        await asyncio.sleep(0)


def _sealer(number: int, one: _Set) -> Sealer:
    source = one.seal.source
    return Sealer(number, source.domain, source.selector, one.seal.validation, one.results)


def _split(value: bytes) -> tuple[str, str]:
    """Split ARC-Authentication-Results into the number in i= and what follows it (RFC 8617 section 4.1.1).

    Raises:
        TagListError: it does not begin with i=.
    """
    text, at = value.decode(errors="replace"), 0
    parts = []
    for part in _INSTANCE:
        found = part.match(text, _after_comments(text, at))
        if found is None:
            raise TagListError("no i= at its beginning")
        parts.append(found[0])
        at = found.end()
    return parts[2], text[at:]


def _after_comments(text: str, at: int) -> int:
    """Where white space and comments from `at` on (CFWS, RFC 5322 section 3.2.2) are over; the end for too many."""
    depth = 0
    while at < min(len(text), FARTHEST):
        char = text[at]
        if char == "\\" and depth:
            at += 1
        elif char == "(":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif not depth and char not in WHITE:
            break
        at += 1
    return at if at < FARTHEST else len(text)

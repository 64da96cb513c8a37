"""DKIM: which domains take responsibility for this message, and can it be proved?

Takes the header when it is complete, the body through a `BodyHasher`, and keys through the resolver; reports one
`SignatureResult` for each DKIM-Signature field, from top to bottom.  Never says which of them matters, and never says
fail when the DNS could not be asked.

    body = BodyHasher()
    verifier = Verifier(HeaderFields(headers), body=body, now=now)
    await verifier.fetch_keys(resolver)     # may run while the body arrives
    for piece in pieces: body.feed(piece)   # of no use unless body.needs_body
    results = await verifier.finish(resolver)

RFC 6376 sections 3.5, 3.9 and 6.1; RFC 8301; RFC 8463; RFC 8616; RFC 8601 section 2.7.1 (words); RFC 6008 (header.b).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import pairwise

from msgspec import Struct

from elemta.addresses import is_near
from elemta.dns import DnsError, Resolver
from elemta.findings import Result
from elemta_milter.mailauth import keys, signature
from elemta_milter.mailauth.canonical import BodyHasher
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.limits import DEFAULT_LIMITS, Limits
from elemta_milter.mailauth.signature import Signature
from elemta_milter.mailauth.taglist import TagListError

FIELD = b"dkim-signature"
_NOTHING_PROVED = keys.Proof(Result.NONE, "")
B_LEAST = 8  # RFC 6008 section 4: at least the first eight characters of b=


class SignatureResult(Struct, frozen=True):
    """What became of one signature.

    Attributes:
        result: pass: it proves the domain. fail: the message or the signature was changed. policy: it is not
            acceptable here (short key, content not covered, expired, not evaluated). permerror: it or its key
            is no use. temperror: nobody could say.
        reason: for people; "" for pass.
        place: of the field in the header, from 0 at the top.
        domain: d= as A-labels; "" where it cannot be read, as with all that follows.
        selector: s=.
        algorithm: a=.
        identity: i=, decoded.
        b: the beginning of b=, long enough to tell it from the other signatures of the mail.
        testing: the key record has t=y: good or bad, the domain asks for no other treatment than of unsigned mail.
        key_bits: size of the key; 0 when none was read.
        canon: "relaxed/relaxed".
        signed_names: h=, lower case.
        signed_at: t=, seconds since 1970.
        expires_at: x=, seconds since 1970.
        expired: that time has passed.
        length_uncovered: octets of the canonical body that l= leaves uncovered.
    """

    result: Result
    reason: str
    place: int
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    b: str = ""
    testing: bool = False
    key_bits: int = 0
    canon: str = ""
    signed_names: tuple[str, ...] = ()
    signed_at: int | None = None
    expires_at: int | None = None
    expired: bool = False
    length_uncovered: int = 0


class _Candidate(Struct, frozen=True):
    """A signature still to be judged."""

    place: int
    claim: Signature
    b: str


class Verifier:
    """Verifies the DKIM signatures of one message.

    Args:
        fields: the complete header.
        body: asked here for the hashes that the signatures need, so make the verifier before feeding it.
        now: seconds since 1970.
        limits: bounds.
        prefer: domains (A-labels, lower case) whose signatures, and those of their parents and subdomains, are
            verified first where there are more than `limits.signatures`: the author's.
        trust_length: let a signature pass whose l= leaves content uncovered (RFC 6376 section 8.2 says why not).
    """

    def __init__(
        self,
        fields: HeaderFields,
        *,
        body: BodyHasher,
        now: int,
        limits: Limits = DEFAULT_LIMITS,
        prefer: Collection[str] = (),
        trust_length: bool = False,
    ) -> None:
        self._fields = fields
        self._body = body
        self._now = now
        self._limits = limits
        self._trust_length = trust_length
        self._published: dict[str, keys.Published] | None = None
        self._results: dict[int, SignatureResult] = {}
        candidates = self._read()
        if len(candidates) > limits.signatures:
            candidates.sort(
                key=lambda candidate: not any(is_near(candidate.claim.source.domain, each) for each in prefer)
            )
            for candidate in candidates[limits.signatures :]:
                reason = f"not evaluated: more than {limits.signatures} signatures"
                self._results[candidate.place] = self._result(candidate, Result.POLICY, reason)
        self._candidates = candidates[: limits.signatures]
        for candidate in self._candidates:
            body.want(candidate.claim.body)

    async def fetch_keys(self, resolver: Resolver) -> None:
        """Ask for the keys; a second call asks nothing."""
        if self._published is None:
            names = [candidate.claim.source.key_name for candidate in self._candidates]
            self._published = await keys.fetch(resolver, names)

    async def finish(self, resolver: Resolver) -> tuple[SignatureResult, ...]:
        """Verify, once the body was fed; () when the message has no signature."""
        await self.fetch_keys(resolver)
        self._body.finish()
        for candidate in self._candidates:
            self._results[candidate.place] = self._judge(candidate)
        return tuple(self._results[place] for place in sorted(self._results))

    def _read(self) -> list[_Candidate]:
        """Read the fields; what is settled by reading goes to the results."""
        places = self._fields.places(FIELD)
        most, reason = self._bound()
        for place in places[most : most + 1]:  # one result stands for all that are not read
            self._results[place] = SignatureResult(Result.POLICY, f"not evaluated: {reason}", place)
        read = {place: _tags(self._fields.headers[place][1], self._limits) for place in places[:most]}
        labels = {place: signature.label(tags) for place, (tags, _) in read.items()}
        lengths = _unique_lengths(label.b for label in labels.values())
        candidates = []
        for place, (tags, unread) in read.items():
            label = labels[place]
            claim, problem = (None, unread) if unread else _claim(tags, self._limits)
            b = label.b[: lengths[label.b]]
            if claim is None:
                self._results[place] = SignatureResult(
                    Result.PERMERROR, problem, place, label.domain, label.selector, label.algorithm, b=b
                )
                continue
            candidate = _Candidate(place, claim, b)
            reason = self._untimely(claim)
            if reason:
                self._results[place] = self._result(candidate, Result.POLICY, reason)
            else:
                candidates.append(candidate)
        return candidates

    def _bound(self) -> tuple[int, str]:
        """How many signature fields may be read, and why not more."""
        limits = self._limits
        if len(self._fields.headers) > limits.header_fields:
            return 0, f"more than {limits.header_fields} header fields"
        if self._fields.octets > limits.header_octets:
            return 0, f"header is longer than {limits.header_octets} octets"
        return limits.signature_fields, f"more than {limits.signature_fields} signature fields"

    def _expired(self, claim: Signature) -> bool:
        return claim.expires_at is not None and claim.expires_at + self._limits.clock_skew < self._now

    def _untimely(self, claim: Signature) -> str:
        """Why the clock says that it is not to be judged; "" when it is."""
        if claim.expires_at is not None and self._expired(claim):  # RFC 6376 section 3.5, x=
            return f"expired at {_date(claim.expires_at)}"
        signed_at = claim.source.signed_at
        if signed_at is not None and signed_at > self._now + self._limits.clock_skew:  # RFC 6376 section 3.5, t=
            return "signed in the future"
        return ""

    def _judge(self, candidate: _Candidate) -> SignatureResult:
        claim = candidate.claim
        published = (self._published or {})[claim.source.key_name]
        if claim.source.historic and not isinstance(published, DnsError):  # RFC 8301 section 3.1
            return self._result(candidate, Result.PERMERROR, f"{claim.source.algorithm} must not be used")
        proof = keys.prove(
            published,
            kind=claim.source.kind,
            signature=claim.source.signature,
            digest=self._fields.digest(claim.names, claim.header_canon, candidate.place),
            limits=self._limits,
            subdomain=claim.subdomain,
        )
        result, reason = proof.result, proof.reason
        length, size = claim.body.length, self._body.size(claim.body.canon)
        uncovered = 0 if length is None else max(0, size - length)
        if result in {Result.PASS, Result.FAIL}:
            digest = self._body.digest(claim.body)
            if digest is None:  # RFC 6376 section 3.5: l= is not more than there is
                result, reason = Result.FAIL, "body is shorter than l="
            elif digest != claim.body_hash:
                result, reason = Result.FAIL, "body hash did not verify"
            elif result is Result.PASS and uncovered and not self._trust_length:
                result, reason = Result.POLICY, f"l= leaves {uncovered} octets of the body uncovered"
        if proof.testing and reason:
            reason += " (the domain is testing DKIM)"
        return self._result(candidate, result, reason, proof, uncovered)

    def _result(
        self,
        candidate: _Candidate,
        result: Result,
        reason: str,
        proof: keys.Proof = _NOTHING_PROVED,
        uncovered: int = 0,
    ) -> SignatureResult:
        claim, source = candidate.claim, candidate.claim.source
        return SignatureResult(
            result,
            reason,
            candidate.place,
            domain=source.domain,
            selector=source.selector,
            algorithm=source.algorithm,
            identity=claim.identity,
            b=candidate.b,
            testing=proof.testing,
            key_bits=proof.bits,
            canon=f"{claim.header_canon}/{claim.body.canon}",
            signed_names=tuple(b":".join(claim.names).decode().split(":")),
            signed_at=source.signed_at,
            expires_at=claim.expires_at,
            expired=self._expired(claim),
            length_uncovered=uncovered,
        )


def _tags(value: bytes, limits: Limits) -> tuple[dict[str, str], str]:
    """Read a tag list, or say what is wrong with it."""
    try:
        return signature.tags_of(value, limits), ""
    except TagListError as error:
        return {}, str(error)


def _claim(tags: dict[str, str], limits: Limits) -> tuple[Signature | None, str]:
    """Read what a signature claims, or say what is wrong with it."""
    try:
        return signature.dkim(tags, limits), ""
    except TagListError as error:
        return None, str(error)


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return str(seconds)


def _unique_lengths(texts: Iterable[str]) -> dict[str, int]:
    """How much of each b= tells it from the others (RFC 6008 section 4)."""
    ordered = sorted(set(texts))
    least = dict.fromkeys(ordered, B_LEAST)
    for one, other in pairwise(ordered):  # in order, the nearest neighbours share most
        shared = 1 + next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        least[one], least[other] = max(least[one], shared), max(least[other], shared)
    return least

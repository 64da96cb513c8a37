"""Sealing: what ARC set does this host add to the chain?

Takes the header as it will be delivered, the hash of its body, the chain as it was found on arrival, what this host
saw (as text) and a loaded private key; gives the values of the three fields, to be put on top in the order of `Set`.
Never judges: whether and for whom to seal is the caller's business.

RFC 8617 sections 4.1 and 5.1.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256

from msgspec import Struct
from msgspec.structs import replace

from elemta.findings import AuthResult, Result
from elemta_milter.mailauth.arc import ChainResult
from elemta_milter.mailauth.canonical import CRLF, Canon, header_field
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.signing import (
    OVERSIGNED,
    SIGNED,
    SigningError,
    SigningKey,
    names_to_sign,
    signed_field,
)

RESULTS_NAME = b"ARC-Authentication-Results"
MESSAGE_NAME = b"ARC-Message-Signature"
SEAL_NAME = b"ARC-Seal"

SEALED = (*SIGNED, "dkim-signature")
"""Names in h=; RFC 8617 section 4.1.2: DKIM-Signature should be one; ARC's and Authentication-Results must not."""

_NOT_FOLDED = re.compile(r"\r(?!\n[ \t])|(?<!\r)\n|\0")


class ArcSet(Struct, frozen=True):
    """The values of a new set's fields, with their leading space, folded with CRLF and a tab; from the top down.

    Attributes:
        seal: ARC-Seal.
        message_signature: ARC-Message-Signature.
        results: ARC-Authentication-Results.
    """

    seal: bytes
    message_signature: bytes
    results: bytes


def seal(
    fields: HeaderFields,
    key: SigningKey,
    chain: ChainResult,
    *,
    results: str,
    body_hash: bytes,
    now: int,
) -> ArcSet:
    """Make the next set.

    Args:
        fields: the header as it will be delivered, without the set to be made.
        key: who seals.
        chain: what `ChainValidator` found when the message came; see `as_told`.
        results: what follows "i=N;": authserv-id and results as in Authentication-Results, folded or on one line.
        body_hash: of the body as it will be delivered, relaxed.
        now: t=, seconds since 1970.

    Raises:
        SigningError: the chain takes no other set (50 sets, known as failed, or the DNS was in trouble), or `results`
            has a line end that folds nothing.
    """
    if chain.next_instance is None:
        raise SigningError("the chain takes no other set")
    if _NOT_FOLDED.search(results):
        raise SigningError("results with a line end that folds nothing")
    number = str(chain.next_instance)
    seen = f" i={number}; {results.strip()}".encode()
    listed = names_to_sign(fields, SEALED, OVERSIGNED)
    signed = signed_field(
        [
            ("i", number),
            ("a", key.algorithm),
            ("c", "relaxed/relaxed"),
            ("d", key.domain),
            ("s", key.selector),
            ("t", str(now)),
            ("h", ":".join(listed)),
            ("bh", b64encode(body_hash).decode()),
        ],
        key,
        lambda unsigned: fields.digest_for([name.encode() for name in listed], Canon.RELAXED, MESSAGE_NAME, unsigned),
    )
    # RFC 8617 section 5.1.1: all sets in order; section 5.1.2: of a chain that failed, the new set alone
    before = chain.scope if chain.result is Result.PASS else ()
    covered = b"".join(
        header_field(Canon.RELAXED, name, value) + CRLF
        for name, value in (*before, (RESULTS_NAME, seen), (MESSAGE_NAME, signed))
    )
    sealed = signed_field(
        [
            ("i", number),
            ("a", key.algorithm),
            ("t", str(now)),
            ("cv", _CV[chain.result]),
            ("d", key.domain),
            ("s", key.selector),
        ],
        key,
        lambda unsigned: sha256(covered + header_field(Canon.RELAXED, SEAL_NAME, unsigned)).digest(),
    )
    return ArcSet(sealed, signed, seen)


_CV = {Result.NONE: "none", Result.PASS: "pass", Result.FAIL: "fail"}


def as_told(chain: ChainResult, told: Iterable[AuthResult]) -> ChainResult:
    """Give the chain as it came to our domain, where the host that took the mail in told of it.

    cv= speaks of that moment (RFC 8617 section 4.4): a list of ours may have changed the message since, so that its
    newest signature is broken; where there was no chain, the sets are our own.  Seals that do not hold never pass,
    whoever says so.
    """
    words = {each.result for each in told if each.method == "arc"}
    if not chain.scope or not words or not words <= {"none", "pass", "fail"}:
        return chain
    return replace(chain, result=Result.FAIL if "fail" in words else Result.PASS)

"""Keys: does the published key prove this signature?

Takes key records as the DNS gives them (`fetch` asks for those of a whole mail at once), and a hash and a signature to
prove; reports a result word with its reason, the key's size and whether the domain is testing.  A key that the
record or the bounds refuse costs no arithmetic.  Never says fail when nobody could be asked.

RFC 6376 sections 3.6.1 and 6.1.2; RFC 8301 section 3; RFC 8463 sections 3 and 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec import Struct

from elemta.at_once import on_loop
from elemta.dns import DnsError, Resolver
from elemta.findings import Result
from elemta_milter.mailauth import taglist
from elemta_milter.mailauth.limits import Limits

RECORD_OCTETS = 8192  # an 8192-bit RSA key takes 1,500
RECORD_TAGS = 32
EXPONENT_BITS = 64  # a longer public exponent only costs the verifier

ALGORITHMS: Mapping[str, str] = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
"""a= → k=. RFC 8301 section 3.1 took rsa-sha1 out; RFC 8463 section 3 put ed25519-sha256 in."""

_SMALL_ORDER = frozenset(
    bytes.fromhex(each)
    for each in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points of Ed25519 whose order is 1, 2, 4 or 8, without the sign, in every encoding: under them one signature that
anybody can write fits all messages, or one in eight. RFC 8032 section 5.1.7 does not ask that they be refused."""

_PADDING = PKCS1v15()
_PREHASHED = Prehashed(SHA256())


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        kind: "rsa" or "ed25519", as in k=.
        bits: size of the modulus; 256 for Ed25519.
    """

    kind: str
    bits: int
    handle: RSAPublicKey | Ed25519PublicKey

    def proves(self, signature: bytes, digest: bytes) -> bool:
        """Whether `signature` is this key's over a SHA-256 `digest`."""
        try:
            if isinstance(self.handle, RSAPublicKey):
                self.handle.verify(signature, digest, _PADDING, _PREHASHED)
            else:
                self.handle.verify(signature, digest)  # RFC 8463 section 3: PureEdDSA over the hash
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key record that can be read.

    Attributes:
        kind: k=.
        key: the public key; None when it was revoked.
        sha256: whether h= allows SHA-256.
        mail: whether s= allows mail.
        testing: t=y.
        strict: t=s: the domain of i= must be d= itself.
    """

    kind: str
    key: PublicKey | None
    sha256: bool = True
    mail: bool = True
    testing: bool = False
    strict: bool = False


class KeyRecordError(ValueError):
    """This record is no key that can be used; the text is for people."""


Published = tuple[bytes, ...] | DnsError
"""What the DNS says at a key's name: its TXT records, () for none, or the error."""


class Proof(Struct, frozen=True):
    """What the published keys say about one signature.

    Attributes:
        result: pass, fail, policy, temperror or permerror.
        reason: for people.
        testing: the record that decided has t=y.
        bits: size of its key; 0 when no key was read.
    """

    result: Result
    reason: str
    testing: bool = False
    bits: int = 0


async def fetch(resolver: Resolver, names: Iterable[str]) -> dict[str, Published]:
    """Ask for the key records at all of `names`, side by side."""
    asked = list(dict.fromkeys(names))
    if len(asked) == 1 or not on_loop():  # no task is needed, or none can be made
        return {name: await _published(resolver, name) for name in asked}
    return dict(zip(asked, await asyncio.gather(*(_published(resolver, name) for name in asked)), strict=True))


async def _published(resolver: Resolver, name: str) -> Published:
    try:
        answer = await resolver.query(name, "TXT")
    except DnsError as error:
        return error
    return tuple(record for record in answer.records if isinstance(record, bytes))


def prove(
    published: Published, *, kind: str, signature: bytes, digest: bytes, limits: Limits, subdomain: bool = False
) -> Proof:
    """Try the keys at a name until one proves the signature; else tell what the best of them said.

    Args:
        published: what the DNS said.
        kind: the key type that a= asks for.
        signature: b=, decoded.
        digest: SHA-256 of what was signed.
        limits: bounds.
        subdomain: i= names a subdomain of d=.
    """
    if isinstance(published, DnsError):
        return Proof(Result.TEMPERROR, f"key not available: {published.reason}")  # RFC 6376 section 6.1.2 step 2
    best: Proof | None = None
    for record in published[: limits.key_records]:  # RFC 6376 section 6.1.2 step 4: several records
        proof = _try(record, kind=kind, signature=signature, digest=digest, limits=limits, subdomain=subdomain)
        if proof.result is Result.PASS:
            return proof
        if best is None or _WEIGHT[proof.result] > _WEIGHT[best.result]:
            best = proof
    return best or Proof(Result.PERMERROR, "no key for signature")  # RFC 6376 section 6.1.2 step 3


_WEIGHT = {Result.FAIL: 2, Result.POLICY: 1, Result.PERMERROR: 0}


def _try(record: bytes, *, kind: str, signature: bytes, digest: bytes, limits: Limits, subdomain: bool) -> Proof:
    try:
        read = parse(record)
    except KeyRecordError as error:
        return Proof(Result.PERMERROR, str(error))
    key = read.key
    bits = key.bits if key else 0
    refused = _refused(read, kind, subdomain)
    if refused or key is None:
        return Proof(Result.PERMERROR, refused, read.testing, bits)
    if kind == "rsa" and not limits.rsa_bits_least <= bits <= limits.rsa_bits_most:
        # RFC 8301 section 3.2: a key under 1024 bits makes no valid signature
        return Proof(Result.POLICY, f"{bits}-bit key is not acceptable", read.testing, bits)
    if not key.proves(signature, digest):
        return Proof(Result.FAIL, "signature did not verify", read.testing, bits)
    return Proof(Result.PASS, "", read.testing, bits)


def _refused(record: KeyRecord, kind: str, subdomain: bool) -> str:
    """Why this record is not for this signature; "" when it is (RFC 6376 section 6.1.2 steps 5 to 9)."""
    if record.kind != kind:
        return f"key is for {record.kind}, signature is {kind}"
    if not record.sha256:
        return "key does not allow sha256"
    if not record.mail:
        return "key is not for mail"
    if record.key is None:
        return "key was revoked"
    if record.strict and subdomain:
        return "key does not allow a subdomain in i="  # RFC 6376 section 3.6.1, t=s
    return ""


def parse(record: bytes) -> KeyRecord:
    """Read a key record (RFC 6376 section 3.6.1).

    Raises:
        KeyRecordError: it cannot be used.
    """
    if len(record) > RECORD_OCTETS:
        raise KeyRecordError(f"key record is longer than {RECORD_OCTETS} octets")
    found = _parse(record)
    if isinstance(found, str):
        raise KeyRecordError(found)
    return found


@lru_cache(maxsize=2048)
def _parse(record: bytes) -> KeyRecord | str:
    """Keep what a record says, or why it says nothing, by its octets: loading a key costs more than proving."""
    try:
        return _read(taglist.parse(record, most_octets=RECORD_OCTETS, most_tags=RECORD_TAGS))
    except KeyRecordError as error:
        return str(error)
    except taglist.TagListError as error:
        return f"key record: {error}"


def _read(tags: dict[str, str]) -> KeyRecord:
    if "v" in tags and (tags["v"] != "DKIM1" or taglist.first_tag(tags) != "v"):
        raise KeyRecordError("key record is not of version DKIM1")
    if "p" not in tags:
        raise KeyRecordError("key record has no p=")
    kind = tags.get("k", "rsa")
    if kind not in ALGORITHMS.values():  # "Unrecognized key types MUST be ignored"
        raise KeyRecordError(f"key type {kind!a:.40} is not known")
    flags = taglist.words(tags.get("t", ""))
    return KeyRecord(
        kind,
        _public_key(kind, tags["p"]) if tags["p"] else None,  # an empty p= revokes the key
        sha256="h" not in tags or "sha256" in taglist.words(tags["h"]),
        mail=not {"*", "email"}.isdisjoint(taglist.words(tags.get("s", "*"))),
        testing="y" in flags,
        strict="s" in flags,
    )


def _public_key(kind: str, value: str) -> PublicKey:
    try:
        octets = taglist.base64string(value)
    except taglist.TagListError as error:
        raise KeyRecordError(f"key record: p= is {error}") from None
    if kind == "ed25519":
        if len(octets) != 32:  # RFC 8463 section 4: the bare key
            raise KeyRecordError("Ed25519 key is not 32 octets")
        if octets[:31] + bytes((octets[31] & 0x7F,)) in _SMALL_ORDER:
            raise KeyRecordError("Ed25519 key is a point of small order: anybody can sign with it")
        return PublicKey(kind, 256, Ed25519PublicKey.from_public_bytes(octets))
    return _rsa_key(octets)


def _rsa_key(octets: bytes) -> PublicKey:
    """Read a SubjectPublicKeyInfo as everybody publishes it, or the RSAPublicKey that RFC 6376 section 3.6.1 names."""
    try:
        key = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise KeyRecordError("p= is no RSA key")
    if key.public_numbers().e.bit_length() > EXPONENT_BITS:
        raise KeyRecordError("RSA exponent is too long")
    return PublicKey("rsa", key.key_size, key)

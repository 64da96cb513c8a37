"""Publication: does the DNS publish this key?

Compares a key's own record with what stands at its name, as a verifier would read it.  Asks nothing but TXT there.

RFC 6376 sections 3.6.1 and 3.6.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from elemta.dns import DnsError, Resolver
from elemta_milter.mailauth import keys
from elemta_milter.mailauth.keys import KeyRecordError, PublicKey


class Seen(StrEnum):
    """What the DNS says of a key."""

    PUBLISHED = "published"
    MISSING = "missing"
    DIFFERENT = "different"  # another key, or a record that no verifier could use
    REVOKED = "revoked"  # p= is empty
    UNKNOWN = "unknown"  # nobody could be asked


@dataclass(frozen=True, slots=True)
class Publication:
    """What the DNS says of one key.

    Attributes:
        seen: the word.
        reason: for people, "" when all is well.
    """

    seen: Seen
    reason: str = ""


async def look(resolver: Resolver, wanted: Mapping[str, str]) -> dict[str, Publication]:
    """Look for records.

    Args:
        resolver: whom to ask.
        wanted: by name ("r2026._domainkey.example.org"), the record that should stand there.
    """
    published = await keys.fetch(resolver, wanted)
    return {name: _compare(record, published[name]) for name, record in wanted.items()}


def _compare(record: str, published: keys.Published) -> Publication:
    if isinstance(published, DnsError):
        return Publication(Seen.UNKNOWN, published.reason)
    if not published:
        return Publication(Seen.MISSING, "there is no such record")
    ours = keys.parse(record.encode()).key
    said = [_said(ours, each) for each in published]
    if len(said) == 1:
        return said[0]
    if any(each.seen is Seen.PUBLISHED for each in said):  # verifiers may take any one of them
        return Publication(Seen.DIFFERENT, f"{len(said)} records stand there, and verifiers may take the wrong one")
    return Publication(Seen.DIFFERENT, f"{len(said)} records stand there, and none is this key's")


def _said(ours: PublicKey | None, published: bytes) -> Publication:
    try:
        record = keys.parse(published)
    except KeyRecordError as error:
        return Publication(Seen.DIFFERENT, f"the record cannot be used: {error}")
    if record.key is None:
        return Publication(Seen.REVOKED, "the record revokes the key (p= is empty)")
    if ours is None or _octets(record.key) != _octets(ours):
        return Publication(Seen.DIFFERENT, "another key stands there")
    if not record.mail or not record.sha256:
        return Publication(Seen.DIFFERENT, "the record does not allow signatures over mail with SHA-256 (s=, h=)")
    return Publication(Seen.PUBLISHED, "the record says that the domain is testing (t=y)" if record.testing else "")


def _octets(key: PublicKey) -> bytes:
    return key.handle.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

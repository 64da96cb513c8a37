"""Signing: what signature field vouches for this message?

Takes the header as it will be delivered, the hash of its body and a loaded private key; gives the value of a
DKIM-Signature field, folded.  Never reads a file or the clock, and never chooses the domain.

RFC 6376 sections 3.5, 3.7, 5 and 8.15 (names listed once more than they occur); RFC 8301 section 3; RFC 8463.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from elemta.addresses.domains import a_label, is_within
from elemta_milter.mailauth.canonical import Canon
from elemta_milter.mailauth.fields import HeaderFields

FIELD = b"DKIM-Signature"

OVERSIGNED = (
    "from", "to", "cc", "subject", "date", "reply-to", "message-id", "in-reply-to", "references",
    "mime-version", "content-type", "content-transfer-encoding",
)  # fmt: skip
"""Names listed once more than they occur, so that nobody adds another (RFC 6376 sections 5.4.2 and 8.15)."""

SIGNED = (
    *OVERSIGNED, "sender", "content-id", "content-description", "content-disposition", "content-language",
    "resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-message-id",
    "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post",
    "list-owner", "list-archive", "autocrypt", "feedback-id",
)  # fmt: skip
"""Names listed as often as they occur (RFC 6376 section 5.4.1)."""

LINE = 76  # columns of a folded line
RSA_BITS_LEAST = 1024  # RFC 8301 section 3.2: signers use at least 1024 bits, and should use 2048

_SAFE = frozenset(range(0x21, 0x7F)) - frozenset(b";=")
_NAME = re.compile(r"[!-9<-~]+")  # a field name (RFC 5322 section 2.2) that a tag list can hold: no semicolon
_NAME_COLUMNS = len("ARC-Message-Signature:")


class SigningError(ValueError):
    """This cannot be signed, or not with this key; the text is for people."""


PrivateKey = RSAPrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Who signs.

    Attributes:
        domain: d=; U-labels are written as A-labels.
        selector: s=, likewise.
        private: the key; see `load_private_key`.
    """

    domain: str
    selector: str
    private: PrivateKey

    def __post_init__(self) -> None:
        """Make the names A-labels.

        Raises:
            SigningError: a name is none, or the domain is a single label.
        """
        for name in ("domain", "selector"):
            ascii_name = a_label(getattr(self, name))
            if ascii_name is None:
                raise SigningError(f"{name} {getattr(self, name)!r} is no name in the DNS")
            object.__setattr__(self, name, ascii_name)
        if "." not in self.domain:  # RFC 6376 section 3.5: d= has two labels at least, or no verifier takes it
            raise SigningError(f"domain {self.domain} has one label only")

    @property
    def algorithm(self) -> str:
        """The a= that this key makes."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    @property
    def record_name(self) -> str:
        """Where the public key is to be published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """The TXT record to publish there (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
        if isinstance(self.private, RSAPrivateKey):
            octets = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return f"v=DKIM1; k=rsa; p={b64encode(octets).decode()}"
        octets = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={b64encode(octets).decode()}"

    def prove(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(digest, PKCS1v15(), Prehashed(SHA256()))
        return self.private.sign(digest)  # RFC 8463 section 3: PureEdDSA over the hash


def load_private_key(pem: bytes) -> PrivateKey:
    """Load an RSA or Ed25519 key; this checks it and takes long, so do it once.

    Raises:
        SigningError: not a PEM private key of a kind and size that DKIM uses.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise SigningError("not an unencrypted PEM private key") from None
    if isinstance(key, RSAPrivateKey):
        if key.key_size < RSA_BITS_LEAST:  # RFC 8301 section 3.2
            raise SigningError(f"RSA key has {key.key_size} bits, not at least {RSA_BITS_LEAST}")
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise SigningError("key is neither RSA nor Ed25519")


def sign(
    fields: HeaderFields,
    key: SigningKey,
    *,
    body_hash: bytes,
    now: int,
    names: Collection[str] = SIGNED,
    oversigned: Collection[str] = OVERSIGNED,
    header_canon: Canon = Canon.RELAXED,
    body_canon: Canon = Canon.RELAXED,
    lifetime: int | None = None,
    identity: str = "",
) -> bytes:
    """Give the value of a DKIM-Signature field, with its leading space, folded with CRLF and a tab.

    Args:
        fields: the header as it will be delivered, without the field to be made.
        key: who signs.
        body_hash: `BodyHasher.digest(BodySpec(body_canon))` of the body as it will be delivered.
        now: t=, seconds since 1970.
        names: names listed as often as they occur.
        oversigned: names listed once more than they occur; From is, always.
        header_canon: header canonicalization.
        body_canon: body canonicalization.
        lifetime: seconds until x=; None for no x=.
        identity: i=, an address or "@" and a domain within the key's domain; "" for no i=.

    Raises:
        SigningError: no From to sign, `identity` is not within the domain, or `lifetime` is none.
    """
    if not fields.places(b"from"):
        raise SigningError("no From to sign")  # RFC 6376 section 5.4
    if lifetime is not None and lifetime < 1:
        raise SigningError("a signature that expires within a second is none")  # RFC 6376 section 3.5: x= is after t=
    listed = names_to_sign(fields, names, ("from", *oversigned))
    tags = [("v", "1"), ("a", key.algorithm), ("c", f"{header_canon}/{body_canon}"), ("d", key.domain)]
    tags += [("s", key.selector), ("t", str(now))]
    if lifetime is not None:
        tags.append(("x", str(now + lifetime)))
    if identity:
        tags.append(("i", _identity(identity, key.domain)))
    tags += [("h", ":".join(listed)), ("bh", b64encode(body_hash).decode())]
    wanted = [name.encode() for name in listed]
    return signed_field(tags, key, lambda unsigned: fields.digest_for(wanted, header_canon, FIELD, unsigned))


def names_to_sign(fields: HeaderFields, names: Iterable[str], oversigned: Iterable[str]) -> list[str]:
    """Give h=: each name as often as it occurs, and once more if it is oversigned.

    Raises:
        SigningError: a name can be in no h=.
    """
    more = {name.lower() for name in oversigned}
    listed: list[str] = []
    for name in dict.fromkeys(name.lower() for name in (*oversigned, *names)):
        if not _NAME.fullmatch(name):
            raise SigningError(f"{name!r} is no name for h=")
        listed += [name] * (len(fields.places(name.encode())) + (name in more))
    return listed


def signed_field(tags: Sequence[tuple[str, str]], key: SigningKey, digest: Callable[[bytes], bytes]) -> bytes:
    """Fold the tags, sign, and give the field's value with b= at its end.

    Args:
        tags: all tags but b=, in order.
        key: who signs.
        digest: hashes the message together with the value given, whose b= is empty.
    """
    unsigned = fold(tags) + b"b="
    text = b64encode(key.prove(digest(unsigned)))
    lines = [text[: LINE - 3], *(text[at : at + LINE - 1] for at in range(LINE - 3, len(text), LINE - 1))]
    return unsigned + b"\r\n\t".join(lines)


def fold(tags: Sequence[tuple[str, str]]) -> bytes:
    """Write tags on lines of 76 columns at most, unless one word is longer; ends with an empty line begun."""
    text, column = "", _NAME_COLUMNS
    for name, value in tags:
        words = value.split(":") if name == "h" else [value]
        pieces = [f" {name}={words[0]}", *words[1:]]
        for place, piece in enumerate(pieces):
            written = piece + (";" if place == len(pieces) - 1 else ":")
            if column + len(written) > LINE and column > _NAME_COLUMNS:
                written = written.lstrip(" ")
                text, column = text + "\r\n\t", 1
            text, column = text + written, column + len(written)
    return (text + "\r\n\t").encode()


def _identity(identity: str, domain: str) -> str:
    """Write i= (RFC 6376 sections 2.11 and 3.5)."""
    local, at, host = identity.rpartition("@")
    within = a_label(host) or ""
    if not at or not is_within(within, domain):
        raise SigningError(f"i={identity} is not within {domain}")
    quoted = "".join(chr(octet) if octet in _SAFE else f"={octet:02X}" for octet in local.encode(errors="replace"))
    return f"{quoted}@{within}"

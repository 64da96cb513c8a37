"""Signed mails for tests: keys made once, a zone in memory, messages as (headers, body)."""

from __future__ import annotations

import asyncio
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from elemta.dns import Answer, DnsError, Status
from elemta_milter.mailauth import dkim, signing
from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon
from elemta_milter.mailauth.fields import HeaderFields

NOW = 1_800_000_000

HEADERS = (
    (b"Received", b" from a.example by b.example\r\n\tfor <x@b.example>; Mon, 1 Jan 2024 00:00:00 +0000"),
    (b"From", b" Anna <anna@sender.example>"),
    (b"To", b" Bert <bert@receiver.example>"),
    (b"Subject", b" The  boat\r\n\tis ready"),
    (b"Date", b" Mon, 1 Jan 2024 00:00:00 +0000"),
    (b"Message-ID", b"<1@sender.example>"),
)
BODY = b"Hello  Bert,\r\n\r\nthe boat\t is ready. \r\n\r\n\r\n"


class Zone:
    """A resolver over a dictionary; a name maps to records, or to an exception to raise. Keeps what was asked."""

    def __init__(self, names=None):
        self.names = dict(names or {})
        self.asked = []

    async def query(self, name, rdtype):
        assert rdtype == "TXT"
        self.asked.append(name)
        found = self.names.get(name)
        if found is None:
            return Answer(Status.NXDOMAIN)
        if isinstance(found, str):
            raise DnsError(name, rdtype, found)
        return Answer(Status.OK, tuple(found), 300)


@cache
def rsa_private(bits=2048):
    return rsa.generate_private_key(65537, bits)


@cache
def ed25519_private():
    return ed25519.Ed25519PrivateKey.generate()


def rsa_key(domain="sender.example", selector="r", bits=2048):
    return signing.SigningKey(domain, selector, rsa_private(bits))


def ed25519_key(domain="sender.example", selector="e"):
    return signing.SigningKey(domain, selector, ed25519_private())


def pem(private):
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def zone(*keys):
    return Zone({key.record_name: [key.record.encode()] for key in keys})


def body_hash(body, spec=None):
    hasher = BodyHasher()
    spec = spec or BodySpec()
    hasher.want(spec)
    hasher.feed(body)
    hasher.finish()
    return hasher.digest(spec)


def signed(headers=HEADERS, body=BODY, key=None, **options):
    """The headers with a DKIM-Signature on top."""
    canon = options.get("body_canon", Canon.RELAXED)
    options = {"now": NOW, **options}
    value = signing.sign(HeaderFields(headers), key or rsa_key(), body_hash=body_hash(body, BodySpec(canon)), **options)
    return ((b"DKIM-Signature", value), *headers)


def resigned(tags, headers=HEADERS, body=BODY, key=None, spec=None, field=b"DKIM-Signature"):
    """The headers with a signature whose tags are what a test wants, right or wrong; `bh` and `b` are filled in."""
    key = key or rsa_key()
    tags = dict(tags)
    tags.setdefault("bh", signing.b64encode(body_hash(body, spec)).decode())
    text = " " + "; ".join(f"{name}={value}" for name, value in tags.items() if value is not None)
    names = [name.strip().lower().encode() for name in tags["h"].split(":")]
    canon = Canon((tags.get("c") or "simple").split("/")[0])
    unsigned = text.encode() + b"; b="
    digest = HeaderFields(headers).digest_for(names, canon, field, unsigned)
    return ((field, unsigned + signing.b64encode(key.prove(digest))), *headers)


TAGS = {
    "v": "1",
    "a": "rsa-sha256",
    "c": "relaxed/relaxed",
    "d": "sender.example",
    "s": "r",
    "t": str(NOW),
    "h": "from:to:subject:date",
}


async def verified(headers, pieces, resolver, **options):
    """All results."""
    hasher = BodyHasher()
    verifier = dkim.Verifier(HeaderFields(headers), body=hasher, **{"now": NOW, **options})
    for piece in pieces:
        hasher.feed(piece)
    return await verifier.finish(resolver)


def verify(headers, body=BODY, resolver=None, *, pieces=None, **options):
    """All results, of a body in one piece or several."""
    resolver = resolver or zone(rsa_key(), ed25519_key())
    return asyncio.run(verified(headers, [body] if pieces is None else pieces, resolver, **options))


def only(headers, body=BODY, resolver=None, **options):
    """The one result."""
    (result,) = verify(headers, body, resolver, **options)
    return result


def wire(headers, body):
    return b"".join(name + b":" + value + b"\r\n" for name, value in headers) + b"\r\n" + body

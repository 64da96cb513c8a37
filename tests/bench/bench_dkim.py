"""How fast are DKIM and ARC here, and how much faster than dkimpy in the same run?

    python tests/bench/bench_dkim.py

Prints CPU milliseconds for one operation, keys cached; it asserts nothing, for machines differ: compare ratios.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from base64 import encodebytes
from pathlib import Path

import dkim as dkimpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elemta_milter.mailauth import arc, sealing, signing
from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon
from elemta_milter.mailauth.fields import HeaderFields
from harness.signatures import HEADERS, NOW, body_hash, ed25519_key, pem, rsa_key, signed, verified, wire, zone

PIECE = 65_535  # what a milter is given at a time
SIGNED_AT = 10**9  # dkimpy looks at the clock on the wall


def text(size):
    rng = random.Random(size)
    words = [bytes(rng.choices(b"etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(500)]
    lines = [b" ".join(rng.choices(words, k=11)) for _ in range(size // 70)]
    return b"\r\n".join(lines)[: size - 2] + b"\r\n"


def base64(size):
    return encodebytes(random.Random(size).randbytes(size * 3 // 4)).replace(b"\n", b"\r\n")[:size]


def pieces(body):
    return [body[at : at + PIECE] for at in range(0, len(body), PIECE)]


def cost(function, seconds=0.5):
    """CPU milliseconds of one call."""
    function()
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        function()
        count += 1
    return spent / count * 1000


def line(what, ours, theirs=None):
    ratio = f"{theirs:10.3f} ms {theirs / ours:7.1f} x" if theirs else ""
    print(f"{what:<42}{ours:10.3f} ms {ratio}")


def verifying(loop):
    resolver = zone(rsa_key(), ed25519_key())
    record = rsa_key().record.encode()
    mails = [("5 KB", text(5_000)), ("100 KB", text(100_000)), ("5 MB text", text(5_000_000))]
    mails.append(("5 MB base64", base64(5_000_000)))
    for size, body in mails:
        for key in (rsa_key(), ed25519_key()):
            for canon in Canon:
                headers = signed(HEADERS, body, key, body_canon=canon, now=SIGNED_AT)
                chunks, whole = pieces(body), wire(headers, body)

                def here(headers=headers, chunks=chunks):
                    (result,) = loop.run_until_complete(verified(headers, chunks, resolver))
                    assert result.result == "pass"

                def there(whole=whole):
                    assert dkimpy.verify(whole, dnsfunc=lambda *_, **__: record)

                rsa = key.selector == "r"
                line(f"verify {size} {key.algorithm} relaxed/{canon}", cost(here), cost(there) if rsa else None)


def signing_():
    for size, body in (("5 KB", text(5_000)), ("5 MB text", text(5_000_000))):
        for key in (rsa_key(), ed25519_key()):
            chunks, whole = pieces(body), wire(HEADERS, body)

            def here(key=key, chunks=chunks):
                hasher = BodyHasher()
                hasher.want(BodySpec())
                for piece in chunks:
                    hasher.feed(piece)
                hasher.finish()
                signing.sign(HeaderFields(HEADERS), key, body_hash=hasher.digest(BodySpec()), now=NOW)

            secret = pem(key.private)

            def there(secret=secret, whole=whole):
                dkimpy.sign(whole, b"r", b"sender.example", secret, canonicalize=(b"relaxed", b"relaxed"))

            rsa = key.selector == "r"
            line(f"sign {size} {key.algorithm}", cost(here), cost(there) if rsa else None)


def chains(loop):
    resolver, body, key = zone(rsa_key()), text(5_000), rsa_key()
    headers = HEADERS

    def validate(headers):
        hasher = BodyHasher()
        validator = arc.ChainValidator(HeaderFields(headers), body=hasher, now=NOW)
        hasher.feed(body)
        return loop.run_until_complete(validator.finish(resolver))

    for count in range(1, 51):
        chain = validate(headers)
        made = sealing.seal(
            HeaderFields(headers), key, chain, results="mx.example; spf=pass", body_hash=body_hash(body), now=SIGNED_AT
        )
        headers = (
            (b"ARC-Seal", made.seal),
            (b"ARC-Message-Signature", made.message_signature),
            (b"ARC-Authentication-Results", made.results),
            *headers,
        )
        if count in {1, 3, 50}:
            whole, record = wire(headers, body), key.record.encode()
            line(
                f"validate an ARC chain of {count}",
                cost(lambda headers=headers: validate(headers)),
                cost(lambda whole=whole, record=record: dkimpy.arc_verify(whole, dnsfunc=lambda *_, **__: record)),
            )


if __name__ == "__main__":
    print(f"{'':<42}{'here':>13}{'dkimpy':>14}{'ratio':>10}")
    event_loop = asyncio.new_event_loop()
    verifying(event_loop)
    signing_()
    chains(event_loop)
    event_loop.close()

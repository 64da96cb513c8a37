"""Key records: RFC 6376 section 3.6.1, RFC 8301 section 3.2, RFC 8463 section 4."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from elemta.dns import DnsError
from elemta.findings import Result
from elemta_milter.mailauth import keys, signing
from elemta_milter.mailauth.keys import KeyRecordError
from elemta_milter.mailauth.limits import Limits
from harness.signatures import Zone, ed25519_key, ed25519_private, rsa_key, rsa_private

DIGEST = sha256(b"x").digest()


def der(modulus, exponent):
    """An RSAPublicKey of any numbers."""

    def length(size):
        return bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")

    def integer(number):
        octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return b"\x02" + length(len(octets)) + octets

    both = integer(modulus) + integer(exponent)
    return b"\x30" + length(len(both)) + both


def odd(bits):
    return (1 << (bits - 1)) | 0xABCDEF1


def p_of(bits=2048, form=PublicFormat.SubjectPublicKeyInfo):
    return b64encode(rsa_private(bits).public_key().public_bytes(Encoding.DER, form))


P = p_of()
ED = b64encode(ed25519_private().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def test_the_key_of_rfc_8463_appendix_a():
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")  # RFC 8032 section 7.1
    key = signing.SigningKey("football.example.com", "brisbane", Ed25519PrivateKey.from_private_bytes(secret))
    assert key.record == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert key.record_name == "brisbane._domainkey.football.example.com"
    read = keys.parse(key.record.encode())
    assert (read.kind, read.key.bits) == ("ed25519", 256)
    assert read.key.proves(key.prove(DIGEST), DIGEST)
    assert not read.key.proves(key.prove(DIGEST), sha256(b"y").digest())


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_both_forms_of_an_rsa_key(form):
    read = keys.parse(b"p=" + p_of(form=form))
    assert (read.kind, read.key.bits) == ("rsa", 2048)
    assert read.key.proves(rsa_key().prove(DIGEST), DIGEST)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"p=" + P, {}),
        (b"v=DKIM1; p=" + P, {}),
        (b" v = DKIM1 ;  k=rsa ;p = " + P[:50] + b" \r\n " + P[50:] + b" ; ", {}),
        (b"v=DKIM1; n=a note; x=unknown; g=*; p=" + P, {}),
        (b"K=other; p=" + P, {}),
        (b"p=" + P.rstrip(b"="), {}),
        (b"h=sha1; p=" + P, {"sha256": False}),
        (b"h=; p=" + P, {"sha256": False}),
        (b"h=sha1 : sha256; p=" + P, {}),
        (b"h=future:sha256; p=" + P, {}),
        (b"s=*; p=" + P, {}),
        (b"s=email; p=" + P, {}),
        (b"s=tlsrpt : email; p=" + P, {}),
        (b"s=tlsrpt; p=" + P, {"mail": False}),
        (b"t=y; p=" + P, {"testing": True}),
        (b"t=s; p=" + P, {"strict": True}),
        (b"t= s : y : z; p=" + P, {"strict": True, "testing": True}),
        (b"t=Y:S; p=" + P, {}),
        (b"k=ed25519; p=" + ED, {"kind": "ed25519"}),
    ],
)
def test_records_that_can_be_read(record, expected):
    read = keys.parse(record)
    found = {name: getattr(read, name) for name in ("kind", "sha256", "mail", "testing", "strict")}
    usual = {"kind": "rsa", "sha256": True, "mail": True, "testing": False, "strict": False}
    assert found == {**usual, **expected}
    assert read.key is not None


@pytest.mark.parametrize("record", [b"p=", b"v=DKIM1; p=;", b"v=DKIM1; k=rsa; p= ; t=y"])
def test_revoked(record):
    assert keys.parse(record).key is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "no p="),
        (b"v=DKIM1", "no p="),
        (b"v=spf1 -all", "not of version DKIM1"),
        (b"v=DKIM2; p=" + P, "not of version DKIM1"),
        (b"v=dkim1; p=" + P, "not of version DKIM1"),
        (b"k=rsa; v=DKIM1; p=" + P, "not of version DKIM1"),
        (b"just text", "not a tag=value list"),
        (b"v=DKIM1; p=" + P + b"; p=" + P, "occurs twice"),
        (b"v=DKIM1;; p=" + P, "not a tag=value list"),
        (b"v=DKIM1; k=dsa; p=" + P, "'dsa' is not known"),
        (b"k=RSA; p=" + P, "'RSA' is not known"),
        (b"p=BARF", "no RSA key"),
        (b"p=not base64!", "p= is not base64"),
        pytest.param(b"p=" + ED, "no RSA key", id="an Ed25519 key without k="),
        (b"k=ed25519; p=" + P, "not 32 octets"),
        (b"p=" + b"A" * 9000, "longer than"),
        (b"p=" + b64encode(der(odd(2048), 1)), "no RSA key"),
        (b"p=" + b64encode(der(odd(2048), 4)), "no RSA key"),
        (b"p=" + b64encode(der(odd(2048), (1 << 64) + 13)), "exponent is too long"),
        (b"p=" + b64encode(der(odd(2048), odd(2040))), "exponent is too long"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_records_that_are_no_key(record, reason):
    for _ in range(2):
        with pytest.raises(KeyRecordError, match=reason):
            keys.parse(record)


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", sorted(keys._SMALL_ORDER), ids=bytes.hex)
def test_under_a_point_of_small_order_anybody_can_sign(point, sign):
    key = point[:31] + bytes((point[31] | sign,))
    anybodys = b"\1" + bytes(63)
    handle = Ed25519PublicKey.from_public_bytes(key)
    signed = 0
    for number in range(200):
        with suppress(InvalidSignature):
            handle.verify(anybodys, sha256(b"%d" % number).digest())
            signed += 1
    assert signed  # so it is one
    with pytest.raises(KeyRecordError, match="small order"):
        keys.parse(b"k=ed25519; p=" + b64encode(key))


def test_a_record_is_read_once(monkeypatch):
    record = b"v=DKIM1; n=once; p=" + P
    first = keys.parse(record)
    monkeypatch.setattr(keys, "_read", None)
    assert keys.parse(record) is first


def prove(*records, kind="rsa", key=None, limits=None, subdomain=False):
    key = key or rsa_key()
    return keys.prove(
        records, kind=kind, signature=key.prove(DIGEST), digest=DIGEST, limits=limits or Limits(), subdomain=subdomain
    )


@pytest.mark.parametrize(
    ("records", "result", "reason"),
    [
        ([b"p=" + P], Result.PASS, ""),
        ([], Result.PERMERROR, "no key for signature"),
        ([b"p="], Result.PERMERROR, "revoked"),
        ([b"nonsense"], Result.PERMERROR, "tag=value"),
        ([b"h=sha1; p=" + P], Result.PERMERROR, "sha256"),
        ([b"s=web; p=" + P], Result.PERMERROR, "not for mail"),
        ([b"k=ed25519; p=" + ED], Result.PERMERROR, "key is for ed25519"),
        ([b"p=" + p_of(1024)], Result.FAIL, "did not verify"),
        # several records (RFC 6376 section 6.1.2 step 4): each is tried, the best word is told
        ([b"v=spf1 -all", b"p=", b"p=" + P], Result.PASS, ""),
        ([b"p=" + p_of(1024), b"p=" + P], Result.PASS, ""),
        ([b"p=", b"p=" + p_of(1024), b"junk"], Result.FAIL, "did not verify"),
        ([b"junk", b"p="], Result.PERMERROR, "tag=value"),
        ([b"junk"] * 4 + [b"p=" + P], Result.PERMERROR, "tag=value"),
    ],
)
def test_proving(records, result, reason):
    proof = prove(*records)
    assert proof.result is result
    assert reason in proof.reason


def test_a_strict_key_allows_no_subdomain():
    assert prove(b"t=s; p=" + P).result is Result.PASS
    assert prove(b"p=" + P, subdomain=True).result is Result.PASS
    refused = prove(b"t=s; p=" + P, subdomain=True)
    assert (refused.result, refused.bits) == (Result.PERMERROR, 2048)


def test_dns_trouble_is_never_a_failure():
    proof = keys.prove(
        DnsError("r._domainkey.a.example", "TXT", "SERVFAIL"),
        kind="rsa",
        signature=b"",
        digest=DIGEST,
        limits=Limits(),
    )
    assert (proof.result, proof.reason) == (Result.TEMPERROR, "key not available: SERVFAIL")


@pytest.mark.parametrize("bits", [512, 768, 1023, 8193, 16384])
def test_a_key_out_of_bounds_costs_no_arithmetic(bits, monkeypatch):
    monkeypatch.setattr(keys.PublicKey, "proves", lambda *_: pytest.fail("arithmetic"))
    if bits < 1024:
        monkeypatch.setattr(keys, "_public_key", lambda kind, _: keys.PublicKey(kind, bits, None))
        keys._parse.cache_clear()
    proof = prove(b"n=%d; p=" % bits + b64encode(der(odd(bits), 65537)))
    keys._parse.cache_clear()
    assert (proof.result, proof.bits) == (Result.POLICY, bits)
    assert f"{bits}-bit key" in proof.reason


def test_all_names_of_a_mail_are_asked_once_and_side_by_side():
    class Together(Zone):
        async def query(self, name, rdtype):
            waiting.add(name)
            if len(waiting) == 2:
                both_asked.set()
            await both_asked.wait()
            return await super().query(name, rdtype)

    waiting, both_asked = set(), asyncio.Event()
    resolver = Together({"a": [b"1"], "b": "time-out"})
    found = asyncio.run(asyncio.wait_for(keys.fetch(resolver, ["a", "b", "a"]), 5))
    assert sorted(resolver.asked) == ["a", "b"]
    assert found["a"] == (b"1",)
    assert isinstance(found["b"], DnsError)
    assert asyncio.run(keys.fetch(Zone({"a": [b"1"]}), ["a"])) == {"a": (b"1",)}
    assert asyncio.run(keys.fetch(Zone(), [])) == {}


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda octets: b"p=" + b64encode(octets)))
def test_any_record_is_read_or_refused(record):
    for kind in (b"", b"k=ed25519; "):
        with suppress(KeyRecordError):
            keys.parse(kind + record)


def test_ed25519_signatures_of_any_length_are_refused_quietly():
    read = keys.parse(ed25519_key().record.encode())
    for size in (0, 1, 63, 64, 65, 1000):
        assert not read.key.proves(bytes(size), DIGEST)
    read = keys.parse(rsa_key().record.encode())
    for size in (0, 1, 255, 256, 257, 10_000):
        assert not read.key.proves(b"\xff" * size, DIGEST)

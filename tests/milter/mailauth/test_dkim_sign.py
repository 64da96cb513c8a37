"""Signing: RFC 6376 sections 3.5, 5 and 8.15; and what dkimpy says of our signatures, and we of its."""

from __future__ import annotations

import re

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.findings import Result
from elemta_milter.mailauth import signing
from elemta_milter.mailauth.canonical import Canon
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.limits import Limits
from elemta_milter.mailauth.signature import tags_of
from elemta_milter.mailauth.signing import SigningError, SigningKey
from harness.signatures import (
    BODY,
    HEADERS,
    NOW,
    body_hash,
    ed25519_key,
    ed25519_private,
    only,
    pem,
    rsa_key,
    rsa_private,
    signed,
    verify,
    wire,
    zone,
)


def tags(headers):
    return tags_of(headers[0][1], Limits())


def test_the_tags():
    found = tags(signed(lifetime=86_400, identity="@sender.example"))
    assert list(found) == ["v", "a", "c", "d", "s", "t", "x", "i", "h", "bh", "b"]
    assert (found["v"], found["a"], found["c"]) == ("1", "rsa-sha256", "relaxed/relaxed")
    assert (found["d"], found["s"], found["i"]) == ("sender.example", "r", "@sender.example")
    assert (found["t"], found["x"]) == (str(NOW), str(NOW + 86_400))
    assert tags(signed(key=ed25519_key()))["a"] == "ed25519-sha256"


def listed(headers=HEADERS, **options):
    return re.sub(r"\s", "", tags(signed(headers, **options))["h"]).split(":")


def test_which_names_are_signed():
    headers = (*HEADERS, (b"List-ID", b" <x>"), (b"CC", b" a@b"), (b"cc", b" c@d"), (b"X-Other", b" no"))
    names = listed(headers)
    for name, times in {"from": 2, "to": 2, "cc": 3, "subject": 2, "reply-to": 1, "list-id": 1}.items():
        assert names.count(name) == times
    for name in ("received", "x-other", "return-path", "list-post", "dkim-signature"):
        assert name not in names
    assert listed(names=["Subject", "absent"], oversigned=()) == ["from", "from", "subject"]
    assert listed(names=[], oversigned=["To"]) == ["from", "from", "to", "to"]


@pytest.mark.parametrize(
    "identity", ["a;b=c@sender.example", "jörg@x.sender.example", '"a b"@sender.example', "a+b=c@sender.example"]
)
def test_any_address_may_be_the_identity(identity):
    result = only(signed(identity=identity))
    assert result.result is Result.PASS
    assert result.identity == identity


@pytest.mark.parametrize("identity", ["a@other.example", "a@example", "sender.example", "a@xsender.example"])
def test_but_within_the_domain(identity):
    with pytest.raises(SigningError, match="is not within"):
        signed(identity=identity)


def test_what_cannot_be_signed():
    with pytest.raises(SigningError, match="no From"):
        signed(HEADERS[2:])
    for name in ("a:b", "a b", "", "jörg", "a;b"):
        with pytest.raises(SigningError, match="no name for h="):
            signed(names=[name])


@pytest.mark.parametrize("key", [rsa_key(), rsa_key(bits=4096), ed25519_key(), rsa_key("a" * 60 + ".sender.example")])
def test_lines_are_short(key):
    headers = signed(key=key, identity="a" * 40 + "@" + key.domain, names=[f"x-{'y' * n}" for n in range(40)])
    many = (*HEADERS, *((b"X-" + b"y" * n, b"") for n in range(40)))
    for (_, value), *_ in (headers, signed(many, key=key, names=[f"x-{'y' * n}" for n in range(40)])):
        first, *rest = (b"DKIM-Signature:" + value).split(b"\r\n")
        assert value.startswith(b" v=1;")
        assert all(line.startswith(b"\t") and line.strip() for line in rest)
        assert all(len(line) <= 78 or b"i=" in line or b"d=" in line for line in (first, *rest))
        assert not re.search(rb"[^\t -~\r\n]", value)


def test_names_of_the_key_become_a_labels():
    key = SigningKey("Bücher.Example", "S1", ed25519_private())
    assert key.record_name == "s1._domainkey.xn--bcher-kva.example"
    for domain, selector in (("a b", "s"), ("a..b", "s"), ("a.b", ""), ("a.b", "s/x")):
        with pytest.raises(SigningError, match="no name in the DNS"):
            SigningKey(domain, selector, ed25519_private())
    with pytest.raises(SigningError, match="one label only"):
        SigningKey("localhost", "s", ed25519_private())


class TestLoading:
    @pytest.mark.parametrize("private", [rsa_private(), rsa_private(1024), ed25519_private()])
    def test_good(self, private):
        loaded = SigningKey("sender.example", "x", signing.load_private_key(pem(private)))
        assert loaded.record == SigningKey("sender.example", "x", private).record

    @pytest.mark.parametrize(
        ("octets", "reason"),
        [
            (b"", "PEM"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PEM"),
            (pem(ec.generate_private_key(ec.SECP256R1())), "neither"),
            (pem(dsa.generate_private_key(1024)), "neither"),
            (ed25519_private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "PEM"),
        ],
    )
    def test_bad(self, octets, reason):
        with pytest.raises(SigningError, match=reason):
            signing.load_private_key(octets)

    def test_short(self, monkeypatch):
        monkeypatch.setattr(signing, "RSA_BITS_LEAST", 2048)  # the library itself makes nothing under 1024
        with pytest.raises(SigningError, match="1024 bits"):
            signing.load_private_key(pem(rsa_private(1024)))


def test_two_keys_side_by_side():
    both = signed(signed(key=rsa_key()), key=ed25519_key())
    assert [(one.result, one.algorithm) for one in verify(both)] == [
        (Result.PASS, "ed25519-sha256"),
        (Result.PASS, "rsa-sha256"),
    ]


def test_a_field_added_later_breaks_what_was_oversigned():
    headers = signed()
    assert only((*headers, (b"X-Added", b" 1"))).result is Result.PASS
    for name in (b"From", b"Subject", b"Reply-To", b"Content-Type"):
        assert only(((name, b" x"), *headers)).result is Result.FAIL


# dkimpy, both ways. It takes whole messages, so header values here have no bare CR or LF.

visible = st.text(alphabet='ab:;=<>"ü', max_size=12).map(str.encode)
value = st.lists(visible, max_size=4).flatmap(
    lambda words: st.sampled_from([b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t "]).map(
        lambda white: white.join([b"", *words])
    )
)
name = st.sampled_from([b"To", b"Subject", b"X-A", b"x-a", b"Date", b"cc"])
header = st.lists(
    st.tuples(name, value.map(lambda text: text + b"." if text.endswith((b" ", b"\t")) else text)), max_size=8
)
line = st.lists(st.sampled_from([b"a", b"b ", b" ", b"\t", b"c\xff"]), max_size=5).map(b"".join)
body_text = st.lists(line, max_size=6).map(lambda lines: b"".join(text + b"\r\n" for text in lines))
canons = st.sampled_from(list(Canon))


def txt(key):
    return lambda name, timeout=5: key.record.encode() if name == key.record_name.encode() + b"." else None


@settings(deadline=None, max_examples=60)
@given(headers=header, body=body_text, header_canon=canons, body_canon=canons)
def test_dkimpy_verifies_what_is_signed_here(headers, body, header_canon, body_canon):
    headers = ((b"From", b" a@sender.example"), *headers)
    options = {"names": ["x-a", "to", "date"], "header_canon": header_canon, "body_canon": body_canon}
    mail = signed(headers, body, now=10**9, lifetime=10**10, **options)  # dkimpy looks at the clock on the wall
    assert dkimpy.DKIM(wire(mail, body)).verify(dnsfunc=txt(rsa_key()))
    assert only(mail, body).result is Result.PASS


@settings(deadline=None, max_examples=20)
@given(headers=header, body=body_text, header_canon=canons, body_canon=canons, length=st.booleans())
def test_we_verify_what_dkimpy_signs(headers, body, header_canon, body_canon, length):
    headers = ((b"From", b" a@sender.example"), *headers)
    key = rsa_key(bits=1024)
    field = dkimpy.sign(
        wire(headers, body),
        b"r",
        b"sender.example",
        pem(key.private),
        canonicalize=(header_canon.encode(), body_canon.encode()),
        length=length,
    )
    _, _, field_value = field.removesuffix(b"\r\n").partition(b":")
    mail = ((b"DKIM-Signature", field_value), *headers)
    result = only(mail, body, zone(key), now=2_000_000_000)
    assert (result.result, result.reason) == (Result.PASS, "")


def test_the_body_hash_is_the_one_that_was_given():
    other = signing.sign(HeaderFields(HEADERS), rsa_key(), body_hash=body_hash(b"other"), now=NOW)
    assert only(((b"DKIM-Signature", other), *HEADERS)).reason == "body hash did not verify"
    assert only(((b"DKIM-Signature", other), *HEADERS), b"other").result is Result.PASS
    assert BODY

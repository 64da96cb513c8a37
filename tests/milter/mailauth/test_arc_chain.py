"""ARC: RFC 8617 sections 4 and 5, validating and sealing, alone and against dkimpy."""

from __future__ import annotations

import asyncio
import re
import time
from hashlib import sha256

import dkim as dkimpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.findings import AuthResult, Result
from elemta_milter.mailauth import arc, keys, sealing, signature
from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon, header_field
from elemta_milter.mailauth.fields import HeaderFields, without_b
from elemta_milter.mailauth.limits import Limits
from elemta_milter.mailauth.signing import SigningError, signed_field
from elemta_milter.mailauth.taglist import TagListError
from harness.signatures import (
    BODY,
    HEADERS,
    NOW,
    Zone,
    body_hash,
    ed25519_key,
    pem,
    resigned,
    rsa_key,
    signed,
    wire,
    zone,
)

AAR, AMS, SEAL = b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal"


def validate(headers, body=BODY, resolver=None, *, limits=None, now=NOW):
    hasher = BodyHasher()
    validator = arc.ChainValidator(HeaderFields(headers), body=hasher, now=now, limits=limits or Limits())
    hasher.feed(body)
    return asyncio.run(validator.finish(resolver or zone(rsa_key(), ed25519_key())))


def sealed(headers=HEADERS, body=BODY, *, key=None, chain=None, results="mx.example; spf=pass", now=NOW, **options):
    """The headers with one more set on top."""
    chain = chain or validate(headers, body)
    made = sealing.seal(
        HeaderFields(headers), key or rsa_key(), chain, results=results, body_hash=body_hash(body), now=now, **options
    )
    return ((SEAL, made.seal), (AMS, made.message_signature), (AAR, made.results), *headers)


def edit(headers, kind, number, old, new):
    """Change the field of a kind and an instance."""
    out = []
    for name, value in headers:
        if name == kind and re.search(rb"\bi=%d;" % number, value):
            assert re.search(old, value)
            out.append((name, re.sub(old, new, value, count=1)))
        else:
            out.append((name, value))
    assert tuple(out) != tuple(headers)
    return tuple(out)


def test_no_chain():
    found = validate(HEADERS)
    assert (found.result, found.sealers, found.next_instance, found.oldest_pass) == (Result.NONE, (), 1, None)
    assert validate(()).result is Result.NONE


def test_a_chain_says_who_sealed_and_what_they_saw():
    second = rsa_key("second.example")
    headers = sealed(sealed(results="mx.example; spf=pass;\r\n\tdkim=pass"), key=second)
    found = validate(headers, resolver=zone(rsa_key(), second))
    assert (found.result, found.reason, found.next_instance, found.oldest_pass) == (Result.PASS, "", 3, 0)
    first, newest = found.sealers
    assert (first.instance, first.domain, first.selector, first.validation) == (1, "sender.example", "r", "none")
    assert (newest.instance, newest.domain, newest.validation) == (2, "second.example", "pass")
    assert first.results == " mx.example; spf=pass;\r\n\tdkim=pass"
    assert [name for name, _ in found.scope] == [AAR, AMS, SEAL] * 2


def test_rsa_and_ed25519_in_one_chain():
    assert validate(sealed(sealed(key=ed25519_key()))).result is Result.PASS


def test_fifty_sets_and_no_more():
    headers = HEADERS
    for _ in range(50):
        headers = sealed(headers, key=ed25519_key())
    found = validate(headers)
    assert (found.result, found.next_instance, len(found.sealers), found.oldest_pass) == (Result.PASS, None, 50, 0)
    args = {"results": "x", "body_hash": body_hash(BODY), "now": NOW}
    with pytest.raises(SigningError, match="takes no other set"):
        sealing.seal(HeaderFields(headers), rsa_key(), found, **args)
    more = validate(headers + headers[:3])
    assert (more.result, more.next_instance) == (Result.FAIL, None)
    assert "more than 50 sets" in more.reason
    assert validate(headers, limits=Limits(arc_sets=10)).result is Result.FAIL


def test_a_long_chain_lets_others_work_on_the_loop():
    headers = HEADERS
    for _ in range(16):
        headers = sealed(headers, key=ed25519_key())
    hasher = BodyHasher()
    validator = arc.ChainValidator(HeaderFields(headers), body=hasher, now=NOW)
    hasher.feed(BODY)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def go():
        working = asyncio.create_task(others())
        await validator.finish(zone(ed25519_key()))
        working.cancel()

    asyncio.run(go())
    assert turns >= 2 * 16 // arc.AT_ONCE - 1


def test_the_work_of_a_long_chain_is_linear(monkeypatch):
    headers = HEADERS
    for _ in range(30):
        headers = sealed(headers, key=ed25519_key())
    made = []
    original = keys.PublicKey.proves
    monkeypatch.setattr(keys.PublicKey, "proves", lambda self, *given: (made.append(1), original(self, *given))[1])
    fields = HeaderFields(headers)
    hasher = BodyHasher()
    validator = arc.ChainValidator(fields, body=hasher, now=NOW)
    hasher.feed(BODY)
    resolver = zone(ed25519_key())
    assert asyncio.run(validator.finish(resolver)).result is Result.PASS
    assert len(made) == 60
    assert len(fields._canonical) <= len(headers)
    assert len(hasher._streams) == 1
    assert resolver.asked == [ed25519_key().record_name]


BROKEN = [
    # structure, RFC 8617 section 5.2 step 3
    (SEAL, 2, rb"i=2; ", b"", "i= is not from 1 to 50"),
    (SEAL, 2, rb"i=2", b"i=0", "i= is not from 1 to 50"),
    (SEAL, 2, rb"i=2", b"i=51", "i= is not from 1 to 50"),
    (SEAL, 2, rb"i=2", b"i=", "i= is not from 1 to 50"),
    (SEAL, 2, rb"i=2", b"i=two", "i= is not from 1 to 50"),
    (SEAL, 2, rb"i=2", b"i=1", "i=1 occurs twice"),
    (SEAL, 2, rb"i=2", b"i=3", "missing"),
    (AMS, 1, rb"i=1; ", b"", "i= is not from 1 to 50"),
    (AMS, 1, rb"i=1", b"i=2", "i=2 occurs twice"),
    (AAR, 1, rb"i=1; ", b"", "no i= at its beginning"),
    (AAR, 1, rb"i=1; ", b"x; i=1; ", "no i= at its beginning"),
    (AAR, 1, rb"i=1;", b"i=1 x;", "no i= at its beginning"),
    (AAR, 2, rb"i=2", b"i=4", "missing"),
    (SEAL, 1, rb"cv=none", b"cv=pass", "seal 1: cv=pass"),
    (SEAL, 1, rb"cv=none", b"cv=fail", "seal 1: cv=fail"),
    (SEAL, 2, rb"cv=pass", b"cv=none", "seal 2: cv=none"),
    (SEAL, 2, rb"cv=pass", b"cv=fail", "set 2 says that the chain failed"),
    # tags, RFC 8617 sections 4.1.2 and 4.1.3
    (SEAL, 1, rb"cv=none;\s*", b"", "cv= is missing"),
    (SEAL, 1, rb"cv=none", b"cv=None", "cv= is not none, pass or fail"),
    (SEAL, 1, rb"i=1;", b"i=1; h=from;", "h= in an ARC-Seal"),
    (SEAL, 1, rb"i=1;", b"i=1; i=1;", "i= occurs twice"),
    (SEAL, 1, rb"a=rsa-sha256", b"a=rsa-sha1", "rsa-sha1 must not be used"),
    (SEAL, 1, rb"a=rsa-sha256", b"a=", "a= is not a known"),
    (SEAL, 1, rb"t=\d+", b"t=-1.5", "t= is no time"),
    (SEAL, 1, rb"d=sender.example", b"d=example", "d= is no domain"),
    (SEAL, 1, rb"s=r;", b"s=;", "s= is no selector"),
    (SEAL, 1, rb"b=[^;]*$", b"b=", "b= is empty"),
    (SEAL, 1, rb"i=1;", b"i=1;;", "not a tag=value list"),
    (AMS, 2, rb"a=rsa-sha256", b"a=rsa-sha1", "rsa-sha1 must not be used"),
    (AMS, 2, rb"h=from", b"h=arc-seal:from", "ARC-Seal is signed"),
    (AMS, 2, rb"h=from", b"h=From:ARC-SEAL", "ARC-Seal is signed"),
    (AMS, 2, rb"h=[^;]*;", b"", "h= is missing"),
    (AMS, 2, rb"bh=[^;]*;", b"bh=;", "bh= is empty"),
    (AMS, 2, rb"c=relaxed/relaxed", b"c=tidy", "c= is not a known"),
    (AMS, 1, rb"s=r;", b"s=..;", "s= is no selector"),
    # proofs, RFC 8617 section 5.2 steps 4 and 6
    (SEAL, 2, rb"t=\d+", b"t=5", "seal 2: signature did not verify"),
    (SEAL, 1, rb"t=\d+", b"t=5", "seal 2: signature did not verify"),
    (AMS, 2, rb"t=\d+", b"t=5", "message signature 2: signature did not verify"),
    (AMS, 2, rb"bh=....", b"bh=AAAA", "message signature 2: signature did not verify"),
    (AMS, 1, rb"t=\d+", b"t=5", "seal 2: signature did not verify"),
    (AAR, 1, rb"spf=pass", b"spf=fail", "seal 2: signature did not verify"),
    (AAR, 2, rb"spf=pass", b"spf=fail", "seal 2: signature did not verify"),
    (SEAL, 2, rb"s=r;", b"s=gone;", "seal 2: no key for signature"),
]


@pytest.mark.parametrize(("kind", "number", "old", "new", "reason"), BROKEN)
def test_broken_chains(kind, number, old, new, reason):
    headers = edit(sealed(sealed()), kind, number, old, new)
    found = validate(headers)
    assert found.result is Result.FAIL
    assert reason in found.reason
    assert found.scope == () or "message signature" in reason  # what a new seal would cover: seals that hold
    assert found.oldest_pass is None


@pytest.mark.parametrize(
    ("kind", "number", "old", "new"),
    [
        (AAR, 2, rb" i=2; ", b"\t i=2;\r\n   "),
        (AMS, 2, rb"; ", b";\r\n  "),
        (SEAL, 2, rb";\s+d=", b";\r\n\t   d="),
        (SEAL, 1, rb"b=", b"b=\r\n "),
    ],
)
def test_relaxed_about_white_space(kind, number, old, new):
    headers = edit(sealed(sealed()), kind, number, old, new)
    assert validate(headers).result is (Result.PASS if number == 2 else Result.FAIL)


@pytest.mark.parametrize(
    "value",
    [b"i=1; x", b" (a (nested \\) one)) i = 1 (first) ; x", b"\r\n\ti (the) =\r\n (number) 1\r\n ; x", b"i=1(;); x"],
)
def test_comments_around_the_instance(value):
    assert arc._split(value) == ("1", " x")


@pytest.mark.parametrize(
    "value", [b"", b"i", b"I=1; x", b"i=1", b"i=1 (; x", b"i=1) ; x", b")(i=1; x", b"i=(1); x", b"x; i=1; x", b"i==1;"]
)
def test_no_instance(value):
    with pytest.raises(TagListError, match="no i= at its beginning"):
        arc._split(value)


@pytest.mark.parametrize("piece", [b" ", b"(a)", b"(", b"\\", b"(i=1; "])
def test_the_instance_is_not_looked_for_in_a_megabyte_of_comments(piece):
    value = piece * (1_000_000 // len(piece)) + b"i=1; x"
    begun = time.process_time()
    for _ in range(50):
        with pytest.raises(TagListError, match="no i= at its beginning"):
            arc._split(value)
    assert time.process_time() - begun < 3


def test_fields_missing():
    headers = sealed(sealed())
    for place in range(6):
        found = validate(headers[:place] + headers[place + 1 :])
        assert (found.result, found.next_instance) == (Result.FAIL, 3)
        assert found.reason == "a field is missing in the chain"


def test_body_and_message_changes():
    once = sealed()
    assert validate(once, b"other").reason == "message signature 1: body hash did not verify"
    changed = tuple((name, b" x" if name == b"Subject" else value) for name, value in once)
    assert validate(changed).reason == "message signature 1: signature did not verify"


def test_oldest_pass():
    """RFC 8617 section 5.2 step 5: a list that changes the message, then forwards that do not."""
    headers, body = sealed(sealed()), BODY
    assert validate(headers, body).oldest_pass == 0
    chain = validate(headers, body)
    body = b"List: " + body
    headers = sealed(headers, body, chain=chain)
    assert validate(headers, body).oldest_pass == 3
    assert validate(sealed(headers, body), body).oldest_pass == 3


def test_keys_of_older_message_signatures_are_asked_for_last():
    """Only `oldest_pass` needs them, so trouble with them is no trouble of the chain."""
    first = rsa_key("first.example")
    headers = sealed(sealed(key=first), chain=validate(sealed(key=first), resolver=zone(first)))
    resolver = zone(first, rsa_key())
    assert validate(headers, resolver=resolver).oldest_pass == 0
    odd = edit(headers, AMS, 1, b"s=r;", b"s=other;")
    resolver.names["other._domainkey.first.example"] = "time-out"
    assert validate(odd, resolver=resolver).result is Result.FAIL  # the seals cover it


@pytest.mark.parametrize(("published", "oldest"), [(None, 0), ("time-out", 2)])
def test_the_key_of_an_older_message_signature_may_be_another_than_that_of_the_seal(published, oldest):
    key = ed25519_key()
    tags = {"i": "1", "a": key.algorithm, "c": "relaxed/relaxed", "d": key.domain, "s": key.selector, "h": "from"}
    (message, *_), results = resigned(tags, key=key, field=AMS), (AAR, b" i=1; mx.example; none")
    resolver = zone(rsa_key(), key)
    headers = sealed(((SEAL, seal_of(results, message)), message, results, *HEADERS))
    if published:
        resolver.names[key.record_name] = published
    found = validate(headers, resolver=resolver)
    assert (found.result, found.oldest_pass) == (Result.PASS, oldest)


def seal_of(results, message):
    """The value of a first seal."""
    covered = b"".join(header_field(Canon.RELAXED, *field) + b"\r\n" for field in (results, message))
    return signed_field(
        [("i", "1"), ("a", "rsa-sha256"), ("cv", "none"), ("d", "sender.example"), ("s", "r")],
        rsa_key(),
        lambda unsigned: sha256(covered + header_field(Canon.RELAXED, SEAL, unsigned)).digest(),
    )


class TestTrouble:
    def test_dns_trouble_is_no_failure_and_takes_no_set(self):
        found = validate(sealed(), resolver=Zone({rsa_key().record_name: "SERVFAIL"}))
        assert (found.result, found.next_instance) == (Result.TEMPERROR, None)
        assert found.reason == "message signature 1: key not available: SERVFAIL"
        assert found.sealers

    def test_a_failure_is_one_whatever_the_dns_says_elsewhere(self):
        first = rsa_key("first.example")
        headers = sealed(sealed(key=first), chain=validate(sealed(key=first), resolver=zone(first)))
        resolver = Zone({rsa_key().record_name: [rsa_key().record.encode()], first.record_name: "time-out"})
        assert validate(headers, resolver=resolver).result is Result.TEMPERROR
        assert validate(headers, b"other", resolver).result is Result.FAIL

    def test_no_key(self):
        assert validate(sealed(), resolver=Zone()).reason == "message signature 1: no key for signature"

    def test_short_key(self):
        key = rsa_key(bits=1024)
        headers = sealed(key=key)
        assert validate(headers, resolver=zone(key)).result is Result.PASS
        assert validate(headers, resolver=zone(key), limits=Limits(rsa_bits_least=2048)).result is Result.FAIL

    @pytest.mark.parametrize("more", [((b"X", b""),) * 10_000, ((b"X", bytes(2 << 20)),)], ids=["fields", "octets"])
    def test_a_header_too_large(self, more):
        found = validate((*sealed(), *more))
        assert (found.result, found.next_instance) == (Result.FAIL, None)
        assert validate((*HEADERS, *more)).result is Result.NONE

    @pytest.mark.parametrize(
        ("tags", "length", "reason"),
        [
            ({}, None, ""),
            ({"c": None}, None, ""),
            ({"h": ""}, None, ""),  # nothing asks that From be signed
            ({"v": "9", "q": "x : dns/txt"}, None, ""),  # RFC 8617 section 4.1.2: there is no v=
            ({"q": "other"}, None, "q= has no known query method"),  # the rest is as in DKIM
            ({"x": str(NOW + 1)}, None, ""),
            ({"x": str(NOW - 301)}, None, "expired"),
            ({"l": "3"}, 3, "l= leaves content uncovered"),
            ({"l": "35"}, 35, ""),
            ({"l": "36"}, 35, "body hash did not verify"),
        ],
    )
    def test_tags_of_a_message_signature(self, tags, length, reason):
        tags = {"i": "1", "a": "rsa-sha256", "c": "relaxed/relaxed", "d": "sender.example", "s": "r", "h": "to"} | tags
        canon = Canon.RELAXED if tags["c"] else Canon.SIMPLE
        (message, *_) = resigned(tags, spec=BodySpec(canon, length), field=AMS)
        results = (AAR, b" i=1; mx.example; none")
        found = validate(((SEAL, seal_of(results, message)), message, results, *HEADERS))
        assert found.reason == (reason and f"message signature 1: {reason}")
        assert found.result is (Result.FAIL if reason else Result.PASS)


class TestSealing:
    def test_a_broken_chain_is_marked_once(self):
        """RFC 8617 section 5.1.2: the new set covers itself alone."""
        broken = edit(sealed(sealed()), SEAL, 1, rb"t=\d+", b"t=5")
        found = validate(broken)
        assert (found.result, found.next_instance) == (Result.FAIL, 3)
        marked = sealed(broken, chain=found)
        assert b"cv=fail" in marked[0][1]
        again = validate(marked)
        assert (again.result, again.reason, again.next_instance) == (
            Result.FAIL,
            "set 3 says that the chain failed",
            None,
        )

    def test_what_a_seal_of_failure_covers(self):
        (_, seal), message, results, *_ = sealed(edit(sealed(), SEAL, 1, rb"t=\d+", b"t=5"))
        covered = b"".join(header_field(Canon.RELAXED, *field) + b"\r\n" for field in (results, message))
        digest = sha256(covered + header_field(Canon.RELAXED, SEAL, without_b(seal))).digest()
        proof = signature.arc_seal(signature.tags_of(seal, Limits())).source.signature
        assert keys.parse(rsa_key().record.encode()).key.proves(proof, digest)

    def test_the_message_signature_covers_dkim_signatures_and_nothing_of_arc(self):
        """RFC 8617 section 4.1.2."""
        headers = sealed(((b"Authentication-Results", b" mx.example; none"), *sealed(signed(), results="x; none")))
        names = re.sub(rb".*;h=([^;]*);.*", rb"\1", re.sub(rb"\s", b"", headers[1][1]))
        assert b":dkim-signature" in names
        assert b"arc-" not in names
        assert b"authentication-results" not in names
        assert validate(headers).result is Result.PASS

    def test_what_the_first_of_us_found_counts(self):
        """RFC 8617 section 4.4: cv= is the state on arrival; a list behind our MX changes what the MX found whole."""
        once = sealed()
        changed = validate(once, b"[list] " + BODY)
        assert (changed.result, len(changed.scope)) == (Result.FAIL, 3)
        passed, failed = AuthResult("arc", "pass"), AuthResult("arc", "fail")
        told = sealing.as_told(changed, [AuthResult("spf", "fail"), passed])
        headers = sealed(once, b"[list] " + BODY, chain=told)
        assert b"cv=pass" in headers[0][1]
        assert validate(headers, b"[list] " + BODY).result is Result.PASS
        for chain, words, result in (
            (changed, [], "fail"),
            (changed, [passed, failed], "fail"),
            (validate(once), [failed], "fail"),
            (validate(once), [AuthResult("dkim", "fail")], "pass"),
            (changed, [AuthResult("arc", "none")], "pass"),  # there was no chain: the set is our own
            (changed, [AuthResult("arc", "temperror")], "fail"),
            (validate(HEADERS), [passed], "none"),
            (validate(edit(once, SEAL, 1, rb"t=\d+", b"t=5")), [passed], "fail"),  # a seal is broken
        ):
            assert sealing.as_told(chain, words).result == result

    def test_header_fields_added_between_validation_and_sealing(self):
        chain = validate(sealed())
        headers = ((b"Authentication-Results", b" mx.example; arc=pass"), *sealed())
        assert validate(sealed(headers, chain=chain)).result is Result.PASS

    @pytest.mark.parametrize("results", ["a\r\nb", "a\nb", "a\rb", "a\r\n", "a\0"])
    def test_results_cannot_break_out(self, results):
        with pytest.raises(SigningError, match="folds nothing"):
            sealed(results=results + "x")

    def test_lines_are_short(self):
        for _, value in sealed(results="mx.example; spf=pass")[:3]:
            assert all(len(line) <= 78 for line in value.split(b"\r\n"))
            assert value.startswith(b" i=1;")


def txt(key):
    return lambda name, timeout=5: key.record.encode() if name == key.record_name.encode() + b"." else None


def test_dkimpy_validates_what_is_sealed_here():
    headers = HEADERS
    for _ in range(3):
        headers = sealed(headers, now=10**9)  # dkimpy looks at the clock on the wall
    cv, _, reason = dkimpy.arc_verify(wire(headers, BODY), dnsfunc=txt(rsa_key()))
    assert (cv, reason) == (b"pass", "success")


def test_we_validate_what_dkimpy_seals_and_it_goes_on_from_ours():
    key = rsa_key(bits=1024)
    headers = sealed(key=key, now=10**9)
    for host in (b"mx1.example", b"mx2.example"):
        headers = ((b"Authentication-Results", b" " + host + b"; arc=pass"), *headers)
        new = dkimpy.arc_sign(wire(headers, BODY), b"r", b"sender.example", pem(key.private), host)
        split = [line.removesuffix(b"\r\n").partition(b":") for line in new]
        headers = (*((name, value) for name, _, value in split), *headers)
    found = validate(headers, resolver=zone(key))
    assert (found.result, found.reason, len(found.sealers)) == (Result.PASS, "", 3)


octets = st.binary(max_size=40) | st.text(alphabet="iabcdvhst=;:/@1 \r\n\t()\\", max_size=60).map(str.encode)


@settings(deadline=None)
@given(headers=st.lists(st.tuples(st.sampled_from([AAR, AMS, SEAL, b"From", b"arc-SEAL"]), octets), max_size=9))
def test_any_octets_give_a_result(headers):
    found = validate(headers)
    assert found.result is (Result.FAIL if any(name != b"From" for name, _ in headers) else Result.NONE)


@settings(deadline=None)
@given(data=st.data())
def test_a_chain_changed_anywhere_gives_a_result(data):
    headers = list(sealed())
    which = data.draw(st.integers(0, 2))
    name, value = headers[which]
    at = data.draw(st.integers(0, len(value)))
    headers[which] = (name, value[:at] + data.draw(octets) + value[at + data.draw(st.integers(0, 9)) :])
    assert validate(headers).result in {Result.FAIL, Result.PASS}

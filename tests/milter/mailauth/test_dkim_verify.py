"""DKIM verification: RFC 6376 sections 3.5 and 6.1, RFC 8301, RFC 8463, RFC 8616."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.findings import Result
from elemta_milter.mailauth import dkim, fields, keys
from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon, header_field
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.limits import Limits
from harness.signatures import (
    BODY,
    HEADERS,
    NOW,
    TAGS,
    Zone,
    body_hash,
    ed25519_key,
    only,
    resigned,
    rsa_key,
    signed,
    verify,
    zone,
)


def changed(headers, name, value):
    return tuple((found, value if found == name else old) for found, old in headers)


def tag(headers, old, new):
    (name, value), *rest = headers
    assert old in value
    return ((name, value.replace(old, new)), *rest)


@pytest.mark.parametrize("key", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
@pytest.mark.parametrize("header_canon", list(Canon))
@pytest.mark.parametrize("body_canon", list(Canon))
def test_every_algorithm_and_canonicalization(key, header_canon, body_canon):
    headers = signed(key=key, header_canon=header_canon, body_canon=body_canon, identity="anna@mail.sender.example")
    result = only(headers)
    assert (result.result, result.reason) == (Result.PASS, "")
    assert (result.domain, result.selector, result.algorithm) == (key.domain, key.selector, key.algorithm)
    assert result.key_bits == (2048 if key.selector == "r" else 256)
    assert (result.identity, result.canon) == ("anna@mail.sender.example", f"{header_canon}/{body_canon}")
    assert (result.signed_at, result.expires_at, result.expired) == (NOW, None, False)
    assert result.signed_names[:2] == ("from", "from")
    assert not result.testing
    assert len(result.b) == 8
    assert only(headers, BODY + b"more").reason == "body hash did not verify"
    assert only(changed(headers, b"Subject", b" other")).reason == "signature did not verify"
    refolded = changed(headers, b"Subject", b"   The boat is  ready ")
    assert (only(refolded).result is Result.PASS) is (header_canon is Canon.RELAXED)
    spaced = BODY.replace(b"boat\t is", b"boat  is")
    assert (only(headers, spaced).result is Result.PASS) is (body_canon is Canon.RELAXED)


def test_the_signatures_that_were_there_are_reported_from_top_to_bottom():
    headers = signed(signed(key=rsa_key()), key=ed25519_key())
    headers = (*headers[:1], (b"dkim-SIGNATURE", b" v=1; a=rsa-sha256; d=Other.Example.; s=x"), *headers[1:])
    first, second, third = verify(headers)
    assert [first.algorithm, second.domain, third.algorithm] == ["ed25519-sha256", "other.example", "rsa-sha256"]
    assert (second.selector, second.algorithm) == ("x", "rsa-sha256")
    assert [str(one.result) for one in (first, second, third)] == ["pass", "permerror", "pass"]
    assert [one.place for one in (first, second, third)] == [0, 1, 2]
    assert verify(HEADERS) == ()


REFUSED = [
    ({"v": None}, "v= is missing"),
    ({"v": "1.0"}, "v= is not 1"),
    ({"v": ""}, "v= is not 1"),
    ({"a": None}, "a= is missing"),
    ({"a": "RSA-SHA256"}, "a= is not a known algorithm"),
    ({"a": "rsa-sha512"}, "a= is not a known algorithm"),
    ({"a": "rsa-sha1"}, "rsa-sha1 must not be used"),
    ({"d": None}, "d= is missing"),
    ({"d": ""}, "d= is no domain"),
    ({"d": "example"}, "d= is no domain"),
    ({"d": "sender.example."}, "d= is no domain"),
    ({"d": "sender..example"}, "d= is no domain"),
    ({"d": "sen der.example"}, "d= is no domain"),
    ({"d": "sender.example/x"}, "d= is no domain"),
    ({"d": "a" * 64 + ".example"}, "d= is no domain"),
    ({"s": None}, "s= is missing"),
    ({"s": ""}, "s= is no selector"),
    ({"s": "r."}, "s= is no selector"),
    ({"s": "r r"}, "s= is no selector"),
    ({"s": "r" * 64}, "s= is no selector"),
    ({"s": ".".join(["r" * 60] * 4)}, "no name in the DNS"),
    ({"h": None}, "h= is missing"),
    ({"h": ""}, "empty name in h="),
    ({"h": "from::to"}, "empty name in h="),
    ({"h": "from:"}, "empty name in h="),
    ({"h": "to:subject"}, "From is not signed"),
    ({"h": "x-from:from-x"}, "From is not signed"),
    ({"bh": ""}, "bh= is empty"),
    ({"bh": None}, "bh= is missing"),
    ({"bh": "###"}, "bh= is not base64"),
    ({"bh": "AAAA"}, "bh= is no SHA-256 hash"),
    ({"c": "relaxed/relaxed/relaxed"}, "c= is not"),
    ({"c": ""}, "c= is not"),
    ({"c": "relaxed/"}, "c= is not"),
    ({"c": "/relaxed"}, "c= is not"),
    ({"c": "Relaxed"}, "c= is not"),
    ({"c": "nofws"}, "c= is not"),
    ({"q": "dns"}, "q= has no known"),
    ({"q": ""}, "q= has no known"),
    ({"q": "http"}, "q= has no known"),
    ({"i": "anna@other.example"}, "domain of i= is not within d="),
    ({"i": "anna@xsender.example"}, "domain of i= is not within d="),
    ({"i": "anna@example"}, "domain of i= is not within d="),
    ({"i": "sender.example"}, "domain of i= is not within d="),
    ({"i": "@"}, "domain of i= is not within d="),
    ({"i": "anna@sender.example."}, "domain of i= is not within d="),
    ({"i": ""}, "domain of i= is not within d="),
    ({"i": "=4@sender.example"}, "i= is not quoted-printable"),
    ({"i": "a=0D=0AX: b@sender.example"}, "control character in i="),
    ({"i": "a=00@sender.example"}, "control character in i="),
    ({"i": "a=E2=80=AEb@sender.example"}, "control character in i="),  # it would turn the line around
    ({"l": "-1"}, "l= is no length"),
    ({"l": "1x"}, "l= is no length"),
    ({"l": ""}, "l= is no length"),
    ({"l": "9" * 77}, "l= is no length"),
    ({"t": "x"}, "t= is no time"),
    ({"t": "-1"}, "t= is no time"),
    ({"x": "soon"}, "x= is no time"),
    ({"x": str(NOW)}, "x= is not after t="),
    ({"x": str(NOW - 1)}, "x= is not after t="),
    ({"9": "x"}, "not a tag=value list"),
    ({"V": "\x01"}, "control character"),
]


@pytest.mark.parametrize(("tags", "reason"), REFUSED, ids=[f"{next(iter(tags))}-{reason}" for tags, reason in REFUSED])
def test_signatures_that_are_no_signature(tags, reason):
    tags = {**TAGS, "bh": "A" * 43, **tags, "b": "QUJD"}
    text = "; ".join(f"{name}={value}" for name, value in tags.items() if value is not None)
    result = only(((b"DKIM-Signature", text.encode()), *HEADERS))
    assert result.result is Result.PERMERROR
    assert reason in result.reason


@pytest.mark.parametrize("b", [b"", b" \r\n ", b"!", b"A"])
def test_a_signature_without_octets(b):
    (name, value), *rest = signed()
    result = only(((name, value[: value.rindex(b"b=") + 2] + b), *rest))
    assert result.result is Result.PERMERROR
    assert "b= is" in result.reason


ACCEPTED = [
    {},
    {"c": None},
    {"c": "simple"},
    {"c": "relaxed"},
    {"c": "simple/relaxed"},
    {"t": None},
    {"t": "000000000000000001"},
    {"q": "dns/txt"},
    {"q": "x : dns/txt"},
    {"x": str(NOW + 60)},
    {"x": "9" * 5000},
    {"t": "1", "x": str(NOW - 100)},  # within the clocks' difference
    {"t": str(NOW + 200)},
    {"i": "@sender.example"},
    {"i": "=61nna =\t@Sender.Example".replace(" =\t", "=3D")},
    {"i": '"a@b"@x.y.sender.example'},
    {"l": None, "z": "From:x|To:y", "xyz": "", "_9": None},
    {"h": " From : TO:\r\n\tsubject :absent: absent"},
    {"h": "from:from:from"},
    {"d": "SENDER.Example", "s": "R"},
]


@pytest.mark.parametrize("tags", ACCEPTED, ids=[" ".join(tags) or "plain" for tags in ACCEPTED])
def test_signatures_that_are_unusual_and_right(tags):
    tags = {**TAGS, **tags}
    canon = Canon(((tags["c"] or "simple") + "/simple").split("/")[1])
    result = only(resigned(tags, spec=BodySpec(canon)))
    assert (result.result, result.reason) == (Result.PASS, "")


def test_u_labels_and_a_labels_are_the_same_domain():
    """RFC 8616: d=, s= and i= may be U-labels."""
    key = rsa_key("xn--bcher-kva.example", "xn--schlssel-95a")
    tags = {**TAGS, "d": "bücher.example", "s": "schlüssel", "i": "jörg@post.bücher.example"}
    result = only(resigned(tags, key=key), resolver=zone(key))
    assert result.result is Result.PASS
    assert (result.domain, result.selector) == (key.domain, key.selector)
    assert result.identity == "jörg@post.xn--bcher-kva.example"


class TestTime:
    def test_expired(self):
        headers = resigned({**TAGS, "t": "1", "x": str(NOW - 301)})
        resolver = zone(rsa_key())
        result = only(headers, resolver=resolver)
        assert (result.result, result.expired, resolver.asked) == (Result.POLICY, True, [])
        assert result.reason == "expired at 2027-01-15 07:54:59 UTC"
        assert only(headers, now=NOW - 1).result is Result.PASS

    def test_signed_in_the_future(self):
        assert only(resigned({**TAGS, "t": str(NOW + 301)})).reason == "signed in the future"
        assert only(resigned({**TAGS, "t": "9" * 13})).reason == "signed in the future"

    def test_far_away_times(self):
        assert only(resigned({**TAGS, "t": None, "x": "1"})).expired
        late = only(resigned({**TAGS, "x": "9" * 12}), now=10**12 + 10**6)
        assert late.reason == f"expired at {10**12 - 1}"


class TestLength:
    """l= (RFC 6376 sections 3.5 and 8.2)."""

    def test_all_is_covered(self):
        size = len(b"Hello Bert,\r\n\r\nthe boat is ready.\r\n")
        result = only(resigned({**TAGS, "l": str(size)}, spec=BodySpec(Canon.RELAXED, size)))
        assert (result.result, result.length_uncovered) == (Result.PASS, 0)

    def test_content_is_uncovered(self):
        headers = resigned({**TAGS, "l": "11"}, spec=BodySpec(Canon.RELAXED, 11))
        result = only(headers)
        assert (result.result, result.length_uncovered) == (Result.POLICY, 24)
        assert "24 octets" in result.reason
        trusted = only(headers, trust_length=True)
        assert (trusted.result, trusted.length_uncovered) == (Result.PASS, 24)
        assert only(headers, b"other").result is Result.FAIL
        assert only(changed(headers, b"Subject", b" other")).result is Result.FAIL

    def test_more_than_there_is(self):
        for length in ("36", "9" * 76):
            assert only(resigned({**TAGS, "l": length})).reason == "body is shorter than l="

    def test_nothing_is_covered(self):
        headers = resigned({**TAGS, "l": "0"}, spec=BodySpec(Canon.RELAXED, 0))
        assert only(headers).result is Result.POLICY
        assert only(headers, b"").result is Result.PASS


class TestNames:
    """h= (RFC 6376 section 5.4.2): from the bottom up, and what is not there."""

    twice = ((b"X", b" top"), *HEADERS, (b"x", b" bottom"))

    def test_from_the_bottom_up(self):
        once = resigned({**TAGS, "h": "from:x"}, self.twice)
        assert only(once).result is Result.PASS
        assert only(changed(once, b"X", b" other")).result is Result.PASS
        assert only(changed(once, b"x", b" other")).result is Result.FAIL
        both = resigned({**TAGS, "h": "x:from:X"}, self.twice)
        assert only(both).result is Result.PASS
        assert only(changed(both, b"X", b" other")).result is Result.FAIL

    def test_a_name_listed_too_often_forbids_another(self):
        headers = resigned({**TAGS, "h": "from:from:subject"})
        assert only(headers).result is Result.PASS
        assert only(((b"From", b" other"), *headers)).result is Result.FAIL
        assert only(((b"Subject", b" other"), *headers)).result is Result.PASS
        assert only((*headers, (b"Subject", b" other"))).result is Result.FAIL

    def test_a_signature_does_not_sign_itself(self):
        headers = resigned({**TAGS, "h": "from:dkim-signature:dkim-signature"})
        assert only(headers).result is Result.PASS
        above = resigned({**TAGS, "h": "from:dkim-signature"}, headers)
        assert [one.result for one in verify(above)] == [Result.PASS, Result.FAIL]
        below = (*headers, (b"DKIM-Signature", b" x"))
        assert [one.result for one in verify(below)] == [Result.FAIL, Result.PERMERROR]

    def test_names_are_looked_at_once_each(self):
        many = HeaderFields([(b"X-%d" % number, b"") for number in range(10_000)] + [(b"a", b"1")] * 5)
        looked = []
        places = dict(many._places)
        many._places = type("D", (dict,), {"__contains__": lambda self, name: looked.append(name) or name in places})(
            places
        )
        names = [b"x-%d" % (number * 2) for number in range(10_000)] + [b"a"] * 7
        assert len(many.select(names)) == 5000 + 5
        assert len(looked) == len(set(names))


class TestKeys:
    def test_dns_trouble(self):
        result = only(signed(), resolver=Zone({rsa_key().record_name: "time-out"}))
        assert (result.result, result.reason) == (Result.TEMPERROR, "key not available: time-out")
        assert (result.domain, result.selector) == ("sender.example", "r")
        assert (
            only(resigned({**TAGS, "a": "rsa-sha1"}), resolver=Zone({rsa_key().record_name: "x"})).result == "temperror"
        )

    def test_no_key(self):
        assert only(signed(), resolver=Zone()).reason == "no key for signature"

    def test_testing(self):
        record = rsa_key().record.encode() + b"; t=y"
        resolver = Zone({rsa_key().record_name: [record]})
        good, bad = only(signed(), resolver=resolver), only(signed(), b"x", resolver=resolver)
        assert (good.result, good.testing) == (Result.PASS, True)
        assert (bad.result, bad.testing) == (Result.FAIL, True)
        assert bad.reason == "body hash did not verify (the domain is testing DKIM)"

    def test_strict(self):
        resolver = Zone({rsa_key().record_name: [rsa_key().record.encode() + b"; t=s"]})
        assert only(signed(identity="a@sender.example"), resolver=resolver).result is Result.PASS
        assert only(signed(identity="a@x.sender.example"), resolver=resolver).result is Result.PERMERROR

    def test_a_key_is_asked_for_once(self):
        resolver = zone(rsa_key())
        assert [one.result for one in verify(signed(signed()), resolver=resolver)] == ["pass", "pass"]
        assert resolver.asked == ["r._domainkey.sender.example"]

    def test_keys_may_be_fetched_while_the_body_comes(self):
        async def run():
            body = BodyHasher()
            resolver = zone(rsa_key())
            verifier = dkim.Verifier(HeaderFields(signed()), body=body, now=NOW)
            fetching = asyncio.create_task(verifier.fetch_keys(resolver))
            for at in range(len(BODY)):
                body.feed(BODY[at : at + 1])
                await asyncio.sleep(0)
            await fetching
            return await verifier.finish(resolver), resolver.asked

        (result,), asked = asyncio.run(run())
        assert result.result is Result.PASS
        assert len(asked) == 1

    def test_weak_key(self):
        key = rsa_key(bits=1024)
        assert only(signed(key=key), resolver=zone(key)).result is Result.PASS
        result = only(signed(key=key), resolver=zone(key), limits=Limits(rsa_bits_least=2048))
        assert (result.result, result.reason) == (Result.POLICY, "1024-bit key is not acceptable")


class TestBounds:
    """Counted, not timed: hashes, proofs and questions for one mail."""

    @pytest.fixture
    def proofs(self, monkeypatch):
        made = []
        original = keys.PublicKey.proves
        monkeypatch.setattr(keys.PublicKey, "proves", lambda self, *given: (made.append(1), original(self, *given))[1])
        return made

    def test_fifty_signatures(self, proofs):
        headers = signed()[:1] * 50 + HEADERS
        results = verify(headers)
        assert [one.result for one in results] == [Result.PASS] * 8 + [Result.POLICY] * 42
        assert {one.reason for one in results[8:]} == {"not evaluated: more than 8 signatures"}
        assert len(proofs) == 8

    def test_the_author_s_signature_comes_first(self):
        other = rsa_key("other.example")
        headers = signed(key=other)[:1] * 20 + signed()
        results = verify(headers, resolver=zone(rsa_key(), other), prefer=["mail.sender.example"])
        assert [one.result for one in results] == [Result.PASS] * 7 + [Result.POLICY] * 13 + [Result.PASS]
        assert results[-1].domain == "sender.example"

    def test_thousands_of_signature_fields(self, proofs):
        results = verify(((b"DKIM-Signature", b" v=1; a=rsa-sha256"),) * 2000 + HEADERS)
        assert [one.result for one in results] == [Result.PERMERROR] * 100 + [Result.POLICY]
        assert "more than 100" in results[-1].reason
        assert not proofs

    def test_what_is_wrong_takes_no_place(self, proofs):
        headers = ((b"DKIM-Signature", b" junk"),) * 90 + signed()
        assert verify(headers)[-1].result is Result.PASS
        assert len(proofs) == 1

    @pytest.mark.parametrize(
        ("headers", "reason"),
        [
            (((b"X", b""),) * 10_000, "more than 10000 header fields"),
            (((b"X", b" " * 2_100_000),), "longer than 2097152 octets"),
        ],
    )
    def test_a_header_too_large(self, headers, reason, proofs):
        (result,) = verify((*signed(), *headers))
        assert result.result is Result.POLICY
        assert reason in result.reason
        assert not proofs

    def test_ten_thousand_names(self):
        result = only(tag(signed(), b"h=from", b"h=" + b"x:" * 10_000 + b"from"))
        assert result.reason == "more than 2000 names in h="

    def test_a_field_is_made_canonical_once(self, monkeypatch):
        made = []
        monkeypatch.setattr(
            fields, "header_field", lambda canon, name, value: (made.append(name), header_field(canon, name, value))[1]
        )
        long = (*HEADERS, (b"X-Long", b" a" * 10_000))
        headers = signed(long, names=["x-long"])[:1] * 8 + long
        made.clear()
        assert [one.result for one in verify(headers)] == [Result.PASS] * 8
        assert made.count(b"X-Long") == 1

    def test_long_fields_and_lines(self):
        spaces = (*HEADERS, (b"X-Long", b" " * 1_000_000 + b"a\r\n" + b"\t" * 500_000))
        body = b" " * 1_000_000 + b"\r\n" + b"\t " * 500_000 + b"x"
        assert only(signed(spaces, body, names=["x-long"]), body).result is Result.PASS

    def test_an_unsigned_mail_needs_no_body(self):
        body = BodyHasher()
        dkim.Verifier(HeaderFields(HEADERS), body=body, now=NOW)
        dkim.Verifier(HeaderFields([(b"DKIM-Signature", b" junk")]), body=body, now=NOW)
        assert not body.needs_body
        dkim.Verifier(HeaderFields(signed()), body=body, now=NOW)
        assert body.needs_body


def test_b_tells_signatures_apart():
    """RFC 6008 section 4."""
    texts = ["AAAAAAAAAAAAA", "AAAAAAAAAABBB", "AAAAAAAAAABBC", "CCCCCCCCCCCCC", "CCCCCCCCCCCCC", "D", ""]
    headers = [(b"DKIM-Signature", f" a=x; b={text}".encode()) for text in texts]
    assert [one.b for one in verify(headers)] == [
        "AAAAAAAAAAA",
        "AAAAAAAAAABBB",
        "AAAAAAAAAABBC",
        "CCCCCCCC",
        "CCCCCCCC",
        "D",
        "",
    ]


def test_what_a_report_shows_is_clean():
    result = only([(b"DKIM-Signature", b' v=2; d=a"b; s=(x); a=rsa sha; b=a"b; i=x@y')])
    assert (result.domain, result.selector, result.algorithm, result.b, result.identity) == ("", "", "", "", "")


octets = st.binary(max_size=40) | st.text(alphabet="vabcdhislqtxz=;:/@1 \r\n\t", max_size=80).map(str.encode)
field = st.tuples(st.sampled_from([b"DKIM-Signature", b"From", b"to", b"", b"\xff"]) | st.binary(max_size=5), octets)


@settings(deadline=None)
@given(headers=st.lists(field, max_size=12), pieces=st.lists(octets), record=octets)
def test_any_octets_give_results(headers, pieces, record):
    class Anywhere(Zone):
        async def query(self, name, rdtype):
            self.names[name] = [record]
            return await super().query(name, rdtype)

    results = verify(headers, pieces=pieces or [b""], resolver=Anywhere())
    assert len(results) == sum(name.lower() == b"dkim-signature" for name, _ in headers)
    assert all(one.result is not Result.PASS for one in results)


@settings(deadline=None)
@given(data=st.data())
def test_a_signature_changed_anywhere_gives_a_result(data):
    (name, value), *rest = signed()
    at = data.draw(st.integers(0, len(value)))
    cut = data.draw(st.integers(0, 20))
    value = value[:at] + data.draw(octets) + value[at + cut :]
    assert len(verify([(name, value), *rest])) == 1


@settings(deadline=None)
@given(pieces=st.lists(octets), canon=st.sampled_from(list(Canon)))
def test_pieces_make_no_difference_to_a_signature(pieces, canon):
    body = b"".join(pieces)
    headers = signed(body=body, key=ed25519_key(), body_canon=canon)
    (result,) = verify(headers, pieces=pieces)
    assert result.result is Result.PASS
    assert body_hash(body, BodySpec(canon))

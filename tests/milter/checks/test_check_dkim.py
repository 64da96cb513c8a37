"""The dkim check: one result and one resinfo for each signature, and the facts that rules ask for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from elemta.facts import BytesBody, Message
from elemta.findings import AuthResult, Result
from elemta.testing import FakeResolver, envelope, run
from elemta_milter.checks.dkim import Dkim, DkimOptions
from elemta_milter.feeding import BIG
from elemta_milter.mailauth.authres import parse, render
from harness.signatures import BODY, HEADERS, NOW, TAGS, ed25519_key, resigned, rsa_key, signed


def zone(*keys, **more):
    return FakeResolver({key.record_name: [("TXT", key.record)] for key in keys} | more)


def look(headers, body=BODY, resolver=None, truncated="", **options):
    message = Message(envelope(), tuple(headers), BytesBody(body), truncated)
    resolver = resolver or zone(rsa_key(), ed25519_key())
    return run(Dkim, message, resolver=resolver, clock=lambda: NOW, **options)


def test_a_signature_that_passes_is_a_fact_and_evidence():
    found = look(signed())
    assert found.result is Result.PASS
    assert found.fields["domains"] == ("sender.example",)
    assert found.fields["selectors"] == ("r",)
    assert found.fields["algorithm"] == "rsa-sha256"
    assert found.fields["key_bits"] == 2048
    assert not found.trouble
    (evidence,) = found.authres
    assert (evidence.method, evidence.result, evidence.reason) == ("dkim", "pass", "")
    assert [name for name, _ in evidence.properties] == ["header.d", "header.s", "header.a", "header.b"]
    assert dict(evidence.properties)["header.d"] == "sender.example"
    assert len(dict(evidence.properties)["header.b"]) == 8


def test_signatures_without_end_do_not_push_other_evidence_out():
    """Postfix cuts a field at 60,000 octets: what DMARC found stands behind DKIM's results, and a seal covers all."""
    tags = "; ".join(f"{name}={value}" for name, value in TAGS.items() if name != "d")
    many = []
    for number in range(99):
        domain = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.x{number}.example"
        text = f" {tags}; d={domain}; i={'u' * 300}@{domain}; bh={'A' * 43}=; b={'QUJD' * 150}{number:04}"
        many.append((b"DKIM-Signature", text.encode()))
    found = look([*many, *signed()])
    assert [each.result for each in found.authres].count("pass") == 1
    assert found.authres[-1] == AuthResult("dkim", "policy", "and 84 more signatures")
    assert len(render("mx.test", found.authres)) < 29_000
    assert len(found.fields["results"]) == 100


def test_the_identity_is_named_where_the_signature_names_one():
    found = look(signed(identity="anna@sub.sender.example"))
    assert found.fields["identity"] == "anna@sub.sender.example"
    assert ("header.i", "anna@sub.sender.example") in found.authres[0].properties


def test_an_identity_writes_no_results_of_its_own():
    identity = "=40x=3B=20dmarc=3Dpass=20header.from=3Dbank.example=3Au@sender.example"
    found = look(resigned(TAGS | {"i": identity}))
    assert found.fields["identity"] == "@x; dmarc=pass header.from=bank.example:u@sender.example"
    assert [each.method for each in parse(render("mx.test", found.authres)).results] == ["dkim"]


def test_an_expired_signature_is_told():
    found = look(resigned(TAGS | {"t": str(NOW - 2000), "x": str(NOW - 1000)}))
    assert (found.result, found.fields["expired"], look(signed()).fields["expired"]) == (Result.POLICY, True, False)
    assert found.reason.startswith("sender.example: policy (expired at ")
    assert look(((b"DKIM-Signature", b" v=1"), *HEADERS)).reason.startswith("unreadable: permerror (")


def test_without_a_signature_there_is_nothing_to_say():
    found = look(HEADERS)
    assert (found.result, found.fields, found.authres) == (Result.NONE, {}, (AuthResult("dkim", "none"),))


def test_one_good_signature_is_enough_and_every_signature_is_told():
    good = signed(key=ed25519_key())
    broken = ((b"DKIM-Signature", signed(key=rsa_key())[0][1][:-8] + b"AAAAAAA="), *good)
    found = look(broken)
    assert found.result is Result.PASS
    assert found.fields["results"] == ("fail", "pass")
    assert found.fields["algorithm"] == "ed25519-sha256"
    assert found.fields["signers"] == ("sender.example",)
    assert [each.result for each in found.authres] == ["fail", "pass"]
    assert found.authres[0].reason == "signature did not verify"


@pytest.mark.parametrize(
    ("key_txt", "result", "trouble"),
    [
        ("SERVFAIL", "temperror", True),
        ("v=DKIM1; p=", "permerror", False),
        ("v=DKIM1; k=ed25519; p=" + "A" * 43 + "=", "permerror", False),
    ],
)
def test_what_the_name_system_says_of_the_key(key_txt, result, trouble):
    found = look(signed(), resolver=FakeResolver({"r._domainkey.sender.example": [("TXT", key_txt)]}))
    assert (found.result, found.trouble) == (result, trouble)
    assert found.fields["domains"] == ()


def test_the_most_telling_of_the_bad_ones_gives_the_result():
    bad = ((b"DKIM-Signature", b" v=1; nonsense"), *signed(body=b"another\r\n"))
    assert look(bad).result is Result.FAIL  # not permerror
    asked_in_vain = zone(rsa_key(), **{"e._domainkey.sender.example": [("TXT", "TIMEOUT")]})
    both = (signed(key=ed25519_key())[0], *signed(body=b"another\r\n"))
    found = look(both, resolver=asked_in_vain)
    assert (found.result, found.trouble) == (Result.TEMPERROR, True)  # another try may bring a pass


def test_a_broken_signature_of_a_domain_that_is_testing_counts_as_none():
    record = rsa_key().record.replace("k=rsa", "k=rsa; t=y")
    resolver = FakeResolver({rsa_key().record_name: [("TXT", record)]})
    broken = look(signed(body=b"another\r\n"), resolver=resolver)
    assert (broken.result, broken.fields["testing"]) == (Result.NONE, True)
    assert broken.authres[0].result == "fail"
    good = look(signed(), resolver=resolver)
    assert (good.result, good.fields["testing"]) == (Result.PASS, True)


def test_a_part_of_the_body_left_unsigned_is_no_proof_unless_asked_for():
    from elemta_milter.mailauth.canonical import BodySpec, Canon  # noqa: PLC0415

    headers = resigned(TAGS | {"l": "6"}, spec=BodySpec(Canon.RELAXED, 6))
    found = look(headers)
    assert found.result is Result.POLICY
    assert found.fields["length_uncovered"] > 0
    assert look(headers, trust_length=True).result is Result.PASS


@pytest.mark.parametrize(
    ("more", "unsigned"),
    [
        ((), ()),
        (((b"X-Other", b" x"),), ()),
        (((b"Subject", b" another"),), ("subject",)),
        (((b"subject \t", b" another"),), ("subject",)),
        (((b"\0Subject", b" another"),), ("subject",)),  # some mail programs pass over the NUL
        (((b"From", b" else@else.example"),), ("from",)),
        (((b"Content-Type", b" text/html"), (b"Reply-To", b" x@y.example")), ("reply-to", "content-type")),
    ],
)
def test_what_people_see_and_nobody_signed(more, unsigned):
    """RFC 6376 section 8.15: a signature that names fields once holds whatever is put above them."""
    headers = resigned(TAGS)
    found = look((*more, *headers))
    assert (found.result, found.fields["unsigned"]) == (Result.PASS, unsigned)
    assert look((*more, *headers), body=b"other").fields["unsigned"] == ()  # nothing passes: nothing to be wrong about


def test_one_signature_that_covers_all_is_enough():
    more = ((b"Subject", b" another"), (b"Content-Type", b" text/html"))
    headers = (*more, *resigned(TAGS))
    assert look(headers).fields["unsigned"] == ("subject", "content-type")
    assert look(signed(headers)).fields["unsigned"] == ()


def test_what_a_stranger_added_and_signed_himself_is_not_the_authors():
    other = rsa_key("stranger.example")
    resolver = zone(rsa_key(), other)
    added = signed(((b"Subject", b" another"), *resigned(TAGS)), key=other)
    found = look(added, resolver=resolver)
    assert found.fields["domains"] == ("stranger.example", "sender.example")
    assert found.fields["unsigned"] == ("subject",)
    assert look(added, resolver=zone(other)).fields["unsigned"] == ()  # the author's does not hold
    strangers = resigned(TAGS | {"d": other.domain}, key=other)
    found = look(((b"Subject", b" another"), *strangers), resolver=resolver)  # nobody else signed
    assert (found.fields["domains"], found.fields["unsigned"]) == (("stranger.example",), ("subject",))


def test_short_keys_are_refused_as_configured():
    assert look(signed(key=rsa_key()), min_rsa_bits=3072).result is Result.POLICY
    with pytest.raises(ValidationError):
        DkimOptions(min_rsa_bits=512)  # RFC 8301 section 3.2


def test_signatures_over_the_bound_are_told_and_the_authors_comes_first():
    others = [resigned(TAGS | {"d": f"list{number}.example", "h": "from"})[0] for number in range(3)]
    resolver = zone(rsa_key())
    found = look((*others, *signed()), resolver=resolver, signatures=1)
    assert found.result is Result.PASS
    assert found.fields["results"] == ("policy", "policy", "policy", "pass")
    assert len(resolver.asked) == 1


def test_a_mail_that_was_cut_proves_nothing():
    found = look(signed(), truncated="4,000 header fields")
    assert found.result is Result.NEUTRAL
    assert "4,000 header fields" in found.reason
    assert found.authres[0].result == "neutral"


def test_a_long_body_is_hashed_beside_the_loop():
    body = b"a line of a long body\r\n" * (BIG // 20)
    assert len(body) > BIG
    assert look(signed(body=body), body).result is Result.PASS
    assert look(signed(body=body), body + b"more\r\n").result is Result.FAIL

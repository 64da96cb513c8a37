"""The dmarc check: facts for rules and one resinfo, by what spf and dkim saw."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec.structs import replace

from elemta.dns import DEADLINE, DnsError
from elemta.findings import AuthResult, Finding, Result
from elemta.testing import FakeResolver, envelope, judge, message, policy, run
from elemta_milter.checks.dmarc import Dmarc
from elemta_milter.mailauth.dkim import SignatureResult

ZONE = {
    "_dmarc.example.com": [("TXT", "v=DMARC1; p=reject; sp=quarantine; adkim=s")],
    "_dmarc.testing.example": [("TXT", "v=DMARC1; p=reject; t=y")],
    "_dmarc.slow.example": [("TXT", "TIMEOUT")],
    "_dmarc.example.co.uk": [("TXT", "v=DMARC1; p=reject")],
    "_dmarc.co.uk": [("TXT", "v=DMARC1; p=none")],
}


def seen(spf="none", spf_domain="", dkim=()):
    signatures = tuple(SignatureResult(Result(result), "", 0, domain) for result, domain in dkim)
    return {
        "spf": Finding("spf", Result(spf), fields={"domain": spf_domain}),
        "dkim": Finding("dkim", Result.NONE, detail=signatures),
    }


def look(author, findings=None, **options):
    headers = [("From", each) for each in ([author] if isinstance(author, str) else author)]
    findings = seen() if findings is None else findings
    return run(Dmarc, message(headers=headers), findings, resolver=FakeResolver(ZONE), **options)


def test_an_aligned_signature_passes():
    found = look("a@example.com", seen(dkim=[("fail", "example.com"), ("pass", "example.com")]))
    assert found.result is Result.PASS
    assert found.fields == {
        "domain": "example.com",
        "org_domain": "example.com",
        "disposition": "none",
        "spf_aligned": False,
        "dkim_aligned": True,
        "policy": "reject",
        "policy_domain": "example.com",
        "record": "v=DMARC1; p=reject; sp=quarantine; adkim=s",
        "testing": False,
        "aligned": ("example.com",),
        "spf_mode": "relaxed",
        "dkim_mode": "strict",
    }
    assert found.authres == (
        AuthResult("dmarc", "pass", "", (("header.from", "example.com"), ("policy.dmarc", "reject"))),
    )


def test_what_fails_comes_with_the_owners_wish_for_this_domain():
    found = look("a@sub.example.com", seen("pass", "evil.test", [("pass", "evil.test")]))
    assert (found.result, found.fields["policy"], found.fields["disposition"]) == ("fail", "quarantine", "quarantine")
    assert found.fields["org_domain"] == "example.com"


def test_a_domain_that_is_testing_asks_for_less():
    found = look("a@testing.example")
    assert (found.result, found.fields["policy"], found.fields["disposition"]) == ("fail", "reject", "quarantine")
    assert ("policy.dmarc", "quarantine") in found.authres[0].properties  # "after policy options have been processed"


def test_no_record_no_policy():
    found = look("a@other.example")
    assert found.result is Result.NONE
    assert "policy" not in found.fields
    assert found.authres[0].properties == (("header.from", "other.example"),)


def test_the_name_system_in_trouble_is_neither_pass_nor_fail():
    found = look("a@slow.example", seen("pass", "slow.example"))
    assert (found.result, found.trouble) == (Result.TEMPERROR, True)


TROUBLE = {"result": Result.TEMPERROR, "reason": "no answer within 25 s", "trouble": True}
SIGNED = (("From", "a@example.com"), ("DKIM-Signature", "v=1"))


@pytest.mark.parametrize(
    ("headers", "sender", "spf", "dkim", "result"),
    [
        (SIGNED, "a@x.test", {"result": Result.NONE}, TROUBLE, "temperror"),
        (SIGNED[:1], "a@x.test", {"result": Result.NONE}, TROUBLE, "fail"),  # there was nothing to verify
        (SIGNED, "a@example.com", TROUBLE, {"result": Result.NONE}, "temperror"),
        (SIGNED, "a@x.test", TROUBLE, {"result": Result.NONE}, "fail"),  # it could not have been aligned
        (SIGNED, "a@x.test", {"result": Result.PASS, "fields": {"domain": "example.com"}}, TROUBLE, "pass"),
    ],
)
def test_a_check_that_could_not_answer_might_have_passed(headers, sender, spf, dkim, result):
    findings = {"spf": Finding("spf", **spf), "dkim": Finding("dkim", **dkim)}
    mail = message(envelope(sender=sender), headers)
    assert run(Dmarc, mail, findings, resolver=FakeResolver(ZONE)).result == result


@pytest.mark.parametrize(
    "author",
    [
        ["a@evil.test, b@example.com"],
        ["a@evil.test", "b@example.com"],
        ["Group: a@evil.test, b@example.com;"],
        ["b@example.com <a@evil.test>, c@example.com"],
        ["a@example.com (", "a@evil.test"],
        ["<a@evil.test>, <@>"],
        [],
        [""],
    ],
)
def test_a_from_that_is_not_one_author_beyond_doubt_never_passes(author):
    found = look(author, seen("pass", "evil.test", [("pass", "evil.test")]))
    assert found.result in {Result.FAIL, Result.PERMERROR}


def test_a_header_that_was_not_seen_whole_never_passes():
    whole = message(headers=[("From", "a@example.com")])
    findings = seen("pass", "example.com")
    assert run(Dmarc, whole, findings, resolver=FakeResolver(ZONE)).result is Result.PASS
    cut = run(Dmarc, replace(whole, truncated="4,000 header fields"), findings, resolver=FakeResolver(ZONE))
    assert (cut.result, cut.reason) == (Result.PERMERROR, "more than 4,000 header fields")


def test_the_suffix_list_finds_other_organizational_domains_than_the_tree_walk():
    spf = seen("pass", "mail.example.co.uk")
    listed = look("a@shop.example.co.uk", spf, discovery="suffix-list")
    assert (listed.result, listed.fields["org_domain"]) == (Result.PASS, "example.co.uk")
    walked = look("a@shop.example.co.uk", seen("pass", "other.co.uk"))
    assert walked.fields["org_domain"] == "co.uk"  # its record says nothing of psd=
    apart = look("a@shop.example.co.uk", seen("pass", "other.co.uk"), discovery="suffix-list")
    assert apart.result is Result.FAIL


def test_without_spf_and_dkim_the_administrator_is_told():
    found = look("a@example.com", {})
    assert found.result is Result.FAIL
    assert "spf and dkim" in found.warning


RULES = """
host: mx.receiver.test
checks: {spf: , dkim: , arc: {trusted_sealers: [lists.example.com]}, dmarc: }
rules:
  message:
    - id: dmarc-reject
      class: inbound
      when: {dmarc: fail, dmarc.policy: reject}
      unless: {arc: pass, arc.trusted: true}
      then: reject
    - id: dmarc-quarantine
      class: inbound
      when: {dmarc: fail, dmarc.policy: quarantine}
      then: quarantine
"""


@pytest.mark.parametrize(
    ("author", "rule", "disposition"),
    [
        ("a@example.com", "dmarc-reject", "reject"),
        ("a@sub.example.com", "dmarc-quarantine", "quarantine"),
        ("a@other.example", "", "accept"),
    ],
)
def test_rules_judge_by_it(author, rule, disposition):
    decision = judge(policy(RULES), message(headers=[("From", author)]), resolver=FakeResolver(ZONE))
    assert (decision.verdict.rule, decision.verdict.disposition) == (rule, disposition)
    assert {each.check for each in decision.findings} == {"spf", "dkim", "arc", "dmarc"}


class _Slow(FakeResolver):
    """The names of evil.test take all the time that the mail has for DNS."""

    async def query(self, name, rdtype):
        left = DEADLINE.get() - time.monotonic()
        if left > 0 and name.endswith("evil.test"):
            await asyncio.sleep(left)
            left = 0
        if left <= 0:
            raise DnsError(name, rdtype, "the mail's DNS budget is spent")
        return await super().query(name, rdtype)


@pytest.mark.parametrize(
    ("sender", "signature"),
    [
        ("a@evil.test", ""),
        ("a@other.test", f"v=1; a=rsa-sha256; d=evil.test; s=s; h=from; bh={'A' * 43}=; b={'A' * 172}"),
    ],
    ids=["spf", "dkim"],
)
def test_the_sender_cannot_use_up_the_time_for_the_policy_of_the_domain_it_forges(sender, signature):
    zone = {"_dmarc.victim.test": [("TXT", "v=DMARC1; p=reject")]}
    fields = [("DKIM-Signature", signature)] if signature else []
    mail = message(envelope("192.0.2.9", sender), [*fields, ("From", "ceo@victim.test")])
    of = policy("host: mx.test.example\ndns: {timeout: 100ms, budget: 300ms}\nchecks: {spf: , dkim: , dmarc: }")
    findings = {each.check: each for each in judge(of, mail, resolver=_Slow(zone)).findings}

    assert findings["dkim" if signature else "spf"].result == "temperror"
    assert (findings["dmarc"].result, findings["dmarc"].fields["policy"]) == ("fail", "reject")

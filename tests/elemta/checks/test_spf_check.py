"""The spf check: two identities, one result, evidence and fields (the kernel has its own tests)."""

import asyncio
import time

import pytest

from elemta.checks.spf import Spf
from elemta.dns import DEADLINE, DnsError
from elemta.testing import FakeResolver, envelope, judge, message, policy, run

ZONE = {
    "sender.test": [("TXT", "v=spf1 ip4:192.0.2.1 -all exp=why.sender.test")],
    "why.sender.test": [("TXT", "%{i} is not ours")],
    "helo.test": [("TXT", "v=spf1 ip4:192.0.2.7 -all")],
    "slow.test": [("TXT", "TIMEOUT")],
    "dotless": [("TXT", "v=spf1 -all")],
}


def look(address="192.0.2.1", sender="a@sender.test", helo="helo.test", **options):
    return run(Spf, envelope(address, sender, helo=helo), resolver=FakeResolver(ZONE), **options)


@pytest.mark.parametrize(
    ("address", "sender", "helo", "result", "identity", "of_helo"),
    [
        ("192.0.2.1", "a@sender.test", "helo.test", "pass", "mailfrom", "fail"),
        ("192.0.2.7", "a@sender.test", "helo.test", "fail", "mailfrom", "pass"),
        ("192.0.2.7", "", "helo.test", "pass", "helo", "pass"),
        ("192.0.2.1", "", "[192.0.2.1]", "none", "helo", "none"),
        ("192.0.2.1", "@sender.test", "", "pass", "mailfrom", "none"),
        ("192.0.2.1", "a@dotless", "", "fail", "mailfrom", "none"),
        ("192.0.2.1", "a@x.test", "dotless", "none", "mailfrom", "none"),
    ],
)
def test_identities(address, sender, helo, result, identity, of_helo):
    finding = look(address, sender, helo)

    assert finding.result == result
    assert finding.fields["identity"] == identity
    assert finding.fields["helo"] == of_helo


def test_evidence_is_the_identity_that_gave_the_result():
    assert look().authres[0].properties == (("smtp.mailfrom", "a@sender.test"),)
    assert look(sender="").authres[0].properties == (("smtp.helo", "helo.test"),)


def test_explanation_by_choice():
    assert look("192.0.2.9").fields["explanation"] == "192.0.2.9 is not ours"
    assert look("192.0.2.9", explanation=False).fields["explanation"] is None


def test_nothing_is_told_to_the_sender_because_of_helo():
    resolver = FakeResolver(ZONE)
    run(Spf, envelope("192.0.2.9", "a@other.test", helo="sender.test"), resolver=resolver)
    assert ("sender.test", "TXT") in resolver.asked
    assert ("why.sender.test", "TXT") not in resolver.asked


def test_no_address_is_none():
    assert look("").result == "none"


def test_dns_trouble_is_a_temperror_that_accepts_unless_the_policy_says_otherwise():
    mail = message(envelope("192.0.2.1", "a@slow.test"))
    quiet = judge(policy("host: mx.test.example\nchecks: {spf: }"), mail, resolver=FakeResolver(ZONE))
    strict = judge(policy("host: mx.test.example\nchecks: {spf: {trouble: defer}}"), mail, resolver=FakeResolver(ZONE))

    assert quiet.verdict.disposition == "accept"
    assert strict.verdict.rule == "trouble:spf"


class _Slow(FakeResolver):
    """The client's own zones take their time, as long as the mail has any."""

    of_address = 0.0

    async def query(self, name, rdtype):
        left = DEADLINE.get() - time.monotonic()
        pause = 0.25 if name.endswith("evil.test") else self.of_address if name.endswith(".in-addr.arpa") else 0
        if left > 0 and pause:
            await asyncio.sleep(min(left, pause))
            left = DEADLINE.get() - time.monotonic()
        if left <= 0:
            raise DnsError(name, rdtype, "the mail's DNS budget is spent")
        return await super().query(name, rdtype)


EVIL = {
    "evil.test": [("TXT", "v=spf1 include:a.evil.test -all")],
    **{f"{one}.evil.test": [("TXT", f"v=spf1 include:{other}.evil.test")] for one, other in ("ab", "bc", "cd", "de")},
    "victim.test": [("TXT", "v=spf1 a:mx.victim.test -all")],
    "pointed.test": [("TXT", "v=spf1 ptr a:mx.victim.test -all")],
    "named.test": [("TXT", "v=spf1 ?exists:%{p}.x.test a:mx.victim.test -all")],
    "mx.victim.test": [("A", "192.0.2.200")],
    "9.2.0.192.in-addr.arpa": [("PTR", f"n{number}.evil.test") for number in range(10)],
}


@pytest.mark.parametrize(
    ("sender", "helo", "of_address"),
    [
        ("a@victim.test", "evil.test", 0),
        ("a@pointed.test", "mx.test", 1),
        ("a@named.test", "mx.test", 0),
    ],
)
def test_the_client_cannot_use_up_the_time_for_the_domain_it_forges(sender, helo, of_address):
    resolver = _Slow(EVIL)
    resolver.of_address = of_address
    before = DEADLINE.set(time.monotonic() + 0.8)
    try:
        finding = run(Spf, envelope("192.0.2.9", sender, helo=helo), resolver=resolver)
    finally:
        DEADLINE.reset(before)
    assert finding.result == "fail"

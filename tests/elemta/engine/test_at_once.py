"""A mail whose DNS answers are at hand is judged on the thread that holds it; the loop would find the same."""

from __future__ import annotations

import asyncio
import threading

import pytest

from elemta.at_once import at_once, elsewhere, on_loop
from elemta.case import Case
from elemta.dns import Answer, DnsError, Status
from elemta.dns.cached import CachedResolver
from elemta.engine import Engine
from elemta.facts import BytesBody, Message
from elemta.testing import FakeResolver, envelope, policy, tools
from harness.signatures import BODY, NOW, rsa_key, signed

ZONE = {
    "sender.example": [("TXT", "v=spf1 ip4:192.0.2.0/24 -all")],
    "_dmarc.sender.example": [("TXT", "v=DMARC1; p=reject")],
    rsa_key().record_name: [("TXT", rsa_key().record)],
}
POLICY = "host: mx.test\nchecks: {spf: , dkim: , arc: , dmarc: }"


class Exchange:
    """Answers on the loop only, as the real one does."""

    def __init__(self):
        self.fake = FakeResolver(ZONE)

    async def ask(self, name, rdtype):
        assert on_loop()
        await asyncio.sleep(0)
        return await self.fake.query(name, rdtype)

    def close(self):
        pass


def mail():
    of = envelope("192.0.2.1", "anna@sender.example")
    return Message(of, signed(), BytesBody(BODY))


def elsewhere_done(work):
    """What `work` gives on a thread without a loop."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(10)
    return found[0]


def with_engine(text, use):
    async def go():
        engine = Engine(policy(text), tools(CachedResolver(Exchange(), 1000), clock=lambda: NOW))
        await engine.open()
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(go())


def outcome(decision):
    return {finding.check: (finding.result, dict(finding.fields), finding.authres) for finding in decision.findings}


def test_cold_goes_to_the_loop_and_warm_is_judged_at_once_alike():
    async def use(engine):
        message = mail()
        cold = Case(engine)
        assert not elsewhere_done(lambda: cold.start_now(message.envelope))
        cold.start(message.envelope)
        assert elsewhere_done(lambda: cold.message_now(message)) is None
        by_loop = await cold.message(message)
        warm = Case(engine)
        assert elsewhere_done(lambda: warm.start_now(message.envelope))
        at_hand = elsewhere_done(lambda: warm.message_now(message))
        assert outcome(at_hand) == outcome(by_loop)
        assert at_hand.klass == by_loop.klass == "inbound"
        assert {finding.check: finding.result for finding in at_hand.findings} == {
            "spf": "pass",
            "dkim": "pass",
            "arc": "none",
            "dmarc": "pass",
        }

    with_engine(POLICY, use)


def test_an_early_check_that_waited_is_known_to_later_ones_that_need_not():
    async def use(engine):
        message = mail()
        await Case(engine).message(message)
        case = Case(engine)
        case.start(message.envelope)
        await asyncio.sleep(0.01)
        assert outcome(elsewhere_done(lambda: case.message_now(message)))["dmarc"][1]["spf_aligned"] is True

    with_engine(POLICY, use)


@pytest.mark.parametrize("checks", ["{dkim: {timeout: 5s}}", "{spf: {timeout: 5s}, dkim: }", "{dnsbl: }"])
def test_what_has_a_time_limit_or_waits_for_more_than_dns_is_left_to_the_loop(checks):
    async def use(engine):
        case = Case(engine)
        started = elsewhere_done(lambda: case.start_now(mail().envelope))
        assert not started or elsewhere_done(lambda: case.message_now(mail())) is None

    with_engine(f"host: mx.test\nchecks: {checks}", use)


def test_at_once_closes_what_would_wait_and_lets_errors_out():
    closed = []

    async def waits():
        try:
            await elsewhere()
        finally:
            closed.append(True)

    async def fails():
        raise DnsError("a.test", "TXT", "no answer")

    async def answers():
        return Answer(Status.OK)

    assert elsewhere_done(lambda: at_once(waits())) is None
    assert closed == [True]
    assert at_once(answers()) == Answer(Status.OK)
    with pytest.raises(DnsError):
        at_once(fails())

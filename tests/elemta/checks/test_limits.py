"""limits: what is counted for whom, reserved at RCPT TO, final when the message is accepted, given back when not."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import ValidationError

from elemta.case import Case
from elemta.checks import limits
from elemta.checks.limits import Limits, LimitsOptions
from elemta.config.load import load
from elemta.config.problems import ConfigErrors
from elemta.engine import Engine
from elemta.facts import Client, Envelope, Message, parse_ip
from elemta.policy import Policy
from elemta.store import StoreError
from elemta.store.sqlite import SqliteStore
from elemta.testing import tools

HOUR = 3600.0


def envelope(instance="i.1", recipients=("r@other.test",), login="anna", **more):
    client = Client(address=parse_ip(more.pop("address", "192.0.2.44")), login=login)
    return Envelope(client, more.pop("sender", "anna@example.org"), tuple(recipients), instance=instance, **more)


class World:
    """A policy with limits, the state store of its own, and a clock that stands still."""

    def __init__(self, directory):
        self.directory, self.now = directory, 1_800_000_000.0

    def policy(self, options, rules="recipient: [{id: over, when: {limits: fail}, then: defer}]"):
        path = self.directory / "policy.yaml"
        path.write_text(f"host: mx.test\nchecks: {{limits: {options}}}\nrules: {{{rules}}}\n")
        return Policy.compile(load(path))

    def live(self, steps, policy):
        """What the coroutine function `steps` gives, called with an open engine."""

        async def run():
            store = SqliteStore(str(self.directory / "state.db"))
            engine = Engine(policy, tools(store=store, clock=lambda: self.now))
            await engine.open()
            try:
                return await asyncio.wait_for(steps(engine), 30)
            finally:
                await engine.close()
                await store.close()

        return asyncio.run(run())

    def sends(self, *mails, policy=None, options="{per_login: {key: login, count: recipients, windows: {1h: 5}}}"):
        """For each mail (instance, recipients, whether accepted in the end), which recipients passed, "+" or "-"."""

        async def steps(engine):
            found = []
            for number, (count, accepted) in enumerate(mails):
                found.append(await self.mail(engine, f"{self.now}.{number}", count, accepted))
            return " ".join(found)

        return self.live(steps, policy or self.policy(options))

    async def mail(self, engine, instance, count, accepted=True, **more):
        case, passed = Case(engine), ""
        for number in range(count):
            decision = await case.recipient(envelope(instance, [f"r{number}@other.test"], **more))
            passed += "-" if decision.verdict.disposition == "defer" else "+"
        if accepted:
            await case.accepted(envelope(instance, (), recipient_count=passed.count("+"), **more))
        else:
            await case.given_up(envelope(instance, (), **more))
        return passed


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_recipients_within_the_limit_pass(world):
    assert world.sends((3, True), (3, True), (1, True)) == "+++ ++- -"


def test_what_is_given_up_is_not_counted(world):
    assert world.sends((5, False), (5, False), (4, True), (2, True)) == "+++++ +++++ ++++ +-"


def test_messages_are_counted_once_whatever_their_recipients(world):
    options = "{m: {key: login, windows: {1h: 2}}}"
    assert world.sends((4, True), (9, True), (1, True), options=options) == "++++ +++++++++ -"


def test_the_finding_tells_which_how_much_and_how_long(world):
    async def steps(engine):
        for number in range(2):
            await world.mail(engine, f"i.{number}", 2)
        passed = await Case(engine).recipient(envelope("i.9"))
        await world.mail(engine, "i.10", 1)
        world.now += 60
        return passed, await Case(engine).recipient(envelope("i.11", login="ANNA"))

    options = "{per_login: {key: login, count: recipients, windows: {1h: 6, 1d: 100}}}"
    passed, refused = world.live(steps, world.policy(options))
    [finding] = [each for each in passed.findings if each.check == "limits"]
    assert finding.fields == {
        "name": "per_login", "value": "anna", "used": 4, "max": 6, "window": HOUR, "wait": 0,
    }  # fmt: skip
    [finding] = [each for each in refused.findings if each.check == "limits"]
    assert finding.reason == "per_login of anna: 6 of 6 recipients in 1h were used before"
    assert finding.fields["used"] == 6
    assert (finding.result, finding.fields["name"], finding.fields["max"]) == ("fail", "per_login", 6)
    assert HOUR - 120 < finding.fields["wait"] < HOUR + 60


def test_the_reply_of_the_contract(world):
    rule = (
        "recipient: [{id: over-limit, when: {limits: fail}, then: defer, reply: "
        '"450 4.7.1 Limit {limits.name} reached ({limits.used} of {limits.max}); try again in {limits.wait}"}]'
    )
    policy = world.policy("{per_login: {key: login, count: recipients, windows: {1m: 2}}}", rule)

    async def steps(engine):
        await world.mail(engine, "i.1", 2)
        return (await Case(engine).recipient(envelope("i.2"))).verdict.reply

    assert world.live(steps, policy) in {
        f"450 4.7.1 Limit per_login reached (2 of 2); try again in {wait}" for wait in ("1m", "1m 1s")
    }


@pytest.mark.parametrize(
    ("options", "first", "second", "same"),
    [
        ("{key: login, windows: {1h: 1}}", {"login": "anna"}, {"login": "Anna"}, True),
        ("{key: login, windows: {1h: 1}}", {"login": "anna"}, {"login": "bert"}, False),
        ("{key: login, windows: {1h: 1}}", {"login": "b\udcfcd"}, {"login": "B\udcfcD"}, True),  # no UTF-8
        ("{key: client.address, windows: {1h: 1}}", {"login": "a"}, {"login": "b"}, True),
        ("{key: client.address, windows: {1h: 1}}", {}, {"address": "192.0.2.45"}, False),
        ("{key: sender, windows: {1h: 1}}", {}, {"sender": "ANNA@example.ORG"}, True),
        ("{key: sender, windows: {1h: 1}}", {}, {"sender": "anna@example.org."}, True),
        ("{key: sender, windows: {1h: 1}}", {}, {"sender": '"anna"@example.org'}, True),
        ("{key: sender.domain, windows: {1h: 1}}", {}, {"sender": "bert@example.org"}, True),
        ("{key: sender.domain, windows: {1h: 1}}", {}, {"sender": "anna@other.org"}, False),
        ("{key: recipient.domain, windows: {1h: 1}}", {}, {"recipients": ["x@OTHER.test"]}, True),
        ("{key: recipient.domain, windows: {1h: 1}}", {}, {"recipients": ["x@third.test"]}, False),
        ("{key: recipient, windows: {1h: 1}}", {}, {"recipients": ["x@other.test"]}, False),
        ("{key: class, windows: {1h: 1}}", {"login": "a"}, {"login": "b"}, True),
    ],
)
def test_each_value_has_a_count_of_its_own(world, options, first, second, same):
    async def steps(engine):
        decisions = []
        for number, more in enumerate((first, second)):
            case, mail = Case(engine), envelope(f"i.{number}", **more)
            decisions.append((await case.recipient(mail)).verdict.rule)
            await case.accepted(mail)
        return decisions

    assert world.live(steps, world.policy(f"{{one: {options}}}")) == ["", "over" if same else ""]


def test_a_limit_without_its_key_is_about_nobody(world):
    async def steps(engine):
        return await Case(engine).recipient(envelope(login=""))

    found = world.live(steps, world.policy("{per_login: {key: login, windows: {1h: 1}}}"))
    [finding] = [each for each in found.findings if each.check == "limits"]
    assert (finding.result, finding.reason) == ("none", "no limit is about this mail")


def test_classes(world):
    policy = world.policy("{in: {key: client.address, windows: {1h: 1}, classes: [inbound]}}")

    async def steps(engine):
        found = []
        for number, login in enumerate(["anna", "anna", "", ""]):
            found.append(await world.mail(engine, f"i.{number}", 1, login=login))
        return found

    assert world.live(steps, policy) == ["+", "+", "+", "-"]


def test_octets_are_what_the_message_has_in_the_end(world):
    policy = world.policy("{bulk: {key: login, count: octets, windows: {1h: 10K}}}")

    async def mail(engine, instance, announced, size):
        case = Case(engine)
        decision = await case.recipient(envelope(instance, size=announced))
        if not decision.verdict.rule:
            await case.accepted(envelope(instance, (), size=size))
        return decision.verdict.rule

    async def steps(engine):
        return [
            await mail(engine, f"i.{n}", *sizes) for n, sizes in enumerate([(0, 6000), (5000, 0), (4000, 4200), (1, 1)])
        ]

    assert world.live(steps, policy) == ["", "over", "", ""]


def test_several_limits_all_must_have_room(world):
    options = (
        "{a: {key: login, count: recipients, windows: {1h: 3}}, b: {key: client.address, windows: {1m: 2, 1h: 100}}}"
    )
    assert world.sends((1, True), (1, True), (1, True), options=options) == "+ + -"
    world.now += 120
    assert world.sends((1, True), (1, True), options=options) == "+ -"


def test_a_recipient_that_another_rule_refuses_is_not_counted(world):
    rules = (
        "recipient: [{id: over, when: {limits: fail}, then: defer},"
        " {id: no, when: {recipient.local: {glob: 'bad*'}}, then: reject}]"
    )
    policy = world.policy(
        "{m: {key: login, windows: {1h: 1}}, r: {key: login, count: recipients, windows: {1h: 2}}}", rules
    )

    async def steps(engine):
        found = []
        case = Case(engine)
        for local in ("bad1", "bad2", "bad3", "good1", "bad4", "good2"):
            decision = await case.recipient(envelope("i.1", [f"{local}@other.test"]))
            found.append(decision.verdict.rule)
        await case.accepted(envelope("i.1", (), recipient_count=2))
        found.append((await Case(engine).recipient(envelope("i.2"))).verdict.rule)
        return found

    assert world.live(steps, policy) == ["no", "no", "no", "", "no", "", "over"]


@pytest.mark.parametrize(
    ("key", "asked", "then", "rules"),
    [
        ("recipient", ("good@a.test", "bad@a.test"), "bad@a.test", ["", "no", ""]),
        ("recipient", ("good@a.test", "bad@a.test"), "good@a.test.", ["", "no", "over"]),
        ("recipient.domain", ("good@a.test", "bad@b.test"), "x@b.test", ["", "no", ""]),
        ("recipient.domain", ("good@a.test", "bad@a.test"), "x@a.test", ["", "no", "over"]),
        ("recipient.domain", ("good@a.test", "bad@b.test", "good@b.test"), "x@b.test", ["", "no", "", "over"]),
    ],
)
def test_messages_to_a_recipient_that_another_rule_refuses_are_not_counted(world, key, asked, then, rules):
    policy = world.policy(
        f"{{m: {{key: {key}, windows: {{1h: 1}}}}}}",
        "recipient: [{id: over, when: {limits: fail}, then: defer},"
        " {id: no, when: {recipient.local: {glob: 'bad*'}, sender: anna@example.org}, then: reject}]",
    )

    async def steps(engine):
        case = Case(engine)
        found = [(await case.recipient(envelope("i.1", [each]))).verdict.rule for each in asked]
        await case.accepted(envelope("i.1", (), recipient_count=len(asked) - 1))
        last = await Case(engine).recipient(envelope("i.2", [then], sender="other@example.org"))
        return [*found, last.verdict.rule]

    assert world.live(steps, policy) == rules


def test_a_recipient_that_is_named_again_and_refused_stays_counted(world):
    rules = (
        "recipient: [{id: over, when: {limits: fail}, then: defer},"
        " {id: many, when: {recipient.count: {ge: 2}}, then: defer}]"
    )
    policy = world.policy("{r: {key: login, count: recipients, windows: {1h: 9}}}", rules)

    async def steps(engine):
        case = Case(engine)
        found = [
            (await case.recipient(envelope("i.1", ["r@other.test"], recipient_count=count))).verdict.rule
            for count in (1, 2)
        ]
        await case.accepted(envelope("i.1", ["r@other.test"], recipient_count=1))
        return found, (await Case(engine).recipient(envelope("i.2"))).findings[-1].fields["used"]

    assert world.live(steps, policy) == (["", "many"], 1)


@pytest.mark.parametrize("key", ["recipient", "recipient.domain", "login"])
def test_octets_to_several_recipients_are_what_the_message_has_in_the_end(world, key):
    policy = world.policy(f"{{o: {{key: {key}, count: octets, windows: {{1h: 10K}}}}}}")

    async def steps(engine):
        case = Case(engine)
        for recipient in ("a@a.test", "b@b.test"):
            await case.recipient(envelope("i.1", [recipient]))
        await case.accepted(envelope("i.1", (), recipient_count=2, size=20_000))
        return (await Case(engine).recipient(envelope("i.2", ["b@b.test"], size=10))).verdict.rule

    assert world.live(steps, policy) == "over"


def test_a_recipient_for_whom_no_rule_asks_is_not_counted(world):
    rules = (
        "recipient: [{id: ours, when: {recipient.domain: ours.test}, then: accept},"
        " {id: over, when: {limits: fail}, then: defer}]"
    )
    policy = world.policy("{r: {key: login, count: recipients, windows: {1h: 2}}}", rules)

    async def steps(engine):
        case = Case(engine)
        for recipient in ("a@ours.test", "b@ours.test", "c@ours.test", "d@other.test"):
            await case.recipient(envelope("i.1", [recipient]))
        await case.accepted(envelope("i.1", (), recipient_count=4))
        second = await Case(engine).recipient(envelope("i.2"))
        return second.verdict.rule, second.values["limits"], second.findings[-1].fields["used"]

    assert world.live(steps, policy) == ("", "pass", 1)


def test_what_the_milter_refuses_is_given_back(world):
    rules = (
        "recipient: [{id: over, when: {limits: fail}, then: defer}],"
        " message: [{id: virus, when: {subject: virus}, then: reject}]"
    )
    policy = world.policy("{m: {key: login, windows: {1h: 1}}}", rules)

    async def steps(engine):
        found = []
        for number, subject in enumerate([b"virus", b"hello", b"hello"]):
            case, whole = Case(engine), envelope(f"i.{number}", queue_id=f"Q{number}")
            found.append((await case.recipient(whole)).verdict.rule)
            await case.accepted(whole)  # Postfix asks the policy service first
            mail = Message(whole, ((b"From", b" a@b.test"), (b"Subject", b" " + subject)))
            found.append((await Case(engine).message(mail)).verdict.rule)
            await asyncio.sleep(0)
            await asyncio.gather(*engine._adding)
        return found

    assert world.live(steps, policy) == ["", "virus", "", "", "over", ""]


def test_what_the_milter_cannot_do_is_given_back(world):
    """Its edits failed, and the mail was deferred: each new attempt would count."""
    policy = world.policy("{m: {key: login, windows: {1h: 1}}}")

    async def steps(engine):
        found = []
        for number in range(2):
            case, whole = Case(engine), envelope(f"i.{number}", queue_id=f"Q{number}")
            found.append((await case.recipient(whole)).verdict.rule)
            await case.accepted(whole)
            engine.undone(await Case(engine).message(Message(whole)))
            await asyncio.sleep(0)
            await asyncio.gather(*engine._adding)
        return found

    assert world.live(steps, policy) == ["", ""]


def test_a_message_asked_about_at_data_only(world):
    async def steps(engine):
        found = []
        for number, count in enumerate([4, 3, 1]):
            case, whole = Case(engine), envelope(f"i.{number}", (), recipient_count=count)
            decision = await case.whole(whole)
            found.append(decision.verdict.rule)
            if not decision.verdict.rule:
                await case.accepted(whole)
        return found

    policy = world.policy("{per_login: {key: login, count: recipients, windows: {1m: 5}}}")
    assert world.live(steps, policy) == ["", "over", ""]


def test_the_end_of_a_message_may_come_to_another_worker_and_twice(world):
    async def steps(engine):
        await Case(engine).recipient(envelope("i.1", ["a@other.test"]))
        await Case(engine).recipient(envelope("i.1", ["b@other.test"]))  # another worker: no case is shared
        for _ in range(2):
            case = Case(engine)
            whole = envelope("i.1", (), recipient_count=2)
            assert (await case.whole(whole)).verdict.rule == ""
            await case.accepted(whole)
        return (await Case(engine).recipient(envelope("i.2"))).findings[-1].fields["used"]

    policy = world.policy("{per_login: {key: login, count: recipients, windows: {1h: 50}}}")
    assert world.live(steps, policy) == 2


@pytest.mark.parametrize("then", ["reject", "discard"])
def test_a_whole_message_whose_recipients_may_have_been_accepted_is_not_refused_for_good(world, then):
    banned = "add_to_set: {set: banned, value: '{client.address}'}"
    rules = f"recipient: [{{id: over, when: {{limits: fail}}, then: defer}}, {{id: rest, then: {then}, {banned}}}]"
    rules += "}\nsets: {banned: {dynamic: true}"
    policy = world.policy("{per_login: {key: login, count: recipients, windows: {1h: 50}}}", rules)

    async def steps(engine):
        whole = envelope("i.1", (), recipient_count=2)
        return [(await Case(engine).whole(whole, sure=sure)).verdict for sure in (True, False)]

    sure, not_sure = world.live(steps, policy)
    assert (sure.rule, sure.disposition) == ("rest", then)
    assert (not_sure.rule, not_sure.disposition) == ("rest", "defer")
    assert not_sure.reply.startswith("451 4.7.1 Not now")
    assert (len(sure.actions), len(not_sure.actions)) == (1, 0)


def test_nor_is_it_where_the_limits_cannot_be_asked(world):
    policy = world.policy("{trouble: reject, per_login: {key: login, count: recipients, windows: {1h: 50}}}")

    async def steps(engine):
        async def reserve(*_):
            raise StoreError("gone")

        engine.tools.store.reserve = reserve
        whole = envelope("i.1", (), recipient_count=2)
        return [(await Case(engine).whole(whole, sure=sure)).verdict for sure in (True, False)]

    sure, not_sure = world.live(steps, policy)
    assert (sure.rule, sure.disposition) == ("trouble:limits", "reject")
    assert (not_sure.rule, not_sure.disposition, not_sure.reply[:3]) == ("trouble:limits", "defer", "451")


def test_whole_messages_are_not_judged_by_rules_about_recipients(world):
    rules = (
        "recipient: [{id: relay, when: {recipient.domain: {not: {in: [ours.test]}}}, then: reject},"
        " {id: over, when: {limits: fail}, then: defer}]"
    )
    policy = world.policy("{per_login: {key: login, count: recipients, windows: {1h: 50}}}", rules)

    async def steps(engine):
        whole = await Case(engine).whole(envelope("i.1", (), recipient_count=2))
        single = await Case(engine).recipient(envelope("i.2"))
        return whole.verdict.rule, len(whole.trace), single.verdict.rule

    assert world.live(steps, policy) == ("", 2, "relay")


def test_where_postfix_never_says_the_end(world, monkeypatch, caplog):
    monkeypatch.setattr(limits, "SILENT", 3)
    options = "{m: {key: login, windows: {1h: 4}}}"
    assert world.sends(*[(1, False)] * 8, options=options) == "+ + + + + + - -"
    assert "Postfix never says END-OF-MESSAGE" in caplog.text


def test_postfix_that_has_once_said_the_end_is_not_silent(world, monkeypatch, caplog):
    monkeypatch.setattr(limits, "SILENT", 3)
    mails = [(1, True), *[(1, False)] * 8, *[(1, True)] * 4]
    assert world.sends(*mails, options="{m: {key: login, windows: {1h: 4}}}") == "+ " * 12 + "-"
    assert "limits: " not in caplog.text  # nothing is warned of


def test_messages_that_were_refused_do_not_tell_that_postfix_is_silent(world, monkeypatch, caplog):
    monkeypatch.setattr(limits, "SILENT", 3)
    rules = (
        "recipient: [{id: over, when: {limits: fail}, then: defer}, {id: no, when: {sender: bad@x.test}, then: reject}]"
    )

    async def steps(engine):
        for number in range(9):
            await world.mail(engine, f"i.{number}", 1, accepted=False, sender="bad@x.test")
        return await world.mail(engine, "j.0", 2, accepted=False), await world.mail(engine, "j.1", 2)

    assert world.live(steps, world.policy("{m: {key: login, windows: {1h: 1}}}", rules)) == ("++", "++")
    assert "END-OF-MESSAGE" not in caplog.text


def test_a_store_that_does_not_answer_is_trouble_and_costs_no_accepted_mail(world, caplog):
    async def steps(engine):
        async def locked(*_):
            raise StoreError("state.db: database is locked")

        engine.tools.store.reserve = engine.tools.store.consume = locked
        case = Case(engine)
        decision = await case.recipient(envelope())
        await case.accepted(envelope())
        return decision.verdict

    verdict = world.live(steps, world.policy("{m: {key: login, windows: {1h: 4}}}"))
    assert (verdict.disposition, verdict.rule) == ("defer", "trouble:limits")
    assert "check limits did not count: state.db: database is locked" in caplog.text


def test_a_store_that_hangs_keeps_no_accepted_mail_waiting(world, caplog):
    async def steps(engine):
        async def hangs(*_):
            await asyncio.sleep(60)

        engine.tools.store.consume = engine.tools.store.release = hangs
        case = Case(engine, budget=0.1)
        began = time.monotonic()
        await case.accepted(envelope())
        await case.given_up(envelope())
        return time.monotonic() - began

    assert world.live(steps, world.policy("{m: {key: login, windows: {1h: 4}}}")) < 5
    assert caplog.text.count("check limits did not count: no answer in time") == 1


def test_mails_that_are_not_counted_are_told_of_in_one_line_a_minute(world, monkeypatch, caplog):
    async def steps(engine):
        count = engine.tools.store.consume

        async def away(*_):
            raise StoreError("redis://127.0.0.1:6379: Connection refused.")

        async def accept(mails):
            for number in range(mails):
                await Case(engine).accepted(envelope(f"i.{number}"))
            told = [record.getMessage() for record in caplog.records]
            caplog.clear()
            return told

        engine.tools.store.consume = away
        assert await accept(1000) == ["check limits did not count: redis://127.0.0.1:6379: Connection refused."]
        monkeypatch.setattr("elemta.engine.UNCOUNTED_EVERY", 0.0)  # a minute is over
        [told] = await accept(1)
        assert told.endswith("refused.; 999 more were not counted since it was told last")
        monkeypatch.setattr("elemta.engine.UNCOUNTED_EVERY", 60.0)
        assert await accept(5) == []
        engine.tools.store.consume = count
        assert await accept(5) == []
        monkeypatch.setattr("elemta.engine.UNCOUNTED_EVERY", 0.0)
        assert await accept(5) == ["check limits counts again; 5 more were not counted since it was told last"]

    caplog.set_level("INFO", "elemta.engine")
    world.live(steps, world.policy("{m: {key: login, windows: {1h: 4}}}"))


def test_without_a_rule_that_asks_nothing_is_counted(world):
    async def steps(engine):
        return engine.counting, (await Case(engine).recipient(envelope())).verdict.rule

    assert world.live(steps, world.policy("{m: {key: login, windows: {1h: 4}}}", "recipient: []")) == ((), "")


# ── the configuration ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            "{m: {key: logn, windows: {1h: 4}}}",
            'checks.limits.m.key: "logn" is nothing that can be counted for; did you',
        ),
        ("{m: {key: subject, windows: {1h: 4}}}", "nothing that can be counted for; write login, client.address"),
        ("{m: {key: size, windows: {1h: 4}}}", "nothing that can be counted for"),
        ("{m: {key: login, windows: {1 hour: 4}}}", '"1 hour" is not a duration'),
        ("{m: {key: login, windows: {1h: 0}}}", "too small"),
        ("{m: {key: login, windows: {0: 4}}}", "limits.m.windows: a window is a second at least; write 1s or more"),
        ("{m: {key: login, windows: {0.000001ms: 4}}}", "a second at least"),
        ("{m: {key: login, windows: {1h: 4, 60m: 5}}}", 'limits.m.windows: "60m" is as long as "1h"; keep one'),
        ("{m: {key: login, windows: {}}}", "too few"),
        ("{m: {key: login}}", 'the key "windows" is missing'),
        ("{m: {key: login, windows: {1h: 4}, cuont: messages}}", 'unknown key "cuont"'),
        ("{m: {key: login, windows: {1h: 4}, count: mails}}", 'unknown word "mails"'),
        ("{m: {key: login, windows: {1h: 4}, classes: [inbond]}}", 'limits.m.classes: there is no class "inbond"; did'),
        ("{m: 4}", "checks.limits.m"),
        ("{classes: [inbond]}", 'checks.limits.classes: there is no class "inbond"'),
    ],
)
def test_mistakes(world, options, complaint):
    with pytest.raises(ConfigErrors) as caught:
        world.policy(options)
    assert complaint in str(caught.value)


def test_windows_are_written_as_they_are_read():
    options = LimitsOptions(per_login={"key": "login", "windows": {"1h": 200, "1d": "1K"}})
    assert dict(options.named["per_login"].windows) == {HOUR: 200, 86400.0: 1024}
    assert options.model_dump(mode="json")["per_login"]["windows"] == {"1h": "200", "1d": "1K"}
    with pytest.raises(ValidationError):
        LimitsOptions(per_login={"key": "login", "windows": {"1h": -1}})


def test_it_is_asked_for_one_recipient():
    assert Limits.per_recipient

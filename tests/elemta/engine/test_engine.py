"""The engine: checks run when their facts are known, trouble means what the policy says, nothing raises."""

import asyncio
import threading
import time
from typing import ClassVar

import pytest
import uvloop

from elemta import plugins
from elemta.case import Case
from elemta.check import UNTIL, Check, Field, Options
from elemta.config.problems import ConfigErrors
from elemta.decision import MATCHED
from elemta.dns import DEADLINE
from elemta.engine import Engine
from elemta.facts import Client, Envelope, Message
from elemta.findings import Finding, Result
from elemta.rules.ruleset import Ruleset
from elemta.store import Grey
from elemta.testing import FakeResolver, envelope, judge, message, policy, tools
from elemta.verdict import Action, ActionKind, Disposition


class Early(Check[Client]):
    """Does it run early?"""

    name = "early"

    async def run(self, facts, seen):
        return self.finding(Result.PASS, f"helo {facts.helo}")


class Scan(Check[Message]):
    """What does a scanner say that behaves as its option tells?"""

    name = "scan"
    after = ("early",)
    trouble: ClassVar = "defer"

    class Options(Options):
        does: str = "pass"

    async def run(self, facts, seen):
        match self.options.does:
            case "crash":
                raise KeyError("bug")
            case "refuse":
                raise ConnectionRefusedError("nobody there")
            case "hang":
                await asyncio.sleep(60)
            case "exit":
                raise SystemExit(1)
        return self.finding(Result(self.options.does), f"after {seen['early'].reason}" if "early" in seen else "")


class Count(Check[Envelope]):
    """How often was it asked?"""

    name = "count"
    per_recipient = True
    asked = 0

    async def run(self, facts, seen):
        type(self).asked += 1
        return self.finding(Result.FAIL)


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    found = plugins.find_checks() | {check.name: check for check in (Early, Scan, Count)}
    monkeypatch.setattr("elemta.policy.find_checks", lambda: found)
    Count.asked = 0


def make(does="pass", more="", rules="[]", recipient="[]", options=""):
    return policy(f"""
host: mx.receiver.test
classes: {{submission: {{login: {{exists: true}}}}, inbound: {{}}}}
checks: {{early: , scan: {{does: {does}{options}}}{more}}}
rules: {{message: {rules}, recipient: {recipient}}}
""")


def found(decision, check):
    return next(finding for finding in decision.findings if finding.check == check)


def test_every_enabled_check_leaves_a_finding():
    decision = judge(make(more=", count: , spf: "), message())

    assert {finding.check for finding in decision.findings} == {"early", "scan", "count", "spf"}
    assert set(decision.timings) == {"early", "scan", "spf"}
    assert found(decision, "count").reason == "made at RCPT TO only, where a rule asks for it"


def test_a_check_sees_what_it_waits_for():
    assert found(judge(make(), message()), "scan").reason == "after helo client.test"


def test_checks_that_wait_for_each_other_are_a_mistake(monkeypatch):
    monkeypatch.setattr(Early, "after", ("scan",))
    with pytest.raises(ConfigErrors, match=r":4:9: checks: checks wait for each other: (early|scan) after "):
        make()


def test_what_a_check_waits_for_may_be_absent():
    of = policy("host: mx.receiver.test\nchecks: {scan: }")

    assert found(judge(of, message()), "scan").reason == ""


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("crash", "crashed: KeyError: 'bug'"),
        ("refuse", "ConnectionRefusedError: nobody there"),
        ("hang", "no answer within the mail's budget of 0.05 s"),
        ("hang, timeout: 10ms", "no answer within 0.01 s"),
    ],
)
def test_trouble_is_a_finding_and_defers_by_default(does, reason, caplog):
    decision = judge(make(does), message(), budget=0.05)

    assert found(decision, "scan").result is Result.TEMPERROR
    assert found(decision, "scan").reason == reason
    assert decision.verdict.disposition is Disposition.DEFER
    assert decision.verdict.rule == "trouble:scan"
    assert decision.verdict.reply.startswith("451 4.3.0 ")
    assert decision.id in decision.verdict.reply


class Stuck(Check[Client]):
    """Does it ever answer?"""

    name = "stuck"

    async def run(self, facts, seen):
        await asyncio.sleep(60)


def test_early_checks_are_not_waited_for_longer_than_the_budget(monkeypatch):
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"stuck": Stuck})
    decision = judge(policy("host: mx.test.example\nchecks: {stuck: }\n"), message(), budget=0.05)

    assert found(decision, "stuck").reason == "no answer within the mail's budget of 0.05 s"
    assert decision.verdict.rule == "trouble:stuck"


class Hangs:
    """A store that waits for one thing, or tries again and again, as one does that is locked by others."""

    def __init__(self, nap):
        self.nap, self.asked = nap, 0

    async def greylist(self, *_):
        self.asked += 1
        until = time.monotonic() + 60
        while time.monotonic() < until:  # noqa: ASYNC110 - it stands for a file that is locked
            await asyncio.sleep(self.nap)

    reserve = greylist


def on_uvloop(work):
    """The daemons' loop, where timers that are near each other come together."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@pytest.mark.parametrize("nap", [60.0, 0.0005, 0.0])
def test_all_checks_that_rules_at_rcpt_ask_for_share_one_budget(nap, monkeypatch):
    monkeypatch.setattr(asyncio, "run", on_uvloop)
    of = policy("""
host: mx.receiver.test
checks: {greylist: , limits: {each: {key: sender, windows: {1h: 5}}}}
rules: {recipient: [{id: new, when: {greylist: fail}, label: new}, {id: full, when: {limits: fail}, label: full}]}
""")
    began = time.monotonic()
    store = Hangs(nap)
    decision = judge(of, envelope(), store=store, budget=1.0)

    assert time.monotonic() - began < 1.9
    assert store.asked >= 1
    for check in ("greylist", "limits"):
        assert found(decision, check).trouble
        assert "budget of 1 s" in found(decision, check).reason


GREYLISTED = (
    "host: mx.test\nchecks: {greylist: }\nrules: {recipient: [{id: new, when: {greylist: fail}, then: defer}]}\n"
)


def test_whoever_is_cut_off_while_the_store_hangs_gets_no_answer():
    async def run():
        case = Case(Engine(policy(GREYLISTED), tools(store=Hangs(60.0))), budget=30.0)
        asked = asyncio.create_task(case.recipient(envelope()))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(run())


def test_a_connection_whose_check_came_too_late_lives_on():
    """Its task is not left as one that somebody wants to end."""

    async def run():
        case = Case(Engine(policy(GREYLISTED), tools(store=Hangs(60.0))), budget=0.05)
        for _ in range(2):
            assert found(await case.recipient(envelope()), "greylist").reason.endswith("budget of 0.05 s")
            assert asyncio.current_task().cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)

    asyncio.run(run())


def test_whoever_is_cut_off_in_the_turn_in_which_its_check_comes_too_late_gets_no_answer():
    async def run():
        case = Case(Engine(policy(GREYLISTED), tools(store=Hangs(60.0))), budget=0.05)
        asked = asyncio.create_task(case.recipient(envelope()))
        asyncio.get_running_loop().call_later(0.02, time.sleep, 0.1)
        asyncio.get_running_loop().call_later(0.06, asked.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(run())


class TwoTooLate:
    """A case of which an early check has come too late, and another waits that a rule at RCPT TO asks for."""

    text = """
host: mx.test
checks: {stuck: , greylist: }
rules: {recipient: [{id: one, when: {stuck: fail}, label: one}, {id: new, when: {greylist: fail}, then: defer}]}
"""

    def __init__(self, monkeypatch):
        found = plugins.find_checks() | {"stuck": Stuck}
        monkeypatch.setattr("elemta.policy.find_checks", lambda: found)
        self.case = Case(Engine(policy(self.text), tools(store=Hangs(60.0))), budget=0.05)


def test_a_connection_of_whose_checks_two_came_too_late_lives_on(monkeypatch):
    two = TwoTooLate(monkeypatch)

    async def run():
        decision = await two.case.recipient(envelope())
        assert [found(decision, check).trouble for check in ("stuck", "greylist")] == [True, True]
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(run())


def test_whoever_is_cut_off_after_an_early_check_came_too_late_gets_no_answer(monkeypatch):
    two = TwoTooLate(monkeypatch)

    async def run():
        await two.case.recipient(envelope())
        asked = asyncio.create_task(two.case.recipient(envelope()))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(run())


@pytest.mark.parametrize(
    ("trouble", "login", "disposition"),
    [
        ("accept", "", "accept"),
        ("reject", "", "reject"),
        ("quarantine", "", "quarantine"),
        ("{inbound: accept}", "", "accept"),
        ("{inbound: accept}", "anna", "defer"),  # not named: the check's own default
        ("{submission: reject, inbound: accept}", "anna", "reject"),
    ],
)
def test_trouble_means_what_the_policy_says_by_class(trouble, login, disposition):
    of = make("refuse", options=f", trouble: {trouble}")

    assert judge(of, message(envelope(login=login))).verdict.disposition == disposition


@pytest.mark.parametrize(
    ("rules", "disposition"),
    [
        ("[{id: a, when: {early: pass}, then: reject}]", "reject"),  # never weakened
        ("[{id: a, when: {early: pass}, then: accept}]", "accept"),  # the answer could not have mattered
        ("[{id: v, when: {scan: fail}, then: reject}, {id: a, then: accept}]", "defer"),  # it could
        ("[{id: v, mode: shadow, when: {scan: fail}, then: reject}, {id: a, then: accept}]", "accept"),
        ("[{id: v, when: {scan: fail}, then: reject}, {id: t, when: {scan: temperror}, then: accept}]", "accept"),
        ("[{id: v, when: {scan: fail}, then: reject}]", "defer"),
        ("[{id: v, mode: shadow, when: {scan: fail}, then: reject}]", "defer"),  # as without the rule
        ("[]", "defer"),
    ],
)
def test_trouble_weighs_only_where_the_answer_could_have_mattered(rules, disposition):
    assert judge(make("refuse", rules=rules), message()).verdict.disposition == disposition


def test_a_rule_may_ask_whether_any_check_could_not_answer():
    of = policy("""
host: mx.test
checks: {attachments: }
rules: {message: [{id: late, when: {attachments: temperror}, then: quarantine}]}
tests: [{name: x, given: {attachments: temperror}, expect: {rule: late}}]
""")
    assert not of.run_tests()


@pytest.mark.parametrize(("mode", "disposition"), [("enforce", "defer"), ("shadow", "accept")])
def test_trouble_of_what_only_a_shadow_rule_asks_for_at_rcpt_has_no_effect(mode, disposition):
    of = policy(f"""
host: mx.test
checks: {{greylist: }}
rules: {{recipient: [{{id: new, mode: {mode}, when: {{greylist: fail}}, then: defer}}]}}
tests: [{{name: x, stage: recipient, given: {{greylist: temperror}}, expect: {{then: {disposition}}}}}]
""")
    decision = judge(of, envelope(), store=Hangs(60.0), budget=0.1)

    assert found(decision, "greylist").trouble
    assert decision.verdict.disposition == disposition
    assert not of.run_tests()


def test_a_check_for_other_classes_says_so():
    decision = judge(make(options=", classes: [submission]"), message())

    assert found(decision, "scan").result is Result.NONE
    assert found(decision, "scan").reason == "not made for class inbound"


def test_a_counting_check_runs_only_when_a_rule_asks():
    of = make(
        more=", count: ",
        recipient="[{id: a, when: {login: anna}, then: accept}, {id: c, when: {count: fail}, then: defer}]",
    )

    assert judge(of, envelope(login="anna")).verdict.rule == "a"
    assert Count.asked == 0
    assert found(judge(of, envelope(login="anna")), "count").reason == "no rule that was read asks for it"
    assert judge(of, envelope()).verdict.rule == "c"
    assert Count.asked == 1


def test_findings_are_shared_by_the_recipients_of_a_mail():
    resolver = FakeResolver({"sender.test": [("TXT", "v=spf1 -all")]})
    of = policy(
        "host: mx.test\nchecks: {spf: , iprev: }\nrules: {recipient: [{id: s, when: {spf: fail}, then: reject}]}"
    )

    async def two():
        engine = Engine(of, tools(resolver))
        case = Case(engine)
        return [await case.recipient(envelope(recipients=[name])) for name in ("a@x.test", "b@x.test")]

    first, second = asyncio.run(two())
    assert (first.verdict.rule, second.verdict.rule) == ("s", "s")
    assert first.id != second.id
    assert [each.facts.recipients for each in (first, second)] == [("a@x.test",), ("b@x.test",)]
    assert resolver.asked.count(("sender.test", "TXT")) == 1
    assert not any(rdtype == "PTR" for _, rdtype in resolver.asked)  # no rule at RCPT TO asks for iprev
    assert found(first, "iprev").reason == "no rule at RCPT TO asks for it"


def test_recipients_are_counted_as_they_come():
    """Postfix tells the policy service how many there are at DATA and later only."""
    of = make(
        recipient="[{id: no, when: {recipient.local: no}, then: reject},"
        " {id: many, when: {recipient.count: {ge: 3}}, then: defer}]"
    )

    async def several():
        case = Case(Engine(of, tools()))
        names = ("a", "no", "b", "b", "a", "c")  # one may be asked about at several stages
        return [(await case.recipient(envelope(recipients=[f"{name}@x.test"]))).verdict.rule for name in names]

    assert asyncio.run(several()) == ["", "no", "", "", "", "many"]


def test_early_checks_run_before_the_message_is_complete():
    resolver = FakeResolver()

    async def go():
        engine = Engine(policy("host: mx.receiver.test\nchecks: {spf: }"), tools(resolver))
        assert engine.wants.early
        assert not engine.wants.body
        case = Case(engine)
        case.start(envelope())
        await asyncio.sleep(0.01)
        asked = len(resolver.asked)
        decision = await case.message(message())
        return asked, decision

    asked, decision = asyncio.run(go())
    assert asked > 0
    assert len(resolver.asked) == asked
    assert found(decision, "spf").result is Result.NONE


@pytest.mark.parametrize(
    ("enabled", "rules", "signs", "body"),
    [
        ("spf: ", "[]", False, False),
        ("spf: , scan: ", "[]", False, True),
        ("spf: ", "[{id: a, when: {size: {gt: 1M}}, then: reject}]", False, True),  # the client may announce any
        ("spf: ", "[]", True, True),
    ],
)
def test_who_looks_at_the_body_is_given_it(monkeypatch, enabled, rules, signs, body):
    class Signs:
        needs_body = True

    monkeypatch.setattr("elemta.policy.find_parts", lambda settings: ({"sign": Signs()} if signs else {}, []))
    of = policy(f"host: mx.test.example\nchecks: {{{enabled}}}\nrules: {{message: {rules}}}\n")
    assert Engine(of, tools()).wants.body == body


def test_warnings_are_told_once_an_hour_and_not_remembered_without_bound(monkeypatch, caplog):
    monkeypatch.setattr("elemta.engine.WARNINGS", 3)
    engine = Engine(make(), tools())
    for text in ("a", "a", "b", "c", "d", "a"):
        engine.warn("scan", text)
    assert [record.getMessage()[-1] for record in caplog.records] == ["a", "b", "c", "d", "a"]


def test_cancelling_a_mail_ends_its_checks():
    async def go():
        engine = Engine(make("hang"), tools())
        case = Case(engine)
        waiting = asyncio.ensure_future(case.message(message()))
        await asyncio.sleep(0.01)
        waiting.cancel()
        case.cancel()
        await asyncio.sleep(0.01)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(go()) == []


def test_a_client_that_goes_away_after_mail_from_ends_its_checks(monkeypatch):
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"stuck": Stuck})

    async def go():
        case = Case(Engine(policy("host: mx.test.example\nchecks: {stuck: }\n"), tools()))
        case.start(envelope())
        await asyncio.sleep(0.01)
        case.cancel()
        await asyncio.sleep(0.01)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(go()) == []


def test_a_rule_can_fill_a_dynamic_set_that_rules_read():
    of = policy("""
host: mx.receiver.test
sets: {frozen: {dynamic: true}}
rules:
  message:
    - {id: frozen, when: {login: {in: frozen}}, then: reject}
    - {id: freeze, when: {subject: spam}, add_to_set: {set: frozen, value: "{login}", ttl: 1h}}
""")

    async def go():
        engine = Engine(of, tools())
        await engine.open()
        spam = message(envelope(login="Anna"), [("Subject", "spam")])
        first = await Case(engine).message(spam)
        await Case(engine).message(message(envelope(), [("Subject", "spam")]))  # whose login is no entry
        await asyncio.sleep(1.3)  # the snapshot is taken anew once a second
        second = await Case(engine).message(message(envelope(login="anna")))
        entries = await engine.tools.store.set_entries("frozen", 0.0)
        await engine.close()
        return first, second, entries

    first, second, entries = asyncio.run(go())
    assert list(entries) == ["Anna"]
    assert first.verdict.disposition is Disposition.ACCEPT
    assert second.verdict.rule == "frozen"


def test_a_worker_that_begins_after_a_set_changed_has_the_new_one_for_its_first_mail(tmp_path, caplog):
    path = tmp_path / "set.txt"
    path.write_text("a.test\n")
    of = policy(
        f"host: mx.test\nsets: {{bad: {{file: {path}}}}}\n"
        "rules: {recipient: [{id: bad, when: {sender.domain: {in: bad}}, then: reject}]}"
    )
    path.write_text("a.test\nb.test\n")
    assert judge(of, envelope(sender="x@b.test")).verdict.rule == "bad"
    path.unlink()
    assert judge(of, envelope(sender="x@a.test")).verdict.rule == "bad"
    assert "set bad stays as it was" in caplog.text


class Slow(FakeResolver):
    """Has to be waited for."""

    async def query(self, name, rdtype):
        await asyncio.sleep(0)
        return await super().query(name, rdtype)


def test_a_mail_is_judged_at_once_when_nothing_is_left_to_wait_for():
    of = policy("host: mx.receiver.test\nchecks: {spf: }\nrules: {message: [{id: s, when: {spf: none}, then: reject}]}")

    async def go():
        engine = Engine(of, tools(Slow()))
        case = Case(engine)
        before = case.message_now(message())
        case.start(envelope())
        running = case.message_now(message())
        await asyncio.sleep(0.01)
        return before, running, await asyncio.to_thread(case.message_now, message())

    before, running, done = asyncio.run(go())
    assert before is None
    assert running is None
    assert done.verdict.rule == "s"
    assert found(done, "spf").result is Result.NONE


def test_a_check_that_ends_the_program_costs_its_finding_only(caplog):
    decision = judge(make("exit"), message())

    assert found(decision, "scan").reason == "crashed: SystemExit: 1"
    assert decision.verdict.rule == "trouble:scan"


def test_trusted_names_a_set_or_a_network():
    with pytest.raises(ConfigErrors) as raised:
        policy("host: mx.test\nsets: {inside: [10.0.0.0/8]}\nmilter: {trusted: [insid, 10.0.0.1/8, inside, 192.0.2.1]}")

    assert 'milter.trusted[0]: "insid" is neither a set nor a network; did you mean "inside"?' in str(raised.value)
    assert 'milter.trusted[1]: there is no such set, and "10.0.0.1/8" is no network' in str(raised.value)
    assert len(raised.value.problems) == 2


class Proposes(Check[Message]):
    """What would it change?"""

    name = "proposes"

    async def run(self, facts, seen):
        edits = (Action(ActionKind.ADD_HEADER, "X-Seen", "yes", rule="not mine to say"),)
        return Finding(self.name, Result.PASS, edits=edits)


@pytest.mark.parametrize(
    ("options", "rules", "wanted"),
    [
        ("{edits: true}", "[]", [("add_header", "X-Seen", "yes", "check:proposes")]),
        ("", "[]", []),
        ("{edits: false}", "[]", []),
        ("{edits: true}", "[{id: no, when: {proposes: pass}, then: reject}]", []),
        (
            "{edits: true}",
            "[{id: tag, when: {proposes: pass}, add_header: {X-Tag: a}}]",
            [("add_header", "X-Tag", "a", "tag"), ("add_header", "X-Seen", "yes", "check:proposes")],
        ),
    ],
)
def test_a_check_asks_for_edits_of_kept_mail_where_the_policy_lets_it(monkeypatch, options, rules, wanted):
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"proposes": Proposes})
    decision = judge(
        policy(f"host: mx.test.example\nchecks: {{proposes: {options}}}\nrules: {{message: {rules}}}\n"), message()
    )
    actions = [(action.kind.value, action.name, action.value, action.rule) for action in decision.verdict.actions]
    assert actions == wanted


class Impatient(Check[Message]):
    """How long is it waited for?"""

    name = "impatient"
    fields: ClassVar = {"left": Field(float, "seconds"), "dns": Field(float, "seconds")}

    async def run(self, facts, seen):
        now = time.monotonic()
        return self.finding(Result.PASS, left=UNTIL.get() - now, dns=DEADLINE.get() - now)


@pytest.mark.parametrize(("options", "low", "high"), [("", 20, 25), ("{timeout: 2s}", 0, 2)])
def test_a_check_knows_how_long_it_is_waited_for(monkeypatch, options, low, high):
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"impatient": Impatient})
    decision = judge(policy(f"host: mx.test.example\nchecks: {{impatient: {options}}}\n"), message())
    assert low < found(decision, "impatient").fields["left"] <= high


def test_the_time_for_dns_begins_anew_when_the_message_is_complete(monkeypatch):
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"impatient": Impatient})

    async def go():
        case = Case(Engine(policy("host: mx.test.example\nchecks: {impatient: }\ndns: {budget: 5s}\n"), tools()))

        async def at_mail():
            case.start(envelope())

        await asyncio.create_task(at_mail())  # each step is a task of its own, as those of libmilter's threads are
        return await case.message(message())

    assert 4 < found(asyncio.run(go()), "impatient").fields["dns"] <= 5


class Dawdles(Check[Message]):
    """How long does it take?"""

    name = "dawdles"

    async def run(self, facts, seen):
        await asyncio.sleep(1)
        return self.finding(Result.PASS)


def test_what_others_took_before_is_not_the_time_of_a_check_that_waits_for_them(monkeypatch):
    monkeypatch.setattr(Impatient, "after", ("dawdles",))
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"impatient": Impatient, "dawdles": Dawdles})
    of = policy("host: mx.test.example\nchecks: {impatient: , dawdles: }\ndns: {budget: 5s}\n")
    decision = judge(of, message())

    assert found(decision, "impatient").fields["dns"] > 4.1
    assert 0 <= decision.timings["impatient"] < 0.9 < decision.timings["dawdles"] < 5


class Hurried(Check[Envelope]):
    """How long may it ask the name system?"""

    name = "hurried"
    fields: ClassVar = {"dns": Field(float, "seconds")}

    async def run(self, facts, seen):
        return self.finding(Result.PASS, dns=DEADLINE.get() - time.monotonic())


@pytest.mark.parametrize(("facts", "per_recipient"), [(message(), False), (envelope(), False), (envelope(), True)])
def test_the_time_for_dns_is_limited_from_the_start(monkeypatch, facts, per_recipient):
    monkeypatch.setattr(Hurried, "per_recipient", per_recipient)
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"hurried": Hurried})
    rules = "{recipient: [{id: a, when: {hurried: pass}, label: a}]}"
    decision = judge(policy(f"host: mx.test\nchecks: {{hurried: }}\ndns: {{budget: 5s}}\nrules: {rules}\n"), facts)

    assert 4 < found(decision, "hurried").fields["dns"] <= 5


class Leaning(Check[Message]):
    """What does it lean on?"""

    name = "leaning"

    def dependencies(self):
        return {"a": "", "b": "refused"}

    async def run(self, facts, seen):
        return self.finding(Result.PASS)


def test_what_checks_depend_on_is_told_by_check_and_name(monkeypatch):
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"leaning": Leaning, "impatient": Impatient})
    engine = Engine(policy("host: mx.test.example\nchecks: {leaning: , impatient: }\n"), tools())
    assert engine.dependencies("message") == {("leaning", "a"): "", ("leaning", "b"): "refused"}


@pytest.mark.parametrize("says", ["raise KeyError('a bug')", "return 5"])
def test_one_that_cannot_say_what_it_depends_on_hides_no_other(monkeypatch, says):
    """What is told every second, metrics and /readyz, goes on."""
    broken = {}
    exec(f"def dependencies(self): {says}", broken)
    odd = type("Odd", (Leaning,), {"name": "odd", "dependencies": broken["dependencies"]})
    monkeypatch.setattr("elemta.policy.find_checks", lambda: {"odd": odd, "leaning": Leaning})
    engine = Engine(policy("host: mx.test.example\nchecks: {odd: , leaning: }\n"), tools())
    told = engine.dependencies("message")
    assert told["odd", "dependencies"].startswith("crashed: ")
    assert told["leaning", "b"] == "refused"


def test_a_check_waits_for_others_by_its_options():
    checks = "spf: , dkim: , rspamd: {{hand_over: {}}}"
    for hand_over, wanted in (("true", {"spf", "dkim"}), ("false", set())):
        made = policy(f"host: mx.test.example\nchecks: {{{checks.format(hand_over)}}}\n")
        [plan] = [plan for plan in made.checks if plan.name == "rspamd"]
        assert set(plan.after) == wanted


class Answers(Hangs):
    """A store that says at once, or in a moment, that a stranger must wait."""

    async def greylist(self, *_):
        self.asked += 1
        if self.nap:
            await asyncio.sleep(self.nap)
        return Grey(passed=False, wait=60.0, attempts=1)


@pytest.mark.parametrize(("nap", "readings"), [(0.0, 1), (0.01, 2)])
def test_a_check_that_a_rule_asks_for_runs_while_the_rule_is_read(nap, readings, monkeypatch):
    """One that must wait is waited for, and the rules are read again; it is asked once all the same."""
    of = policy("""
host: mx.test
checks: {greylist: }
rules: {recipient: [{id: else, when: {helo: else.test}, then: reject}, {id: new, when: {greylist: fail}, then: defer}]}
""")
    read, decide = [], Ruleset.decide
    monkeypatch.setattr(Ruleset, "decide", lambda self, *given: read.append(self) or decide(self, *given))
    store = Answers(nap)
    decision = judge(of, envelope(), store=store)
    assert (decision.verdict.rule, store.asked, len(read)) == ("new", 1, readings)


@pytest.mark.parametrize("wants", ["when: {greylist: fail}, add_header: {X-Wait: later}", "label: 'x {greylist.wait}'"])
@pytest.mark.parametrize(
    ("reply", "says"), [("", "451 4.7.1 Not now"), (", reply: '450 4.7.1 in {greylist.wait}'", "450 4.7.1 in 1m")]
)
def test_rules_are_read_on_from_where_a_check_was_wanted(wants, reply, says):
    """What the rules before it asked for is asked for once; a shadow rule is told once."""
    of = policy(f"""
host: mx.test
checks: {{greylist: }}
rules:
  recipient:
    - {{id: before, label: first}}
    - {{id: try, mode: shadow, then: reject}}
    - {{id: else, when: {{helo: else.test}}, label: never}}
    - {{id: wants, {wants}}}
    - {{id: new, unless: {{helo: else.test}}, then: defer{reply}}}
    - {{id: after, then: reject}}
""")
    decision = judge(of, envelope(), store=Answers(0.01))
    assert list(decision.trace) == [MATCHED, MATCHED, 0, MATCHED, MATCHED]
    assert decision.shadow == ("try",)
    assert [action.rule for action in decision.verdict.actions] == ["before", "wants"]
    assert decision.verdict.rule == "new"
    assert decision.verdict.reply.startswith(says)


def test_a_reply_may_be_the_first_to_want_a_check():
    of = policy("""
host: mx.test
checks: {greylist: }
rules:
  recipient:
    - {id: new, unless: {login: x}, then: defer, reply: "450 4.7.1 in {greylist.wait}"}
    - {id: after, then: reject}
""")
    decision = judge(of, envelope(), store=Answers(0.01))
    assert (decision.verdict.rule, list(decision.trace)) == ("new", [MATCHED])
    assert decision.verdict.reply == "450 4.7.1 in 1m"


def test_what_was_seen_stands_before_what_was_not_asked():
    of = policy("""
host: mx.test
checks: {iprev: , spf: , greylist: }
rules: {recipient: [{id: spoofed, when: {spf: fail}, then: reject}, {id: new, when: {greylist: fail}, then: defer}]}
""")
    resolver = FakeResolver({"sender.test": [("TXT", "v=spf1 -all")]})
    decision = judge(of, envelope(sender="a@sender.test"), resolver=resolver)
    assert [finding.check for finding in decision.findings] == ["spf", "iprev", "greylist"]


@pytest.mark.parametrize(
    ("octets", "needs_body", "beside"), [(100, True, False), (20_000, True, True), (20_000, False, False)]
)
def test_where_a_large_body_is_looked_at_it_is_judged_beside_the_loop(monkeypatch, octets, needs_body, beside):
    class Noting:
        def see(self, klass, message, seen, verdict):
            return Finding("note", Result.NONE, threading.current_thread().name)

    Noting.needs_body = needs_body
    monkeypatch.setattr("elemta.policy.find_parts", lambda settings: ({"note": Noting()}, []))
    decision = judge(make(), message(body=bytes(octets)))

    assert (found(decision, "note").reason != threading.main_thread().name) == beside
    assert decision.verdict.disposition is Disposition.ACCEPT
    assert decision.facts.body.size == octets
    assert "note" not in {finding.check for finding in judge(make(), envelope()).findings}  # no mail is kept there yet


def test_who_gives_up_while_a_large_body_is_judged_hears_what_was_decided(monkeypatch):
    """Observers hear of it, so somebody must tell them that it was not done."""
    judging, given_up, told = threading.Event(), threading.Event(), []

    class Slow:
        needs_body = True

        def see(self, klass, message, seen, verdict):
            judging.set()
            given_up.wait(10)
            return Finding("slow", Result.NONE)

    monkeypatch.setattr("elemta.policy.find_parts", lambda settings: ({"slow": Slow()}, []))
    observer = type("Told", (), {"decided": staticmethod(told.append)})

    async def run():
        engine = Engine(make(), tools(), [observer])
        await engine.open()
        task = asyncio.create_task(Case(engine).message(message(body=bytes(20_000))))
        await asyncio.to_thread(judging.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        given_up.set()
        return await task

    assert [asyncio.run(run())] == told

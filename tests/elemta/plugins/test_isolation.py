"""An isolated plugin does its worst in a real process: it costs that finding, and the next question is answered."""

import asyncio
import logging
import os
import time

import pytest

from elemta.case import Case
from elemta.engine import Engine
from elemta.facts import BytesBody, Client, Envelope, Message, parse_ip
from elemta.findings import AuthResult, Result
from elemta.testing import envelope, message, policy, tools
from elemta.verdict import Action, ActionKind, Disposition
from harness.daemon import lives

WORST = '''
import asyncio, json, logging, os, signal, socket, sys, time
from elemta.check import CLASS, Check, Field, Options
from elemta.facts import Message
from elemta.findings import AuthResult, Finding, Result
from elemta.verdict import Action, ActionKind

KEPT = []

class Worst(Check[Message]):
    """What does it see, and what does it do besides?"""

    name = "worst"
    after = ("early",)
    fields = {"n": Field(int, "a number"), "words": Field(tuple, "words"), "who": Field(str, "somebody"),
              "process": Field(int, "its process")}

    class Options(Options):
        greeting: str = "hello"

    async def run(self, facts, seen):
        what = facts.header("x-do")[0].decode().strip() if facts.header("x-do") else ""
        fields = {"process": os.getpid()}
        match what:
            case "raise":
                raise KeyError("a bug")
            case "lean":
                self.dependencies = lambda: {"x": 1 / 0}
            case "refuse":
                raise ConnectionRefusedError("nobody there")
            case "spin":
                while True:
                    pass
            case "sleep":
                time.sleep(3600)
            case "nap":
                time.sleep(0.5)
            case "await":
                await asyncio.sleep(3600)
            case "exit":
                os._exit(3)
            case "sysexit":
                sys.exit(5)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "rt":
                os.kill(os.getpid(), signal.SIGRTMIN + 3)
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "eat":
                eaten = []
                while True:
                    eaten.append(bytearray(1 << 20))
            case "leak":
                KEPT.append(bytearray(1 << 20))
            case "garbage":
                os.write(int(sys.argv[1]), b"\\0garbage")
            case "zeros":
                socket.socket(fileno=os.dup(int(sys.argv[1]))).send(b"0" * 150000)
            case "later":
                asyncio.get_running_loop().call_later(0.1, os.write, int(sys.argv[1]), b"{}")
            case "nesting":
                os.write(int(sys.argv[1]), b"[" * 60000)
            case "forge":
                os.write(int(sys.argv[1]), json.dumps({"number": 1, "finding": {"result": "pass"}}).encode())
                os.write(int(sys.argv[1]), json.dumps({"number": 99999, "finding": {"result": "pass"}}).encode())
            case "closed":
                os.close(int(sys.argv[1]))
                time.sleep(3600)
            case "shout":
                for _ in range(1600):
                    os.write(2, b"x" * 99 + b"\\n" + b"y" * 65435 + b"\\n")
            case "say":
                print("hello from \\x1b[31mthe plugin")
                logging.getLogger("worst").warning("careful")
            case "fork":
                if os.fork() == 0:
                    time.sleep(3600)
                os._exit(4)
            case "daemon":
                ours, theirs = os.pipe()
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.write(theirs, str(os.getpid()).encode())
                        time.sleep(3600)
                    os._exit(0)
                os.wait()
                fields["n"] = int(os.read(ours, 20))
            case "nothing":
                return None
            case "type":
                fields["n"] = "seven"
            case "unknown":
                fields["m"] = 7
            case "object":
                fields["n"] = object()
            case "big":
                fields["who"] = "x" * 100000
            case "result":
                return Finding(self.name, "wonderful")
            case "header":
                return Finding(self.name, Result.PASS, header=(("Received", "from nowhere"),))
            case "dkim":
                return Finding(self.name, Result.PASS, authres=(AuthResult("dkim", "pass"),))
            case "addset":
                return Finding(self.name, Result.PASS, edits=(Action(ActionKind.ADD_TO_SET, "a", "b"),))
            case "edit":
                return Finding(self.name, Result.PASS, edits=(Action(ActionKind.ADD_HEADER, "X-Plugin", "was here"),))
            case "see":
                body = b"".join(facts.body.chunks())
                fields |= {"n": len(body), "words": tuple(seen), "who": f"{self.options.greeting} {CLASS.get()}"}
                found = seen["early"]
                fields["words"] += (str(found.fields["address"]), type(found.fields["address"]).__name__)
                fields["words"] += (facts.envelope.sender, str(facts.envelope.client.address))
                return Finding(self.name, Result.PASS, "seen", fields,
                               authres=(AuthResult("worst", "pass", "well", (("policy.words", "a b"),)),))
            case "write":
                os.write(facts.body.descriptor, b"other words")
        return self.finding(Result.PASS, "well", **fields)
'''
EARLY = '''
from ipaddress import IPv4Address
import elemta

class Early(elemta.Check[elemta.Client]):
    """Who is it?"""

    name = "early"
    fields = {"address": elemta.Field(IPv4Address, "its address")}

    async def run(self, facts, seen):
        return self.finding(elemta.Result.PASS, address=facts.address)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "worst.py").write_text(WORST)
    (folder / "early.py").write_text(EARLY)
    return folder


class Judged:
    """One engine for several mails."""

    def __init__(self, folder, *, processes=1, memory="256M", options="", budget=40.0):
        state = folder / "state.db"
        self.policy = policy(f"""
host: mx.receiver.test
state: sqlite://{state}
plugins: {{folder: {folder}, processes: {processes}, memory: {memory}, trusted: [early]}}
checks: {{early: , worst: {options}}}
""")
        self.budget = budget

    async def __aenter__(self):
        self.engine = Engine(self.policy, tools())
        await self.engine.open()
        await self.engine.ahead("message")
        return self

    async def __aexit__(self, *_):
        await self.engine.close()

    async def decide(self, what, *, budget=None, **more):
        headers = [("From", "a@b.test"), *([("X-Do", what)] if what else [])]
        return await Case(self.engine, budget or self.budget).message(message(headers=headers, **more))

    async def see(self, what, **more):
        decision = await self.decide(what, **more)
        assert len(decision.findings) == 2
        return next(finding for finding in decision.findings if finding.check == "worst")

    @property
    def pool(self):
        return self.engine.checks["worst"]._pool


async def gone(pid):
    async with asyncio.timeout(30):
        while lives(pid):  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", "crashed: KeyError: 'a bug'"),
        ("refuse", "ConnectionRefusedError: nobody there"),
        ("sysexit", "crashed: SystemExit: 5"),
        ("nothing", "run must return a Finding, and returned NoneType"),
        ("type", 'the plugin\'s answer: the field n must be int, and is "seven"'),
        ("unknown", 'the plugin\'s answer: the field "m" is not declared; add it to fields'),
        ("object", "its finding cannot be told: Object of type object is not JSON serializable"),
        ("big", "its finding has 100,"),
        ("result", 'the plugin\'s answer: the result "wonderful" is not among those it declares (none, '),
        ("header", "the plugin's answer: Finding.header is for checks in process"),
        ("dkim", 'the plugin\'s answer: authres may tell of the method "worst", or of one that begins with x-; not of'),
        ("addset", "the plugin's answer: add_to_set is no change of a mail"),
    ],
)
def test_what_its_author_did_wrong_is_told_and_the_process_stays(folder, what, reason):
    async def scene():
        async with Judged(folder) as judged:
            before = await judged.see("")
            wrong = await judged.see(what)
            after = await judged.see("")
        assert wrong.trouble
        assert wrong.result is Result.TEMPERROR
        assert wrong.reason.startswith(reason)
        assert before.fields["process"] == after.fields["process"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("spin", "no answer within the mail's budget of 2 s"),
        ("sleep", "no answer within the mail's budget of 2 s"),
        ("await", "no answer within the mail's budget of 2 s"),
        ("shout", "no answer within the mail's budget of 2 s"),
        ("exit", "the plugin's process: it ended with exit status 3"),
        ("kill", "the plugin's process: it was ended by SIGKILL"),
        ("rt", "the plugin's process: it was ended by SIGRTMIN+3"),
        ("segv", "the plugin's process: it was ended by SIGSEGV"),
        ("fork", "the plugin's process: it ended with exit status 4"),
        ("garbage", "the plugin's process: it wrote what is no answer: not the words of our protocol"),
        ("zeros", "the plugin's process: it wrote what is no answer: longer than 64 KiB"),
        ("nesting", "the plugin's process: it wrote what is no answer: not the words of our protocol"),
        ("forge", "the plugin's process: it wrote what is no answer to this question"),
        ("closed", "the plugin's process: it closed its socket"),
        ("eat", "crashed: MemoryError: "),
    ],
)
def test_its_worst_costs_that_finding_and_the_next_question_is_answered(folder, what, reason, caplog):
    async def scene():
        async with Judged(folder) as judged:
            before = await judged.see("")
            decision = await judged.decide(what, budget=2.0 if "budget" in reason else None)
            wrong = next(finding for finding in decision.findings if finding.check == "worst")
            assert wrong.trouble
            assert wrong.reason.startswith(reason)
            assert decision.verdict.disposition is Disposition.DEFER
            assert next(finding for finding in decision.findings if finding.check == "early").result == "pass"
            after = await judged.see("")
            assert after.result == "pass", after.reason
            assert before.fields["process"] != after.fields["process"]
            await gone(before.fields["process"])
        await gone(after.fields["process"])

    caplog.set_level(logging.INFO)
    asyncio.run(scene())
    assert len(caplog.records) < 100


def test_it_sees_the_mail_and_what_others_saw(folder):
    async def scene():
        async with Judged(folder, options="{greeting: good day}") as judged:
            sender = envelope("2001:db8::1", "b\udcfccher@b.test")
            return await judged.see("see", of=sender, body=b"x" * 3_000_000)

    found = asyncio.run(scene())
    words = ("early", "2001:db8::1", "IPv6Address", "b\udcfccher@b.test", "2001:db8::1")
    assert (found.result, found.reason, found.fields["n"]) == (Result.PASS, "seen", 3_000_000)
    assert found.fields["words"] == words
    assert found.fields["who"] == "good day inbound"
    assert found.authres == (AuthResult("worst", "pass", "well", (("policy.words", "a b"),)),)


def test_edits_are_made_where_the_policy_lets_it(folder):
    async def scene(options):
        async with Judged(folder, options=options) as judged:
            return await judged.decide("edit")

    edit = Action(ActionKind.ADD_HEADER, "X-Plugin", "was here", rule="check:worst")
    assert asyncio.run(scene("{edits: true}")).verdict.actions == (edit,)
    assert asyncio.run(scene("{edits: false}")).verdict.actions == ()


def test_what_it_prints_is_in_the_log_with_its_name(folder, caplog):
    async def scene():
        async with Judged(folder) as judged:
            await judged.see("say")
            await judged.see("raise")

    caplog.set_level(logging.INFO)
    asyncio.run(scene())
    assert "plugin worst says: hello from \\x1b[31mthe plugin" in caplog.messages
    assert "plugin worst says: KeyError: 'a bug'" in caplog.messages
    levels = {each.message: each.levelname for each in caplog.records}
    assert levels["plugin worst says: hello from \\x1b[31mthe plugin"] == "INFO"
    assert levels["plugin worst says: WARNING worst: careful"] == "WARNING"


@pytest.mark.parametrize("end", ["exit", "sleep", "leave"])
def test_what_it_has_started_ends_with_it_though_it_left_its_group(folder, end):
    async def scene():
        async with Judged(folder, options="{timeout: 1s}") as judged:
            found = await judged.see("daemon")
            assert lives(found.fields["n"])
            if end != "leave":
                assert (await judged.see(end)).trouble
                await gone(found.fields["n"])
        await gone(found.fields["n"])

    asyncio.run(scene())


def test_words_that_nobody_asked_for_end_the_process(folder):
    async def scene():
        async with Judged(folder) as judged:
            before = await judged.see("later")
            assert before.result == "pass"
            await gone(before.fields["process"])
            after = await judged.see("")
            assert after.result == "pass"
            assert after.fields["process"] != before.fields["process"]

    asyncio.run(scene())


def test_a_process_whose_memory_grows_is_replaced_without_trouble(folder):
    async def scene():
        async with Judged(folder) as judged:
            return [await judged.see("leak") for _ in range(400)]

    found = asyncio.run(scene())
    assert not any(each.trouble for each in found)
    assert 1 < len({each.fields["process"] for each in found}) < 5


def test_mails_side_by_side_wait_for_their_turn(folder):
    async def scene():
        async with Judged(folder, processes=2) as judged:
            return await asyncio.gather(*(judged.see("nap") for _ in range(10)))

    found = asyncio.run(scene())
    assert all(each.result == "pass" for each in found)
    assert len({each.fields["process"] for each in found}) == 2


def test_one_that_hangs_takes_one_process_and_others_answer_meanwhile(folder):
    async def scene():
        async with Judged(folder, processes=2) as judged:
            hanging = asyncio.create_task(judged.see("spin", budget=8.0))
            others = [await judged.see("") for _ in range(5)]
            assert not hanging.done()
            assert all(each.result == "pass" for each in others)
            assert (await hanging).trouble

    asyncio.run(scene())


def test_a_client_that_goes_away_does_not_cost_the_process(folder):
    async def scene():
        async with Judged(folder) as judged:
            before = await judged.see("")
            case = Case(judged.engine, 20.0)
            task = asyncio.create_task(case.message(message()))
            await asyncio.sleep(0)
            task.cancel()
            case.cancel()
            after = await judged.see("")
            assert before.fields["process"] == after.fields["process"]

    asyncio.run(scene())


def test_one_that_always_fails_is_left_alone_and_tried_again(folder, monkeypatch):
    monkeypatch.setattr("elemta.plugins.pool.PAUSE", 0.2)

    async def scene():
        async with Judged(folder) as judged:
            for _ in range(3):
                assert (await judged.see("exit")).reason.endswith("exit status 3")
            left_alone = await judged.see("")
            assert left_alone.reason.startswith("the plugin's process: it is left alone, after 3 failures in a row: ")
            assert judged.engine.dependencies("message")["worst", "process"] == "it ended with exit status 3"
            async with asyncio.timeout(40):
                while (await judged.see("")).trouble:  # noqa: ASYNC110 - it is the engine that is asked
                    await asyncio.sleep(0.05)
            assert judged.engine.dependencies("message")["worst", "process"] == ""

    asyncio.run(scene())


def test_one_that_cannot_say_what_it_depends_on_is_asked_like_any(folder):
    async def scene():
        async with Judged(folder) as judged:
            assert not (await judged.see("lean")).trouble
            told = judged.engine.dependencies("message")
            assert told["worst", "dependencies"] == "crashed: ZeroDivisionError: division by zero"

    asyncio.run(scene())


def test_nothing_is_started_before_it_is_asked(folder):
    async def scene():
        judged = Judged(folder)
        engine = Engine(judged.policy, tools())
        await engine.open()
        await engine.ahead("recipient")  # no rule at RCPT TO asks for it
        assert not engine.checks["worst"]._pool._processes
        await engine.close()

    asyncio.run(scene())


def test_it_ends_with_its_worker(folder):
    """A worker that is killed leaves no process behind, even one that never looks at its socket."""

    async def worker(pipe):
        async with Judged(folder) as judged:
            os.write(pipe, b"%d " % next(iter(judged.pool._processes)).pid)
            await judged.see("spin", budget=60.0)

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(worker(write))
        finally:
            os._exit(1)
    plugin = int(os.read(read, 20))
    assert lives(plugin)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 30
    while lives(plugin) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lives(plugin)


def test_a_body_in_a_file_goes_as_it_is_and_cannot_be_changed(folder, tmp_path):
    from elemta_milter.body import Spool  # noqa: PLC0415

    spool = Spool(str(tmp_path), memory=10)
    spool.append(b"y" * 100_000)
    body = spool.finish()

    async def scene():
        async with Judged(folder) as judged:
            mails = []
            for what in ("see", "write", "see"):
                mail = Message(Envelope(Client(parse_ip("192.0.2.1")), "a@b.test"), ((b"X-Do", what.encode()),), body)
                decision = await Case(judged.engine).message(mail)
                mails.append(next(each for each in decision.findings if each.check == "worst"))
            return mails

    first, second, third = asyncio.run(scene())
    assert first.fields["n"] == third.fields["n"] == 100_000
    assert second.trouble
    assert b"".join(body.chunks()) == b"y" * 100_000
    assert isinstance(message().body, BytesBody)


@pytest.mark.parametrize(("what", "result"), [("nap", "pass"), ("sleep", "temperror")])
def test_a_question_under_way_is_answered_when_the_worker_ends(folder, what, result):
    async def scene():
        async with Judged(folder) as judged:
            asked = asyncio.create_task(judged.see(what))
            await asyncio.sleep(0.2)
        return await asked

    found = asyncio.run(scene())
    assert found.result == result
    assert found.reason in ("well", "the plugin's process: the worker is ending")


def test_one_that_cannot_start_is_trouble_with_the_reason_and_does_not_stop_the_worker(folder, tmp_path):
    state = tmp_path / "state.db"
    state.write_bytes(b"this is no database" * 100)

    async def scene():
        judged = Judged(folder)
        settings = judged.policy.settings.model_copy(update={"state": f"sqlite://{state}"})
        object.__setattr__(judged.policy, "settings", settings)
        async with judged:
            return await judged.see("")

    found = asyncio.run(scene())
    assert found.trouble
    assert "it cannot start: StoreError: " in found.reason


def test_all_that_hang_and_then_answer_again(folder, monkeypatch):
    """The breaker opens while every process is in use; it must not stay open for good."""
    monkeypatch.setattr("elemta.plugins.pool.FAILURES", 1)
    monkeypatch.setattr("elemta.plugins.pool.PAUSE", 0.1)

    async def scene():
        async with Judged(folder, processes=2) as judged:
            hanging = asyncio.create_task(judged.see("sleep", budget=4.0))
            await judged.see("exit")
            assert (await hanging).trouble
            async with asyncio.timeout(40):
                while (await judged.see("")).trouble:  # noqa: ASYNC110 - it is the engine that is asked
                    await asyncio.sleep(0.05)

    asyncio.run(scene())

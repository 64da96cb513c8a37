"""The processes of a plugin: which one answers, and what does a start that takes long cost?"""

import asyncio
import os

import pytest

from elemta.case import Case
from elemta.engine import Engine
from elemta.testing import message, policy, tools

SLOW = '''
import asyncio, os, pathlib
from elemta import Check, Field, Message, Result

class Slow(Check[Message]):
    """Which process is it?"""

    name = "slow"
    fields = {"process": Field(int, "its process")}

    async def open(self):
        while pathlib.Path("WAIT").exists():
            await asyncio.sleep(0.02)
        if pathlib.Path("FAIL").exists():
            raise OSError("not today")

    async def run(self, facts, seen):
        await asyncio.sleep(0.5 if pathlib.Path("NAP").exists() else 0.02)
        return self.finding(Result.PASS, process=os.getpid())
'''


@pytest.fixture
def scene(tmp_path):
    """Run a coroutine function with a way to ask the plugin, once one process of up to three is ready."""
    text = SLOW
    for word in ("WAIT", "FAIL", "NAP"):
        text = text.replace(word, str(tmp_path / word.lower()))
    (tmp_path / "slow.py").write_text(text)
    rules = policy(f"""
host: mx.receiver.test
state: sqlite://{tmp_path}/state.db
plugins: {{folder: {tmp_path}, processes: 3, memory: 256M}}
checks: {{slow: }}
""")

    async def run(play):
        engine = Engine(rules, tools())
        await engine.open()

        async def see(budget=20.0):
            decision = await Case(engine, budget).message(message())
            return next(finding for finding in decision.findings if finding.check == "slow")

        try:
            await engine.ahead("message")
            return await play(see, engine.checks["slow"]._pool)
        finally:
            await engine.close()

    return lambda play: asyncio.run(run(play))


def test_a_burst_does_not_wait_for_a_start_while_a_process_is_free(scene, tmp_path):
    async def play(see, pool):
        first = await see()
        (tmp_path / "wait").touch()
        found = await asyncio.gather(*(see(4.0) for _ in range(20)))
        assert {each.reason for each in found if each.trouble} == set()
        assert {each.fields["process"] for each in found} == {first.fields["process"]}
        assert len(pool._usable) == 3, "never more than there may be, however many were asked meanwhile"
        (tmp_path / "wait").unlink()
        async with asyncio.timeout(20):
            while len({each.fields["process"] for each in await asyncio.gather(*(see() for _ in range(9)))}) < 3:
                pass
        return [each.pid for each in pool._processes]

    for pid in scene(play):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_starts_that_fail_cost_nothing_while_another_process_answers(scene, tmp_path):
    async def play(see, pool):
        await see()
        (tmp_path / "wait").touch()
        found = await asyncio.gather(*(see() for _ in range(5)))
        (tmp_path / "fail").touch()
        (tmp_path / "wait").unlink()
        async with asyncio.timeout(20):
            while pool._starting:  # noqa: ASYNC110 - it sets no event
                await asyncio.sleep(0.02)
        (tmp_path / "fail").unlink()
        found += [await see(), *await asyncio.gather(*(see() for _ in range(9)))]
        assert {each.reason for each in found if each.trouble} == set()

    scene(play)


def test_a_question_that_nobody_else_can_answer_is_told_why_none_started(scene, tmp_path):
    async def play(see, pool):
        (tmp_path / "fail").touch()
        next(iter(pool._processes)).kill()
        return await see()

    assert scene(play).reason == "the plugin's process: it cannot start: OSError: not today"


def test_the_last_of_a_burst_cost_no_process(scene, tmp_path):
    """They get it when hardly any time is left."""

    async def play(see, pool):
        first = await see()
        (tmp_path / "wait").touch()  # there is but one
        (tmp_path / "nap").touch()
        found = await asyncio.gather(*(see(2.0) for _ in range(12)))
        assert 1 <= sum(not each.trouble for each in found) <= 4
        (tmp_path / "nap").unlink()
        assert (pool.why, pool._failures) == ("", 0)
        assert (await see()).fields == first.fields

    scene(play)

"""A plugin fails in every way its author can think of: each class gets what `trouble` says, in time.

It runs as plugins do, in processes of its own; what it does stands in a file, which its condition is: well or not.
"""

import re

import pytest

from harness.daemon import Daemon, free_port
from harness.watching import CLASSES, TROUBLE, Watch, by_milter, wait_until

pytestmark = pytest.mark.live

WITHIN = 6.0  # seconds for a mail whose budget is 3 s
PLUGIN = '''
import asyncio, os, signal, sys, time
from pathlib import Path
from elemta import Check, Finding, Message, Options, Result

class Ill(Check[Message]):
    """Is it well?"""

    name = "ill"

    class Options(Options):
        condition: str

    async def run(self, facts, seen):
        match Path(self.options.condition).read_text():
            case "refuse":
                raise ConnectionRefusedError(111, "Connection refused")
            case "raise":
                raise KeyError("a bug")
            case "spin":
                while True:
                    pass
            case "slow":
                await asyncio.sleep(60)
            case "exit":
                os._exit(3)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "garbage":
                os.write(int(sys.argv[1]), bytes([0, 255]) + b"garbage")
            case "cut":
                os.write(int(sys.argv[1]), b'{"number": 1, "finding": {"resu')
                os._exit(0)
            case "nothing":
                return None
            case "busy":
                await asyncio.sleep(0.2)
        return self.finding(Result.PASS, "well")
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "ill.py").write_text(PLUGIN)
    (folder / "condition").write_text("well")
    return folder


@pytest.fixture(scope="module")
def watch(folder):
    policy = f"""
plugins: {{folder: {folder}}}
{CLASSES}
checks:
  ill: {{condition: {folder}/condition, timeout: 1s, {TROUBLE}}}
"""
    with Daemon("milter", policy, workers=1, metrics=free_port(), own="budget: 3s") as daemon:
        yield Watch(daemon, by_milter)


@pytest.fixture(autouse=True)
def condition(watch, folder):
    """Each test begins and ends with a plugin that is well."""
    kept = folder / "condition"
    watch.answers_again("ill")
    yield kept
    kept.write_text("well")
    watch.answers_again("ill")


def both_answer(watch):
    carried = watch.together(["accept.test"] * 2)
    return not any(watch.finding(watch.entry(each.sender), "ill").trouble for each in carried)


@pytest.mark.parametrize(
    ("ill", "told"),
    [
        ("spin", "did not answer in time"),
        ("slow", "did not answer in time"),
        ("exit", "exit status 3"),
        ("killed", "SIGKILL"),
        ("garbage", "what is no answer"),
        ("cut", "what is no answer"),
    ],
)
def test_its_process_fails_and_is_left_alone(watch, condition, ill, told):
    condition.write_text(ill)
    # two processes are asked by four mails: some wait for one that takes the place of one that failed
    watch.cell("ill", f"{told}|no answer within 1 s|left alone", WITHIN)
    watch.carry("accept.test")
    watch.left_alone("ill", "process")
    assert re.search(f"plugin ill.*({told})", watch.daemon.log())
    condition.write_text("well")
    watch.comes_back("ill", "process")


@pytest.mark.parametrize(
    ("ill", "told"), [("refuse", "Connection refused"), ("raise", "KeyError"), ("nothing", "Finding|finding")]
)
def test_it_answers_that_it_cannot(watch, condition, ill, told):
    """Its process is well: it is asked again for each mail."""
    condition.write_text("busy")
    wait_until(lambda: both_answer(watch))  # a process that must be started may take longer than a mail has
    condition.write_text(ill)
    watch.cell("ill", told, WITHIN)
    condition.write_text("well")
    assert watch.carry("reject.test").verdict == "accept"

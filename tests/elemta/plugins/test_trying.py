"""Code that would take the process that imports it along: is it found out elsewhere?"""

import pytest

from elemta.config.model import Plugins
from elemta.plugins import trying
from elemta.plugins.finding import find_plugins

GOOD = '''
from elemta import Check, Message
print("imported")
class Bad(Check[Message]):
    """Is it good?"""
    name = "bad"
    async def run(self, facts, seen):
        return self.finding("pass")
'''


@pytest.fixture
def found(tmp_path):
    def find(code):
        (tmp_path / "bad.py").write_text(code)
        plugins, problems = find_plugins(Plugins(folder=str(tmp_path)), ["bad"], ())
        return plugins, [problem.message for problem in problems]

    return find


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os\nos._exit(0)", "its code ends the process that runs it, with exit status 0"),
        ("import ctypes\nctypes.string_at(0)", "its code ends the process that runs it by SIGSEGV"),
        ("while True: pass", "its code does not come to an end within 0.5 s"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "its code does not come to an end within 0.5 s"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
    ],
)
def test_its_import_is_deadly(found, monkeypatch, code, why):
    monkeypatch.setattr(trying, "SECONDS", 0.5)
    plugins, [problem] = found(code + GOOD)
    assert plugins == {}
    assert problem.startswith("the plugin cannot be used: ")
    assert problem.endswith(why)


def test_what_lives_is_imported_here_and_says_what_it_says_once(found, capfd):
    plugins, problems = found(GOOD)
    assert list(plugins) == ["bad"]
    assert problems == []
    assert capfd.readouterr().out == "imported\n"

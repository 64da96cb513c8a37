"""Plugins are found in packages and in the folder, imported only where named, and told what is wrong with them."""

import os
import sys
import textwrap

import pytest

from elemta.config.model import Plugins
from elemta.config.problems import ConfigErrors
from elemta.plugins import built_in, find_checks, find_plugins, known_plugins
from elemta.policy import Policy
from elemta.testing import judge, message, policy

GOOD = """
import elemta

class Good(elemta.Check[elemta.Message]):
    '''Is it good?'''
    name = "good"
    fields = {"words": elemta.Field(int, "how many")}

    class Options(elemta.Options):
        least: int = elemta.Setting(1, description="so many at least")

    async def run(self, facts, seen):
        return self.finding(elemta.Result.PASS, words=VALUE)

VALUE = 1
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package as pip does: its module, and a dist-info with its entry points."""

    def install(name, text, entry_points):
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / f"{name}.py").write_text(textwrap.dedent(text))
        info = site / f"{name}-1.5.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[elemta.checks]\n{entry_points}\n")
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))

    yield install
    for each in [name for name in sys.modules if name.startswith("acme")]:
        del sys.modules[each]


def compiled(folder, checks="{good: }", more="", **plugins):
    written = "".join(f", {key}: {value}" for key, value in plugins.items())
    return policy(f"host: mx.test.example\nplugins: {{folder: {folder}{written}}}\nchecks: {checks}\n{more}")


def mistake(*args, **more):
    with pytest.raises(ConfigErrors) as errors:
        compiled(*args, **more)
    return str(errors.value)


def test_a_file_of_the_folder_is_a_check_like_any_other(folder):
    (folder / "good.py").write_text(GOOD)
    rules = "rules: {message: [{id: a, when: {good: pass, good.words: {lt: 2}}, then: reject}]}"
    of = compiled(folder, "{good: {least: 2, trouble: accept}}", rules)

    assert judge(of, message()).verdict.rule == "a"
    assert of.checks[0].options.least == 2
    assert of.checks[0].plugin.source.path == str(folder / "good.py")
    assert not of.checks[0].plugin.trusted


def test_a_file_of_the_folder_is_a_module_like_any_other(folder):
    modern = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    modern += "@dataclass\nclass Pair:\n    one: int\n    two: int = 2\n"
    (folder / "good.py").write_text(modern + GOOD.replace("VALUE = 1", "VALUE = len(__file__)"))
    [finding] = judge(compiled(folder, trusted="[good]"), message()).findings
    assert finding.fields["words"] == len(str(folder / "good.py"))


def test_its_options_are_checked_with_their_place(folder):
    (folder / "good.py").write_text(GOOD)
    text = mistake(folder, "{good: {leest: 2}}")
    assert ':3:17: checks.good: unknown key "leest"; did you mean "least"?' in text


def test_a_package_is_found_by_its_entry_point(installed):
    installed("acme", GOOD, "good = acme:Good")
    of = compiled('""')

    assert of.checks[0].plugin.source.package == "acme"
    assert str(of.checks[0].plugin.source) == "acme 1.5"


def test_a_file_or_entry_point_may_be_called_otherwise(folder, installed):
    (folder / "my_file.py").write_text(GOOD)
    assert compiled(folder).checks[0].kind.name == "good"
    installed("acme", GOOD.replace('"good"', '"better"'), "acme = acme")
    assert compiled(folder, "{better: }").checks[0].kind.name == "better"


def test_what_is_not_enabled_runs_no_code(folder, installed):
    (folder / "good.py").write_text(GOOD)
    never = f"open({str(folder / 'ran')!r}, 'w')"
    (folder / "bad.py").write_text(never)
    installed("acme", never, "other = acme:Check")
    assert compiled(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_like_this", "good.py:1: ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("x = 1\n1 / 0", "good.py:2: ZeroDivisionError: division by zero"),
        ("def f(:", "good.py:1: invalid syntax"),
        ("import sys\nsys.exit(3)", "good.py:2: SystemExit: 3"),
        ("x = 1", "good.py: no check is there; write a class Name(elemta.Check[elemta.Message]) with async def run"),
        (GOOD.replace('name = "good"', 'name = "a b"'), "Good: it needs a name of letters, digits, - and _"),
        (GOOD.replace('"good"', '"sender"'), 'Good: the name "sender" means something else in rules; take another'),
        (GOOD.replace('"good"', '"header"'), 'Good: the name "header" means something else in rules; take another'),
        (GOOD.replace('"good"', '"not"'), 'Good: the name "not" means something else in rules; take another'),
        (GOOD.replace("'''Is it good?'''", ""), "Good: it needs a docstring whose first line is the question"),
        (GOOD.replace("[elemta.Message]", ""), "Good must say what it looks at"),
        (GOOD.replace("async def", "def"), "Good: run must be a coroutine"),
        (GOOD.replace("(int,", "(dict,"), "Good: the field words must be of type str, int, float, bool, IPv4Address"),
        (GOOD.replace('"how many"', '""'), "Good: the field words must say what it means"),
        (GOOD.replace('"how many"', '"how many", domain=True'), "Good: the field words is no text: it has no words"),
        (
            GOOD.replace('(int, "how many"', '(str, "which", words=("A",)'),
            "Good: the words of the field words must be a",
        ),
        (GOOD.replace("elemta.Field(int", "(int"), "Good: the field words must be a Field"),
        (GOOD.replace('"words"', '"a.b"'), 'Good: the field "a.b" needs a name of letters, digits and _'),
        (GOOD.replace("VALUE = 1", "Good.trouble = 'panic'"), "Good: trouble must be accept, defer, reject or quar"),
        (GOOD.replace("VALUE = 1", "Good.results = ['pass']"), "Good: results must be a tuple of elemta.Result"),
        (GOOD.replace("VALUE = 1", "Good.after = 'spf'"), "Good: after must be a tuple of names"),
        (GOOD.replace("VALUE = 1", "Good.Options = dict"), "Good: Options must be a subclass of elemta.Options"),
        (GOOD.replace("VALUE = 1", "Good.fields = 5"), "Good: fields must be a mapping"),
    ],
)
def test_what_is_wrong_with_it_is_told(folder, text, reason):
    (folder / "good.py").write_text(text)
    told = mistake(folder)
    assert ":3:10: checks: the plugin cannot be used: " in told
    assert reason in told


def test_a_name_that_nobody_has(folder):
    (folder / "broken.py").write_text("1 / 0")
    told = mistake(folder)
    assert 'there is no check "good"; these plugins cannot be used: ' in told
    assert "broken.py:1: ZeroDivisionError" in told
    (folder / "broken.py").unlink()
    assert 'there is no check "good"' in mistake(folder)


def test_two_with_one_name(folder, installed):
    (folder / "good.py").write_text(GOOD)
    installed("acme", GOOD, "good = acme:Good")
    assert f'two plugins have the name "good": acme 1.5 and {folder}/good.py; remove one' in mistake(folder)


def test_the_name_of_a_built_in_check(folder):
    (folder / "spf.py").write_text(GOOD.replace('"good"', '"spf"'))
    assert f'the name "spf" of the plugin {folder}/spf.py is that of a built-in check' in mistake(folder, "{spf: }")


@pytest.mark.parametrize(
    ("trusted", "reason"),
    [
        ("[goof]", 'there is no plugin "goof"; did you mean "good"?'),
        ("[spf]", '"spf" is built in; remove it'),
        ("[good]", ""),
    ],
)
def test_trusted_names_plugins(folder, trusted, reason):
    (folder / "good.py").write_text(GOOD)
    if reason:
        assert reason in mistake(folder, trusted=trusted)
    else:
        assert compiled(folder, trusted=trusted).checks[0].plugin.trusted


def test_one_that_counts_must_be_trusted(folder):
    counting = GOOD.replace("VALUE = 1", "VALUE = 1\nasync def told(self, facts): pass\nGood.message_accepted = told")
    (folder / "good.py").write_text(counting)
    assert "which is told in process only; write `plugins: {trusted: [good]}`" in mistake(folder)
    assert compiled(folder, trusted="[good]")


def test_a_folder_that_is_not_there(tmp_path):
    assert "plugins.folder: " in mistake(tmp_path / "none", "{spf: }")
    assert "no such file or directory" in mistake(tmp_path / "none", "{spf: }")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_may_write_is_not_executed(folder, what):
    (folder / "good.py").write_text(GOOD)
    ((folder / "good.py") if what == "file" else folder).chmod(0o777)
    assert "others may write to it (mode 777); chmod go-w" in mistake(folder)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "it is not a file"),
        (lambda path: path.symlink_to("nowhere"), "no such file or directory"),
        (lambda path: path.write_text(GOOD + "#" * (1 << 20)), "it is longer than 1 MiB"),
    ],
)
def test_what_cannot_be_read_is_not_executed(folder, make, why):
    make(folder / "good.py")
    assert f"the plugin cannot be used: {folder}/good.py: {why}" in mistake(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_executed(folder):
    (folder / "good.py").write_text(GOOD)
    os.chown(folder / "good.py", 65534, 65534)
    assert "it belongs to user 65534" in mistake(folder)


def test_a_changed_file_is_read_at_the_next_load(folder):
    for value in (1, 2, 3):  # the same size, and most likely the same second
        (folder / "good.py").write_text(GOOD.replace("VALUE = 1", f"VALUE = {value}"))
        [finding] = judge(compiled(folder), message()).findings
        assert finding.fields["words"] == value
    old = compiled(folder)
    (folder / "good.py").write_text("1 / 0")
    mistake(folder)
    assert judge(old, message()).findings[0].fields["words"] == 3, "the old policy goes on with the old code"


def test_a_changed_package_is_imported_anew(installed):
    for value in (1, 22):
        installed("acme", GOOD.replace("VALUE = 1", f"VALUE = {value}"), "good = acme:Good")
        for trusted in ("[]", "[good]"):  # in a process of its own, and in this one
            [finding] = judge(compiled('""', trusted=trusted), message()).findings
            assert finding.fields["words"] == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os\nos._exit(3)", "acme 1.5: its code ends the process that runs it, with exit status 3"),
        ("import sys\nsys.exit(3)", "entry point good = acme:Good: "),
        ("Good = 1", "entry point good = acme:Good: neither a check class nor a package of them"),
        ("class Good: pass", "entry point good = acme:Good: neither a check class nor a package of them"),
    ],
)
def test_what_is_wrong_with_a_package_is_told(installed, text, reason):
    installed("acme", text, "good = acme:Good")
    assert f"checks: the plugin cannot be used: {reason}" in mistake('""')


def test_known_plugins(folder, installed):
    (folder / "good.py").write_text(GOOD)
    (folder / "broken.py").write_text("1 / 0")
    (folder / "_shared.py").write_text("1 / 0")
    (folder / "old.py~").write_text("1 / 0")
    (folder / "more.py").write_text("from elemta.checks.iprev import Iprev" + GOOD.replace('"good"', '"better"'))
    installed("acme", "raise RuntimeError('never')", "other = acme:Other\nwanted = acme:Wanted")
    own = built_in(find_checks())
    known = {each.name: each for each in known_plugins(Plugins(folder=str(folder)), ["good", "wanted", "spf"], own)}

    assert known.keys() == {"better", "broken", "geoip", "good", "other", "wanted", "webhook"}
    assert known["good"].plugin
    assert known["good"].enabled
    assert "ZeroDivisionError" in known["broken"].why
    assert not known["other"].why, "its code was not run"
    assert "RuntimeError: never" in known["wanted"].why


def test_every_check_of_ours_keeps_the_contract():
    from elemta.plugins.contract import complaint  # noqa: PLC0415

    assert {name: text for name, check in find_checks().items() if (text := complaint(check))} == {}
    assert {"geoip", "webhook"} == find_checks().keys() - built_in(find_checks())


def test_a_relative_folder_is_beside_the_file_that_names_it(tmp_path, folder, monkeypatch):
    from elemta.config.load import loaded_and  # noqa: PLC0415

    (folder / "good.py").write_text(GOOD)
    (tmp_path / "elemta.yaml").write_text("host: mx.test\nplugins: {folder: plugins}\nchecks: {good: }\n")
    monkeypatch.chdir("/")
    assert loaded_and(Policy.compile, tmp_path / "elemta.yaml").checks[0].plugin.source.path == str(folder / "good.py")


def test_nothing_wanted_nothing_found():
    assert find_plugins(Plugins(), [], ()) == ({}, [])

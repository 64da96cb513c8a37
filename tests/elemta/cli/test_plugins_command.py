"""`elemta plugin new` writes what works; `elemta plugins` and `config` tell of plugins."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from msgspec.structs import replace

from elemta.cli import main
from elemta.decision import new_id
from elemta.findings import Finding, Result
from elemta.testing import judge, message, policy
from harness.journal import JournalWriter


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plugin", "new", "big-shout"]) == os.EX_OK
    out = capsys.readouterr().out
    assert "pytest elemta-big-shout" in out
    assert "pip install ./elemta-big-shout" in out  # without ./ it is what somebody else may have put into a registry
    return tmp_path / "elemta-big-shout"


def configured(tmp_path, folder, checks="{big-shout: }", more=""):
    path = tmp_path / "elemta.yaml"
    path.write_text(f"""
host: mx.test.example
journal: {{path: {tmp_path}/journal.db}}
state: sqlite://{tmp_path}/state.db
plugins: {{folder: {folder}}}
checks: {checks}
{more}""")
    return str(path)


def test_the_skeletons_test_passes(new):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(new)],
        capture_output=True,
        text=True,
        check=False,
        cwd=new,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_skeleton_can_be_installed_and_used(new, tmp_path, capsys):
    project = tomllib.loads((new / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["elemta.checks"] == {"big-shout": "elemta_big_shout:BigShoutCheck"}
    assert project["tool"]["setuptools"]["py-modules"] == ["elemta_big_shout"]
    of = policy(f"host: mx.test.example\nplugins: {{folder: {new}}}\nchecks: {{big-shout: {{share: 0.5}}}}")
    [finding] = judge(of, message(headers=[("Subject", "BUY now")])).findings
    assert (finding.check, finding.result) == ("big-shout", "fail")
    assert main(["config", "check", configured(tmp_path, new)]) == os.EX_OK


@pytest.mark.parametrize("name", ["spf", "sender", "any", "9lives", "a b", "../x", "Ä"])
def test_names_that_are_none(name, capsys):
    assert main(["plugin", "new", name]) == os.EX_USAGE
    assert "elemta plugin new: " in capsys.readouterr().err


def test_nothing_is_overwritten(new, capsys):
    assert main(["plugin", "new", "big-shout"]) == os.EX_CANTCREAT
    assert "is there already" in capsys.readouterr().err


def test_plugins_tells_of_each(new, tmp_path, capsys):
    (new / "broken.py").write_text("1 / 0")
    config = configured(tmp_path, new)
    writer = JournalWriter(str(tmp_path / "journal.db"), lambda *_, **__: None)
    writer.open()
    of = policy(f"host: mx.test.example\nplugins: {{folder: {new}}}\nchecks: {{big-shout: }}")
    decision = judge(of, message())
    trouble = Finding("big-shout", Result.TEMPERROR, "it ended with exit status 3", trouble=True)
    for findings in (decision.findings, (trouble,)):
        writer.decided(replace(decision, findings=findings, id=new_id()))
    writer.close()

    assert main(["plugins", "--config", config, "--json"]) == os.EX_OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {"big-shout", "broken", "geoip", "webhook"}
    shout = rows["big-shout"]
    assert (shout["enabled"], shout["runs"], shout["sees"]) == (True, "isolated", "message")
    assert shout["from"] == f"{new}/elemta_big_shout.py"
    assert (shout["asked"], shout["troubles"], shout["unusable"]) == (2, 1, "")
    assert shout["last_trouble"]["why"] == "it ended with exit status 3"
    assert shout["median_seconds"] > 0
    assert rows["broken"]["unusable"].endswith("broken.py:1: ZeroDivisionError: division by zero")

    assert main(["plugins", "--config", config]) == os.EX_OK
    table = capsys.readouterr().out
    assert "enabled; last trouble " in table
    assert "cannot be used: " in table


def test_an_enabled_one_that_cannot_be_used_is_an_error_status(new, tmp_path, capsys):
    (new / "broken.py").write_text("1 / 0")
    assert main(["plugins", "--config", configured(tmp_path, new, "{broken: }")]) == os.EX_CONFIG
    told = capsys.readouterr()
    assert "broken" in told.out
    assert "no timing and no trouble is known: " in told.err  # no daemon has run
    assert "no journal here" in told.err


def test_documents_tell_of_enabled_plugins(new, tmp_path, capsys):
    config = configured(tmp_path, new)
    assert main(["config", "facts", "--config", config]) == os.EX_OK
    assert "big-shout.share" in capsys.readouterr().out
    assert main(["config", "reference", "--config", config]) == os.EX_OK
    assert "### `big-shout`" in capsys.readouterr().out
    assert main(["config", "schema", "--config", config]) == os.EX_OK
    assert "share" in json.loads(capsys.readouterr().out)["$defs"]["big-shout"]["properties"]
    (new / "elemta_big_shout.py").write_text("1 / 0")
    assert main(["config", "facts", "--config", config]) == os.EX_CONFIG
    assert "big-shout" in capsys.readouterr().err

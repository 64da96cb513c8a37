"""The documentation: can the commands, policies and unit files that it gives be used as they stand there?"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elemta.cli import _parser
from elemta.config.load import load
from elemta.config.problems import ConfigErrors
from elemta.daemon.birth import GRACE
from elemta.journal import Reader
from elemta.policy import Policy
from harness.decisions import decision
from harness.journal import JournalWriter

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
BLOCK = re.compile(r"```\n(.*?)```|((?:^ {4}.*\n)+)", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"^ *(?:\S+/bin/)?(elemta [a-z].*)$", re.MULTILINE)
SECTION = re.compile(r"^(checks|rules|sets|quarantine|reports|plugins|host):", re.MULTILINE)
ELSEWHERE = re.compile(r"cannot (be )?read|shout")  # files of the reader's, and the plugin that he is to write


def typed(command):
    words = shlex.split(command.replace("…", "").partition(" | ")[0], comments=True)[1:]
    _parser(words).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_can_be_typed_like_this(page, capsys):
    text = page.read_text("utf-8").replace("\\\n", " ")
    for command in LINE.findall("\n".join("".join(block) for block in BLOCK.findall(text))):
        typed(command)
    for command in re.findall(r"`(elemta [a-z][^`]*)`", text):
        try:
            typed(command)
        except SystemExit:  # a sentence may speak of a part of one, or of an ADDRESS
            assert re.search('are required|expected one argument|"[A-Z]+" is no', capsys.readouterr().err), command


def mistakes(path):
    try:
        Policy.compile(load(path))
    except ConfigErrors as errors:
        return str(errors).splitlines()
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_policies_can_be_used_like_this(page, tmp_path):
    if page.name == "configuration.md":
        return  # it shows values, not policies
    path = tmp_path / "elemta.yaml"
    for example in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        if SECTION.search(example):
            path.write_text(example if "host:" in example else f"host: mx1.example.org\n{example}", encoding="utf-8")
            assert [line for line in mistakes(path) if not ELSEWHERE.search(line)] == []


def test_the_unit_file_fits_the_daemons(tmp_path):
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    [unit] = re.findall(r"^```ini\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > GRACE
    assert f"RestartPreventExitStatus={os.EX_CONFIG}\n" in unit
    if shutil.which("systemd-analyze"):
        path = tmp_path / "elemta-milter.service"
        path.write_text(unit.replace("/opt/elemta/bin/", f"{Path(sys.executable).parent}/"), encoding="utf-8")
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
        assert [line for line in done.stderr.splitlines() if "elemta-milter.service:" in line] == []


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command here")
def test_the_backup_is_whole_and_of_one_moment(tmp_path):
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    [script] = re.findall(r"^    umask 077.*?^    done$", text, re.DOTALL | re.MULTILINE)
    assert "VACUUM INTO" in script  # one view of the file; .backup begins again whenever somebody writes
    (tmp_path / "lib").mkdir()
    (tmp_path / "backups").mkdir()
    writer = JournalWriter(str(tmp_path / "lib" / "journal.db"), print, interval=0.01)
    writer.open()
    writer.decided(decision(sender="a@b.test"))
    while not writer.written:
        time.sleep(0.01)
    here = script.replace("/var/lib/elemta", f"{tmp_path}/lib").replace("/var/backups", f"{tmp_path}/backups")
    for _ in range(2):  # the second takes the place of the first
        subprocess.run(["sh", "-c", here], check=True)
    writer.close()
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["journal.db"]
    assert [entry.sender for entry in Reader(str(tmp_path / "backups" / "journal.db")).search()] == ["a@b.test"]

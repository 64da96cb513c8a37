from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import elemta.cli
from elemta.cli import main
from elemta.version import VERSION

COMMANDS = [each.name for each in pkgutil.iter_modules(elemta.cli.__path__) if not each.name.startswith("_")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_file_is_the_command_of_its_name(name):
    command = importlib.import_module(f"elemta.cli.{name}")
    assert name.replace("_", "-") == command.NAME
    assert command.HELP
    assert callable(command.arguments)
    assert callable(command.run)


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line[4:5] != " "}
    assert {name.replace("_", "-") for name in COMMANDS} <= lines


def test_the_help_of_a_subcommand_says_what_it_does(capsys):
    for words, what in (
        ("quarantine release", "let mails go; Postfix delivers them as they were judged"),
        ("sets", "list and change the dynamic sets"),
    ):
        with pytest.raises(SystemExit):
            main([*words.split(), "--help"])
        assert f"\n\n{what}\n\n" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"elemta {VERSION}\n"


@pytest.mark.parametrize("words", [[], ["chek"], ["config"], ["config", "chek"], ["config", "check", "--strict"]])
def test_a_wrong_command_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == os.EX_USAGE
    assert "usage: elemta" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("confg check", 'elemta: argument COMMAND: there is no "confg"; did you mean "config"?'),
        ("config chek", 'elemta config: argument COMMAND: there is no "chek"; did you mean "check"?'),
        ("config check --orgin", 'elemta config check: "--orgin" cannot stand here\n'),
        ("config show --orgin", 'elemta config show: "--orgin" cannot stand here; did you mean "--origin"?'),
        ("config check a b", 'elemta config check: "b" cannot stand here\n'),
        ("explain a b", 'elemta explain: "b" cannot stand here\n'),
        ("journal --dispositon=reject", 'elemta journal: "--dispositon=reject" cannot stand here; did you mean'),
        ("journal --client 192.0.2.0/24", '"192.0.2.0/24" is no IP address; write 192.0.2.1, or 192.0.2.* for several'),
        ("journal --limit 0", 'elemta journal: argument --limit: "0" is no number of decisions; write 1 or more'),
        (
            "postfix",
            "elemta postfix: the following arguments are required: COMMAND\n`elemta postfix --help` tells more",
        ),
    ],
)
def test_a_wrong_command_line_teaches(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == os.EX_USAGE
    assert said in capsys.readouterr().err


def test_closed_streams(tmp_path):
    """The shell's >&- and <&-: nothing is printed, nothing else is opened in their place."""
    config = tmp_path / "elemta.yaml"
    config.write_text(f"host: mx.test\nstate: sqlite://{tmp_path}/state.db\n")
    code = "import sys; from elemta.cli import main; sys.exit(main(sys.argv[1:]))"
    for words, closed in (
        (f"config check {config}", ">&-"),
        (f"config check {config}", ">&- 2>&- <&-"),
        (f"explain --config {config} --mail -", "<&-"),
    ):
        script = f"{sys.executable} -c '{code}' {words} {closed}"
        ended = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_only_the_command_that_runs_is_imported():
    code = (
        "import sys; from elemta.cli import main; main(['postfix', 'variables']); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_reader_that_goes_away_is_no_mistake(tmp_path):
    code = "import sys; from elemta.cli import main; sys.exit(main(['config', 'schema']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


def test_output_that_nothing_takes_is_one_line(tmp_path):
    config = tmp_path / "elemta.yaml"
    config.write_text("host: mx.test\n")
    code = f"import sys; from elemta.cli import main; sys.exit(main(['config', 'check', '{config}']))"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (os.EX_IOERR, "elemta config: No space left on device\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), os.EX_NOINPUT),
        (PermissionError(13, "Permission denied", "/x"), os.EX_NOPERM),
        (OSError(28, "No space left on device", "/x"), os.EX_IOERR),
        (IsADirectoryError(21, "Is a directory", "/x"), os.EX_NOINPUT),
        (OSError("odd"), os.EX_OSERR),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_of_the_system_are_one_line(error, status, monkeypatch, capsys):
    def run(args):
        raise error

    monkeypatch.setattr("elemta.cli.postfix.run", run)
    assert main(["postfix", "variables"]) == status
    said = capsys.readouterr().err
    assert said == "" if isinstance(error, KeyboardInterrupt) else said.startswith("elemta postfix: ")
    assert said.count("\n") <= 1


def test_an_interrupt_while_modules_are_imported_is_no_traceback(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(elemta.cli, "import_module", interrupted)
    assert main(["journal"]) == 130
    assert capsys.readouterr() == ("", "")

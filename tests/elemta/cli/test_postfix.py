"""`elemta postfix`: are the templates whole, and does the renderer refuse what would break main.cf?"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess

import pytest

from elemta.cli import postfix


def run(*arguments):
    parser = argparse.ArgumentParser()
    postfix.arguments(parser)
    return postfix.run(parser.parse_args([str(each) for each in arguments]))


def test_every_placeholder_is_filled_and_every_variable_is_used(tmp_path):
    marks = {name: f"value-of-{name}" for name in postfix.variables()}
    postfix.render(tmp_path, marks)
    text = (tmp_path / "main.cf").read_text() + (tmp_path / "master.cf").read_text()
    assert not re.search(r"@[A-Z]", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    assert [mark for mark in marks.values() if mark not in text] == []


def test_every_parameter_is_explained():
    templates = postfix._templates()
    set_here = re.findall(r"(?m)^(\w+) =(?! @\w+@$)", (templates / "main.cf").read_text())
    readme = (templates / "README.md").read_text()
    assert [name for name in set_here if f"`{name}`" not in readme] == []
    comments = re.findall(r"(?m)^[A-Z_]+:.*$", (templates / "variables.yaml").read_text())
    assert len(comments) == len(postfix.variables())


@pytest.mark.skipif(not shutil.which("postconf"), reason="Postfix is not installed (Debian package postfix)")
def test_postfix_reads_the_default_rendering_without_a_warning(tmp_path):
    assert run("render", tmp_path, "--set", "HOSTNAME=mx9.example.net") == os.EX_OK
    done = subprocess.run(["postconf", "-c", tmp_path, "-n"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    settings = dict(line.split(" = ", 1) for line in done.stdout.splitlines() if " = " in line)
    assert settings["myhostname"] == "mx9.example.net"
    assert settings["milter_default_action"] == "tempfail"
    assert settings["smtpd_milters"] == "unix:elemta/milter.sock"
    assert "xclient" not in done.stdout.replace("smtpd_authorized_xclient_hosts =\n", "")
    services = subprocess.run(["postconf", "-c", tmp_path, "-M"], capture_output=True, text=True, check=True)
    assert services.stderr == ""
    assert services.stdout.startswith("smtp ")


@pytest.mark.skipif(not shutil.which("newaliases"), reason="Postfix is not installed (Debian package postfix)")
def test_newaliases_builds_what_is_read(tmp_path):
    of = postfix.variables()["ALIAS_MAPS"].replace("/etc", str(tmp_path))
    run("render", tmp_path, "--set", f"ALIAS_MAPS={of}", "--set", f"QUEUE_DIRECTORY={tmp_path}/queue")
    (tmp_path / "queue").mkdir()
    (tmp_path / "aliases").write_text("postmaster: root\n")
    done = subprocess.run(
        ["newaliases"], env={**os.environ, "MAIL_CONFIG": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "aliases.db").exists()


def test_rendering_replaces_what_was_there(tmp_path):
    for name in ("one.test", "two.test"):
        postfix.render(tmp_path / "new", {"HOSTNAME": name})
    assert "myhostname = two.test\n" in (tmp_path / "new" / "main.cf").read_text()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["main.cf", "master.cf"]


def test_what_somebody_else_wrote_is_kept(tmp_path, capsys):
    (tmp_path / "main.cf").write_text("myhostname = mine\n")
    run("render", tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}/main.cf.before: what stood in main.cf before\n"
    run("render", tmp_path, "--set", "HOSTNAME=mx9.example.net")

    assert capsys.readouterr().out == ""
    assert (tmp_path / "main.cf.before").read_text() == "myhostname = mine\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["main.cf", "main.cf.before", "master.cf"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("HOSTNAM=mx.test", "there is no variable HOSTNAM; did you mean HOSTNAME?"),
        ("hostname=mx.test", "did you mean HOSTNAME?"),
        ("COLOUR=red", "`elemta postfix variables` lists them"),
        ("HOSTNAME", "write NAME=VALUE"),
        ("HOSTNAME=mx.test\nmynetworks = 0.0.0.0/0", "a line break would start another parameter"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_written(tmp_path, capsys, setting, says):
    assert run("render", tmp_path / "new", "--set", setting) == os.EX_USAGE
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run("render", tmp_path / "file") == os.EX_CANTCREAT
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_variables_are_listed_with_their_meaning(capsys):
    assert run("variables") == os.EX_OK
    assert "HOSTNAME: mx1.example.org" in capsys.readouterr().out

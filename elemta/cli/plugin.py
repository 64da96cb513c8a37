"""`elemta plugin`: how do I begin a plugin of my own?

elemta plugin new NAME         a directory elemta-NAME: a package to install, its check, and a test that passes
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from string import Template

import elemta
from elemta.cli import fail
from elemta.plugins import find_checks
from elemta.plugins.contract import has_meaning
from elemta.version import VERSION

NAME = "plugin"
HELP = "begin a plugin of your own"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta plugin` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="write a plugin that works, with a test")
    new.add_argument("name", metavar="NAME", help="as it shall stand under `checks:` and in rules")
    new.add_argument("--directory", type=Path, metavar="DIR", help="write there (default: ./elemta-NAME)")


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta plugin new`; 73 when something is there already."""
    if not _NAME.fullmatch(args.name):
        text = f'"{args.name}" is no name; write at most 41 small letters, digits, - and _, a letter first'
        return fail(f"elemta plugin new: {text}", os.EX_USAGE)
    if args.name in find_checks():
        return fail(f'elemta plugin new: there is a check "{args.name}" already; take another name', os.EX_USAGE)
    if has_meaning(args.name):
        return fail(f'elemta plugin new: "{args.name}" means something else in rules; take another name', os.EX_USAGE)
    directory: Path = args.directory or Path(f"elemta-{args.name}")
    module = f"elemta_{args.name.replace('-', '_')}"
    words = {
        "name": args.name,
        "module": module,
        "cls": "".join(part.capitalize() for part in re.split("[-_]", args.name)) + "Check",
        "version": VERSION,
        "api": elemta.API.partition(".")[0],
    }
    directory.mkdir(parents=True, exist_ok=True)
    files = {"pyproject.toml": _PROJECT, f"{module}.py": _CHECK, f"test_{args.name.replace('-', '_')}.py": _TEST}
    for name in files:
        if (directory / name).exists():
            return fail(f"elemta plugin new: {directory / name} is there already", os.EX_CANTCREAT)
    for name, text in files.items():
        (directory / name).write_text(Template(text).substitute(words), encoding="utf-8")
    place = directory if directory.is_absolute() else f"./{directory}"  # to pip, a bare name is one of a registry
    sys.stdout.write(Template(_NEXT).substitute(words, directory=directory, place=place))
    return os.EX_OK


_PROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "elemta-$name"
version = "0.1.0"
description = "A plugin for Elemta"
requires-python = ">=3.11"
dependencies = ["elemta>=$version"]  # written for version $api of its interface (elemta.API)

[project.entry-points."elemta.checks"]
$name = "$module:$cls"

[tool.setuptools]
py-modules = ["$module"]
"""

_CHECK = '''\
"""$name: does the subject shout?

Takes the message's Subject; reports how much of it is in capitals.  Says nothing about what that means: rules do.
"""

from __future__ import annotations

from typing import ClassVar

from elemta import Check, Field, Finding, Message, Options, Result, Seen, Setting


class ${cls}Options(Options):
    """What may stand under `checks: {$name: …}`, besides what every check takes."""

    share: float = Setting(0.8, ge=0, le=1, description="of the letters in capitals: from here on the result is fail")


class $cls(Check[Message]):  # Client, Envelope or Message: how early it can run
    """Does the subject shout?"""

    name = "$name"
    fields: ClassVar = {"share": Field(float, "how much of the subject is in capitals, 0 to 1")}
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL)
    needs_body: ClassVar[bool] = False
    Options = ${cls}Options

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Count the letters. What is raised here is trouble: it costs this finding and nothing else."""
        subject = b" ".join(facts.header("subject")).decode("utf-8", "replace")
        letters = [each for each in subject if each.isalpha()]
        if not letters:
            return self.finding(Result.NONE, "no letters in the subject")
        share = sum(each.isupper() for each in letters) / len(letters)
        result = Result.FAIL if share >= self.options.share else Result.PASS
        return self.finding(result, f"{share:.0%} of the letters are capitals", share=share)
'''

_TEST = '''\
"""$name: the subject's capitals are counted. Run it with pytest."""

from elemta.testing import message, run

from $module import $cls


def subject(text):
    return message(headers=[("From", "a@b.test"), ("Subject", text)])


def test_a_subject_that_shouts():
    found = run($cls, subject("BUY NOW"))
    assert found.result == "fail"
    assert found.fields["share"] == 1.0


def test_one_that_does_not():
    assert run($cls, subject("Minutes of the meeting")).result == "pass"


def test_the_option():
    assert run($cls, subject("Minutes"), share=0.1).result == "fail"


def test_nothing_to_look_at():
    assert run($cls, subject("1234")).result == "none"
'''

_NEXT = """\
$directory is a plugin that works.

Run its test:    pytest $directory
Install it:      pip install $place
                 or copy $module.py into the folder that `plugins: {folder: …}` names
Enable it:       checks: {$name: }
Judge by it:     when: {$name: fail}
See how it does: elemta plugins
"""

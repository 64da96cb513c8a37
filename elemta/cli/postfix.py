"""Postfix's configuration: what do main.cf and master.cf look like on this machine?

Fills the templates of postfix-conf/ (`@NAME@`) with the defaults of its variables.yaml and the values given, and
writes both files; what somebody else wrote there is kept as main.cf.before.  The private stack of `make run`, the
tests and the container all get their files from here.  Never starts or reloads Postfix, and never writes anywhere but
into the directory given.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import yaml

NAME = "postfix"
HELP = "write the main.cf and master.cf that go with Elemta"
TEMPLATES = ("main.cf", "master.cf")
_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")


class TemplateError(ValueError):
    """A value that cannot be filled in; the text says which and why."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` (of `elemta postfix`) its subcommands."""
    commands = parser.add_subparsers(dest="postfix_command", metavar="COMMAND", required=True)
    write = commands.add_parser("render", help="write main.cf and master.cf into a directory")
    write.add_argument("directory", type=Path, metavar="DIR", help="where to write; made if missing")
    write.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one variable; may be repeated")
    commands.add_parser("variables", help="print every variable with its default and its meaning")


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta postfix …`; returns the exit status."""
    if args.postfix_command == "variables":
        sys.stdout.write((_templates() / "variables.yaml").read_text())
        return os.EX_OK
    try:
        render(args.directory, dict(_split(each) for each in args.set))
    except TemplateError as error:
        sys.stderr.write(f"elemta postfix: {error}\n")
        return os.EX_USAGE
    except OSError as error:
        sys.stderr.write(f"elemta postfix: {error.filename}: {error.strerror}\n")
        return os.EX_CANTCREAT
    return os.EX_OK


def render(directory: Path, values: Mapping[str, str] | None = None) -> None:
    """Write main.cf and master.cf for `values` into `directory`, which is made if missing.

    Raises:
        TemplateError: a name that no template has, or a value with a line break.
        OSError: the files cannot be written.
    """
    filled = variables()
    for name, value in (values or {}).items():
        if name not in filled:
            near = difflib.get_close_matches(name.upper(), filled, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `elemta postfix variables` lists them"
            raise TemplateError(f"there is no variable {name}{hint}")
        if "\n" in value or "\r" in value:
            raise TemplateError(f"{name}: a line break would start another parameter")
        filled[name] = value
    directory.mkdir(parents=True, exist_ok=True)
    for template in TEMPLATES:
        text = (_templates() / template).read_text()
        _keep(directory / template, text.partition("\n")[0].encode())
        new = directory / f".{template}.new"
        new.write_text(_fill(text, filled))
        new.chmod(0o644)
        new.replace(directory / template)


def _keep(old: Path, head: bytes) -> None:
    """Keep what stands there as FILE.before, unless it was rendered (then its first line is `head`)."""
    kept = old.with_name(f"{old.name}.before")
    if old.exists() and not old.read_bytes().startswith(head) and not kept.exists():
        shutil.copy2(old, kept)
        sys.stdout.write(f"{kept}: what stood in {old.name} before\n")


def variables() -> dict[str, str]:
    """Every variable of the templates with its default."""
    loaded: dict[str, str] = yaml.safe_load((_templates() / "variables.yaml").read_text())
    return dict(loaded)


def _templates() -> Path:
    """Where the templates are: inside an installed package, or beside it in a checkout."""
    package = Path(str(files("elemta")))
    installed = package / "postfix-conf"
    return installed if installed.is_dir() else package.parent / "postfix-conf"


def _split(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals:
        raise TemplateError(f"--set {setting}: write NAME=VALUE")
    return name.strip(), value.strip()


def _fill(text: str, filled: Mapping[str, str]) -> str:
    """Replace every @NAME@ below the leading comment, which speaks of @NAME@ itself."""
    head = re.match(r"(?:#.*\n)*", text)
    start = head.end() if head else 0
    try:
        return text[:start] + _PLACEHOLDER.sub(lambda found: filled[found[1]], text[start:])
    except KeyError as missing:
        raise TemplateError(f"the template names @{missing.args[0]}@, which variables.yaml lacks") from None

"""The `elemta` command: which subcommand was asked for, and how do its mistakes look?

A subcommand is one file in this folder with the same name and

    NAME = "config"                                         # as typed
    HELP = "look at the configuration"                      # one line of `elemta --help`
    def arguments(parser: argparse.ArgumentParser) -> None  # say what it takes
    def run(args: argparse.Namespace) -> int                # do it; the exit status (sysexits.h)

Nothing else registers it.  Only the one that runs is imported.  A file whose name begins with `_` is none.
`run` may raise ConfigErrors and OSError: they become one clear line each and a status, never a traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from elemta import streams
from elemta.config.problems import ConfigErrors, quoted, suggest
from elemta.version import VERSION, refuse_python

T = TypeVar("T")

DEFAULT_CONFIG = "/etc/elemta/elemta.yaml"
_INTERRUPTED = 128 + 2  # what a shell makes of SIGINT


class _Subcommands(argparse._SubParsersAction):  # type: ignore[type-arg] # noqa: SLF001 - argparse has no other way
    """Subcommands whose own `--help` begins with what the help above says of them."""

    def add_parser(self, name: str, **told: Any) -> Any:  # noqa: ANN401 - as in argparse
        """Add one; `help` is its description, too."""
        return super().add_parser(name, **{"description": told.get("help"), **told})


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors end with EX_USAGE, and come from the subcommand that they are about."""

    def __init__(self, **told: Any) -> None:  # noqa: ANN401 - as in argparse
        super().__init__(**told)
        self.register("action", "parsers", _Subcommands)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:  # noqa: ANN401 - as in argparse
        """Read the arguments; what is left over is a mistake here, not one of the command around this."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            near = suggest(rest[0].partition("=")[0], self._option_string_actions) if rest[0].startswith("-") else ""
            self.error(f"{quoted(rest[0])} cannot stand here{near}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401
        if action.choices is not None and value not in action.choices:
            known = [str(each) for each in action.choices]
            near = suggest(str(value), known) or f"; there are {', '.join(known)}"
            raise argparse.ArgumentError(action, f"there is no {quoted(value)}{near}")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, how it is used and where more is told."""
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n`{self.prog} --help` tells more\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (default: the command line) asks for; the exit status."""
    refuse_python()
    streams.claim()
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parser(words).parse_args(words)  # imports, which take a while
    except KeyboardInterrupt:
        return _INTERRUPTED
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `elemta config show | head`
        _drop_output()
        return os.EX_OK
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        _drop_output()
        return fail(f"elemta {args.command}: {what}", _status(error))
    except ConfigErrors as errors:
        return fail(str(errors), errors.status)
    return status


def config_argument(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand `--config FILE`, as `args.config`."""
    default = os.environ.get("ELEMTA_CONFIG") or DEFAULT_CONFIG
    text = f"the configuration (default: $ELEMTA_CONFIG, or {DEFAULT_CONFIG})"
    parser.add_argument("--config", default=default, metavar="FILE", help=text)


def argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """For `type=`: what `read` makes of a word; its ValueError tells what is wrong on the command line."""

    def made(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return made


def fail(text: str, status: int) -> int:
    """Say `text` on standard error; `status`."""
    print(text, file=sys.stderr)  # noqa: T201
    return status


def _parser(words: Sequence[str]) -> Parser:
    parser = Parser(prog="elemta", description="Sees, judges and explains the mail of a Postfix server.")
    parser.add_argument("--version", action="version", version=f"elemta {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    names = [each.name for each in pkgutil.iter_modules(__path__) if not each.name.startswith("_")]
    asked = words[0].replace("-", "_") if words else ""
    for name in [asked] if asked in names else names:
        command: Any = import_module(f"{__name__}.{name}")
        inner = commands.add_parser(command.NAME, help=command.HELP)
        command.arguments(inner)
        inner.set_defaults(run=command.run)
    return parser


def _drop_output() -> None:
    """Throw away what cannot be written: else Python tries again at its end, complains and makes the status 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(error: OSError) -> int:
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return os.EX_NOINPUT
    if error.errno == errno.ENOSPC:
        return os.EX_IOERR
    return os.EX_NOPERM if isinstance(error, PermissionError) else os.EX_OSERR

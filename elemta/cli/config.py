"""`elemta config`: is the configuration right, what does it amount to, and what may stand in it?"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from elemta.check import Check
from elemta.cli import DEFAULT_CONFIG, _reference, _schema, _starter, _terminal, config_argument, fail
from elemta.config.load import Loaded, load, loaded_and
from elemta.config.show import hidden, json_text, yaml_text
from elemta.plugins import PluginError, built_in, find_checks, find_plugins
from elemta.policy import Policy
from elemta.rules.catalogue import catalogue

NAME = "config"
HELP = "begin, check, show and document the configuration"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta config` takes."""
    commands = parser.add_subparsers(dest="config_command", metavar="COMMAND", required=True)
    init = commands.add_parser("init", help="write a starter policy, explained line by line")
    init.add_argument("--host", default="", metavar="NAME", help="this server's name (default: mx1.example.org)")
    init.add_argument("--domain", default="", metavar="NAME", help="the domain of your mail (default: example.org)")
    check = commands.add_parser("check", help="say whether the configuration can be used, and run the tests inside it")
    show = commands.add_parser("show", help="print the effective configuration, defaults filled in")
    show.add_argument("--origin", action="store_true", help="behind each value: its file and line, or `default`")
    show.add_argument("--json", action="store_true", help="as JSON")
    facts = commands.add_parser("facts", help="list every fact that a rule may use")
    facts.add_argument("--json", action="store_true", help="as JSON")
    for command in (init, check, show, facts):
        config_argument(command)
        command.add_argument("file", nargs="?", metavar="FILE", help="the configuration, as --config")
    schema = commands.add_parser("schema", help="print the JSON Schema, with which editors complete and check")
    reference = commands.add_parser("reference", help="print the configuration reference, Markdown")
    for command in (schema, reference):
        command.add_argument("--config", default="", metavar="FILE", help="with the plugins that it enables")
        command.add_argument("--output", type=Path, metavar="FILE", help="write there instead")
    init.set_defaults(config_run=_init)
    check.set_defaults(config_run=_check)
    show.set_defaults(config_run=_show)
    facts.set_defaults(config_run=_facts)
    schema.set_defaults(config_run=_print_schema)
    reference.set_defaults(config_run=_print_reference)


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta config …`; the exit status."""
    try:
        status: int = args.config_run(args)
    except PluginError as error:
        return fail(f"elemta config: {error}", os.EX_CONFIG)
    return status


def _checks(path: str) -> dict[str, type[Check[Any]]]:
    """Every check of Elemta's own, and the plugins that the configuration enables.

    Raises:
        ConfigErrors: of the configuration, or of its plugins.
        PluginError: one of our own cannot be loaded.
    """
    checks = find_checks()
    if not path:
        return checks
    loaded = load(path)
    own = built_in(checks)
    wanted = [name for name in loaded.settings.checks if name not in own]
    plugins, problems = find_plugins(loaded.settings.plugins, wanted, own)
    if problems:
        raise loaded.source.errors(problems)
    return checks | {name: plugin.check for name, plugin in plugins.items()}


def _load(args: argparse.Namespace) -> tuple[Loaded, Policy]:
    return loaded_and(lambda loaded: (loaded, Policy.compile(loaded)), args.file or args.config)


def _init(args: argparse.Namespace) -> int:
    return _starter.write(args.file or args.config, args.host, args.domain)


def _check(args: argparse.Namespace) -> int:
    loaded, policy = _load(args)
    for warning in (*loaded.warnings, *map(loaded.source.placed, policy.doubts())):
        fail(f"warning: {warning}", os.EX_OK)
    failed = policy.run_tests()
    if failed:
        return fail(str(loaded.source.errors(failed)), os.EX_CONFIG)
    settings = loaded.settings
    rules = len(settings.rules.recipient) + len(settings.rules.message)
    counts = f"rules: {rules}, checks: {len(settings.checks)}, tests passed: {len(settings.tests)}"
    _terminal.out(f"{loaded.source.file}: ok ({counts})\n")
    return os.EX_OK


def _show(args: argparse.Namespace) -> int:
    loaded, policy = _load(args)
    effective: dict[str, Any] = loaded.settings.model_dump(mode="json", by_alias=True)
    options = {plan.name: plan.options.model_dump(mode="json", by_alias=True) for plan in policy.checks}
    effective["checks"] = {name: options[name] for name in effective["checks"]}
    effective = hidden(effective, loaded.source)
    text = (json_text if args.json else yaml_text)(effective, loaded.source if args.origin else None)
    _terminal.out(text + "\n")
    return os.EX_OK


def _facts(args: argparse.Namespace) -> int:
    path = args.file or args.config
    if path == DEFAULT_CONFIG and not Path(path).exists():
        path = ""
    found = [_reference.fact_row(fact) for fact in catalogue(_checks(path))]
    found.sort(key=lambda row: row["name"])
    _terminal.out(json.dumps(found, indent=2) + "\n" if args.json else _terminal.columns(found))
    return os.EX_OK


def _print_schema(args: argparse.Namespace) -> int:
    return _write(json.dumps(_schema.schema(_checks(args.config)), indent=1, ensure_ascii=False) + "\n", args.output)


def _print_reference(args: argparse.Namespace) -> int:
    return _write(_reference.reference(_checks(args.config)), args.output)


def _write(text: str, output: Path | None) -> int:
    if output is None:
        _terminal.out(text)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            return fail(f"elemta config: {output}: {error.strerror}", os.EX_CANTCREAT)
    return os.EX_OK

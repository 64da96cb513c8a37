"""`elemta plugins`: which plugins are there, from where, how do they run, and how have they done lately?

elemta plugins                 those of packages and of the folder; the code of packages that are not enabled is not run
elemta plugins --json
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from statistics import median

from elemta.cli import _terminal, config_argument, fail
from elemta.config.load import load
from elemta.config.model import Settings
from elemta.journal import JournalError, Reader
from elemta.plugins import Known, PluginError, built_in, find_checks, known_plugins

NAME = "plugins"
HELP = "list plugins: where they come from, how they run, what they cost"
DECISIONS = 2000  # the newest ones that are looked at


@dataclass
class Doings:
    """What the journal tells of one plugin.

    Attributes:
        seconds: of each time it was asked.
        troubles: how often it could not answer.
        last: when that was last, and why.
    """

    seconds: list[float] = field(default_factory=list)
    troubles: int = 0
    last: tuple[float, str] | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta plugins` takes."""
    config_argument(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta plugins`; 78 when one that is enabled cannot be used."""
    settings = load(args.config).settings
    try:
        known = known_plugins(settings.plugins, settings.checks, built_in(find_checks()))
    except PluginError as error:
        return fail(f"elemta plugins: {error}", os.EX_CONFIG)
    doings = _doings(settings, {each.name for each in known})
    rows = [_row(each, settings, doings[each.name]) for each in known]
    if args.json:
        _terminal.out(json.dumps(rows, indent=2) + "\n")
    elif rows:
        _terminal.out(_terminal.columns([_words(row) for row in rows]))
    else:
        fail("no plugins: none is installed, and `plugins: {folder: …}` has none", os.EX_OK)
    return os.EX_CONFIG if any(each.enabled and each.why for each in known) else os.EX_OK


def _doings(settings: Settings, names: set[str]) -> defaultdict[str, Doings]:
    """What the newest decisions tell; nothing where there is no journal, which is said."""
    found: defaultdict[str, Doings] = defaultdict(Doings)
    try:
        with closing(Reader(settings.journal.path)) as reader:
            entries = reader.search(limit=DECISIONS)
    except JournalError as error:
        fail(f"elemta plugins: no timing and no trouble is known: {error}", os.EX_OK)
        return found
    for entry in entries:  # newest first
        for name in names & entry.timings.keys():
            found[name].seconds.append(entry.timings[name])
        for finding in entry.findings:
            if finding.trouble and finding.check in names:
                doing = found[finding.check]
                doing.troubles += 1
                doing.last = doing.last or (entry.at, finding.reason)
    return found


def _row(known: Known, settings: Settings, doing: Doings) -> dict[str, object]:
    plugin, times = known.plugin, sorted(doing.seconds)
    trusted = known.name in settings.plugins.trusted
    return {
        "name": known.name,
        "from": str(known.source),
        "enabled": known.enabled,
        "runs": "trusted" if trusted else "isolated",
        "sees": plugin.check.stage().name.lower() if plugin else "",
        "edits": bool((settings.checks.get(known.name) or {}).get("edits", False)),
        "unusable": known.why,
        "asked": len(times),
        "median_seconds": round(median(times), 6) if times else None,
        "p95_seconds": round(times[int(0.95 * (len(times) - 1))], 6) if times else None,
        "troubles": doing.troubles,
        "last_trouble": {"at": doing.last[0], "why": doing.last[1]} if doing.last else None,
    }


def _words(row: dict[str, object]) -> dict[str, str]:
    """A row for people."""
    last = row["last_trouble"]
    state = "enabled" if row["enabled"] else "not enabled"
    if row["unusable"]:
        state = f"cannot be used: {row['unusable']}"
    elif isinstance(last, dict):
        state += f"; last trouble {_terminal.when(last['at'])}: {last['why']}"
    return {
        "name": str(row["name"]),
        "from": str(row["from"]),
        "runs": str(row["runs"]),
        "asked": str(row["asked"]),
        "median": _ms(row["median_seconds"]),
        "p95": _ms(row["p95_seconds"]),
        "troubles": str(row["troubles"]),
        "state": state,
    }


def _ms(seconds: object) -> str:
    return f"{seconds * 1000:.1f} ms" if isinstance(seconds, float) else "-"

"""Reference: docs/configuration.md, written from the code so that it cannot be wrong about it.

Sections and their keys, how values are written, conditions, facts, and every check with its options, fields, results
and trouble.  Knows nothing of its own but headings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import getdoc
from textwrap import dedent
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from elemta.check import Check, Options, Stage
from elemta.cli._models import defaults, meaning, models
from elemta.config import model, rule_model, source, words
from elemta.config.model import Settings
from elemta.config.section import Section
from elemta.config.validate import describe, schemas
from elemta.rules import conditions
from elemta.rules.catalogue import catalogue
from elemta.rules.view import Fact

_KNOWN: Mapping[Stage, str] = {Stage.CLIENT: "client", Stage.ENVELOPE: "envelope", Stage.MESSAGE: "message"}
_KINDS: Mapping[str, str] = {"ip": "IP address", "result": "result", "bool": "true/false", "address": "mail address"}
_MODELS: Sequence[tuple[str, type[BaseModel]]] = (
    ("The file", Settings),
    ("`dns:`", model.Dns),
    ("`journal:`", model.Journal),
    ("`quarantine:`", model.Quarantine),
    ("`milter:`", model.Milter),
    ("`policyd:`", model.Policyd),
    ("`metrics:`", model.Metrics),
    ("`log:`", model.Log),
    ("`plugins:`", model.Plugins),
    ("`sets:` a set in a file", model.FileSet),
    ("`sets:` a set that changes while mail flows", model.DynamicSet),
    ("`reports:`", model.Reports),
    ("`rules:`", rule_model.Rules),
    ("`sign:` an entry", model.Sign),
    ("`seal:`", model.Seal),
    ("`sign:` and `seal:` a key", model.KeyFile),
    ("`sign:` the keys of `elemta dkim`", model.KeyRing),
    ("A rule", rule_model.RuleModel),
    ("`add_to_set:` of a rule", rule_model.AddToSet),
    ("A test", rule_model.TestModel),
    ("`expect:` of a test", rule_model.Expectation),
    ("`banner:` of a rule", rule_model.Banner),
    ("`replace_attachments:` of a rule", rule_model.ReplaceAttachments),
)

_INTRODUCTION = """\
Written by `elemta config reference` from the code; change the code, not this file.

Elemta reads one YAML file: `/etc/elemta/elemta.yaml`, or what `--config` or `ELEMTA_CONFIG` names. The shortest useful
one is `host: mx1.example.org`. `elemta config check` says whether a file can be used and runs the tests inside it;
every mistake is one line, `file:line:column: path: what, and what to write instead`. Exit statuses are those of
sysexits.h: 0 it can be used, 78 it cannot, 66 it cannot be read, 64 the command line is wrong.

Editors complete and check by the JSON Schema: write it with `elemta config schema --output elemta.schema.json`, and
begin the configuration with `# yaml-language-server: $schema=elemta.schema.json`."""

_UNITS = """\
A duration is a number and `ms`, `s`, `m`, `h`, `d` or `w`, or several of them: `1h30m`. A size is a number of octets,
or a number and `K`, `M` or `G` (powers of 1024). A path is relative to the file that names it."""

_KNOWN_WHEN = """\
What rules may ask for. *Known* is how early: `client` at HELO, `envelope` at RCPT TO, `message` when the message is
complete. Classes and the rules under `rules.recipient` cannot wait for the message."""


def reference(checks: Mapping[str, type[Check[Any]]]) -> str:
    """The Markdown text for a program in which `checks` are there."""
    parts = [
        "# Configuration reference",
        _INTRODUCTION,
        "## How values are written",
        _body(words),
        _UNITS,
        "## Several files",
        _body(source, skip=1),
        "## Keys",
        *(part for title, kind in _MODELS for part in _section(title, kind)),
        "## Conditions",
        "In `when:` and `unless:` of a rule, and in `classes:`. All that stand in one mapping must hold.",
        _body(conditions),
        "## Facts",
        _KNOWN_WHEN,
        _table([*(fact_row(fact) for fact in sorted(catalogue({}), key=lambda fact: fact.name)), _HEADER]),
        "## Checks",
        "A check runs if it is named under `checks:`; `spf:` alone takes the defaults. Every check has these options:",
        _table(list(_keys(Options))),
        *(part for name, check in sorted(checks.items()) for part in _check(name, check)),
    ]
    return "\n\n".join(parts) + "\n"


def fact_row(fact: Fact) -> dict[str, str]:
    """A fact for people: name, type, known, from, meaning."""
    kind = _KINDS.get(fact.kind, fact.kind)
    if fact.unit:
        kind += f", {'octets' if fact.unit == 'octets' else 'seconds'}"
    many = "several " if fact.many else ""
    meaning = fact.doc + (f" ({', '.join(fact.words)})" if fact.words else "")
    known = _KNOWN[fact.stage]
    return {"name": fact.name, "type": many + kind, "known": known, "from": fact.source, "meaning": meaning}


_HEADER = {
    "name": "header.NAME",
    "type": "several text",
    "known": "message",
    "from": "message",
    "meaning": "every value of the header field NAME, unfolded",
}


def _section(title: str, kind: type[BaseModel]) -> Iterator[str]:
    yield f"### {title}"
    yield (getdoc(kind) or "").replace("\n", " ")
    yield _table(list(_keys(kind)))


def _check(name: str, check: type[Check[Any]]) -> Iterator[str]:
    yield f"### `{name}`"
    yield (getdoc(check) or "").strip()
    results = ", ".join(f"`{word}`" for word in check.results)
    trouble = f"When it could not answer: `{check.trouble}`, unless `trouble` says otherwise."
    yield f"Runs as soon as the {_KNOWN[check.stage()]} is known. Results: {results}. {trouble}"
    own = [row for row in _keys(check.Options) if row["key"].strip("`") not in Options.model_fields]
    if own:
        yield _table(own)
    for inner in list(models(check.Options))[1:]:
        yield f"`{inner.__name__}`: {(getdoc(inner) or '').strip()}"
        yield _table(list(_keys(inner)))
    fields = [fact_row(fact) for fact in catalogue({name: check}) if fact.source == name and fact.name != name]
    if fields:
        yield _table([{key: row[key] for key in ("name", "type", "meaning")} for row in fields])


def _keys(kind: type[BaseModel]) -> Iterator[dict[str, str]]:
    """Key, type, default and meaning of each field."""
    top = kind.model_json_schema(by_alias=True)
    written = defaults(kind)
    for name, field in kind.model_fields.items():
        key = field.alias or name
        default = _default(written[key]) if key in written else "required"
        if isinstance(field.get_default(call_default_factory=True), Section):
            default = "see below"
        kinds = describe(list(schemas(top, (key,))))
        yield {"key": f"`{key}`", "type": kinds, "default": default, "meaning": meaning(field)}
    if kind.model_config.get("extra") == "allow":
        kinds = describe(list(schemas(top, ("any name",))))
        yield {"key": "any other name", "type": kinds, "default": "", "meaning": (getdoc(kind) or "").strip()}


def _default(value: object) -> str:
    if value is None or value in ("", [], {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row[key] for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _body(module: ModuleType, skip: int = 0) -> str:
    """A module's docstring without its first line (and `skip` more paragraphs), indented blocks fenced."""
    paragraphs = (getdoc(module) or "").split("\n\n")[1 + skip :]
    return "\n\n".join(f"```yaml\n{dedent(each)}\n```" if each.startswith("    ") else each for each in paragraphs)

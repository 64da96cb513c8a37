"""Mending: what is left of a configuration with mistakes, so that later stages can look for theirs at the same time?

Each part with a mistake is replaced by something harmless that stands in its place under its name: a rule keeps its
number, a set and a check their names, so that nothing is reported which follows from a mistake that was reported.
What comes out is for finding more mistakes only; nobody ever runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from elemta.config.model import Settings
from elemta.config.problems import Path, Problem
from elemta.config.validate import validated

_TEST: Mapping[str, Any] = {"name": "", "given": {}, "expect": {"then": "accept"}, "stage": None}  # right
_NAME = 2  # keys that lead to the name of a set
_NOTHING: Mapping[str, Any] = {"sets": [], "checks": None, "classes": {"login": ""}}  # this class hides no other
_INDEPENDENT = ("milter", "plugins", "quarantine", "reports")  # sections of which no key is measured by another
_ROUNDS = 3  # a part taken away may leave its key missing, which the next round sees


def mended(data: dict[str, Any], problems: Iterable[Problem]) -> Settings | None:
    """Settings without the parts that `problems` are about; None when that cannot be. Changes `data`."""
    found = list(problems)
    settings: Settings | None = None
    for _ in range(_ROUNDS):
        for problem in found:
            _replace(data, problem.path, names=problem.on == "key" and len(problem.path) == _NAME)
        settings, found = validated(Settings, data)
        if settings is not None:
            break
    return settings


def untold(problems: Iterable[Problem], told: Iterable[Problem]) -> list[Problem]:
    """Those of `problems` that do not speak of a place, or of a whole, of which `told` spoke already."""
    spoken = {problem.path[:end] for problem in told for end in range(1, len(problem.path) + 1)}
    return [problem for problem in problems if problem.path not in spoken]


def _replace(data: dict[str, Any], path: Path, *, names: bool) -> None:
    """Take away what is wrong at `path`; `names`: the name of a set, a check, a class, a section is."""
    match path:
        case () | ("host", *_):
            data["host"] = "unknown.invalid"
        case _ if not _has(data, path[:_NAME]):
            return  # taken away for another mistake
        case ("sets" | "checks" | "classes" | "rules" as section, str(name)) if names:
            del data[section][name]
        case ("sets" | "checks" | "classes" as section, str(name), *_):
            data[section][name] = _NOTHING[section]
        case ("rules", str(stage), int(index), *rest) if _has(data, path[:3]):
            _replace_rule(data["rules"][stage], index, rest)
        case ("rules", str(stage), *_):
            del data["rules"][stage]
        case ("sign", int(index), str(key), *_) if _has(data, path[:2]) and key not in ("domain", "keys"):
            data["sign"][index].pop(key, None)
        case ("tests", int(index), *rest):
            _replace_test(data["tests"], index, rest)
        case (first, *rest):
            _drop(data, first, rest)


def _drop(data: dict[str, Any], section: str | int, rest: list[str | int]) -> None:
    """Take away one key of a section whose keys are independent, else the section."""
    inner = data.get(str(section))
    if (section, *rest) == ("reports", "from"):  # which must stand there
        data["reports"]["from"] = "postmaster@unknown.invalid"
    elif rest and section in _INDEPENDENT and isinstance(inner, dict):
        inner.pop(rest[0], None)
    else:
        data.pop(str(section), None)


def _replace_rule(rules: list[Any], index: int, rest: list[str | int]) -> None:
    rule = rules[index]
    if not isinstance(rule, dict):
        rules[index] = {"id": f"rule-{index}", "mode": "off"}
    elif not rest or rest[0] == "id":
        rule["id"] = f"rule-{index}"
    else:
        rule.pop(rest[0], None)


def _replace_test(tests: list[Any], index: int, rest: list[str | int]) -> None:
    if isinstance(tests[index], dict) and rest and rest[0] in _TEST:
        tests[index] = {**tests[index], rest[0]: _TEST[str(rest[0])]}
    else:
        tests[index] = _TEST


def _has(data: Any, path: Path) -> bool:  # noqa: ANN401 - whatever the file says
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True

"""Mending: what is left of a configuration with mistakes, so that later stages can look for theirs at the same time?

Each part with a mistake is replaced by something harmless that stands in its place under its name: a rule keeps its
number, a set and a check their names, so that nothing is reported which follows from a mistake that was reported.
What comes out is for finding more mistakes only; nobody ever runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from elemta.config.model import Settings
from elemta.config.problems import Path, Problem
from elemta.config.validate import validated

_ROUNDS = 3  # a part taken away may leave its key missing, which the next round sees


def mended(data: dict[str, Any], problems: Iterable[Problem]) -> Settings | None:
    """Settings without the parts that `problems` are about; None when that cannot be. Changes `data`."""
    found = list(problems)
    settings: Settings | None = None
    for _ in range(_ROUNDS):
        for problem in found:
            _replace(data, problem.path)
        settings, found = validated(Settings, data)
        if settings is not None:
            break
    return settings


def untold(problems: Iterable[Problem], told: Iterable[Problem]) -> list[Problem]:
    """Those of `problems` that do not speak of a place, or of a whole, of which `told` spoke already."""
    spoken = {problem.path[:end] for problem in told for end in range(1, len(problem.path) + 1)}
    return [problem for problem in problems if problem.path not in spoken]


def _replace(data: dict[str, Any], path: Path) -> None:
    match path:
        case () | ("host", *_):
            data["host"] = "unknown.invalid"
        case ("sets" | "checks" as section, str(name), *_) if _has(data, path[:2]):
            nothing: Any = [] if section == "sets" else None
            if data[section][name] == nothing:  # the name itself is wrong
                del data[section][name]
            else:
                data[section][name] = nothing
        case ("rules", str(stage), int(index), *rest) if _has(data, path[:3]):
            _replace_rule(data["rules"][stage], index, rest)
        case ("sign", int(index), str(key), *_) if _has(data, path[:2]) and key not in ("domain", "keys"):
            data["sign"][index].pop(key, None)
        case ("tests", int(index), *_) if _has(data, path[:2]):
            data["tests"][index] = {"name": "", "expect": {}}
        case (first, *_):
            data.pop(str(first), None)


def _replace_rule(rules: list[Any], index: int, rest: list[str | int]) -> None:
    rule = rules[index]
    if not isinstance(rule, dict):
        rules[index] = {"id": f"rule-{index}", "mode": "off"}
    elif not rest or rest[0] == "id":
        rule["id"] = f"rule-{index}"
    else:
        rule.pop(rest[0], None)


def _has(data: Any, path: Path) -> bool:  # noqa: ANN401 - whatever the file says
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True

"""Plugins: which checks are there?

Every check is found behind the entry-point group `elemta.checks`, the built-in ones included: an entry point
names a check class, or a package in whose modules the classes are.  Nothing else registers anything.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract, isclass
from types import ModuleType
from typing import Any

from elemta.check import Check

GROUP = "elemta.checks"


class PluginError(Exception):
    """A plugin cannot be used; the text says which and why."""


def find_checks() -> dict[str, type[Check[Any]]]:
    """Every check there is, by name.

    Raises:
        PluginError: an entry point cannot be loaded, names no check, or two checks have one name.
    """
    found: dict[str, type[Check[Any]]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        for check in _checks_of(entry):
            if found.setdefault(check.name, check) is not check:
                other = found[check.name].__module__
                raise PluginError(f'the name "{check.name}" is taken by {other}; {check.__module__} cannot use it too')
    return found


def _checks_of(entry: EntryPoint) -> Iterator[type[Check[Any]]]:
    try:
        target = entry.load()
        if isclass(target) and issubclass(target, Check):
            yield target
            return
        if not isinstance(target, ModuleType):
            raise PluginError(f"entry point {entry.name} = {entry.value}: neither a check class nor a package of them")
        modules = [import_module(f"{target.__name__}.{each.name}") for each in pkgutil.iter_modules(target.__path__)]
    except (ImportError, AttributeError) as error:
        raise PluginError(f"entry point {entry.name} = {entry.value}: {error}") from error
    for module in modules:
        for value in vars(module).values():
            if (
                isclass(value)
                and issubclass(value, Check)
                and value.__module__ == module.__name__
                and not isabstract(value)
            ):
                yield value

"""Loading: which settings does this configuration file hold, or what is wrong with it?

    loaded = load("/etc/elemta/elemta.yaml")       # raises ConfigErrors with every problem at once
    loaded.settings.milter.workers
    raise loaded.source.errors([Problem(("rules", "message", 3, "when", "dmark"), "…", "key")])   # a later stage

Checks' options and rules are carried as they stand; `elemta.policy` makes them ready and reports their mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import TypeVar

from elemta.config.mend import mended, untold
from elemta.config.model import Settings
from elemta.config.problems import ConfigErrors, Problem
from elemta.config.sense import doubts, mistakes
from elemta.config.source import Source, read
from elemta.config.validate import validated

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    Attributes:
        settings: what it says, defaults filled in.
        source: where each value stands.
        warnings: what can be used but is hardly meant so, with places.
    """

    settings: Settings
    source: Source
    warnings: tuple[Problem, ...] = ()


def load(path: str | File, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read the configuration in the file `path`; `environment` is where `${NAME}` is looked up (default: our own).

    Raises:
        ConfigErrors: it cannot be used; every reason at once.
    """
    return loaded_and(lambda loaded: loaded, path, environment)


def loaded_and(make: Callable[[Loaded], T], path: str | File, environment: Mapping[str, str] | None = None) -> T:
    """What `make` makes of the configuration in the file `path`.

    Where the settings have mistakes, `make` is given what is left of them, so that its mistakes are reported too:
    `loaded_and(Policy.compile, path)`.

    Raises:
        ConfigErrors: it cannot be used; every reason at once, those of `make` included.
    """
    source, problems = read(str(path), os.environ if environment is None else environment)
    data = source.data()
    settings, more = validated(Settings, data)
    problems += [each for each in more if not source.broken(each.path)]
    if settings is None or problems:
        settings = mended(data, [*problems, *more])
    if settings is None:
        raise source.errors(problems)
    problems += untold(mistakes(settings), problems)
    loaded = Loaded(settings, source, tuple(source.placed(each) for each in doubts(settings)))
    try:
        made = make(loaded)
    except ConfigErrors as errors:
        fresh = [each for each in errors.problems if not source.broken(each.path)]
        raise source.errors([*problems, *untold(fresh, problems)]) from None
    if problems:
        raise source.errors(problems)
    return made


__all__ = ["ConfigErrors", "Loaded", "load", "loaded_and"]

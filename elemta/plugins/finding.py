"""Finding plugins: which checks are there, and which class has the name that stands under `checks:`?

Our own checks are all loaded, from the packages behind their entry points.  Of plugins only those are imported that the
configuration names: one that is installed and not used runs no code.  The source whose own name is the check's is
looked at first, then all others, so a package or file may be called otherwise than its check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elemta.check import Check
from elemta.config.model import Plugins
from elemta.config.problems import PATH_MAX, Problem, quoted, suggest
from elemta.plugins.contract import PluginError, complaint, counts
from elemta.plugins.sources import BUILT_IN, SHIPPED, Checks, FileSource, Source, entry_sources, file_sources, unsafe
from elemta.plugins.trying import fatal


@dataclass(frozen=True)
class Plugin:
    """A check that is not part of the engine.

    Attributes:
        check: its class.
        source: where it comes from.
        trusted: it runs in the workers' own process.
    """

    check: type[Check[Any]]
    source: Source
    trusted: bool


def find_checks() -> dict[str, type[Check[Any]]]:
    """Every check that Elemta itself brings, by name; also those that it ships as plugins.

    Raises:
        PluginError: an entry point cannot be loaded, names no check, or two checks have one name.
    """
    found: dict[str, type[Check[Any]]] = {}
    for source in entry_sources():
        for check in source.load() if source.top in {*BUILT_IN, SHIPPED} else ():
            if found.setdefault(check.name, check) is not check:
                other = found[check.name].__module__
                raise PluginError(f'the name "{check.name}" is taken by {other}; {check.__module__} cannot use it too')
    return found


def built_in(checks: Mapping[str, type[Check[Any]]]) -> frozenset[str]:
    """The names of those that are no plugins."""
    return frozenset(name for name, check in checks.items() if check.__module__.partition(".")[0] != SHIPPED)


def find_plugins(
    config: Plugins, wanted: Iterable[str], taken: Collection[str]
) -> tuple[dict[str, Plugin], list[Problem]]:
    """The plugins that have the names `wanted`, and what is wrong with them.

    A name that nobody has is not in the result, and no problem here.

    Args:
        config: the section `plugins`.
        wanted: names under `checks:` that are not built in.
        taken: names of the built-in checks.
    """
    search = _Search(config, taken)
    for name in wanted:
        search.find(name)
    search.check_trusted()
    return search.found, search.problems


@dataclass(frozen=True)
class Known:
    """A plugin that is there, whether or not it is enabled.

    Attributes:
        name: the check's; where its code was not run, that of the entry point.
        source: where it comes from.
        plugin: when it is enabled and can be used.
        enabled: its name stands under `checks:`.
        why: why it cannot be used; "" when it can, or when nobody has tried.
    """

    name: str
    source: Source
    plugin: Plugin | None = None
    enabled: bool = False
    why: str = ""


def known_plugins(config: Plugins, wanted: Iterable[str], taken: Collection[str]) -> list[Known]:
    """Every plugin there is, by name. The code of packages that are not enabled is not run; that of files is.

    Args:
        config: the section `plugins`.
        wanted: names under `checks:`.
        taken: names of the built-in checks.
    """
    search = _Search(config, taken)
    names = [name for name in wanted if name not in taken]
    for name in names:
        search.find(name)
    known = [Known(name, plugin.source, plugin, enabled=True) for name, plugin in search.found.items()]
    used = {plugin.source for plugin in search.found.values()}
    for source in search.sources:
        if source in used:
            continue
        checks, why = search.load(source) if isinstance(source, FileSource) or source.name in names else ((), "")
        known += [Known(each.name, source) for each in checks] or [
            Known(source.name, source, enabled=source.name in names, why=why)
        ]
    return sorted(known, key=lambda each: each.name)


class _Search:
    """Loads sources, each once."""

    def __init__(self, config: Plugins, taken: Collection[str]) -> None:
        self.config = config
        self.taken = taken
        self.found: dict[str, Plugin] = {}
        self.problems: list[Problem] = []
        self._loaded: dict[Source, tuple[Checks, str]] = {}
        self.sources: list[Source] = [each for each in entry_sources() if each.top not in BUILT_IN]
        self.sources += self._files()

    def _files(self) -> list[Source]:
        folder = self.config.folder
        try:
            if not folder:
                return []
            why = unsafe(Path(folder))
            if not why:
                return list(file_sources(folder))
        except OSError as error:
            why = f"it cannot be read: {(error.strerror or str(error)).lower()}"
        self.problems.append(Problem(("plugins", "folder"), f"{quoted(folder, PATH_MAX)}: {why}"))
        return []

    def load(self, source: Source) -> tuple[Checks, str]:
        """Its classes, or why there are none."""
        if source not in self._loaded:
            try:
                self._loaded[source] = _usable(source)
            except PluginError as error:
                self._loaded[source] = ((), str(error))
        return self._loaded[source]

    def find(self, name: str) -> None:
        path = ("checks", name)
        exact = [source for source in self.sources if source.name == name]
        others = [source for source in self.sources if source.name != name]
        for source in (*exact, *others):
            if name in self.found and source not in exact:
                return
            checks, why = self.load(source)
            if why and source in exact:
                self.problems.append(Problem(path, f"the plugin cannot be used: {why}", "key"))
            for check in checks:
                if check.name == name:
                    self._take(name, Plugin(check, source, name in self.config.trusted))
        if name not in self.found and not any(self.load(source)[1] for source in exact):
            broken = [why for source in others if (why := self.load(source)[1])]
            if broken:
                text = f'there is no check "{name}"; these plugins cannot be used: {"; ".join(broken)}'
                self.problems.append(Problem(path, text, "key"))

    def _take(self, name: str, plugin: Plugin) -> None:
        first = self.found.setdefault(name, plugin)
        if first is not plugin and first.source != plugin.source:
            text = f'two plugins have the name "{name}": {first.source} and {plugin.source}; remove one'
            self.problems.append(Problem(("checks", name), text, "key"))
        elif counts(plugin.check) and not plugin.trusted:
            text = f"{name} wants to know what became of each mail, which is told in process only; "
            self.problems.append(Problem(("checks", name), f"{text}write `plugins: {{trusted: [{name}]}}`", "key"))

    def check_trusted(self) -> None:
        """Every name under `trusted` is that of a plugin."""
        names = {source.name for source in self.sources} | set(self.found)
        for index, name in enumerate(self.config.trusted):
            if name not in names:
                text = f'"{name}" is built in' if name in self.taken else f'there is no plugin "{name}"'
                text += "; remove it" if name in self.taken else suggest(name, names)
                self.problems.append(Problem(("plugins", "trusted", index), text))
        for source in self.sources:
            if source.name in self.taken and isinstance(source, FileSource):
                text = f'the name "{source.name}" of the plugin {source} is that of a built-in check; rename it'
                self.problems.append(Problem(("plugins", "folder"), text))


def _usable(source: Source) -> tuple[Checks, str]:
    """Its classes, or why there are none.

    Raises:
        PluginError: likewise.
    """
    if source.foreign and (why := fatal(source.load)):
        return (), f"{source}: {why}"
    checks = source.load()
    why = next((f"{source}: {each.__name__}: {text}" for each in checks if (text := complaint(each))), "")
    return ((), why) if why else (checks, "")

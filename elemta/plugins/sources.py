"""Sources: where does a plugin come from, and which check classes are there?

An entry point of the group `elemta.checks` names a class, a module with classes, or a package in whose modules they
are.  A file of the plugins' folder is a module of its own under a private name.  A file's text is read once and goes
with its source: the processes in which a plugin runs execute exactly the code with which the policy was compiled,
whatever becomes of the file.  A package that has changed on disk since is imported anew.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract, isclass
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from elemta.check import Check
from elemta.plugins.contract import PluginError

GROUP = "elemta.checks"
BUILT_IN = frozenset({"elemta", "elemta_milter", "elemta_policyd"})
SHIPPED = "elemta_plugins"
LARGEST = 1 << 20  # octets of a file

Checks = tuple[type[Check[Any]], ...]
_stamps: dict[str, tuple[int, int]] = {}  # by module of a plugin's package: what its file was when it was imported


@dataclass(frozen=True)
class EntrySource:
    """An entry point.

    Attributes:
        name: its name, which is most often the check's.
        value: what it names, "package.module:Class".
        package: the distribution that brings it, "" when unknown.
        version: of that distribution.
    """

    name: str
    value: str
    package: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.package or self.value} {self.version}".strip()

    @property
    def top(self) -> str:
        """The top package in which it is."""
        return self.value.partition(":")[0].partition(".")[0].strip()

    @property
    def foreign(self) -> bool:
        """Its code is not ours."""
        return self.top not in {*BUILT_IN, SHIPPED}

    def load(self) -> Checks:
        """Import it.

        Raises:
            PluginError: that failed, or no check is there.
        """
        entry = EntryPoint(self.name, self.value, GROUP)
        said = f"entry point {self.name} = {self.value}"
        if self.top not in BUILT_IN:
            _forget_changed(self.top)
        try:
            target = entry.load()
            if isclass(target) and issubclass(target, Check):
                return (target,)
            found: Checks = ()
            if isinstance(target, ModuleType):
                found = tuple(check for module in _modules(target) for check in checks_in(module))
        except (Exception, SystemExit) as error:
            raise PluginError(f"{said}: {_told(error)}") from error
        finally:
            _remember(self.top)
        if not found:
            raise PluginError(f"{said}: neither a check class nor a package of them")
        return found


@dataclass(frozen=True)
class FileSource:
    """A file of the folder.

    Attributes:
        path: where it is.
        text: what it said when it was read; empty when it could not be.
        unusable: why it cannot be used, "" when it can.
    """

    path: str
    text: bytes = b""
    unusable: str = ""

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The file's name without its end, which is most often the check's."""
        return Path(self.path).stem

    @property
    def foreign(self) -> bool:
        """Its code is not ours."""
        return not self.unusable

    def load(self) -> Checks:
        """Execute it as a module of its own.

        Raises:
            PluginError: that failed, or no check is there.
        """
        if self.unusable:
            raise PluginError(f"{self.path}: {self.unusable}")
        module = ModuleType(f"_elemta_plugin_{self.name}")
        module.__file__ = self.path
        before = sys.modules.get(module.__name__)
        sys.modules[module.__name__] = module  # pydantic and dataclasses look there for what annotations name
        try:
            exec(compile(self.text, self.path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - a plugin
        except (Exception, SystemExit) as error:
            if before is not None:
                sys.modules[module.__name__] = before
            raise PluginError(_told(error, self.path)) from error
        found = tuple(checks_in(module))
        if not found:
            text = "no check is there; write a class Name(elemta.Check[elemta.Message]) with async def run"
            raise PluginError(f"{self.path}: {text}")
        return found


Source = EntrySource | FileSource


def entry_sources() -> list[EntrySource]:
    """Every entry point of the group, ours included, by name."""
    invalidate_caches()  # what was installed since
    found = {}
    for entry in entry_points(group=GROUP):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
        found[entry.name, entry.value] = EntrySource(entry.name, entry.value, name, version)
    return [found[key] for key in sorted(found)]


def file_sources(folder: str) -> list[FileSource]:
    """Every file NAME.py of the folder, by name; those that begin with `_` or `test_` are none.

    Raises:
        OSError: the folder cannot be read.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix == ".py")
    return [_file(path) for path in paths if not path.name.startswith(("_", "test_", "conftest"))]


def unsafe(path: Path) -> str:
    """Why others than its owner could have written there, so that it must not be executed; "" when it is safe."""
    status = path.stat()
    root = os.geteuid() == 0
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}; let it belong to root"
    if status.st_mode & (0o022 if root else 0o002):
        return f"others may write to it (mode {status.st_mode & 0o7777:o}); chmod go-w"
    return ""


def checks_in(module: ModuleType) -> Iterator[type[Check[Any]]]:
    """The check classes that a module defines."""
    for value in vars(module).values():
        if (
            isclass(value)
            and issubclass(value, Check)
            and value.__module__ == module.__name__
            and not isabstract(value)
        ):
            yield value


def _file(path: Path) -> FileSource:
    try:
        unusable = unsafe(path)
        if not path.is_file():
            return FileSource(str(path), unusable="it is not a file")
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        return FileSource(str(path), unusable=(error.strerror or str(error)).lower())
    if len(text) > LARGEST:
        unusable = f"it is longer than {LARGEST >> 20} MiB"
    return FileSource(str(path), b"" if unusable else text, unusable)


def _modules(target: ModuleType) -> list[ModuleType]:
    if not hasattr(target, "__path__"):
        return [target]
    return [import_module(f"{target.__name__}.{each.name}") for each in pkgutil.iter_modules(target.__path__)]


def _told(error: BaseException, path: str = "") -> str:
    """What went wrong and where."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in extract_tb(error.__traceback__) if not path or frame.filename == path]
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else path
    text = f"{type(error).__name__}: {error}"
    return text if isinstance(error, (ImportError, AttributeError)) and not path else f"{where}: {text}"


def _of(top: str) -> list[str]:
    return [name for name in sys.modules if name == top or name.startswith(top + ".")]


def _stamp(name: str) -> tuple[int, int]:
    try:
        status = Path(getattr(sys.modules.get(name), "__file__", None) or "/").stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _remember(top: str) -> None:
    for name in _of(top) if top not in BUILT_IN else ():
        _stamps.setdefault(name, _stamp(name))


def _forget_changed(top: str) -> None:
    """Let a plugin's package be imported anew where one of its files has changed."""
    loaded = _of(top)
    if any(name in _stamps and _stamps[name] != _stamp(name) for name in loaded):
        for name in loaded:
            del sys.modules[name]
            _stamps.pop(name, None)

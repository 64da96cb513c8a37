"""Source: what do the configuration file and the files it includes say together, and where does each value stand?

`read(path)` follows `include:`, merges, and returns a `Source`: the data, and the place of every key and value, so
that later stages can report their own problems by path.

    include: conf.d/*.yaml         # or a list; relative to the including file; in the order of their names

Mappings are merged deeply; the lists `rules.recipient`, `rules.message`, `sign` and `tests` are joined, the including
file's first; anything else given by two files is an error.  A pattern may match nothing, a plain name must not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from glob import escape, glob, has_magic
from pathlib import Path as File
from typing import Any

from elemta.config.nodes import Entry, Node, parse
from elemta.config.problems import (
    PATH_MAX,
    WITHOUT_QUOTES,
    ConfigErrors,
    Origin,
    Path,
    Problem,
    path_text,
    printable,
    quoted,
    spaced,
)
from elemta.config.words import Decimal, beside, unreadable
from elemta.config.words import read as read_word

MAX_OCTETS = 16 << 20
"""Of one file."""
MAX_FILES = 1000
"""Read for one configuration."""

JOINED = frozenset({("rules", "recipient"), ("rules", "message"), ("sign",), ("tests",)})
"""Lists to which every file may add."""
_PATHS = frozenset({
    ("journal", "path"), ("spool",), ("metrics", "directory"), ("plugins", "folder"), ("reports", "file"),
    ("quarantine", "postfix"),
})  # fmt: skip
_INCLUDE: Path = ("include",)
_SECTIONS_OF_FILES = frozenset({"sets", "checks", "sign", "seal"})


@dataclass(frozen=True)
class Source:
    """A configuration as it was read.

    Attributes:
        file: the path given to `read`.
        root: the top mapping, files merged.
        files: every file read, in order; `include` files after the one that names them.
    """

    file: str
    root: Node
    files: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """Plain values; paths of files are absolute, taken from the directory of the file that names them."""
        return {key: _plain(entry.node, (key,)) for key, entry in _entries(self.root).items()}

    def locate(self, path: Path, on: str = "value") -> Origin:
        """The place of the longest part of `path` that stands in a file; with `on="key"`, that of the key."""
        origin = self.root.origin
        node: Node | None = self.root
        for part in path:
            key, node = _step(node, part)
            if node is None:
                break
            origin = key if on == "key" and key is not None else node.origin
        return origin

    def find(self, path: Path) -> Node | None:
        """The node at `path`; None when no file says anything there."""
        node: Node | None = self.root
        for part in path:
            _, node = _step(node, part)
        return node

    def broken(self, path: Path) -> bool:
        """Whether a problem was already reported for the value at `path` or one around it."""
        return any(node is not None and node.broken for node in (self.find(path[:end]) for end in range(len(path) + 1)))

    def placed(self, problem: Problem) -> Problem:
        """`problem` with its place, without what is secret, and with advice for what the environment filled in."""
        if problem.origin:
            return problem
        node = self.find(problem.path)
        message = problem.message if node is None else _filled(_untold(problem.message, node), node)
        return replace(problem, message=message, origin=self.locate(problem.path, problem.on))

    def errors(self, problems: Iterable[Problem]) -> ConfigErrors:
        """The exception that reports `problems` with their places."""
        return ConfigErrors(self.placed(each) for each in problems)


def read(path: str, environment: Mapping[str, str]) -> tuple[Source, list[Problem]]:
    """The configuration in the file `path`, and what is wrong with single words of it.

    Raises:
        ConfigErrors: a file cannot be read, or its YAML cannot; all such problems at once.
    """
    reader = _Reader(environment)
    root = reader.file(path, None)
    if root is None or not reader.readable:
        raise ConfigErrors(reader.problems, reader.status)
    return Source(path, root, tuple(name for name, _ in reader.files.values())), reader.problems


@dataclass
class _Reader:
    """Follows `include:` from file to file."""

    environment: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, tuple[str, Origin | None]] = field(default_factory=dict)  # by real path: name, and who names it
    readable: bool = True
    status: int = os.EX_CONFIG

    def file(self, path: str, named: Origin | None) -> Node | None:
        """The top mapping of a file with all that it includes."""
        self.files[os.path.realpath(path)] = (path, named)
        text = self._text(path, named)
        if text is None:
            return None
        tree = parse(text, path, lambda word, plain, origin: read_word(word, plain, origin, self.environment))
        self.problems += tree.problems
        self.readable = self.readable and tree.readable
        if tree.root is None:
            if tree.readable and named is None:
                text = "this file says nothing; the shortest useful one is `host: mx1.example.org`"
                self._fail(text, Origin(path, 1, 1))
            return None
        if not isinstance(tree.root.value, dict):
            text = "the top must be a mapping; write `key: value` lines" + spaced(tree.root.value)
            self._fail(text, tree.root.origin)
            return None
        return self._included(tree.root, path)

    def _included(self, root: Node, path: str) -> Node:
        entries = _entries(root)
        if "include" not in entries:
            return root
        root = Node(root.origin, {key: entry for key, entry in entries.items() if key != "include"})
        value = entries["include"].node
        for place in value.value if isinstance(value.value, list) else [value]:
            for found in self._matching(place, path):
                if len(self.files) >= MAX_FILES:
                    self._fail(f"more than {MAX_FILES} files; join some", place.origin, _INCLUDE)
                    return root
                node = self.file(found, place.origin)
                if node is not None:
                    root = self._merged(root, node, ())
        return root

    def _matching(self, place: Node, path: str) -> list[str]:
        """The files that one `include` names; () and a problem when it cannot be."""
        if place.broken:
            return []
        if not isinstance(place.value, str) or not place.value:
            text = "write the name of a file, such as conf.d/*.yaml, or a list of names"
            self._fail(text, place.origin, _INCLUDE)
            return []
        folder = File(path).parent
        found = [str(folder / place.value)]
        if has_magic(place.value):
            if trouble := _unlisted(folder / place.value):
                self._fail(trouble, place.origin, _INCLUDE)
                return []
            found = sorted(glob(str(File(escape(str(folder))) / place.value)))  # noqa: PTH207 - also absolute patterns
        return [each for each in found if self._first_time(each, place)]

    def _first_time(self, found: str, place: Node) -> bool:
        known = self.files.get(os.path.realpath(found))
        if known is None:
            return True
        first = f"first at {known[1]}" if known[1] else "and it is the file that all begins with"
        self._fail(f"{quoted(found, PATH_MAX)} is included again, {first}; include a file once", place.origin, _INCLUDE)
        return False

    def _merged(self, ours: Node, theirs: Node, path: Path) -> Node:
        """Both mappings as one; neither is changed, since an alias may stand for it elsewhere."""
        entries = dict(_entries(ours))
        for key, entry in _entries(theirs).items():
            inner = (*path, key)
            if key not in entries:
                entries[key] = entry
                continue
            first = entries[key]
            if isinstance(first.node.value, dict) and isinstance(entry.node.value, dict):
                entries[key] = Entry(first.key, self._merged(first.node, entry.node, inner))
            elif inner in JOINED and isinstance(first.node.value, list) and isinstance(entry.node.value, list):
                joined = Node(first.node.origin, first.node.value + entry.node.value)
                entries[key] = Entry(first.key, joined)
            else:
                text = f"{path_text(inner)} is also given at {first.key}; keep one"
                self.problems.append(Problem(inner, text, "key", entry.key))
        return Node(ours.origin, entries)

    def _text(self, path: str, named: Origin | None) -> str | None:
        """What stands in a file; None and a problem when it cannot be read."""
        if named is not None and (trouble := unreadable(path)):
            self._fail(trouble, named, _INCLUDE)
            return None
        try:
            with File(path).open("rb") as file:
                octets = file.read(MAX_OCTETS + 1)
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            self.status = os.EX_NOINPUT
            self._fail(f"this file cannot be read: {reason}", Origin(path))
            return None
        if len(octets) > MAX_OCTETS:
            text = f"this file is longer than {MAX_OCTETS >> 20} MiB; keep long lists in files of their own"
            self._fail(text, Origin(path))
            return None
        try:
            return octets.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            start = octets.rfind(b"\n", 0, error.start) + 1
            line = octets.count(b"\n", 0, error.start) + 1
            column = len(octets[start : error.start].decode()) + 1
            text = f"the octet 0x{octets[error.start]:02X} is not UTF-8; save this file as UTF-8"
            self._fail(text, Origin(path, line, column))
            return None

    def _fail(self, message: str, origin: Origin, path: Path = ()) -> None:
        self.problems.append(Problem(path, message, origin=origin))
        self.readable = False


def _unlisted(pattern: File) -> str:
    """Why nobody knows what a pattern matches; "" where that is known.

    Of a directory that hides its files `glob` says that there are none: read again by another user, the configuration
    would lose all that stands there.
    """
    directory = next(each for each in pattern.parents if not has_magic(str(each)))
    try:
        os.scandir(directory).close()
    except PermissionError:
        return f"{quoted(directory, PATH_MAX)} cannot be read: permission denied; make the directory readable"
    except OSError:
        pass  # there is none
    return ""


def _untold(message: str, node: Node) -> str:
    """`message` without a value that came from a file: it may be a password, and messages go to the log."""
    if not node.secret:
        return message
    return message.replace(quoted(node.value), '"***"').replace(f'"{node.value}"', '"***"')  # cut to a line, or whole


def _filled(message: str, node: Node) -> str:
    """`message`; where it says to leave out the quotes of `${NAME}`, with where that can be done."""
    said = f"{node.value}{WITHOUT_QUOTES}"
    if not node.filled or not message.endswith(said):
        return message
    lines = "inside { } and [ ] it needs them, so write lines of `key: value`"
    return f"{message.removesuffix(said)}{printable(node.filled)}{WITHOUT_QUOTES}; {lines}"


def _entries(node: Node) -> dict[str, Entry]:
    return node.value if isinstance(node.value, dict) else {}


def _step(node: Node | None, part: str | int) -> tuple[Origin | None, Node | None]:
    """The place of the key `part` of a node, and what stands there; None for nothing."""
    if node is None:
        return None, None
    if isinstance(node.value, dict) and part in node.value:
        entry = node.value[str(part)]
        return entry.key, entry.node
    if isinstance(node.value, list) and isinstance(part, int) and 0 <= part < len(node.value):
        return None, node.value[part]
    return None, None


def _plain(node: Node, path: Path) -> Any:  # noqa: ANN401 - whatever the file says
    if isinstance(node.value, dict):
        return {key: _plain(entry.node, (*path, key)) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item, (*path, index)) for index, item in enumerate(node.value)]
    if isinstance(node.value, Decimal) and _compares(path):
        return node.value.text if node.value.text != str(float(node.value)) else node.value
    if isinstance(node.value, str) and node.value and _names_file(path):
        return beside(node.origin.file, node.value)
    return node.value


def _compares(path: Path) -> bool:
    """Whether facts are compared with what stands at `path`: with texts, of which 1.10 is another than 1.1."""
    match path:
        case ("classes", *_) | ("rules", _, _, "when" | "unless", *_) | ("tests", _, "given", *_):
            return True
    return False


def _names_file(path: Path) -> bool:
    """Whether the text at `path` is a path: `file:` or `directory:` in a section of files, or one of a few keys."""
    return path in _PATHS or (path[0] in _SECTIONS_OF_FILES and path[-1] in ("file", "directory"))

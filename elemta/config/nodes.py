"""Nodes: what does one YAML file say, and at which line and column does each word of it stand?

Reads libyaml's events, so that depth and size are bounded before anything is built (a chain of brackets costs the
C composer quadratic time and its stack).  Reports every duplicate key and unusable value it passes; a syntax error
ends the file.  Never reads a second file and never knows what a key means.

YAML 1.2 section 10.3 ("core schema") is nearly what is read: see `words.plain` for what a word without quotes is.
Merge keys (`<<`) are as in YAML 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from elemta.config.problems import Origin, Path, Problem, quoted
from elemta.config.syntax import syntax_problem

MAX_DEPTH = 50
"""Mappings and lists inside each other, aliases followed."""
MAX_NODES = 250_000
"""Values in one file, each alias counted as often as what it stands for."""

_TOO_DEEP = f"more than {MAX_DEPTH} mappings and lists inside each other; write it flatter"
Scalar = str | int | float | bool | None
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # YAML 1.2, 5.1
_KNOWN_TAGS = {None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(slots=True)
class Node:
    """A value and its place.

    Attributes:
        origin: where it begins.
        value: a scalar, the items of a list, or the entries of a mapping.
        broken: a problem was already reported for it; what it would be is not known.
        secret: it came from a file named by `file:`; do not print it.
        filled: what stands in the file, in quotes, where the environment filled it in; else "".
        nodes: values in it, itself counted, aliases followed.
        depth: mappings and lists inside each other, itself counted.
    """

    origin: Origin
    value: Scalar | list[Node] | dict[str, Entry]
    broken: bool = False
    secret: bool = False
    filled: str = ""
    nodes: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping: the key's place, and its value."""

    key: Origin
    node: Node


ReadScalar = Callable[[str, bool, Origin], Node]
"""(text, whether it stands without quotes, place) to a node; raises ValueError with a text that teaches."""


@dataclass(slots=True)
class Tree:
    """What a file says: its top, None when it says nothing or cannot be read on; and its problems."""

    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True


def parse(text: str, file: str, read_scalar: ReadScalar) -> Tree:
    """What `text` says; `read_scalar` makes a node of each scalar."""
    tree = Tree()
    bad = _UNPRINTABLE.search(text)
    if bad:
        tree.readable = False
        tree.problems.append(
            Problem(
                (),
                f"the character U+{ord(bad[0]):04X} cannot stand in YAML; remove it",
                origin=_origin_at(text, bad.start(), file),
            )
        )
        return tree
    loader = yaml.CSafeLoader(text)
    try:
        tree.root = _Builder(loader, file, read_scalar, tree.problems).document()
    except _Stop as stop:
        tree.readable = False
        tree.problems.append(stop.problem)
    except yaml.MarkedYAMLError as error:
        tree.readable = False
        tree.problems.append(syntax_problem(error, text, file))
    finally:
        loader.dispose()
    return tree


class _Stop(Exception):  # noqa: N818 - not an error of the program
    """The file cannot be read on."""

    def __init__(self, path: Path, message: str, origin: Origin) -> None:
        self.problem = Problem(path, message, origin=origin)
        super().__init__(message)


class _Builder:
    """Turns events into nodes; holds the anchors seen so far and the number of values."""

    def __init__(self, loader: Any, file: str, read_scalar: ReadScalar, problems: list[Problem]) -> None:  # noqa: ANN401
        self._next = loader.get_event
        self._peek = loader.peek_event
        self._file = file
        self._read_scalar = read_scalar
        self._problems = problems
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def document(self) -> Node | None:
        """The only document of the stream, or None where there is none."""
        self._next()  # stream start
        if isinstance(self._peek(), yaml.StreamEndEvent):
            return None
        self._next()  # document start
        empty = _is_empty(self._peek())
        root = self._node((), 1)
        self._next()  # document end
        after = self._peek()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _Stop((), "a second document begins here; write one, without `---` between", self._origin(after))
        return None if empty else root

    def _node(self, path: Path, depth: int) -> Node:
        event = self._next()
        origin = self._origin(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, path, depth, origin)
        if depth > MAX_DEPTH:
            raise _Stop(path[:1], _TOO_DEEP, origin)
        self._count(1, path, origin)
        if event.tag not in _KNOWN_TAGS:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            text = f"the tag {quoted(tag)} has no meaning here; remove it"
            self._problems.append(Problem(path, text, origin=origin))
        if event.anchor:
            self._anchors[event.anchor] = None  # open: an alias inside would hold itself
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path, origin)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(path, depth, origin)
        else:
            node = self._mapping(path, depth, origin)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any, path: Path, origin: Origin) -> Node:  # noqa: ANN401
        try:
            return self._read_scalar(event.value, event.implicit[0], origin)
        except ValueError as error:
            self._problems.append(Problem(path, str(error), origin=origin))
            return Node(origin, None, broken=True)

    def _list(self, path: Path, depth: int, origin: Origin) -> Node:
        items: list[Node] = []
        while not isinstance(self._peek(), yaml.SequenceEndEvent):
            items.append(self._node((*path, len(items)), depth + 1))
        self._next()
        return _sized(Node(origin, items), items)

    def _mapping(self, path: Path, depth: int, origin: Origin) -> Node:
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        while not isinstance(self._peek(), yaml.MappingEndEvent):
            event = self._peek()
            place, merges = self._origin(event), isinstance(event, yaml.ScalarEvent) and event.implicit[0]
            key = self._key(path, depth)
            inner = (*path, key)
            node = self._node(inner, depth + 1)
            if merges and key == "<<":
                merged += self._mergeable(node, inner)
            elif key in entries:
                first = entries[key].key.line
                text = f"the key {quoted(key)} stands here again, first in line {first}; keep one"
                self._problems.append(Problem(inner, text, "key", place))
            else:
                entries[key] = Entry(place, node)
        self._next()
        for mapping in merged:
            for name, entry in mapping.value.items() if isinstance(mapping.value, dict) else ():
                entries.setdefault(name, entry)
        return _sized(Node(origin, entries), [entry.node for entry in entries.values()])

    def _key(self, path: Path, depth: int) -> str:
        """The text of a key; whatever it looks like, a key is text."""
        event = self._peek()
        if isinstance(event, yaml.ScalarEvent):
            self._next()
            text: str = event.value
            if "\0" in text:
                raise _Stop(path, "a key cannot hold a NUL character; remove it", self._origin(event))
            if event.anchor:
                self._anchors[event.anchor] = Node(self._origin(event), text)
            return text
        node = self._node(path, depth + 1)
        if isinstance(node.value, str):  # an alias of a word
            return node.value
        raise _Stop(path, "a key must be a word; write `key: value`", self._origin(event))

    def _mergeable(self, node: Node, path: Path) -> list[Node]:
        """The mappings that a merge key names, the one that wins first."""
        nodes = node.value if isinstance(node.value, list) else [node]
        if all(isinstance(each.value, dict) for each in nodes):
            return nodes
        self._problems.append(Problem(path, "`<<` merges mappings; write `<<: *NAME` of one", origin=node.origin))
        return []

    def _alias(self, name: str | None, path: Path, depth: int, origin: Origin) -> Node:
        if name is None or name not in self._anchors:
            raise _Stop(
                path,
                f"the alias *{name} stands for nothing; write &{name} before what it means, or put *{name} in quotes",
                origin,
            )
        node = self._anchors[name]
        if node is None:
            raise _Stop(path, f"the alias *{name} stands inside what it means; write it out", origin)
        if depth + node.depth - 1 > MAX_DEPTH:
            raise _Stop(path[:1], _TOO_DEEP, origin)
        self._count(node.nodes, path, origin)
        return node

    def _count(self, nodes: int, path: Path, origin: Origin) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            text = f"more than {MAX_NODES} values; keep long lists in a file of their own (`{{file: PATH}}`)"
            raise _Stop(path, text, origin)

    def _origin(self, event: Any) -> Origin:  # noqa: ANN401
        return Origin(self._file, event.start_mark.line + 1, event.start_mark.column + 1)


def _sized(node: Node, inner: list[Node]) -> Node:
    node.nodes = 1 + sum(each.nodes for each in inner)
    node.depth = 1 + max((each.depth for each in inner), default=0)
    return node


def _is_empty(event: object) -> bool:
    """Whether a document holds nothing but comments."""
    return isinstance(event, yaml.ScalarEvent) and event.value == "" and bool(event.implicit[0])


def _origin_at(text: str, offset: int, file: str) -> Origin:
    before = text[:offset]
    return Origin(file, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)

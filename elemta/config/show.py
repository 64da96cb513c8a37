"""Showing: what is the effective configuration, and where does each value come from?

`yaml_text` writes it as a file that loads to the same settings, secrets aside; with origins, each line tells its
file and line, or that it is a default.  Passwords in URLs, values read by `file:`, and whatever stands under a key
that speaks of a password are printed as ***.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from yaml import ScalarNode
from yaml.resolver import Resolver

from elemta.config.names import masked
from elemta.config.problems import Path, path_text
from elemta.config.source import Source
from elemta.config.words import word

MASK = "***"
_SECRET_KEY = re.compile(r"(?:^|_)(?:password|secret|token)$", re.IGNORECASE)
_BARE = re.compile(r"[A-Za-z0-9/._][A-Za-z0-9/._@+-]*(?: [A-Za-z0-9/._@+-]+|:[A-Za-z0-9/._@+-]+)*")
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def hidden(value: Any, source: Source, path: Path = ()) -> Any:  # noqa: ANN401 - plain YAML values
    """`value`, what stands at `path`, with its secrets masked and its empty values left out."""
    if isinstance(value, Mapping):
        inner = {key: hidden(item, source, (*path, key)) for key, item in value.items() if item is not None}
        is_rule = len(path) == 3 and path[0] == "rules"  # most of what a rule may have, it has not
        return {key: item for key, item in inner.items() if not (is_rule and item in ([], {}, ""))}
    if isinstance(value, list):
        return [hidden(item, source, (*path, index)) for index, item in enumerate(value)]
    node = source.find(path)
    if (node is not None and node.secret) or (path and _SECRET_KEY.search(str(path[-1]))):
        return MASK
    return masked(value) if isinstance(value, str) and "://" in value else value


def origin(source: Source, path: Path) -> str:
    """Where the value at `path` was written: "elemta.yaml:12", or "default"."""
    node = source.find(path)
    return f"{node.origin.file}:{node.origin.line}" if node is not None else "default"


def values(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:  # noqa: ANN401
    """Every single value in `value` with its path; a list of single values is one, and so is anything empty."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from values(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        for index, item in enumerate(value):
            yield from values(item, (*path, index))
    else:
        yield path, value


def json_text(effective: Mapping[str, Any], source: Source | None = None) -> str:
    """The configuration as JSON; with `source`, as a list of path, value and origin."""
    if source is None:
        return json.dumps(effective, indent=2, ensure_ascii=False)
    found = ((path_text(path), value, origin(source, path)) for path, value in values(effective))
    rows = [{"path": path, "value": value, "origin": place} for path, value, place in found]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def yaml_text(effective: Mapping[str, Any], source: Source | None = None) -> str:
    """The configuration as YAML; with `source`, each value's origin stands behind it."""
    lines = list(_lines(effective, (), ""))
    if source is None:
        return "\n".join(line for line, _ in lines)
    width = min(max((len(line) for line, path in lines if path is not None), default=0), 60)
    return "\n".join(line if path is None else f"{line:<{width}}  # {origin(source, path)}" for line, path in lines)


def _lines(value: Any, path: Path, indent: str) -> Iterator[tuple[str, Path | None]]:  # noqa: ANN401
    """Lines of YAML, each with the path of the value on it."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            inner = (*path, key)
            if _is_block(item):
                yield f"{indent}{_key(str(key))}:", None
                yield from _lines(item, inner, indent + "  ")
            else:
                yield f"{indent}{_key(str(key))}: {_flow(item)}", inner
    elif isinstance(value, list) and _is_block(value):
        for index, item in enumerate(value):
            first, *rest = _lines(item, (*path, index), indent + "  ")
            text, place = first
            yield f"{indent}- {text.removeprefix(indent + '  ')}", place
            yield from rest
    else:
        yield f"{indent}{_flow(value)}", path


def _is_block(value: Any) -> bool:  # noqa: ANN401
    """Whether `value` needs lines of its own."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value)


def _flow(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    """A text so that it is read as this text: bare where nothing can be mistaken."""
    if _BARE.fullmatch(text) and word(text) == text and not text.startswith("file:") and _is_text(text):
        return text
    return _quoted(text).replace("${", "$${")


def _key(text: str) -> str:
    """A key, in which nothing is filled in."""
    return text if _BARE.fullmatch(text) and _is_text(text) else _quoted(text)


def _quoted(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _is_text(text: str) -> bool:
    """Whether other programs take the bare word for text, too: not `yes` (YAML 1.1), not `08` or `1e3` (YAML 1.2)."""
    try:
        float(text)
    except ValueError:
        resolver: Any = Resolver()  # untyped in types-PyYAML
        return bool(resolver.resolve(ScalarNode, text, (True, False)) == Resolver.DEFAULT_SCALAR_TAG)
    return False

"""Models: which models does a pydantic model hold, and what are their defaults as people write them?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """`kind` and every model in its fields, outermost first, each once."""
    seen: set[type] = set()
    waiting: list[Any] = [kind]
    while waiting:
        found = waiting.pop(0)
        waiting += getattr(found, "__args__", ())  # of a union, a list, a mapping
        if isinstance(found, type) and issubclass(found, BaseModel) and found not in seen:
            seen.add(found)
            yield found
            waiting += [field.annotation for field in found.model_fields.values()]


def defaults(kind: type[BaseModel]) -> dict[str, Any]:
    """The default of each key that has one, written as in the YAML: "1h30m", not 5400.0."""
    written = kind.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
    return {
        field.alias or name: written[field.alias or name]
        for name, field in kind.model_fields.items()
        if not field.is_required()
    }

"""Models: which models does a pydantic model hold, what do their fields mean, and what are the defaults?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo


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
            waiting.append(get_type_hints(found).get("__pydantic_extra__"))  # keys of any name


def meaning(field: FieldInfo) -> str:
    """What a field is for: its description, or the text among its annotations."""
    return field.description or next((each for each in field.metadata if isinstance(each, str)), "")


def defaults(kind: type[BaseModel]) -> dict[str, Any]:
    """The default of each key that has one, written as in the YAML: "1h30m", not 5400.0."""
    written = kind.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
    return {
        field.alias or name: written[field.alias or name]
        for name, field in kind.model_fields.items()
        if not field.is_required()
    }

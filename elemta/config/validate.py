"""Validation: do these values fit a model, and if not, what should the administrator write instead?

`validated(model, data, path)` is how every part of the configuration becomes typed: the settings here, a check's
options later.  Values are taken strictly (text is never a number, only `true` and `false` are booleans); every pydantic
error becomes one `Problem` whose text says what stands there and what to write, worded from the model's JSON Schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from elemta.config.problems import WITHOUT_QUOTES, Path, Problem, either, printable, quoted, spaced, suggest
from elemta.config.types import duration_text, size_text
from elemta.config.words import Decimal
from elemta.config.words import word as plain_word

Model = TypeVar("Model", bound=BaseModel)
Schema = Mapping[str, Any]

_EXAMINED = 1000  # errors of one validation that are put into words; a million wrong entries need no million lines


def validated(model: type[Model], data: object, path: Path = ()) -> tuple[Model | None, list[Problem]]:
    """`data` (plain YAML values) as a `model`, or None and every problem; `path` is where `data` stands."""
    try:
        return model.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        schema = _schema(model)
        mistakes = [_mistake(each, data) for each in error.errors(include_url=False)[:_EXAMINED]]
        return None, [_problem(each, schema, path) for each in _best(mistakes) if not _is_echo(each)]


def read_options(model: type[Model], data: object, path: Path) -> tuple[Model | None, list[Problem]]:
    """The options of one check, as `validated` gives them; nothing (`spf:`) stands for the defaults."""
    return validated(model, {} if data is None else data, path)


def found(value: object) -> str:
    """What stands there, in words."""
    match value:
        case None:
            return "nothing stands here"
        case bool():
            return f"the boolean {str(value).lower()} stands here"
        case int() | float():
            return f"the number {value.text if isinstance(value, Decimal) else value} stands here"
        case str():
            return f"the text {quoted(value)} stands here"
        case list():
            return "a list stands here"
        case _:
            return "a mapping stands here"


@dataclass(frozen=True, slots=True)
class _Mistake:
    """A pydantic error, its location parted into what stands in the file and which arm of a union spoke."""

    kind: str
    path: Path
    value: object
    message: str
    context: Mapping[str, Any]
    on_key: bool
    missing: str
    union: Path | None
    arm: str

    @property
    def shape(self) -> bool:
        """Whether the value as a whole did not fit the arm."""
        return self.path == self.union and not self.missing


def _mistake(error: Any, data: object) -> _Mistake:  # noqa: ANN401 - pydantic's ErrorDetails
    path: list[str | int] = []
    value: Any = data
    union: Path | None = None
    arm, on_key, missing = "", False, ""
    for index, part in enumerate(error["loc"]):
        last = index == len(error["loc"]) - 1
        if part in value if isinstance(value, dict) else _is_index(value, part):
            value = value[part]
            path.append(part)
        elif last and part == "[key]":
            on_key = True
        elif last and error["type"] == "missing":
            missing = str(part)
        elif union is None:
            union, arm = tuple(path), str(part)
    on_key = on_key or error["type"] == "extra_forbidden"
    context = error.get("ctx", {})
    return _Mistake(error["type"], tuple(path), value, error["msg"], context, on_key, missing, union, arm)


def _is_echo(mistake: _Mistake) -> bool:
    """Whether a tuple is too short only since entries with mistakes of their own, told beside, were not counted."""
    value = mistake.value
    return mistake.kind == "too_short" and isinstance(value, list) and len(value) >= mistake.context["min_length"]


def _is_index(value: object, part: object) -> bool:
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _best(mistakes: Sequence[_Mistake]) -> Iterator[_Mistake]:
    """Of each union, what the arm says that was most likely meant."""
    for union, group in groupby(mistakes, key=lambda each: each.union):
        said = list(group)
        if union is None:
            yield from _without_misspelt(said)
            continue
        arms = [list(arm) for _, arm in groupby(said, key=lambda each: each.arm)]
        fitting = [_without_misspelt(arm) for arm in arms if not any(each.shape for each in arm)]
        if fitting:
            yield from min(fitting, key=len)
        else:
            yield next((each for each in said if each.kind == "value_error"), said[0])


def _without_misspelt(arm: list[_Mistake]) -> list[_Mistake]:
    """A key that is missing since it was misspelt is one mistake, not two."""
    strange = [each.path for each in arm if each.kind == "extra_forbidden"]
    return [
        each
        for each in arm
        if not each.missing
        or not any(path[:-1] == each.path and suggest(str(path[-1]), [each.missing]) for path in strange)
    ]


def _problem(mistake: _Mistake, schema: Schema, at: Path) -> Problem:
    return Problem(at + mistake.path, _message(mistake, schema), "key" if mistake.on_key else "value")


def _message(mistake: _Mistake, schema: Schema) -> str:  # noqa: PLR0911 - one return for each kind of mistake
    kind, value, context = mistake.kind, mistake.value, mistake.context
    if kind == "missing":
        wanted = schemas(schema, (*mistake.path, mistake.missing))
        return f"the key {quoted(mistake.missing)} is missing; write {mistake.missing}: {describe(list(wanted))}"
    if kind == "extra_forbidden":
        return _unknown_key(str(mistake.path[-1]), list(schemas(schema, mistake.path[:-1])))
    if kind in {"value_error", "assertion_error"}:
        return str(context["error"])
    if kind == "string_too_short" and not value:
        return f"an empty text stands here; write {describe(list(schemas(schema, mistake.path)))}"
    candidates = list(schemas(schema, mistake.path))
    if kind in _BOUNDS:
        bounds = {name: _written(bound, candidates) for name, bound in context.items()}
        return f"{quoted(value) if isinstance(value, str) else _counted(value)} {_BOUNDS[kind].format(**bounds)}"
    if kind in _CHOICES and isinstance(value, str):
        words = [str(word) for each in candidates for word in each.get("enum", ())]
        near = suggest(value, words)
        return f"unknown word {quoted(value)}" + (near or f"; write {describe(candidates)}")
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        text = value.text if isinstance(value, Decimal) else json.dumps(value)
        return f'{found(value)}; write text, in quotes: "{text}"'
    if value is None:
        remove = "" if _is_required(mistake.path, schema) else ", or remove the key"
        return f"{found(value)}; write {describe(candidates)}{remove}"
    if kind.endswith("_type") or kind in _CHOICES or kind == "int_from_float" or mistake.union is not None:
        return f"{found(value)}; write {_misnamed(mistake.path, schema) or _instead(value, candidates)}"
    return f"{found(value)}; {mistake.message[:1].lower()}{mistake.message[1:]}"


_CHOICES = {"literal_error", "enum"}
_BOUNDS = {
    "greater_than": "is too small; write more than {gt}",
    "greater_than_equal": "is too small; write {ge} or more",
    "less_than": "is too big; write less than {lt}",
    "less_than_equal": "is too big; write {le} or less",
    "too_short": "are too few; write {min_length} or more",
    "too_long": "are too many; write {max_length} or less",
    "string_too_short": "is too short; write {min_length} characters or more",
    "string_too_long": "is too long; write {max_length} characters or less",
    "string_pattern_mismatch": "does not look right; write what matches {pattern}",
}


def _is_required(path: Path, schema: Schema) -> bool:
    """Whether the key at the end of `path` must be there."""
    return bool(path) and any(path[-1] in each.get("required", ()) for each in schemas(schema, path[:-1]))


def _instead(value: object, candidates: Sequence[Schema]) -> str:
    """What to write in place of a value of a wrong kind."""
    wanted, kinds = describe(candidates), {str(each.get("type")) for each in candidates}
    if isinstance(value, str) and kinds & _plainly(value):
        return f"{wanted}: {value}{WITHOUT_QUOTES}"
    if isinstance(value, dict) and "string" in kinds and not any("enum" in each for each in candidates):
        return f"{wanted}, in quotes where a colon is in it"
    if "object" in kinds and isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return f"{wanted}, `{printable(value[0])}:` instead of `- {printable(value[0])}`"
    any_keys = {"object", "null"} <= kinds and not any(each.get("properties") for each in candidates)
    if any_keys and isinstance(value, (bool, str)) and not spaced(value):  # a check's: `spf: true`, `spf: off`
        return f"nothing for the defaults or {wanted}, or remove the key"
    return wanted + (spaced(value) if "object" in kinds else "")


def _misnamed(path: Path, schema: Schema) -> str:
    """What to write where keys may have any name, and this one nearly has that of one that means something else."""
    around = schemas(schema, path[:-1])
    known = [name for each in around if each.get("additionalProperties") for name in each.get("properties", ())]
    near = "" if not path or path[-1] in known else suggest(str(path[-1]), known)
    return near and f"{describe(list(schemas(schema, path)))}{near}"


def _plainly(text: str) -> set[str]:
    """The kinds that a text would be of without its quotes."""
    kinds = {bool: {"boolean"}, int: {"integer", "number"}, Decimal: {"number"}}
    return kinds.get(type(plain_word(text)), set())


def _counted(value: object) -> str:
    """A number, or how many entries a list or mapping has."""
    return f"{len(value)} entries" if isinstance(value, (list, dict)) else str(value)


def _written(bound: object, candidates: Sequence[Schema]) -> object:
    """A bound as it is to be written where it holds: 128M, 1d."""
    kinds = {each.get("x-kind") for each in candidates}
    if isinstance(bound, (int, float)) and "a duration" in kinds:
        return duration_text(bound)
    if isinstance(bound, int) and "a size" in kinds:
        return size_text(bound)
    return f"{bound:.15g}" if isinstance(bound, float) else bound


def _unknown_key(key: str, candidates: Sequence[Schema]) -> str:
    known = sorted({name for each in candidates for name in each.get("properties", {})})
    if key in known:  # of another arm of a union
        return f"{quoted(key)} cannot stand beside its neighbours; keep one"
    if key == "include":
        return "`include` stands at the top of a file only; move it there"
    near = suggest(key, known)
    return f"unknown key {quoted(key)}" + (near or (f"; write {either(known)}" if known else "; remove it"))


def describe(candidates: Sequence[Schema]) -> str:
    """What a value may be, in words: "text, or a list of texts"."""
    phrases = dict.fromkeys(_phrase(each) for each in candidates)
    return either([phrase for phrase in phrases if phrase] or ["something else"])


def _phrase(schema: Schema) -> str:
    if "const" in schema or "enum" in schema:
        return either(json.dumps(word) for word in schema.get("enum", [schema.get("const")]))
    if schema.get("examples"):
        return f"{schema.get('x-kind', 'text')} such as {either(str(each) for each in schema['examples'])}"
    if schema.get("required"):
        return f"a mapping with {' and '.join(schema['required'])}"
    if schema.get("properties"):
        return "a mapping"
    return _KINDS.get(str(schema.get("type")), "a value")


_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of `key: value`",
    "null": "",
}


def _schema(model: type[BaseModel]) -> Schema:
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:  # a plugin's options of a kind that JSON has no word for
        return {}


def schemas(schema: Schema, path: Path) -> Iterator[Schema]:
    """Every schema that may hold for the value at `path`, references and unions followed."""
    level: list[Schema] = [schema]
    for part in path:
        level = [inner for each in _arms(level, schema) for inner in _inner(each, part)]
    yield from _arms(level, schema)


def _arms(level: Iterable[Schema], top: Schema) -> Iterator[Schema]:
    for each in level:
        if "$ref" in each:
            yield from _arms([top["$defs"][each["$ref"].rpartition("/")[2]]], top)
        elif arms := [*each.get("anyOf", ()), *each.get("oneOf", ()), *each.get("allOf", ())]:
            yield from _arms(arms, top)
        else:
            yield each


def _inner(schema: Schema, part: str | int) -> Iterator[Schema]:
    if isinstance(part, int):
        inner = schema.get("items")
    else:
        inner = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
        inner = inner or next(iter(schema.get("patternProperties", {}).values()), None)
    if isinstance(inner, Mapping):
        yield inner

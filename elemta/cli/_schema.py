"""Schema: what may stand in the configuration file, as JSON Schema (draft 2020-12)?

Made from the settings' models, the checks' options and the facts, so that it cannot say anything else than the code.
Editors complete and check by it; `elemta config check` knows more (names that must exist, rules never reached).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from elemta.check import Check
from elemta.cli._models import defaults, meaning, models
from elemta.config.model import Settings
from elemta.rules.catalogue import catalogue
from elemta.rules.conditions import OPERATORS
from elemta.rules.view import Fact

Schema = dict[str, Any]

_FILLED_IN = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"  # ${NAME} may stand for a number
_SINGLE: Schema = {"type": ["string", "number", "boolean"]}
_SCALARS: Mapping[str, Schema] = {
    "text": _SINGLE,
    "domain": {"type": "string"},
    "address": {"type": "string"},
    "ip": {"type": "string"},
    "number": {"type": ["number", "string"]},
    "bool": {"type": "boolean"},
}


def schema(checks: Mapping[str, type[Check[Any]]]) -> Schema:
    """The JSON Schema of a configuration file where `checks` are there to be enabled."""
    top = Settings.model_json_schema(by_alias=True)
    definitions: Schema = top.pop("$defs")
    facts = sorted(catalogue(checks), key=lambda fact: fact.name)
    _write_fields(Settings, definitions, top)
    definitions |= _conditions(facts)
    definitions["RuleModel"]["properties"] |= {
        key: {**definitions["RuleModel"]["properties"][key], **_ref("Conditions")} for key in ("when", "unless")
    }
    definitions["TestModel"]["properties"]["given"] |= _ref("Given")
    properties = top["properties"]
    for section in ("sets", "classes", "checks"):
        ((pattern, inner),) = properties[section].pop("patternProperties").items()
        properties[section] |= {"propertyNames": {"pattern": pattern}, "additionalProperties": inner}
    properties["classes"]["additionalProperties"] = _ref("Conditions")
    properties["checks"] |= {"properties": _checks(checks, definitions), "additionalProperties": False}
    properties["include"] = {
        "description": "more files, relative to this one, such as conf.d/*.yaml",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for part in (definitions, top):
        _allow_environment(part)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Elemta's configuration"}
    return {**head, **{key: value for key, value in top.items() if key != "title"}, "$defs": definitions}


def _checks(checks: Mapping[str, type[Check[Any]]], definitions: Schema) -> Schema:
    found = {}
    for name, check in sorted(checks.items()):
        options = check.Options.model_json_schema(by_alias=True, ref_template=f"#/$defs/{name}.{{model}}")
        inner = options.pop("$defs", {})
        _write_fields(check.Options, inner, options)
        definitions |= {f"{name}.{model}": value for model, value in inner.items()}
        definitions[name] = options
        question = (check.__doc__ or "").strip().partition("\n")[0]
        found[name] = {"description": question, "anyOf": [_ref(name), {"type": "null"}]}
    return found


def _write_fields(kind: type[BaseModel], definitions: Schema, top: Schema) -> None:
    """What each field means, and its default as the file has it: "2s", where pydantic writes 2.0."""
    for each in models(kind):
        properties = (top if each is kind else definitions[each.__name__])["properties"]
        written = defaults(each)
        for name, field in each.model_fields.items():
            key = field.alias or name
            properties[key].pop("default", None)
            properties[key] |= {"description": meaning(field)} if meaning(field) else {}
            properties[key] |= {"default": written[key]} if written.get(key) is not None else {}


def _conditions(facts: list[Fact]) -> Schema:
    """What `when`, `unless`, `classes` and `given` may ask of the facts."""
    header = {"^header\\..": {"description": "every value of that header field", **_ref("Asked")}}
    several = {"type": "array", "minItems": 1, "items": _ref("Conditions")}
    asked = {fact.name: {"description": fact.doc, "anyOf": _asked(fact)} for fact in facts}
    nothing = {"type": "null"}
    given = {
        fact.name: {"description": fact.doc, "anyOf": [_scalar(fact), _list(_scalar(fact)), nothing]} for fact in facts
    }
    combined = {"all": several, "any": several, "not": _ref("Conditions")}
    return {
        "Conditions": {
            "type": "object",
            "properties": combined | asked,
            "patternProperties": header,
            "additionalProperties": False,
        },
        "Given": {
            "type": "object",
            "properties": given,
            "patternProperties": {"^header\\..": {}},
            "additionalProperties": False,
        },
        "Asked": {"anyOf": [_SINGLE, {"type": "array", "minItems": 1, "items": _ref("Asked")}, _ref("Operators")]},
        "Operators": {
            "type": "object",
            "minProperties": 1,
            "properties": {name: _operator(name, facts) for name in OPERATORS},
            "additionalProperties": False,
        },
    }


def _asked(fact: Fact) -> list[Schema]:
    return [_scalar(fact), _list({"anyOf": [_scalar(fact), _ref("Operators")]}), _ref("Operators")]


def _scalar(fact: Fact) -> Schema:
    return {"enum": list(fact.words)} if fact.words else dict(_SCALARS[fact.kind])


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _operator(name: str, facts: list[Fact]) -> Schema:
    other = {"anyOf": [{"enum": [fact.name for fact in facts]}, {"type": "string", "pattern": "^header\\.."}]}
    match name:
        case "exists":
            return {"type": "boolean"}
        case "fact":
            return other
        case "not":
            return _ref("Asked")
        case "any" | "all":
            return _list(_ref("Asked"))
        case "in" | "cidr" | "glob" | "regex":
            return {"anyOf": [{"type": "string"}, _list(_SINGLE)]}
        case _:
            fact = {"type": "object", "properties": {"fact": other}, "required": ["fact"]}
            return {"anyOf": [_SINGLE, {**fact, "additionalProperties": False}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _allow_environment(part: Any) -> None:  # noqa: ANN401 - any part of a schema
    """A number or boolean may also be written as `${NAME}`; what pydantic calls a title helps nobody."""
    if isinstance(part, list):
        for each in part:
            _allow_environment(each)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("title"), str):
        del part["title"]
    if part.get("type") in ("integer", "number", "boolean") and "const" not in part:
        part["type"] = [part["type"], "string"]
        part["pattern"] = f"^{_FILLED_IN}$"
    for each in part.values():
        _allow_environment(each)

"""Answers: what may come back from the process of a plugin?

Data, never code, and believed in nothing: it is held against the fields, types and result words that the plugin
declares, and against what an edit may be; the first thing that is not lawful makes it no answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from elemta.check import Check, Field
from elemta.config.problems import quoted
from elemta.findings import AuthResult, Finding, Result, Value
from elemta.plugins.wire import Json
from elemta.verdict import Action, ActionKind

ANSWER = 1 << 16  # octets of an answer
REASON = 1000  # characters of a reason, kept
LARGEST = 1 << 63  # SQLite's integers end there
MOST = 100  # results, edits

_METHOD = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})")  # RFC 8601 section 2.2: Keyword
_PROPERTY = re.compile(r"[a-z0-9-]{1,32}\.[A-Za-z0-9_-]{1,64}")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 section 3.6.8
_ADDRESS = re.compile(r"[^\x00-\x20\x7f<>\ud800-\udfff]{1,320}")
_WITH_HEADER = {ActionKind.ADD_HEADER, ActionKind.SET_HEADER, ActionKind.REMOVE_HEADER}
_WITH_ADDRESS = {ActionKind.ADD_RECIPIENT, ActionKind.REMOVE_RECIPIENT, ActionKind.CHANGE_SENDER}


def finding_data(finding: Finding) -> Json:
    """A finding, for JSON."""
    plain = {
        name: str(value) if isinstance(value, (IPv4Address, IPv6Address)) else value
        for name, value in finding.fields.items()
    }
    return {
        "result": finding.result,
        "reason": finding.reason,
        "fields": plain,
        "authres": [(each.method, each.result, each.reason, each.properties) for each in finding.authres],
        "trouble": finding.trouble,
        "warning": finding.warning,
        "header": finding.header,
        "edits": [(each.kind, each.name, each.value) for each in finding.edits],
    }


def read_answer(octets: bytes) -> Json:
    """An answer as a mapping.

    Raises:
        ValueError: it is none.
    """
    if len(octets) > ANSWER:
        raise ValueError(f"longer than {ANSWER >> 10} KiB")
    try:
        data = json.loads(octets)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ValueError("not the words of our protocol")
    return data


def read_finding(check: type[Check[Any]], data: object) -> Finding:
    """The finding of the plugin `check`, if it is lawful.

    Raises:
        ValueError: it is not; the text teaches the author.
    """
    data = _mapping("a finding", data)
    trouble = data.get("trouble") is True
    result = data.get("result")
    if result not in check.results and not (trouble and result == Result.TEMPERROR):
        raise ValueError(f"the result {quoted(result)} is not among those it declares ({', '.join(check.results)})")
    if data.get("header"):
        raise ValueError("Finding.header is for checks in process; ask for header fields by Finding.edits")
    found = {
        name: _value(name, check.fields, value)
        for name, value in _mapping("fields", data.get("fields", {})).items()
        if value is not None
    }
    return Finding(
        check.name,
        Result(result),
        _text("reason", data.get("reason", ""), REASON),
        found,
        tuple(_evidence(check.name, each) for each in _list("authres", data.get("authres", []))),
        trouble,
        _text("warning", data.get("warning", ""), REASON),
        edits=tuple(_edit(each) for each in _list("edits", data.get("edits", []))),
    )


def _value(name: str, declared: Mapping[str, Field], value: object) -> Value:
    field = declared.get(name)
    if field is None:
        raise ValueError(f"the field {quoted(name)} is not declared; add it to fields")
    match value:
        case bool() | str() if field.type is type(value):
            return value
        case int() if not isinstance(value, bool) and field.type in (int, float) and abs(value) < LARGEST:
            return value
        case float() if field.type is float and math.isfinite(value):
            return value
        case list() if field.type is tuple and all(isinstance(each, str) for each in value):
            return tuple(value)
        case str() if field.type is IPv4Address:
            return ip_address(value)
    raise ValueError(f"the field {name} must be {field.type.__name__}, and is {quoted(value)}")


def _evidence(name: str, data: object) -> AuthResult:
    match data:
        case [str(method), str(result), str(reason), list(pairs)]:
            pass
        case _:
            raise ValueError("authres must be a tuple of AuthResult")
    if method != name.lower() and not (method.startswith("x-") and _METHOD.fullmatch(method)):
        # who reads Authentication-Results must not take a plugin's word for that of spf, dkim or dmarc
        text = (
            f'authres may tell of the method "{name.lower()}", or of one that begins with x-; not of {quoted(method)}'
        )
        raise ValueError(text)
    if not _METHOD.fullmatch(result):
        raise ValueError(f"{quoted(result)} is no result word of authres")
    for pair in pairs:
        match pair:
            case [str(key), str()] if _PROPERTY.fullmatch(key):
                continue
        raise ValueError(f"{quoted(pair)} is no property of authres such as (smtp.mailfrom, a@b.test)")
    return AuthResult(method, result, reason[:REASON], tuple((key, value) for key, value in pairs))


def _edit(data: object) -> Action:
    match data:
        case [str(word), str(name), str(value)] if word in set(ActionKind):
            kind = ActionKind(word)
        case _:
            raise ValueError(f"{quoted(data)} is no edit; write Action(ActionKind.ADD_HEADER, name, value)")
    if kind is ActionKind.ADD_TO_SET:
        raise ValueError("add_to_set is no change of a mail; a rule can do it")
    header = value if kind is ActionKind.REMOVE_HEADER else name
    if kind in _WITH_HEADER and not _HEADER_NAME.fullmatch(header):
        raise ValueError(f"{quoted(header)} is no header field's name")
    null_sender = kind is ActionKind.CHANGE_SENDER and not value
    if kind in _WITH_ADDRESS and not null_sender and not _ADDRESS.fullmatch(value):
        raise ValueError(f"{quoted(value)} is no address")
    return Action(kind, name, value)


def _text(name: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, and is {quoted(value)}")
    return value[:longest]


def _mapping(name: str, value: object) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping, and is {quoted(value)}")
    return value


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError(f"{name} must be a tuple of at most {MOST}")
    return value

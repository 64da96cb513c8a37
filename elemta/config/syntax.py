"""Syntax: what does libyaml complain of, in the words of somebody who can mend it?"""

from __future__ import annotations

from typing import Any

import yaml

from elemta.config.problems import Origin, Problem, quoted

_ADVICE = {
    "mapping values are not allowed": "a colon cannot stand here; put the text in quotes, or write `key: value` on a "
    "line of its own, indented like its neighbours",
    "did not find expected key": "this line fits none of the mappings above; indent it like its neighbours",
    "did not find expected '-' indicator": "this line does not belong to the list above; begin it with `- `, "
    "or indent it like its neighbours",
    "did not find expected ',' or ']'": "the list is not closed; write `,` between its items and `]` at its end",
    "did not find expected ',' or '}'": "the mapping is not closed; write `,` between its entries and `}` at its end",
    "did not find expected node content": "a value is missing; close `[` with `]` and `{` with `}`",
    "did not find expected <document start>": "this line fits nothing above; write `key: value` lines only, "
    "all keys of the top indented alike",
    "could not find expected ':'": "a key without a colon; write `key: value`",
    "unknown escape character": "unknown escape after `\\`; write `\\\\`, or use single quotes, where `\\` is itself",
    "invalid Unicode character escape": "this escape is no character; use single quotes, where `\\` is itself",
    "exceeded maximum nesting depth": "hundreds of mappings and lists inside each other; write it flatter",
    "incompatible YAML document": "there is no such version of YAML; remove this line",
}
_TOLD_LATE = ("unexpected end of stream", "could not find expected ':'")
_NEVER_CLOSED = "the quotes that open here are never closed; close them"
_GOES_ON = (
    "a colon cannot stand here, since this line goes on with the text above; indent it like its neighbours, "
    "or write the colon that the line above lacks"
)
_MISREAD = ("alphabetic or numeric character", "comment or line break", "unexpected ':'")  # *.example, > 5, fe80::


def syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The problem that made libyaml stop reading `text`, and what to write instead."""
    lines = text.split("\n")
    began: Any = error.context_mark
    mark: Any = error.problem_mark or began
    misread = any(said in (error.problem or "") for said in _MISREAD)
    if began and (misread or any(said in (error.problem or "") for said in _TOLD_LATE)):
        mark = began  # the word, not the place where it turned out to be none
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    rest = line[mark.column :] if mark else ""
    message = _message(error, line, rest) if not misread else _quote(rest)
    if mark and began and began.line < mark.line and " is not closed;" in message:
        message += f"; it opens in line {began.line + 1}"
    return Problem((), message, origin=Origin(file, mark.line + 1, mark.column + 1) if mark else Origin(file))


def _message(error: yaml.MarkedYAMLError, line: str, rest: str) -> str:  # noqa: PLR0911 - one return for each mistake
    """`line` is where libyaml stopped, `rest` what it did not understand of it."""
    said = error.problem or error.context or ""
    if rest.startswith("\t") or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab cannot indent YAML; write spaces"
    if "${" in line and (error.context or "").startswith("while parsing a flow"):
        return "inside { } and [ ], `${NAME}` needs quotes (it is text then; for a number, write lines of `key: value`)"
    if "unexpected end of stream" in said:
        return _NEVER_CLOSED
    if "cannot start any token" in said and rest:
        return f"a value cannot begin with {quoted(rest[0])}; put it in quotes"
    if "mapping values are not allowed" in said and ":" not in line.removesuffix(rest):
        return _GOES_ON
    if "expected node content" in said and rest.startswith(":"):
        return _quote(rest)
    if "expected key" in said and line.removesuffix(rest).strip():
        return "the value before this has ended; remove this, or put all of it in quotes"
    return next((advice for start, advice in _ADVICE.items() if start in said), f"this is not YAML: {said}")


def _quote(rest: str) -> str:
    """Advise quotes for the value at the beginning of `rest`."""
    value = rest.split(", ", maxsplit=1)[0].rstrip(" ]}\r")
    return f"{quoted(value)} cannot stand without quotes; put it in quotes"

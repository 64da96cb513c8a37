"""Syntax: what does libyaml complain of, in the words of somebody who can mend it?"""

from __future__ import annotations

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
    "could not find expected ':'": "a key without a colon; write `key: value`",
    "unknown escape character": "unknown escape after `\\`; write `\\\\`, or use single quotes, where `\\` is itself",
}
_NEVER_CLOSED = "the quotes that open here are never closed; close them"


def syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The problem that made libyaml stop reading `text`, and what to write instead."""
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    message = _message(error, line, line[mark.column :] if mark else "")
    if message == _NEVER_CLOSED:
        mark = error.context_mark or mark  # where it began
    return Problem((), message, origin=Origin(file, mark.line + 1, mark.column + 1) if mark else Origin(file))


def _message(error: yaml.MarkedYAMLError, line: str, rest: str) -> str:
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
    return next((advice for start, advice in _ADVICE.items() if start in said), f"this is not YAML: {said}")

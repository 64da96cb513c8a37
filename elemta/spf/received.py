"""Received-SPF: how is an SPF result written as a field of its own, for programs that read no Authentication-Results?

Gives the field's value on one line; what a sender chose stands in quoted strings and can end neither those nor the
field.  Evidence only: Authentication-Results says the same.

RFC 7208 section 9.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NAME = "Received-SPF"
LONGEST = 320
"""Octets kept of one value: an address of RFC 5321 section 4.5.3.1. Quoted, it has room on a line (RFC 5322 section
2.1.1), and need not be folded where it has no blank."""

# but for what makes an encoded word behind the "=": programs that decode first would find something else
_DOT_ATOM = re.compile(r"(?!\?|.*=\?)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_IN_COMMENT = {"(": "[", ")": "]", "\\": "/", "=?": "= ?"}
_NOT_COMMENT = re.compile(r"[()\\]|=\?")  # encoded words: some programs decode them, and then see where a comment ends


def received_spf(result: str, comment: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Give the value: the result word, a comment for people ("" for none), and the pairs that have a value."""
    parts = [result]
    if comment:
        parts.append(f"({_NOT_COMMENT.sub(lambda found: _IN_COMMENT[found[0]], _printable(comment))})")
    parts.append("; ".join(f"{key}={_quoted(value)}" for key, value in pairs if value))
    return " ".join(parts)


def _quoted(value: str) -> str:
    text = _printable(value)
    if _DOT_ATOM.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("=?", "=\\?") + '"'


def _printable(text: str) -> str:
    printable = "".join(char if char.isprintable() else "?" for char in text[:LONGEST])
    return printable.encode()[:LONGEST].decode("utf-8", "ignore")

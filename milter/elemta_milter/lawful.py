"""Lawful: how is a text written into a header field or a body, whoever wrote it?

What comes out cannot end its field, holds no controls, and no line of it is longer than a line may be.

RFC 5322 sections 2.1.1 and 2.2.3; RFC 2045 section 6.7.
"""

from __future__ import annotations

import re
from binascii import b2a_qp

LONGEST_LINE = 998  # RFC 5322 section 2.1.1
LONGEST_VALUE = 16_000

_LINE_END = re.compile(r"(?<![ \t])[ \t]*+[\r\n][ \t\r\n]*+")  # from where the blanks begin: linear
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def field_value(name: str, value: str) -> str:
    r"""Give `value` on one line, or folded with "\n\t" where it is longer than a line may be."""
    line = one_line(value)[:LONGEST_VALUE].strip(" \t")
    room = LONGEST_LINE - len(name) - 2
    lines: list[str] = []
    while len(octets := line.encode()) > room:
        head = octets[:room].decode("utf-8", "ignore")
        at = head.rfind(" ") if " " in head else len(head)
        lines.append(line[:at].rstrip(" \t"))
        line = line[at:].lstrip(" \t")
        room = LONGEST_LINE - 1
    return "\n\t".join([*lines, line])


def folded_value(name: str, value: str) -> str:
    r"""Give `value`, folded as it is, with "\n" before blanks; as `field_value` does where a line is too long."""
    first, *rest = [one_line(line).rstrip(" \t") for line in value.split("\n")]
    lines = [first.lstrip(" \t"), *(line if line[:1] in (" ", "\t") else f" {line}" for line in rest if line.strip())]
    longest = max(len(name) + 2 + len(first.encode()), *(len(line.encode()) for line in lines))
    return "\n".join(lines) if longest <= LONGEST_LINE else field_value(name, value)


def one_line(value: str) -> str:
    """Give one line of strict UTF-8 without controls: what a stranger wrote may be in it."""
    line = _LINE_END.sub(" ", value)
    return _CONTROL.sub("?", line).encode("utf-8", "replace").decode()


def plain_text(text: str) -> tuple[str, bytes]:
    """Give a body's Content-Transfer-Encoding and octets."""
    lines = text.encode("utf-8", "replace").splitlines() or [b""]
    plain = all(line.isascii() and len(line) <= LONGEST_LINE and b"\0" not in line for line in lines)
    data = b"\n".join(lines) + b"\n"
    if not plain:
        data = b2a_qp(data, istext=True)  # RFC 2045 section 6.7
    return "7bit" if plain else "quoted-printable", data.replace(b"\r", b"").replace(b"\n", b"\r\n")

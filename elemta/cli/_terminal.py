"""The terminal: how wide is it, may it be coloured, and how are times and tables written for people?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

WIDEST = 160
LAST = 253401955200.0  # 9999-12-28, days before the end of Python's calendar, which it must not come near
_PLAIN = 100  # columns where there is no terminal


def out(text: str) -> None:
    """Print `text`; signs that the terminal's encoding lacks are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows below their keys, each column as wide as it must be."""
    head = {key: key for key in rows[0]}
    widths = {key: max(len(row[key]) for row in (head, *rows)) for key in head}
    lines = ("  ".join(f"{row[key]:<{width}}" for key, width in widths.items()).rstrip() for row in (head, *rows))
    return "\n".join(lines) + "\n"


def colour() -> bool:
    """Standard output is a terminal, and nobody asked for no colours (NO_COLOR, TERM=dumb)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns of standard output."""
    if "COLUMNS" not in os.environ and not sys.stdout.isatty():
        return _PLAIN
    return min(WIDEST, shutil.get_terminal_size((_PLAIN, 24)).columns)


def when(at: float) -> str:
    """Seconds since 1970 as local time; a time that no calendar has is the last that it has."""
    return datetime.fromtimestamp(min(at, LAST)).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")

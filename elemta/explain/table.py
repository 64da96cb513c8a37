"""Which decisions are these, one line each?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

from elemta.explain.words import COLOUR, OTHER_COLOUR, WIDTH
from elemta.journal import Entry
from elemta.printable import clean

LEAST = 12  # columns that are left of a column where there is no room


def table(entries: Sequence[Entry], *, width: int = WIDTH, colour: bool = False, zone: tzinfo | None = None) -> str:
    """One line an entry, in columns that fit into `width`."""
    titles = ("TIME", "REFERENCE", "VERDICT", "RULE", "CLIENT", "SENDER", "RECIPIENT")
    rows = [titles, *(_row(entry, zone) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(3, len(widths)), key=lambda column: widths[column])  # time, reference and verdict stay whole
        if widths[widest] <= LEAST:
            break
        widths[widest] -= 1
    lines = []
    for number, row in enumerate(rows):
        cells = [_cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        if colour and number:
            code = COLOUR.get(entries[number - 1].disposition, OTHER_COLOUR)
            cells[2] = f"\x1b[{code}m{cells[2]}\x1b[0m"
        elif colour:
            cells = [f"\x1b[1m{cell}\x1b[0m" for cell in cells]
        lines.append("  ".join(cells))
    return "\n".join(lines) + "\n"


def _row(entry: Entry, zone: tzinfo | None) -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.at, zone).strftime("%m-%d %H:%M:%S")
    more = f" +{len(entry.recipients) - 1}" if len(entry.recipients) > 1 else ""
    recipient = (entry.recipients[0] if entry.recipients else "-") + more
    cells = (when, entry.id, entry.disposition.value, entry.rule or "-", entry.client or "local", entry.sender or "<>")
    return tuple(clean(cell) for cell in (*cells, recipient))


def _cut(words: str, size: int) -> str:
    return words if len(words) <= size else words[: size - 2] + ".."

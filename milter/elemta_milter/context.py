"""Context: what does libmilter know of a connection, and what can be told to it?

A `Milter.Context` has no types and is made by libmilter only; here its calls get names that the rest of the milter
uses, and values that it takes.  Knows nothing of sessions or decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elemta_milter import edits

Context = Any
"""A `Milter.Context`: libmilter's side of a connection."""


def macros(ctx: Context, names: Sequence[str]) -> Mapping[str, str | None]:
    """Give the MTA's macros of these names; None for one that it did not send."""
    try:
        return dict(zip(names, map(ctx.getsymval, names), strict=True))
    except UnicodeDecodeError:  # one of them is no UTF-8: nobody knows which
        return {name: _macro(ctx, name) for name in names}


def send(  # noqa: C901 - one case for each kind
    ctx: Context, changes: Iterable[edits.Edit], *, leading_space: bool
) -> None:
    """Send edits to the MTA, in order; `leading_space`: it takes values with their leading space.

    Raises:
        Milter.error: the MTA does not let us, or is gone.
    """
    space = " " if leading_space else ""
    for change in changes:
        match change:
            case edits.AddHeader(name, value):
                ctx.addheader(name, space + value)
            case edits.InsertHeader(index, name, value):
                ctx.addheader(name, space + value, index)
            case edits.ChangeHeader(name, nth, value):
                ctx.chgheader(name, nth, space + value or " ")  # without any value the field would go
            case edits.DeleteHeader(name, nth):
                ctx.chgheader(name, nth, None)
            case edits.AddRecipient(address):
                ctx.addrcpt(f"<{address}>")
            case edits.RemoveRecipient(address):
                ctx.delrcpt(f"<{address}>")
            case edits.ChangeSender(address):
                ctx.chgfrom(f"<{address}>")
            case edits.ReplaceBody(data):
                ctx.replacebody(data)
            case edits.Quarantine(reason):
                ctx.quarantine(reason)


def _macro(ctx: Context, name: str) -> str | None:
    try:
        return str(ctx.getsymval(name) or "")
    except UnicodeDecodeError:
        return None

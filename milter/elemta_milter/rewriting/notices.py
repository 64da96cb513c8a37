"""Notices: how is an attachment taken out so that its reader learns of it?

A text stands in the place of the part, with fields of its own; of a mail that is one attachment it becomes the text.  A
file that stands in a text by itself (uuencode, yEnc) gives way to the notice too.  All else stays, octet by octet.

RFC 2046 section 5.1; RFC 2183 section 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from elemta_milter.mime import Part, Tree
from elemta_milter.rewriting.change import Change, Splice, in_place_of, merged
from elemta_milter.rewriting.encoding import lines_of, text_part, with_fields

_LAST_LINES = (b"end", b"====", b"=yend")


def replace_parts(tree: Tree, notices: Iterable[tuple[Part, str]]) -> Change:
    """Put a notice in the place of each part; one within another goes with it."""
    splices: list[Splice] = []
    fields: dict[str, str | None] = {}
    for part, notice in notices:
        if not part.depth:
            new, octets = text_part(notice)
            own = (name for name, _ in part.header if name.lower().startswith(b"content-"))
            fields = {name.decode("ascii", "replace").title(): None for name in own}
            fields |= {**dict(new), "MIME-Version": "1.0"}
            splices.append(Splice(0, len(tree.body), octets))
        elif _is_block(part):
            lines = "\r\n".join(lines_of(notice)).encode("ascii", "replace")
            splices.append(Splice(part.header_start, _after_block(tree, part), lines + b"\r\n"))
        else:
            new, octets = text_part(notice)
            new.append(("Content-Disposition", 'inline; filename="removed.txt"'))
            whole = with_fields(b"", new) + octets.removesuffix(b"\r\n")
            splices.append(in_place_of(tree.body, part.header_start, part.end, whole))
    return Change(tree.body, merged(splices), fields)


def _is_block(part: Part) -> bool:
    """Whether it is a file within a text, without fields of its own."""
    return not part.header and part.disposition == "attachment"


def _after_block(tree: Tree, part: Part) -> int:
    """Behind the line that ends it, where there is one."""
    line = bytes(tree.body[part.end : part.end + 1000])
    if not line.startswith(_LAST_LINES):
        return part.end
    return part.end + (line.find(b"\n") + 1 or len(line))

"""Wrapped: which parts lie in a message or a multipart that was itself encoded?

RFC 2045 section 6.4 forbids to encode those in base64 or quoted-printable; some programs decode and show them all the
same.  A `Tree` has such a part as a leaf; here it is decoded and read as a tree of its own.
"""

from __future__ import annotations

from dataclasses import replace

from elemta_milter.mime.bounds import BOUNDS, MimeBounds
from elemta_milter.mime.content import content
from elemta_milter.mime.description import ENCODED, MAIL
from elemta_milter.mime.parts import Part, Tree
from elemta_milter.mime.tree import read_octets


def trees(tree: Tree, limit: int, bounds: MimeBounds = BOUNDS) -> tuple[Tree, ...]:
    """The tree itself, then those of what was encoded in it, and in that; decoded, at most `limit` octets in all."""
    found = [tree]
    for each in found:  # which grows
        for part in each.root.walk():
            if not is_wrapped(part):
                continue
            if len(found) > bounds.wrapped:
                found[0] = replace(tree, excess=(*tree.excess, f"{bounds.wrapped} messages that are encoded"))
                return tuple(found)
            inner = read_wrapped(each, part, limit, bounds)
            limit = max(limit - len(inner.body), 0)
            found.append(inner)
    return tuple(found)


def is_wrapped(part: Part) -> bool:
    """Whether it is a message or a multipart that must be decoded before its parts can be read."""
    composite = part.media_type.startswith("multipart/") or part.media_type in MAIL
    return composite and part.encoding in ENCODED and not part.parts


def read_wrapped(tree: Tree, part: Part, limit: int, bounds: MimeBounds = BOUNDS) -> Tree:
    """The tree of one of these, decoded, at most `limit` octets."""
    decoded = content(tree, part, limit)
    header = None
    if part.media_type.startswith("multipart/"):
        header = [field for field in part.header if field[0].strip().lower() != b"content-transfer-encoding"]
    inner = read_octets(decoded.octets, header, bounds)
    return replace(inner, excess=(*inner.excess, "the octets decoded of a message")) if decoded.cut else inner

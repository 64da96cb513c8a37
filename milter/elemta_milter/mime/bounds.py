"""Bounds: how much of the parts of one message is looked at?

The one table.  Past a bound the tree says so (`Tree.excess`), and what lies beyond is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MimeBounds:
    """How much of one message is looked at.

    Attributes:
        octets: of the body; delimiter lines beyond are not seen.
        parts: parts in all, multiparts and attached messages included.
        depth: parts within parts.
        part_header: octets of the header of one part, and of the fields that describe it or the message itself.
        headers: octets of the headers of all parts.
        pieces: of the fields that describe parts: quoted texts, others, and what separates them.
        boundary: octets of a boundary; one that is longer is compared so far.
        begins: places in texts that are compared with how an embedded file begins ("begin").
        wrapped: messages and multiparts that are themselves encoded and were decoded.
        dashes: lines that begin with "--" and were compared with the boundaries; with many of them fewer lines.
    """

    octets: int = 1 << 28
    parts: int = 1000
    depth: int = 50
    part_header: int = 64 << 10
    headers: int = 1 << 20
    pieces: int = 100_000
    boundary: int = 512
    dashes: int = 200_000
    begins: int = 100_000
    wrapped: int = 20


BOUNDS = MimeBounds()

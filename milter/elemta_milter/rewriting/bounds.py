"""Bounds: how large may a mail be whose text is changed?

The one table.  Over a bound no banner is added, and the finding says so; attachments are taken out of mail of any size.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RewritingBounds:
    """How much is changed.

    Attributes:
        octets: of the body of a mail that gets a banner: all of it is sent back to the MTA.
        text: octets of one text that gets a banner, decoded.
        texts: parts that get a banner, such as the alternatives of one text.
    """

    octets: int = 32 << 20
    text: int = 1 << 20
    texts: int = 8


BOUNDS = RewritingBounds()

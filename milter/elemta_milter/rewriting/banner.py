"""Banner: how do words get before every reader of a mail?

They go into each text that the reader may see: all alternatives of the text.  A mail without a text gets one, before
its attachments.  What is signed, encrypted, a report, too large or too odd stays as it is.

RFC 2046 section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex

from elemta_milter.mime import Part, Tree
from elemta_milter.rewriting.bounds import BOUNDS, RewritingBounds
from elemta_milter.rewriting.change import Change, Splice, merged
from elemta_milter.rewriting.encoding import text_part, with_fields
from elemta_milter.rewriting.places import texts, why_not
from elemta_milter.rewriting.texts import Banner, Sealed, Skipped, added


@dataclass(frozen=True, slots=True)
class Bannered:
    """A mail with banners.

    Attributes:
        change: what becomes of it.
        parts: the numbers of the parts that got one; "new" for a part that was made for it.
        left: why other texts stay as they are, in words.
    """

    change: Change
    parts: tuple[str, ...]
    left: tuple[str, ...] = ()


def add_banners(
    tree: Tree,
    banners: Sequence[Banner],
    bounds: RewritingBounds = BOUNDS,
    boundary: Callable[[], str] = lambda: f"=_{token_hex(16)}",
) -> Bannered:
    """Put banners into the text; those of one position stand in their order.

    Args:
        tree: the message.
        banners: what to put.
        bounds: see there.
        boundary: makes the boundary of a new multipart, which nobody can guess, so that no mail holds it.

    Raises:
        Skipped: the mail stays as it is.
    """
    wanted = tuple(dict.fromkeys(banner for banner in banners if banner.text.strip()))
    found = texts(tree.root)
    if reason := why_not(tree) or _too_much(tree, wanted, found, bounds):
        raise Skipped(reason)
    if not found:
        return Bannered(_as_first_part(tree, wanted, boundary), ("new",))
    splices: list[Splice] = []
    fields: dict[str, str | None] = {}
    done, left = [], []
    for part in found:
        try:
            one = added(tree, part, wanted, bounds.text)
        except Sealed:
            raise
        except Skipped as reason:
            left.append(str(reason))
        else:
            splices += one.splices
            fields |= one.fields
            done.append(part.number or "1")
    if not done:
        raise Skipped(left[0])
    return Bannered(Change(tree.body, merged(splices), fields), tuple(done), tuple(left))


def _too_much(tree: Tree, banners: Sequence[Banner], found: Sequence[Part], bounds: RewritingBounds) -> str:
    """Which bound is passed, in words; "" for none."""
    if not banners:
        return "the banner is empty"
    if len(tree.body) > bounds.octets:
        return f"it is larger than {bounds.octets:,} octets"
    return f"it has more than {bounds.texts} alternatives" if len(found) > bounds.texts else ""


def _as_first_part(tree: Tree, banners: Sequence[Banner], boundary: Callable[[], str]) -> Change:
    """Put a new text before all other parts."""
    root = tree.root
    fields, octets = text_part("\r\n\r\n".join(each.text.strip("\r\n") for each in banners))
    new = with_fields(b"", fields) + octets
    if root.media_type == "multipart/mixed" and root.parts:
        place = root.parts[0].header_start
        line = bytes(tree.body[:place]).rstrip(b"\r\n").rfind(b"\n") + 1  # the first delimiter, which is repeated
        return Change(tree.body, (Splice(place, place, new + b"\r\n" + bytes(tree.body[line:place])),))
    between = boundary()
    own = [(name, value) for name, value in root.header if name.lower().startswith(b"content-")]
    gone: dict[str, str | None] = {name.decode("ascii", "replace").title(): None for name, _ in own}
    if root.encoding in ("8bit", "binary"):  # RFC 2045 section 6.4: a multipart says what its parts hold
        gone["Content-Transfer-Encoding"] = root.encoding
    gone |= {"Content-Type": f'multipart/mixed; boundary="{between}"', "MIME-Version": "1.0"}
    inner = b"".join(name + b":" + value + b"\r\n" for name, value in own)
    start = f"--{between}\r\n".encode() + new + f"\r\n--{between}\r\n".encode() + inner + b"\r\n"
    end = f"\r\n--{between}--\r\n".encode()
    size = len(tree.body)
    return Change(tree.body, (Splice(0, 0, start), Splice(size, size, end)), gone)

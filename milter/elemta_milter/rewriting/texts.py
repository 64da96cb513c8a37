"""Texts: how are words put into one text of a mail, so that its reader sees them and loses nothing?

They are written in the text's charset and transfer encoding as far as these can hold them; else the text becomes UTF-8,
or quoted-printable.  A text that begins (or ends) with the words already stays as it is; so does one with PGP in it.

RFC 2045 sections 5 and 6; RFC 3676 (format=flowed).
"""

from __future__ import annotations

import html as markup
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from elemta_milter.mime import Part, Tree, content, text_of
from elemta_milter.rewriting import encoding, html
from elemta_milter.rewriting.change import Change, Splice, in_place_of
from elemta_milter.rewriting.places import PGP

Position = Literal["top", "bottom"]

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"


class Skipped(Exception):  # noqa: N818 - it is the text that is skipped
    """A text, or a mail, stays as it is; the words say why."""


class Sealed(Skipped):
    """No text of this mail may be changed."""


@dataclass(frozen=True, slots=True)
class Banner:
    """Words for the reader.

    Attributes:
        text: for a plain text.
        html: for HTML; "": made of the text.
        position: before or after the text.
    """

    text: str
    html: str = ""
    position: Position = "top"

    def markup(self) -> str:
        """For HTML: ASCII, which every charset holds; other characters are written as references."""
        made = "<p>" + "<br>\n".join(markup.escape(line) for line in encoding.lines_of(self.text)) + "</p>"
        return "\r\n".join(encoding.lines_of(self.html or made)).encode("ascii", "xmlcharrefreplace").decode()


def added(tree: Tree, part: Part, banners: Sequence[Banner], most: int) -> Change:
    """Put banners into a text of at most `most` octets; those of one position stand in their order.

    Raises:
        Skipped: it stays as it is.
    """
    if part.encoding not in encoding.ENCODINGS:
        raise Skipped(f"its transfer encoding {part.encoding[:40]} is unknown")
    held = content(tree, part, most)
    if held.cut:
        raise Skipped(f"a text is longer than {most:,} octets")
    if PGP.search(held.octets):
        raise Sealed("a text in it is signed or encrypted (PGP)")
    octets, charset = held.octets, part.parameters.get("charset", "")
    words = [_words(part, banners, position) for position in ("top", "bottom")]
    if not encoding.holds_ascii(charset) or any(encoding.octets_in(each, charset) is None for each in words):
        octets, charset = _in_utf8(part, octets), "utf-8"
    top, bottom = (encoding.octets_in(each, charset) or b"" for each in words)
    put = _into_html if part.media_type == "text/html" else _into_plain
    whole = put(octets, top, bottom)
    if whole == octets:
        raise Skipped("it bears the banner already")
    return _put(tree, part, whole, b"\r\n".join((top, bottom)), charset)


def _words(part: Part, banners: Sequence[Banner], position: Position) -> str:
    """What goes to one place of a text."""
    wanted = [banner for banner in banners if banner.position == position]
    if part.media_type == "text/html":
        return "\r\n".join(banner.markup() for banner in wanted)
    flowed = part.parameters.get("format", "").lower() == "flowed"
    return "\r\n\r\n".join("\r\n".join(encoding.lines_of(banner.text, flowed=flowed)) for banner in wanted)


def _in_utf8(part: Part, octets: bytes) -> bytes:
    """The text as programs read it, in a charset that holds everything."""
    text, trouble = text_of(part, octets)
    if trouble.startswith("unknown"):
        raise Skipped(trouble)
    return text.encode("utf-8", "replace")


def _into_plain(octets: bytes, top: bytes, bottom: bytes) -> bytes:
    start = len(_BOM) if octets.startswith(_BOM) else 0
    if top and not (octets[start:].lstrip(_BLANKS) + b"\r\n").startswith(top + b"\r\n"):
        octets = octets[:start] + top + b"\r\n\r\n" + octets[start:]
    if bottom and not (b"\n" + octets.rstrip(_BLANKS)).endswith(b"\n" + bottom):
        ended = octets.endswith(b"\n") or not octets
        octets += b"\r\n" + bottom + b"\r\n" if ended else b"\r\n\r\n" + bottom
    return octets


def _into_html(octets: bytes, top: bytes, bottom: bytes) -> bytes:
    start = html.top(octets)
    if not octets[start:].lstrip(_BLANKS).startswith(top):  # as anything begins with nothing
        octets = octets[:start] + b"\r\n" + top + b"\r\n" + octets[start:]
    end = html.bottom(octets)
    if not octets[:end].rstrip(_BLANKS).endswith(bottom):
        octets = octets[:end] + b"\r\n" + bottom + b"\r\n" + octets[end:]
    return octets


def _put(tree: Tree, part: Part, octets: bytes, new: bytes, charset: str) -> Change:
    """The change that puts these octets into a part."""
    declared = part.parameters.get("charset", "")
    carried, encoded = encoding.transfer(octets, part.encoding, new if charset == declared else octets)
    if carried == "base64" and bytes(tree.body[part.start : part.end][-1:]) == b"\n":
        encoded += b"\r\n"
    fields: list[tuple[str, str]] = []
    if charset != declared:
        value = next((value for name, value in part.header if name.lower() == b"content-type"), b"")
        fields.append(("Content-Type", encoding.with_charset(value, part.media_type, charset)))
    if carried != part.encoding:
        fields.append(("Content-Transfer-Encoding", carried))
    if not part.depth:
        own: dict[str, str | None] = {"MIME-Version": "1.0", **dict(fields)} if fields else {}
        return Change(tree.body, (Splice(part.start, part.end, encoded),), own)
    raw = bytes(tree.body[part.header_start : part.start])
    if fields or raw.splitlines()[-1:] != [b""]:  # a part without the empty line holds nothing yet
        raw = encoding.with_fields(raw, fields)
    return Change(tree.body, (in_place_of(tree.body, part.header_start, part.end, raw + encoded),))

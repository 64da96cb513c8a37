"""Files: which parts of a message do mail programs show as files, or keep more parts in?

RFC 2046 sections 4.1.4, 5.2.4 (unknown types); RFC 2183 section 2.8 (unknown dispositions); RFC 6522 (reports).
"""

from __future__ import annotations

from collections.abc import Iterator

from elemta_milter.archives.kinds import archive_kind
from elemta_milter.mime import ENCODED, Part, Tree, content, is_wrapped, read_octets

_TEXTS = "plain html enriched richtext calendar markdown watch-html x-amp-html amp-html rfc822-headers directory"
_REPORTS = (
    "delivery-status disposition-notification feedback-report tracking-status"
    " global-delivery-status global-disposition-notification global-headers"
)
_READ = frozenset({*(f"text/{each}" for each in _TEXTS.split()), *(f"message/{each}" for each in _REPORTS.split())})
"""What is shown as a text, or is a report that nobody opens."""
_HEAD, _TEXT = 1024, 64 << 20
"""Octets in which is looked whether it is a text, and, of a plain one that is encoded, whether it holds files."""


def attachments(tree: Tree) -> Iterator[Part]:
    """The parts that a mail program shows as files: named ones, those that are no text, and encoded multiparts."""
    for part in tree.root.walk():
        if part.filenames or is_wrapped(part):
            yield part
        elif part.media_type.startswith("multipart/") or is_composite(part):
            continue
        elif part.media_type not in _READ or part.disposition not in ("", "inline") or _is_file(tree, part):
            yield part


def is_composite(part: Part) -> bool:
    """Whether it consists of its parts; a text in which there are files does not."""
    return bool(part.parts) and part.media_type.startswith(("multipart/", "message/"))


def text_with_files(part: Part, octets: bytes) -> Tree | None:
    """The tree of a plain text that was itself encoded, if its octets hold files (uuencode, yEnc)."""
    if part.media_type != "text/plain" or part.encoding not in ENCODED or b"begin" not in octets:
        return None
    tree = read_text(octets)
    return tree if tree.root.parts else None


def read_text(octets: bytes) -> Tree:
    """The tree of a plain text, whose parts are the files in it."""
    return read_octets(octets, ((b"Content-Type", b"text/plain"),))


def _is_file(tree: Tree, part: Part) -> bool:
    """Whether this is no text, whatever it is declared, or holds files that no tree shows."""
    encoded = part.media_type == "text/plain" and part.encoding in ENCODED
    octets = content(tree, part, _TEXT if encoded else _HEAD).octets
    head = octets[:_HEAD]
    wide = part.parameters.get("charset", "").lower().startswith(("utf-16", "utf-32", "ucs", "iso-10646", "unicode"))
    return (
        bool(archive_kind(head))
        or head.startswith(b"%PDF-")
        or (b"\0" in head and not wide)
        or text_with_files(part, octets) is not None
    )

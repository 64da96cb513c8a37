"""Web: does this web page or SVG picture run scripts, or build a file of its own for whoever opens it?

Hints only, looked for in the octets: HTML can be disguised without end, and a page that has none of these may still do
harm.  What it builds (HTML smuggling) no scanner sees, since it is nowhere in the mail as a file.

Source: the HTML Standard, sections 4.12 (scripts) and 4.6.5 (downloads); the File API, sections 3 and 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TYPES = frozenset({"text/html", "application/xhtml+xml", "image/svg+xml"})
EXTENSIONS = frozenset({"htm", "html", "shtml", "xhtml", "xht", "svg", "mht", "mhtml"})

_SCRIPT = (b"<script", b":script", b"javascript:")
_BUILDS = (b"createobjecturl", b"mssaveblob", b"mssaveoropenblob", b"new blob", b"new file(", b"atob(")
_HANDLER = re.compile(rb"[\s\"'/]on[a-z]{3,30}\s{0,9}=")
_DOWNLOAD = re.compile(rb"<a(?=\s)[^<>]{0,2000}?[\s\"']download[\s=>/]")
_BEGINNING = 1 << 20
"""Octets in which a handler or a download is looked for; and those that are looked at at once."""
_LONGEST_WORD = 20


def does(data: memoryview) -> tuple[str, ...]:
    """Of "javascript" and "builds_file", those that it seems to do; UTF-16 is read too."""
    runs = builds = False
    octets = b""
    for at in range(0, len(data), _BEGINNING):
        octets = octets[-_LONGEST_WORD:] + bytes(data[at : at + _BEGINNING]).replace(b"\0", b"").lower()
        runs = runs or any(word in octets for word in _SCRIPT) or (not at and _HANDLER.search(octets) is not None)
        builds = builds or any(word in octets for word in _BUILDS) or (not at and _DOWNLOAD.search(octets) is not None)
    return ("javascript",) * runs + ("builds_file",) * builds


def is_page(media_type: str, extensions: Iterable[str]) -> bool:
    """Whether a browser would open it."""
    return media_type in TYPES or not EXTENSIONS.isdisjoint(extensions)

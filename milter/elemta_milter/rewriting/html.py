"""HTML: where in a document does something stand that its reader sees first, or last?

A linear scanner, and no parser: it knows as much of HTML as is needed to tell where the body begins, as browsers do
(HTML Living Standard, section 13.2.6.4): what may stand in a head is passed over, and whatever else comes begins the
body, scripts included.  So a banner never lands in a comment, a style sheet or an element that is not shown.
"""

from __future__ import annotations

import re

_BOM = b"\xef\xbb\xbf"
_TAG = re.compile(rb"</?([A-Za-z][^\s/>]{0,30})")
_TAG_END = re.compile(rb"(?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*>")  # not *+: Python 3.11.2 passes unclosed quotes then
_IN_HEAD = frozenset({b"html", b"head", b"meta", b"link", b"base", b"basefont", b"bgsound"})
_RAW = {
    name: re.compile(rb"</" + name + rb"[\t\n\f\r />]") for name in (b"title", b"style")
}  # what they hold is no markup
_COMMENT_END = re.compile(rb"--!?>")
_BLANKS = b" \t\r\n\f"
MOST = 10_000  # tags and comments of a head


def top(document: bytes) -> int:
    """The place where the body begins: behind its tag, or before the first that is shown."""
    lower = document.lower()
    place = len(_BOM) if document.startswith(_BOM) else 0
    for _ in range(MOST):
        start = _after_blanks(document, place)
        after = _after(document, lower, start)
        if after is None:
            return place
        place, name = after
        if name == b"body":
            return place
    return place


def bottom(document: bytes) -> int:
    """The place before the last </body>, or before the last </html>, or the end."""
    lower = document.lower()
    for tag in (b"</body", b"</html"):
        place = lower.rfind(tag)
        while place >= 0:
            comment = document.rfind(b"<!--", 0, place)
            if comment < 0 or document.find(b"-->", comment, place) >= 0:
                return place
            place = lower.rfind(tag, 0, comment)
    return len(document)


def _after(document: bytes, lower: bytes, start: int) -> tuple[int, bytes] | None:
    """Where what begins here ends, and its name, if it may stand before the body's text; None if the body begins."""
    tag = _TAG.match(lower, start)
    if tag is None:
        end = _comment_end(document, start)
        return (end, b"") if end > 0 else None
    name, closing = tag[1], lower.startswith(b"</", start)
    if name not in _IN_HEAD and name not in _RAW and (name != b"body" or closing):
        return None
    end = _tag_end(document, tag.end())
    if name in _RAW and not closing and end > 0:
        close = _RAW[name].search(lower, end)
        odd = close is None or (name == b"title" and lower.find(b"<", end) < close.start())  # to some it is markup
        end = 0 if close is None or odd else _tag_end(document, close.end() - 1)
    return (end, name) if end > 0 else None


def _comment_end(document: bytes, start: int) -> int:
    """Behind a comment, or what browsers take for one; 0 if none begins here, or programs differ in where it ends."""
    if document.startswith(b"<!--", start):
        ending = _COMMENT_END.search(document, start + 2)
        if ending is None or ending.start() < start + 4 or ending[0] == b"--!>":  # "<!-->" is one to some
            return 0
        return ending.end()
    if document.startswith((b"<!", b"<?"), start):
        return document.find(b">", start) + 1
    return 0


def _tag_end(document: bytes, place: int) -> int:
    """Behind the > of a tag, 0 for none; those in quotes do not count. A quote without its end is no quote."""
    match = _TAG_END.match(document, place)
    return match.end() if match else document.find(b">", place) + 1


def _after_blanks(document: bytes, place: int) -> int:
    while place < len(document) and document[place] in _BLANKS:
        place += 1
    return place

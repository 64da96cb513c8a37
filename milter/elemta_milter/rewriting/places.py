"""Places: which parts hold the text that the reader of a message sees, and must it stay as it is?

Takes the tree of a message's parts; gives the parts, all alternatives of the text among them, or why nothing may be
changed: the mail is signed, encrypted, a report or a fragment, or programs would not agree on where its text is.

RFC 1847 (multipart/signed, multipart/encrypted); RFC 2046 sections 5.1 and 5.2.2; RFC 2387 (multipart/related);
RFC 6522 (multipart/report); RFC 8551 (S/MIME); RFC 9580 section 6.2 (OpenPGP in a text).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elemta_milter.mime import Part, Tree

TEXTS = frozenset({"text/plain", "text/html"})
PGP = re.compile(rb"^-----BEGIN PGP (?:SIGNED )?MESSAGE-----", re.MULTILINE)

_ANYWHERE = {"multipart/signed": "it is signed", "multipart/encrypted": "it is encrypted"}
_WHOLE = {
    "multipart/report": "it is a report",
    "message/partial": "it is a part of a mail that was cut into several",
    "message/external-body": "its content is elsewhere",
    "message/delivery-status": "it is a report",
    "message/disposition-notification": "it is a report",
}
_CERTAIN = ("uuencode in text", "base64 in text", "yenc in text", "a multipart without its last delimiter")
"""Defects that leave no doubt about where the text is."""


def why_not(tree: Tree) -> str:
    """Why the text of this mail must stay as it is; "" when it need not."""
    root = tree.root
    if reason := "it is signed or encrypted (S/MIME)" if root.is_s_mime else _WHOLE.get(root.media_type):
        return reason
    for part in _own(root):
        if part.media_type in _ANYWHERE:
            return f"{_ANYWHERE[part.media_type]} ({part.media_type})"
    if tree.excess:
        return f"it has more than {', '.join(tree.excess)}"
    odd = [defect for defect in tree.defects if defect not in _CERTAIN and not defect.startswith("a message in ")]
    if odd:
        return f"programs differ in where its text is: {', '.join(odd)}"
    if not texts(root) and any(part.media_type == "text/calendar" for part in _own(root)):
        return "it is an invitation and has no other text"
    return ""


def texts(root: Part) -> list[Part]:
    """The parts whose text a reader sees first; [] when there is none."""
    return _texts(root, named=False) or _texts(root, named=True)


def _texts(part: Part, *, named: bool) -> list[Part]:
    """As `texts`; `named`: take those with a file name too, which some programs show as attachments."""
    if part.disposition == "attachment":
        return []
    if part.media_type in TEXTS:
        return [part] if named or not part.filenames else []
    if not part.media_type.startswith("multipart/") or not part.parts:
        return []
    if part.media_type == "multipart/alternative":
        return [each for child in part.parts for each in _texts(child, named=named)]
    if part.media_type == "multipart/related":
        return _texts(_root_of_related(part), named=named)
    return next((found for child in part.parts if (found := _texts(child, named=named))), [])


def _root_of_related(part: Part) -> Part:
    """RFC 2387 section 3.2: the one that `start` names, else the first."""
    start = part.parameters.get("start", "").strip("<> ")
    for child in part.parts if start else ():
        for name, value in child.header:
            if name.lower() == b"content-id" and value.strip(b"<> \t\r\n") == start.encode():
                return child
    return part.parts[0]


def _own(root: Part) -> Iterator[Part]:
    """All parts but those of attached messages."""
    pending = [root]
    while pending:
        part = pending.pop()
        yield part
        if not part.media_type.startswith("message/"):
            pending += reversed(part.parts)

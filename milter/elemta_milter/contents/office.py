"""Office: does this document hold macros, is it encrypted, or does it load something from elsewhere?

Whether there are macros is told by where they are kept: VBA in storages of an OLE file, macros of Excel 4 in sheets of
their own kind.  What they do is asked of `macros`.

Source: [MS-OVBA] section 2.2; [MS-XLS] sections 2.4.28 (BoundSheet8) and 2.4.117 (FilePass); [MS-DOC] section 2.5.2
(FibBase); [MS-OFFCRYPTO] section 2.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from elemta_milter.archives.budget import BrokenError
from elemta_milter.archives.oles import MAGIC, Ole
from elemta_milter.archives.piecewise import matches

_VBA = frozenset({"_vba_project", "_vba_project_cur", "vbaproject.bin"})
_SHEETS = 1 << 20
"""Octets of a workbook in which its sheets are named."""
_BOUND_SHEET, _FILE_PASS, _END = 0x85, 0x2F, 0x0A
_MACRO_SHEET = 1
_AUTO_OPEN = (b"Auto_Open", "Auto_Open".encode("utf-16-le"))
_ACTIVE_MIME = (b"ActiveMime", b"QWN0aXZlTWlt")
"""How macros begin in the XML and MHTML of Word 2003; the second is base64."""


_RELATION = re.compile(rb"<(?:[A-Za-z0-9]{1,20}:)?Relationship\s[^<>]{1,4000}>")
_EXTERNAL = re.compile(rb"TargetMode\s*=\s*[\"']\s*External", re.IGNORECASE)
_LOADED = re.compile(rb"/(?:attachedTemplate|oleObject|frame|subDocument|aFChunk)\s*[\"']", re.IGNORECASE)
_ELSEWHERE = rb"(?:https?:|ftp:|mhtml:|file:/{0,20}\\|file://[^/]|\\\\|//)"
"""How the address of something on another machine begins; a path on this one is usual and harmless."""
_TARGET = re.compile(rb"\sTarget\s*=\s*[\"']\s*" + _ELSEWHERE, re.IGNORECASE)
_TEMPLATE = re.compile(rb"\\\*\s{0,1000}+\\template\s{0,1000}+" + _ELSEWHERE, re.IGNORECASE)
_LONGEST_TEMPLATE = 2100


@dataclass(frozen=True, slots=True)
class Office:
    """What is known of a document.

    Attributes:
        macros: it holds macros.
        analysable: their code can be asked for.
        runs_itself: macros run when it is opened.
        encrypted: it cannot be read without a password.
        fetches: it loads a template or an object from another machine when it is opened.
    """

    macros: bool = False
    analysable: bool = False
    runs_itself: bool = False
    encrypted: bool = False
    fetches: bool = False


def look(data: memoryview) -> Office:
    """See what an OLE file holds.

    Raises:
        BrokenError: it is none.
    """
    ole = Ole(data)
    names = ole.names
    sheets, locked = _workbook(ole.stream("workbook", _SHEETS) or ole.stream("book", _SHEETS))
    word = ole.stream("worddocument", 32)
    encrypted = locked or bool({"encryptedpackage", "encryptedsummary"} & names)
    vba = bool(_VBA & names)
    return Office(
        macros=vba or sheets,
        analysable=vba or sheets or "powerpoint document" in names,
        encrypted=encrypted or (len(word) >= 12 and bool(word[11] & 1)),
    )


def look_at_part(name: str, data: memoryview) -> Office:
    """See what a part of a document says that is a zip archive (OOXML, ODF)."""
    name = name.lower()
    if name.endswith("vbaproject.bin") or bytes(data[:8]) == MAGIC:
        try:
            return look(data)
        except BrokenError:
            return Office(macros=name.endswith("vbaproject.bin"))
    script = name.startswith("scripts/") and not name.endswith("/")
    basic = name.startswith("basic/") and b"<script:module " in bytes(data[:4096])
    if name.startswith("xl/workbook.") and any(each in bytes(data) for each in _AUTO_OPEN):
        return Office(runs_itself=True)
    if name.endswith(".rels"):
        return Office(fetches=any(map(_is_fetched, _RELATION.findall(data))))
    if "/macrosheets/" in name or script or basic:
        return Office(macros=True)
    return Office(encrypted=name == "meta-inf/manifest.xml" and b"encryption-data" in bytes(data))


def has_active_mime(data: memoryview) -> bool:
    """Whether this text holds macros of Word 2003."""
    octets = bytes(data[: 8 << 20])
    return any(each in octets for each in _ACTIVE_MIME)


def has_remote_template(data: memoryview) -> bool:
    """Whether this RTF document has a template on another machine."""
    return any(True for _ in matches(_TEMPLATE, data, _LONGEST_TEMPLATE))


def _is_fetched(relation: bytes) -> bool:
    """Whether what a part refers to is loaded from another machine with it (ECMA-376 part 2, clause 6.5)."""
    return all(each.search(relation) for each in (_EXTERNAL, _LOADED, _TARGET))


def _workbook(stream: bytes) -> tuple[bool, bool]:
    """Whether a workbook has macro sheets of Excel 4, and whether it is encrypted."""
    at, macros, encrypted = 0, False, False
    while at + 4 <= len(stream):
        kind, size = int.from_bytes(stream[at : at + 2], "little"), int.from_bytes(stream[at + 2 : at + 4], "little")
        if kind == _FILE_PASS:
            encrypted = True
        elif kind == _BOUND_SHEET and size > 5:
            macros = macros or stream[at + 9] == _MACRO_SHEET
        elif kind == _END:
            break
        at += 4 + size
    return macros, encrypted

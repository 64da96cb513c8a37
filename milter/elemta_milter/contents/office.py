"""Office: does this document hold macros, is it encrypted, or does it load something from elsewhere?

Whether there are macros is told by where they are kept: VBA in storages of an OLE file, macros of Excel 4 in sheets of
their own kind.  What they do is asked of `macros`, what is loaded of `remote`.

Source: [MS-OVBA] section 2.2; [MS-XLS] sections 2.4.28 (BoundSheet8) and 2.4.117 (FilePass); [MS-DOC] section 2.5.2
(FibBase); [MS-OFFCRYPTO] section 2.3; [MS-XLSB] section 2.1.7 (parts); ECMA-376 part 2, clause 7.2.3 (media types);
ODF 1.3 part 3, sections 3.1.2 (office:document) and 3.12 (office:scripts).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from elemta_milter.archives.budget import BrokenError
from elemta_milter.archives.oles import MAGIC, STREAM, Ole
from elemta_milter.contents import remote

_VBA = frozenset({"_vba_project", "_vba_project_cur", "vbaproject.bin"})
_SHEETS = 1 << 20
"""Octets of a workbook in which its sheets are named."""
_BOUND_SHEET, _FILE_PASS, _END = 0x85, 0x2F, 0x0A
_MACRO_SHEET = 1
RELATIONS = ".rels"
"""How the names of parts end that say what others refer to."""
TYPES = "[content_types].xml"
"""The part that says of which media type each part is."""
_BY_ITSELF = (b"auto_open", b"auto_close")
_WORKBOOK = re.compile(rb"\A\x83\x01|<(?:[^\s<>/:=]++:)?workbook[\s>]")
"""How a workbook begins that is a part of a document, binary or in XML."""
_LINK, _LINKS, _LONGEST_LINK = "\x01ole", 1000, 4096
"""The stream that names what an object is linked to; how many are looked at, and how many octets of each."""
_ACTIVE_MIME = (b"ActiveMime", b"QWN0aXZlTWlt")
"""How macros begin in the XML and MHTML of Word 2003; the second is base64."""
_LONGEST_TEXT = 8 << 20
_BEFORE_XML = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
_FLAT = b"/office/2006/xmlPackage"
_FLAT_MACROS = ((_FLAT, b"vnd.ms-office.vbaProject"), (b":opendocument:xmlns:office", b"library-embedded"))
"""Words of a document with macros all of whose parts stand in one XML file (Flat OPC, Flat ODF)."""


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
        fetches=any(map(remote.is_remote_link, _links(ole))),
    )


def look_at_part(name: str, data: memoryview) -> Office:
    """See what a part of a document says that is a zip archive (OOXML, ODF); what it is called is up to who made it."""
    name = name.lower()
    if name.endswith("vbaproject.bin") or bytes(data[:8]) == MAGIC:
        try:
            return look(data)
        except BrokenError:
            return Office(macros=name.endswith("vbaproject.bin"))
    script = name.startswith("scripts/") and not name.endswith("/")
    basic = name.startswith("basic/") and b"<script:module " in bytes(data[:4096])
    if (name.startswith("xl/workbook.") or _is_workbook(data)) and _tells(data, *_BY_ITSELF):
        return Office(runs_itself=True)
    if name.endswith(RELATIONS):
        return Office(fetches=remote.has_remote_relation(data))
    if "/macrosheets/" in name or script or basic or (name == TYPES and _tells(data, b"macrosheet")):
        return Office(macros=True)
    return Office(encrypted=name == "meta-inf/manifest.xml" and b"encryption-data" in bytes(data))


def look_at_text(data: memoryview) -> Office:
    """See what a text holds that may be a document: XML or MHTML of Word 2003, or a document in one XML file."""
    octets = bytes(data[:_LONGEST_TEXT])
    if octets.lstrip(_BEFORE_XML).startswith(b"<"):
        octets = remote.resolved(octets)
    return Office(
        macros=any(each in octets for each in _ACTIVE_MIME)
        or any(all(word in octets for word in words) for words in _FLAT_MACROS),
        fetches=_FLAT in octets and remote.has_remote_relation(memoryview(octets)),
    )


def _links(ole: Ole) -> Iterator[bytes]:
    """What says to what its objects are linked."""
    streams = (each for each in ole.items if each.name == _LINK and each.kind == STREAM)
    return (ole.read(each, _LONGEST_LINK) for each in islice(streams, _LINKS))


def _is_workbook(data: memoryview) -> bool:
    return _WORKBOOK.search(remote.resolved(bytes(data[:4096]))) is not None


def _tells(data: memoryview, *words: bytes) -> bool:
    """Whether one of the words stands in a part, which is XML or binary."""
    octets = remote.resolved(bytes(data)).lower()
    return any(word in octets for word in words)


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

r"""Remote: does a document load something from another machine when it is opened?

Looks for how it says so: a relation of OOXML, the template of an RTF document, a linked object of OLE.  All that a
program reads through is undone first: references to characters in XML, UTF-16, escapes and line ends in RTF.

Source: ECMA-376 part 2, clause 6.5 (relations); Rich Text Format Specification 1.9.1, "Document Formatting Properties"
and "Unicode RTF"; [MS-OLEDS] sections 2.3.3 (OLEStream) and 2.3.3.1 (MONIKERSTREAM).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from elemta_milter.archives.piecewise import matches

_ELSEWHERE = rb"(?:https?:|ftp:|mhtml:|file:/{0,20}\\|file://[^/]|\\\\|//)"
"""How the address of something on another machine begins; a path on this one is usual and harmless."""
_ADDRESS = re.compile(_ELSEWHERE, re.IGNORECASE)
_BLANKS = b" \t\r\n\0"

_RELATION = re.compile(rb"<(?:[^\s<>/:=]++:)?Relationship\s(?:[^<>\"']++|\"[^<\"]*+\"|'[^<']*+')*>")
_CHARACTER = re.compile(rb"&#(?:x0*+([0-9A-Fa-f]{1,2})|0*+([0-9]{1,3}));")
_EXTERNAL = re.compile(rb"TargetMode\s*=\s*[\"']\s*External", re.IGNORECASE)
_LOADED = re.compile(rb"/(?:attachedTemplate|oleObject|frame|subDocument|aFChunk)\s*[\"']", re.IGNORECASE)
_TARGET = re.compile(rb"\sTarget\s*=\s*[\"']\s*" + _ELSEWHERE, re.IGNORECASE)

_TEMPLATE = re.compile(rb"\\template(?![A-Za-z])")
_LONGEST = 10  # octets of it
_NAMED = 2100
"""Octets behind it in which the template is named."""
_WRITTEN = re.compile(
    rb"\\'(?P<hex>[0-9A-Fa-f]{2})|\\u(?P<number>-?[0-9]{1,5}) ?(?P<instead>\\'[0-9A-Fa-f]{2}|[^\\{}\r\n])?"
    rb"|\\[A-Za-z]{1,40}-?[0-9]{0,10} ?|\\?[\r\n{}]|\\(?P<itself>.)",
    re.DOTALL,
)
"""What is no text in RTF, or stands for another."""
_MONIKERS = (bytes.fromhex("e0c9ea79f9bace118c8200aa004ba90b"), bytes.fromhex("0303000000000000c000000000000046"))
"""Class ids of the links to a URL and to a file, as they are stored."""


def has_remote_relation(data: memoryview) -> bool:
    """Whether these relations of a part (OOXML) name something on another machine that is loaded with it."""
    octets = bytes(data).replace(b"\0", b"")  # UTF-16
    return any(_is_loaded(resolved(each)) for each in _RELATION.findall(octets))


def resolved(xml: bytes) -> bytes:
    """This XML in ASCII, also what was UTF-16, with references to characters resolved."""
    return _CHARACTER.sub(_character, xml.replace(b"\0", b""))


def has_remote_template(data: memoryview, goes_on: Callable[[], bool] = lambda: True) -> bool:
    """Whether this RTF document has a template on another machine; `goes_on` is asked at each."""
    for found in matches(_TEMPLATE, data, _LONGEST, goes_on):
        if not goes_on():
            break
        written = bytes(data[found.end() : found.end() + _NAMED]).partition(found[0])[0]
        names = (_WRITTEN.sub(reading, written) for reading in (_read, _read_without_instead))
        if any(_ADDRESS.match(name.lstrip(_BLANKS)) for name in names):
            return True
    return False


def is_remote_link(stream: bytes) -> bool:
    """Whether this stream of OLE links an object to a file on another machine."""
    return any(
        _ADDRESS.search(stream[stream.index(each) + len(each) :].replace(b"\0", b""))
        for each in _MONIKERS
        if each in stream
    )


def _is_loaded(relation: bytes) -> bool:
    return all(each.search(relation) for each in (_EXTERNAL, _LOADED, _TARGET))


def _character(reference: re.Match[bytes]) -> bytes:
    """What a reference stands for, if that is ASCII."""
    number = int(reference[1], 16) if reference[1] else int(reference[2])
    return bytes((number,)) if number < 0x80 else reference[0]


def _read(written: re.Match[bytes]) -> bytes:
    """What programs read where this is written."""
    if written["hex"]:
        return bytes((int(written["hex"], 16),))
    if written["number"]:
        number = int(written["number"]) & 0xFFFF
        return bytes((number,)) if number < 0x80 else b"?"
    return written["itself"] or b""


def _read_without_instead(written: re.Match[bytes]) -> bytes:
    r"""Likewise behind `\uc0`: what follows a number is text, and no substitute for old programs."""
    return _read(written) + (written["instead"] or b"")

"""TNEF: which files did Outlook pack into this winmail.dat?

Attributes follow each other, of the message and then of each attachment; a long name and an embedded message are
properties within one of them.  What cannot be read ends it; what came before stays.

Source: [MS-OXTNEF] sections 2.1.3 (attributes) and 2.1.3.4 (properties); [MS-OXCMSG] section 2.2.2 (attachments).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from elemta_milter.archives.budget import BrokenError, Budget
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.stream import Stream

_HEADER, _ATTRIBUTE = 6, 9
_BEGIN, _TITLE, _DATA, _PROPERTIES = 0x9002, 0x8010, 0x800F, 0x9005
_NAMES = frozenset({0x3001, 0x3704, 0x3707, 0x370C})  # PidTagDisplayName, PidTagAttach…Filename, …TransportName
_CONTENT = 0x3701  # PidTagAttachDataBinary, PidTagAttachDataObject
_FIXED = {1: 0, 2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 4, 20: 8, 64: 8, 72: 16}
"""Octets of a property, by its type."""
_STRING, _UNICODE, _BINARY, _SEVERAL = 0x1E, 0x1F, 0x102, 0x1000
_CLASS = 16
"""Octets before an embedded object: the id of its class."""
_LONGEST_NAME = 4096
_MOST_NAMES = 100  # of one attachment
_OFTEN = 1000  # values between two looks at the clock


@dataclass
class _Attachment:
    names: dict[str, None] = field(default_factory=dict)
    contents: list[memoryview] = field(default_factory=list)
    defect: str = ""

    def add_name(self, name: str) -> None:
        """One more name, of which Outlook writes four."""
        if len(self.names) < _MOST_NAMES:
            self.names[name] = None
        else:
            self.defect = f"it has more than {_MOST_NAMES} names"

    def add_content(self, content: memoryview, budget: Budget) -> None:
        """One more content; no more than there may be files."""
        if len(self.contents) <= budget.bounds.entries:
            self.contents.append(content)


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Its attachments.

    Raises:
        BrokenError: it ends in the middle.
    """
    found = _Attachment()
    at = _HEADER
    while at + _ATTRIBUTE <= len(data) and budget.goes_on():
        _, tag, _, size = struct.unpack_from("<BHHL", data, at)
        value = data[at + _ATTRIBUTE : at + _ATTRIBUTE + size]
        if tag == _BEGIN:
            yield from _told(found, budget)
            found = _Attachment()
        elif tag == _TITLE:
            found.add_name(text(bytes(value[:_LONGEST_NAME]).split(b"\0")[0], "cp1252"))
        elif tag == _DATA:
            found.add_content(value, budget)
        elif tag == _PROPERTIES:
            _read_properties(value, found, budget)
        at += _ATTRIBUTE + size + 2  # a checksum follows
    yield from _told(found, budget)
    if at > len(data) or len(data) - at >= _ATTRIBUTE:
        raise BrokenError("it ends in the middle")


def _told(found: _Attachment, budget: Budget) -> Iterator[Member]:
    """One file; the names stand with its first content."""
    names = [name for name in found.names if name]
    for number, content in enumerate(found.contents or ([memoryview(b"")] if names else [])):
        if not budget.unpacked(len(content)):
            return
        own = ["", *names][-len(names) :] if not number and names else [""]
        yield Member(own[0], Stream((content,)), tuple(own[1:]), defect=found.defect)


def _read_properties(data: memoryview, found: _Attachment, budget: Budget) -> None:
    """Take names and embedded objects out of the properties of an attachment."""
    try:
        for number, (tag, kind, value) in enumerate(_properties(data, budget), 1):
            if not number % _OFTEN and not budget.goes_on():
                return
            if tag == _CONTENT:
                found.add_content(value if kind == _BINARY else value[_CLASS:], budget)
            elif tag in _NAMES and kind in (_STRING, _UNICODE):
                octets = bytes(value[:_LONGEST_NAME])
                name = octets.decode("utf-16-le", "replace") if kind == _UNICODE else text(octets, "cp1252")
                found.add_name(name.split("\0")[0])
    except (struct.error, KeyError):
        found.defect = "its properties cannot be read"


def _properties(data: memoryview, budget: Budget) -> Iterator[tuple[int, int, memoryview]]:
    (count,) = struct.unpack_from("<L", data)
    at = 4
    for number in range(1, count + 1):
        if not number % _OFTEN and not budget.goes_on():
            return
        kind, tag = struct.unpack_from("<HH", data, at)
        at += 4
        if tag >= 0x8000:  # a named property
            named, size = struct.unpack_from("<LL", data, at + 16)
            at += 24 + (-(-size // 4) * 4 if named else 0)
        several, single = kind & _SEVERAL, kind & ~_SEVERAL
        values = 1
        if several or single not in _FIXED:
            (values,) = struct.unpack_from("<L", data, at)
            at += 4
        if single in _FIXED and not _FIXED[single]:
            values = min(values, 1)  # they take no octets, however many there are
        for _ in range(values):
            size = _FIXED[single] if single in _FIXED else struct.unpack_from("<L", data, at)[0]
            at += 0 if single in _FIXED else 4
            if at + size > len(data):
                raise struct.error("it ends in the middle")
            yield tag, single, data[at : at + size]
            at += -(-size // 4) * 4

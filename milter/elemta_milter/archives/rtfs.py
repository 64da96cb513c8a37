r"""RTF: which objects are embedded in this document?

An object stands in hexadecimal digits behind `\objdata`, however they are interrupted: by groups, control words and
blanks.  In it is an OLE file, or a file of Packager's.

Source: Rich Text Format Specification 1.9.1, "Objects"; [MS-OLEDS] section 2.2.5 (EmbeddedObject).
"""

from __future__ import annotations

import re
from binascii import a2b_hex, b2a_hex
from collections.abc import Iterator

from elemta_milter.archives.budget import Budget
from elemta_milter.archives.member import Member
from elemta_milter.archives.oles import package
from elemta_milter.archives.piecewise import matches
from elemta_milter.archives.stream import Stream

_OBJECT = re.compile(rb"\\objdata(?![a-z])")
_LONGEST = 9
_TOKEN = re.compile(
    rb"(?P<digits>[0-9A-Fa-f]{1,65536}+)|(?P<open>\{(?P<other>\\\*)?)|(?P<close>\})|(?P<bin>\\bin([0-9]{1,9}) ?)"
    rb"|\\'[0-9A-Fa-f]{0,2}|\\[A-Za-z]{1,40}-?[0-9]{0,10} ?|\\.|[^\\{}0-9A-Fa-f]{1,65536}+",
    re.DOTALL,
)
_OFTEN = 1000  # tokens between two looks at the clock
_LONGEST_WORD = 1000


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Its objects."""
    at = 0
    for found in matches(_OBJECT, data, _LONGEST, budget.goes_on):
        if found.start() < at:
            continue
        octets, at = _octets(data, found.end(), budget)
        if not budget.unpacked(len(octets)) or not budget.goes_on():
            return
        if octets:
            yield _object(octets)


def _octets(data: memoryview, at: int, budget: Budget) -> tuple[bytes, int]:
    """What the digits say up to the end of the group that is open, and where that is."""
    octets, half = bytearray(), b""
    depth = ignored = count = 0
    while (token := _TOKEN.match(data, at)) is not None:
        at = token.end()
        count += 1
        digits = b""
        if token["digits"] and not ignored:
            digits = half + token["digits"]
        elif token["open"]:
            depth += 1
            ignored = ignored or (depth if token["other"] else 0)  # {\* begins what programs may pass over
        elif token["close"]:
            if not depth:
                break
            ignored = 0 if ignored == depth else ignored
            depth -= 1
        elif token["bin"]:
            plain = data[at : at + int(token[6])]
            at += int(token[6])
            if half:
                digits = half + b2a_hex(plain)
            else:
                octets += plain
        if digits:
            octets += a2b_hex(digits[: len(digits) & ~1])
            half = digits[len(digits) & ~1 :]
        if not count % _OFTEN and not budget.goes_on():
            break
    return bytes(octets), at


def _object(octets: bytes) -> Member:
    """The file in an object of OLE 1; all of it, where it is none."""
    words, at = [], 8
    for _ in range(3):  # the class, the topic, the item
        size = int.from_bytes(octets[at : at + 4], "little")
        if size > _LONGEST_WORD:
            return Member("", Stream((octets,)))
        words.append(octets[at + 4 : at + 4 + size].rstrip(b"\0"))
        at += 4 + size
    if words[0].lower() != b"package":
        return Member("", Stream((memoryview(octets)[at + 4 :] or octets,)))
    name, also, inner = package(b"\0" * 4 + octets[at + 4 :])
    return Member(name, Stream((inner,)), also)

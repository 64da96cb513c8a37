"""OneNote: which files lie in this section?

Each stands whole between two identifiers, under an identifier of its own by which a page refers to it, with its
extension.  The name that the reader sees is elsewhere; the extension is what decides which program opens the file.

Source: [MS-ONESTORE] sections 2.5.21 (FileDataStoreObjectReferenceFND), 2.5.27 (ObjectDeclarationFileData3RefCountFND)
and 2.6.13 (FileDataStoreObject).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from itertools import islice, product

from elemta_milter.archives.budget import Budget
from elemta_milter.archives.member import Member
from elemta_milter.archives.piecewise import matches
from elemta_milter.archives.stream import Stream

_OBJECT = bytes.fromhex("e716e3bd65261145a4c48d4d0b7a9eac")  # {BDE316E7-2665-4511-A4C4-8D4D0B7A9EAC}
_CONTENT = 16 + 8 + 4 + 8
"""Octets before the content: the identifier, the length, and what is not used."""
_REFERENCE = re.compile(
    "".join(f"{re.escape(each)}\0" for each in "<ifndf>{").encode()
    + rb"(?P<id>(?:[0-9A-Fa-f-]\0){36})}\0(?P<size>[\x01-\x40])\0\0\0(?P<extension>(?:[^\0]\0){0,64})"
)
_LONGEST = 300  # octets of one
_PLACES = ((8, 1), (4, 1), (4, 8), (2, 8))
"""How a place in the file is written: in so many octets, in units of so many octets."""
_SIZES = (8, 4, 2, 1)
"""Octets of the length that stands behind it."""
_OFTEN = 16  # times that one identifier is looked at


def members(data: memoryview, budget: Budget) -> Iterator[Member]:
    """Its files, in order."""
    extensions = _extensions(data, budget)
    for count, found in enumerate(re.finditer(re.escape(_OBJECT), data), 1):
        begin = found.start() + _CONTENT
        size = int.from_bytes(data[found.end() : found.end() + 8], "little")
        content = data[begin : begin + size]
        if not budget.unpacked(len(content)):  # they may overlap
            return
        defect = "" if len(content) == size else "it ends before its end"
        extension = extensions.get(found.start(), "").removeprefix(".")
        name = f"object{count}.{extension}" if extension else f"object{count}"
        yield Member(name, Stream(start=content), defect=defect)


def _extensions(data: memoryview, budget: Budget) -> dict[int, str]:
    """The extension of each object, by its place."""
    known: dict[bytes, str] = {}
    for found in matches(_REFERENCE, data, _LONGEST, budget.goes_on):
        extension = found["extension"][: found["size"][0] * 2]
        try:
            known[uuid.UUID(found["id"].decode("utf-16-le")).bytes_le] = extension.decode("utf-16-le", "replace")
        except ValueError:  # hyphens where digits should be
            continue
        if len(known) >= budget.bounds.entries:
            break
    places: dict[int, str] = {}
    for each, extension in known.items():
        if not budget.goes_on():
            break
        for found in islice(re.finditer(re.escape(each), data), _OFTEN):
            for place in _before(data, found.start()):
                if data[place : place + 16] == _OBJECT:
                    places.setdefault(place, extension)
    return places


def _before(data: memoryview, end: int) -> Iterator[int]:
    """The place that is written before `end`, and the length behind it, in each form there is."""
    for (octets, unit), size in product(_PLACES, _SIZES):
        at = end - size - octets
        if at >= 0:
            yield int.from_bytes(data[at : at + octets], "little") * unit

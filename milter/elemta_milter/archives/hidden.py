"""Hidden: which archive stands in a file behind something else?

Unpackers look for an archive's first octets when a file does not begin with them: so a picture, a program or a few
octets of junk can stand before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from elemta_milter.archives import zips

_FAR = 4 << 20
"""Octets in which WinRAR looks; others look less far."""
_DISK = 512
_MAGICS = {b"Rar!\x1a\x07": "rar", b"7z\xbc\xaf\x27\x1c": "7z"}
KINDS = frozenset({"rar", "7z"})
"""What is found in the midst of a file, but for zip."""


def hidden(data: memoryview) -> tuple[str, int]:
    """The kind of the archive in it and where that begins; "" for none. That of a zip is 0: its reader looks for it."""
    if bytes(data[-_DISK:][:8]) == b"conectix":  # a fixed disk of VHD has its header at its end
        return "vhd", 0
    if bytes(data[-_DISK:][:4]) == b"koly":  # and an image of macOS
        return "dmg", 0
    if zips.find_end(data) >= 0:
        return "zip", 0
    head = bytes(data[:_FAR])
    found = _found(head)
    if (place := zips.find_file(head)) >= 0:
        found.append((place, "zip"))
    place, kind = min(found, default=(0, ""))
    return kind, 0 if kind == "zip" else place


def behind(data: memoryview, kind: str, wanted: Collection[str]) -> Iterator[tuple[str, int]]:
    """What stands behind an archive of this kind, as `hidden` tells it: a zip, and what is wanted of other kinds."""
    if kind != "zip" and zips.find_end(data) >= 0:
        yield "zip", 0
    for place, other in _found(bytes(data[:_FAR])) if wanted else ():
        if other != kind and other in wanted:
            yield other, place


def _found(head: bytes) -> list[tuple[int, str]]:
    return [(place, kind) for magic, kind in _MAGICS.items() if (place := head.find(magic)) >= 0]

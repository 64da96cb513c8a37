"""Hidden: which archive stands in a file behind something else?

Unpackers look for an archive's first octets when a file does not begin with them: so a picture, a program or a few
octets of junk can stand before it.
"""

from __future__ import annotations

from elemta_milter.archives import zips

_FAR = 4 << 20
"""Octets in which WinRAR looks; others look less far."""
_DISK = 512
_MAGICS = {b"Rar!\x1a\x07": "rar", b"7z\xbc\xaf\x27\x1c": "7z"}


def hidden(data: memoryview) -> tuple[str, int]:
    """The kind of the archive in it and where that begins; "" for none. What is told of zip holds for all of it."""
    if bytes(data[-_DISK:][:8]) == b"conectix":  # a fixed disk of VHD has its header at its end
        return "vhd", 0
    if zips.find_end(data) >= 0:
        return "zip", 0
    head = bytes(data[:_FAR])
    found = [(place, kind) for magic, kind in _MAGICS.items() if (place := head.find(magic)) >= 0]
    if (place := zips.find_file(head)) >= 0:
        found.append((place, "zip"))
    place, kind = min(found, default=(0, ""))
    return kind, 0 if kind == "zip" else place

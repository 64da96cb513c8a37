"""Squeezed: what does a single compressed file hold (gzip, bzip2, xz, lzma), and what is it called?

Sources: RFC 1952; the .xz File Format 1.2; RFC 1951.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from elemta_milter.archives.budget import Budget
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.stream import Decompressor, Stream, bzip2, gzip, unpack, xz

MAKERS: Mapping[str, Callable[[], Decompressor]] = {"gz": gzip, "bz2": bzip2, "xz": xz}
_TARS = {
    "tgz": "tar",
    "taz": "tar",
    "tbz": "tar",
    "tbz2": "tar",
    "tb2": "tar",
    "txz": "tar",
    "tlz": "tar",
    "tzst": "tar",
    "svgz": "svg",
}
_SUFFIXES = frozenset({"gz", "bz2", "bz", "xz", "lzma", "z", "zst", "lz4", "lz"})
_NAME, _EXTRA = 1 << 3, 1 << 2  # of FLG, RFC 1952 section 2.3.1


def members(stream: Stream, kind: str, names: Sequence[str], budget: Budget) -> Iterator[Member]:
    """The one file in it, which is called by the names of what it lies in."""
    stored = _stored_name(bytes(stream.peek(1024))) if kind == "gz" else ""
    content = Stream(unpack(stream.take(1 << 62), MAKERS[kind], budget, many=True))
    name, *also = dict.fromkeys([*([stored] if stored else []), *map(inner_name, names)])
    yield Member(name, content, tuple(also))


def inner_name(name: str) -> str:
    """What programs call the file that comes out: "a.tar" of "a.tgz"."""
    stem, dot, suffix = name.rpartition(".")
    if dot and suffix.lower() in _TARS:
        return f"{stem}.{_TARS[suffix.lower()]}"
    return stem if dot and suffix.lower() in _SUFFIXES else name


def _stored_name(head: bytes) -> str:
    """The name in a gzip header (RFC 1952 section 2.3.1); "" for none."""
    if len(head) < 12 or not head[3] & _NAME:
        return ""
    at = 10
    if head[3] & _EXTRA:
        at += 2 + int.from_bytes(head[10:12], "little")
    return text(head[at:].split(b"\0")[0])

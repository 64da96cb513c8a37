"""Tar: which files does a tar archive hold?

Read from beginning to end, so that a compressed one of any size needs no memory.  Long names of GNU and pax are taken;
of sparse files what is stored is read, not what they claim to be.

Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from elemta_milter.archives.budget import BrokenError, Budget
from elemta_milter.archives.kinds import is_tar
from elemta_milter.archives.member import Member, text
from elemta_milter.archives.stream import BEHIND, CHUNK, Stream

BLOCK = 512
_LONGEST = 1 << 16
"""Octets of a pax header or of a long name; longer ones are cut."""
_LINKS = b"123456"  # and devices and folders: they have no content


def members(stream: Stream, budget: Budget) -> Iterator[Member]:
    """Its files, in order. The stream of each is read no more once the next is asked for.

    Raises:
        BrokenError: a header is none, or it ends in the middle.
    """
    long_name = ""
    pax: dict[str, str] = {}
    while budget.goes_on():
        block = bytes(stream.read(BLOCK))
        if not block.strip(b"\0"):
            _only_zeros(stream, budget)
            break
        if len(block) < BLOCK or not is_tar(block):
            raise BrokenError("a header in it is broken")
        kind, size = block[156:157], _number(block[124:136])
        if kind in b"LKxXg":
            data = bytes(stream.read(min(size, _LONGEST)))
            stream.skip(size - len(data) + -size % BLOCK)
            long_name = text(data.split(b"\0")[0]) if kind == b"L" else long_name
            pax = _pax(data) if kind in b"xX" else pax
            continue
        if kind == b"S":
            _skip_places(block, stream)
        if pax.get("size", "").isdecimal():
            size = int(pax["size"][:18])
        names = (pax.get("GNU.sparse.name", ""), pax.get("path", ""), long_name, _name(block))
        long_name, pax = "", {}
        yield from _file(stream, _unique(names), kind, size)
    if stream.broken:
        raise BrokenError(stream.broken)


def _file(stream: Stream, names: Sequence[str], kind: bytes, size: int) -> Iterator[Member]:
    """One file, link, device or folder, and whatever its reader has left."""
    name, *also = names or [""]
    if kind in _LINKS:
        yield Member(name.rstrip("/") + "/", defect="it is a link with content" if size and kind in b"12" else "")
        return
    content = Stream(stream.take(size))
    yield Member(name, content, tuple(also))
    left = size - content.seen
    if stream.skip(left) < left and not stream.broken:
        raise BrokenError("it ends in the middle")
    stream.skip(-size % BLOCK)


def _unique(names: Sequence[str]) -> list[str]:
    """Each name once, without those that are only the beginning of another."""
    found = list(dict.fromkeys(name for name in names if name))
    return [name for name in found if not any(other != name and other.startswith(name) for other in found)]


def _skip_places(block: bytes, stream: Stream) -> None:
    """Pass over the blocks that tell more places of an old sparse file of GNU; each says whether one follows."""
    more = block[482]
    while more and (block := bytes(stream.read(BLOCK))):
        more = block[504] if len(block) == BLOCK else 0


def _only_zeros(stream: Stream, budget: Budget) -> None:
    """Read to the end what should be padding."""
    while (rest := stream.read(CHUNK)) and budget.goes_on():
        if bytes(rest).strip(b"\0"):
            raise BrokenError(BEHIND)


def _name(block: bytes) -> str:
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    return text(prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name)


def _number(field: bytes) -> int:
    """Octal digits, or base 256 after a first octet of 0x80 (GNU)."""
    if field[0] & 0x80:
        return int.from_bytes(field[4:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise BrokenError("a size in it is no number") from None


def _pax(data: bytes) -> dict[str, str]:
    """The records LENGTH KEY=VALUE, each with its line end."""
    found = {}
    while data:
        length, _, rest = data.partition(b" ")
        if not length.isdigit() or len(length) > 6 or not int(length) > len(length) + 1:
            break
        key, _, value = rest[: int(length) - len(length) - 1].rstrip(b"\n").partition(b"=")
        found[text(key)] = text(value)
        data = data[int(length) :]
    return found

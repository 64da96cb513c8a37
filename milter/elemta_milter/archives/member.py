"""Member: what does a reader of archives find, one file after the other?"""

from __future__ import annotations

from dataclasses import dataclass, field

from elemta_milter.archives.stream import Stream


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Attributes:
        name: as the archive gives it.
        stream: what it holds; empty where that cannot be read.
        also: other names that the archive gives it; programs differ in which they take.
        encrypted: it cannot be read without the password.
        unread: why it is not read, though it is not encrypted; "" when it is.
        defect: what is wrong with it; "" for nothing.
    """

    name: str
    stream: Stream = field(default_factory=Stream)
    also: tuple[str, ...] = ()
    encrypted: bool = False
    unread: str = ""
    defect: str = ""


def text(name: bytes, codec: str = "latin-1") -> str:
    """A name as it was most likely meant: UTF-8 where it can be, else `codec`."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode(codec, "replace")

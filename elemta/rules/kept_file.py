"""Kept files: does a file that people write still say what was read of it?

Sets, maps and lists of people may be kept in files.  `refresh.py` looks at them once a second and has them read again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

_NONE = (0, 0, 0)
"""The mark of no file."""


@dataclass(slots=True)
class KeptFile(ABC):
    """What a file says; may be exchanged while mail goes by.

    Attributes:
        path: the file; None for what is kept elsewhere and never changes.
        stamp: the file's mark (change time in ns, size, inode) when it was read.
    """

    path: Path | None = field(default=None, kw_only=True)
    stamp: tuple[int, int, int] = field(default=_NONE, kw_only=True)

    @property
    @abstractmethod
    def size(self) -> int:
        """How many entries there are."""

    @abstractmethod
    def take(self, path: Path) -> None:
        """Read all of the file, and only then exchange what was known.

        Raises:
            OSError, ValueError: it cannot be used.
        """

    def changed(self) -> bool:
        """The file is not the one that was read, or is gone since then."""
        try:
            return self.path is not None and file_stamp(self.path) != self.stamp
        except OSError:
            return self.stamp != _NONE

    def reread(self) -> None:
        """Read the file again.

        Raises:
            OSError, ValueError: it is gone or cannot be used. What was known stays; the same file is not tried again.
        """
        if self.path is not None:
            self.stamp = _NONE  # if it is gone
            self.stamp = file_stamp(self.path)
            self.take(self.path)


def file_stamp(path: Path) -> tuple[int, int, int]:
    """The mark by which a changed file is known.

    Raises:
        OSError: the file is gone.
    """
    seen = path.stat()
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def file_lines(path: Path) -> list[str]:
    """The lines of a file that people write.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file; reading a pipe would wait for ever. Or it is no text: in UTF-16, say, no entry would
            ever be found.
    """
    if not S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a file; name a file")
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise ValueError(f"{path}:{line}: a NUL character cannot stand in a text; save the file as UTF-8")
    return text.splitlines()

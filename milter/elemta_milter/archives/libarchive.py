"""Libarchive: what does an archive hold that Python cannot read? Asked in a process of its own, see `foreign`.

Started as a program with the kind of the archive, which it reads from standard input.  Only the reader of that kind is
switched on: bsdtar would try all that there are, and one of them (mtree) opens files of this machine that an archive
names, and waits for ever on a pipe.

Writes frames: a letter, a length of four octets, so many octets.  `N` a name (one of a folder ends in "/"), `D` data of
the file named last.  Exit status 1: it could not be read to its end.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

NAMES = ("libarchive.so.13", "libarchive.so", "libarchive.13.dylib")
FORMATS = {
    "rar": ("rar", "rar5"),
    "7z": ("7zip",),
    "cab": ("cab",),
    "iso": ("iso9660",),
    "lha": ("lha",),
    "cpio": ("cpio",),
    "ar": ("ar",),
    "xar": ("xar",),
}
"""Readers of archives, by kind."""
FILTERS = {"zstd": "zstd", "lz4": "lz4", "lzip": "lzip", "compress": "compress"}
"""Of single compressed files."""
AGAIN = {"iso": b"iso9660:!rockridge"}
"""Options with which an archive is read once more: Windows passes over the names of Rock Ridge, which others take."""
SECONDS, MEMORY = 1, 256 << 20

_PIECE = 1 << 16
_END, _WARNING = 1, -20  # ARCHIVE_EOF, ARCHIVE_WARN of archive.h
_FOLDER = 0o040000


def main() -> int:
    """Read the archive; the exit status."""
    library = load()
    if library is None:
        return 1
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = sys.argv[1]
    told: set[tuple[bytes, int]] = set()
    status = _copy(library, kind, b"", told)
    if kind in AGAIN and not status:
        status = _copy(library, kind, AGAIN[kind], told)
    return status


def load() -> ctypes.CDLL | None:
    """The library, if it is installed."""
    for name in NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.archive_read_new.restype = ctypes.c_void_p
        library.archive_entry_pathname.restype = ctypes.c_char_p
        library.archive_entry_pathname_utf8.restype = ctypes.c_char_p
        library.archive_entry_filetype.restype = ctypes.c_uint
        library.archive_entry_ino64.restype = ctypes.c_int64
        library.archive_read_data.restype = ctypes.c_ssize_t
        return library
    return None


def _opened(library: ctypes.CDLL, kind: str, options: bytes) -> ctypes.c_void_p | None:
    """A reader of this kind, from the beginning; None if it does not begin like one."""
    reader = ctypes.c_void_p(library.archive_read_new())
    if kind in FILTERS:
        getattr(library, f"archive_read_support_filter_{FILTERS[kind]}")(reader)
        library.archive_read_support_format_raw(reader)
    for form in FORMATS.get(kind, ()):
        getattr(library, f"archive_read_support_format_{form}")(reader)
    if options:
        library.archive_read_set_options(reader, options)
    os.lseek(0, 0, os.SEEK_SET)
    return None if library.archive_read_open_fd(reader, 0, ctypes.c_size_t(_PIECE)) else reader


def _copy(library: ctypes.CDLL, kind: str, options: bytes, told: set[tuple[bytes, int]]) -> int:
    """Write every file but those in `told`, and add it: its name, and where its data stand (its inode number)."""
    reader = _opened(library, kind, options)
    if reader is None:
        return 1
    entry = ctypes.c_void_p()
    room = ctypes.create_string_buffer(_PIECE)
    while (status := library.archive_read_next_header(reader, ctypes.byref(entry))) != _END:
        if status < _WARNING:
            return 1
        name = library.archive_entry_pathname(entry) or library.archive_entry_pathname_utf8(entry) or b""
        which = name, library.archive_entry_ino64(entry)
        if kind in AGAIN and which in told:
            continue
        told.add(which)
        folder = library.archive_entry_filetype(entry) == _FOLDER
        _put(b"N", name.rstrip(b"/") + b"/" if folder else name)
        while count := library.archive_read_data(reader, room, ctypes.c_size_t(_PIECE)):
            if count < 0:
                return 1
            _put(b"D", room.raw[:count])
    return 0


def _put(letter: bytes, octets: bytes) -> None:
    sys.stdout.buffer.write(letter + struct.pack("<L", len(octets)) + octets)


if __name__ == "__main__":
    sys.exit(main())

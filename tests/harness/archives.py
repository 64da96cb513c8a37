"""Archives and documents made by hand, so that each octet can be a lie."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import uuid
import zipfile
import zlib

PROGRAM = b"MZ" + bytes(58) + struct.pack("<L", 64) + b"PE\0\0" + bytes(200)


def zipped(*files, method=zipfile.ZIP_DEFLATED):
    """A zip archive of (name, content), the same each time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def tarred(*files, mode="w", form=tarfile.PAX_FORMAT):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode, format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


# ── 7z ───────────────────────────────────────────────────────────────────────────────────────────────────


def _number(value):
    return bytes([value]) if value < 0x80 else b"\xff" + struct.pack("<Q", value)


def _coder(method, properties=b""):
    flags = len(method) | (32 if properties else 0)
    return bytes([1, flags]) + method + (_number(len(properties)) + properties if properties else b"")


LZMA2, COPY, PPMD, AES = (
    _coder(b"\x21", b"\x10"),
    _coder(b"\0"),
    _coder(b"\3\4\1", bytes(5)),
    _coder(b"\6\xf1\7\1", bytes(2)),
)


def raw_lzma2(content):
    return lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])


def _streams(place, packed, coder, unpacked, sizes=()):
    pack = b"\6" + _number(place) + b"\1\x09" + _number(packed) + b"\0"
    folder = b"\7\x0b\1\0" + coder + b"\x0c" + _number(unpacked) + b"\0"
    parts = b"\x08\x0d" + _number(len(sizes)) + b"\x09" * bool(sizes[1:]) + b"".join(map(_number, sizes[:-1])) + b"\0"
    return pack + folder + (parts if sizes else b"") + b"\0"


def sevenzipped(*files, coder=LZMA2, header_coder=None):
    """A 7z archive of (name, content), solid; its header packed by `header_coder`."""
    whole = b"".join(content for _, content in files)
    packed = raw_lzma2(whole) if coder == LZMA2 else whole
    names = b"\0" + "".join(f"{name}\0" for name, _ in files).encode("utf-16-le")
    sizes = [len(content) for _, content in files]
    header = b"\1\4" + _streams(0, len(packed), coder, len(whole), sizes)
    header += b"\5" + _number(len(files)) + b"\x11" + _number(len(names)) + names + b"\0\0"
    if header_coder is not None:
        place, unpacked = len(packed), len(header)
        header = raw_lzma2(header) if header_coder == LZMA2 else header
        packed += header
        header = b"\x17" + _streams(place, len(header), header_coder, unpacked)
    start = struct.pack("<QQL", len(packed), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<L", zlib.crc32(start)) + start + packed + header


# ── rar ──────────────────────────────────────────────────────────────────────────────────────────────────


def rar4(*files, encrypted_headers=False, streams=(), long=False):
    """A RAR 4 archive of (name, content, flags, method), nothing packed; `streams` of NTFS: name and content.

    The sizes of these are `long`.
    """
    main = struct.pack("<BHH", 0x73, 0x80 if encrypted_headers else 0, 13) + bytes(6)
    made = b"Rar!\x1a\x07\x00" + struct.pack("<H", zlib.crc32(main) & 0xFFFF) + main
    for name, content, flags, method in files:
        rest = struct.pack("<LLBLLBBHL", len(content), len(content), 3, 0, 0, 29, method, len(name), 32) + name
        header = struct.pack("<BHH", 0x74, 0x8000 | flags, 7 + len(rest)) + rest
        made += struct.pack("<H", zlib.crc32(header) & 0xFFFF) + header + content
    for name, content in streams:
        rest = struct.pack("<LLBLLBBHL", len(content), len(content), 3, 0, 0, 29, 0x30, 3, 0)
        rest += bytes(8) * long + b"STM" + name.encode("utf-16-le")
        header = struct.pack("<BHH", 0x7A, 0x8000 | 0x100 * long, 7 + len(rest)) + rest
        made += struct.pack("<H", zlib.crc32(header) & 0xFFFF) + header + content
    return made + b"\xc4\x3d\x7b\x00\x40\x07\x00"


def _vint(value):
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def _block(kind, flags, rest):
    header = _vint(kind) + _vint(flags) + rest
    sized = _vint(len(header)) + header
    return struct.pack("<L", zlib.crc32(sized)) + sized


def rar5(*files, encrypted_headers=False, streams=()):
    """A RAR 5 archive of (name, content, encrypted, method), nothing packed; `streams` of NTFS: name and content."""
    made = b"Rar!\x1a\x07\x01\x00"
    if encrypted_headers:
        return made + _block(4, 0, bytes(20))
    made += _block(1, 0, _vint(0))
    for name, content, encrypted, method in files:
        extra = _vint(2) + _vint(1) + b"\0" if encrypted else b""
        sizes = (_vint(len(extra)) if extra else b"") + _vint(len(content))
        what = _vint(0) + _vint(len(content)) + _vint(32) + _vint(method << 7) + _vint(1) + _vint(len(name)) + name
        made += _block(2, 2 | bool(extra), sizes + what + extra) + content
    for name, content in streams:
        extra = _vint(1 + len(name)) + _vint(7) + name.encode()
        sizes = _vint(len(extra)) + _vint(len(content))
        what = _vint(0) + _vint(len(content)) + _vint(0) + _vint(0) + _vint(0) + _vint(3) + b"STM"
        made += _block(3, 3, sizes + what + extra) + content
    return made + _block(5, 0, _vint(0))


# ── OLE ──────────────────────────────────────────────────────────────────────────────────────────────────


END = 0xFFFFFFFE


class _Sectors:
    """Sectors of a compound file, and which follows which."""

    def __init__(self, size):
        self.size, self.held, self.next = size, b"", []

    def put(self, content, kind=None):
        start, count = len(self.next), -(-len(content) // self.size)
        self.held += content.ljust(count * self.size, b"\0")
        self.next += [kind] * count if kind else [*range(start + 1, start + count), END] if count else []
        return start if count else END


def ole(streams, root_class=bytes(16)):
    """A compound file of named streams, "STORAGE/NAME" for one in a storage ([MS-CFB])."""
    big, mini = _Sectors(512), _Sectors(64)
    storages = {"/".join(path.split("/")[:depth]) for path in streams for depth in range(1, path.count("/") + 1)}
    paths = sorted(storages | set(streams))
    inside = {
        folder: [at + 1 for at, path in enumerate(paths) if path.rpartition("/")[0] == folder]
        for folder in ["", *paths]
    }
    starts = {path: (big if len(content) >= 4096 else mini).put(content) for path, content in streams.items()}
    root, root_size = big.put(mini.held), len(mini.held)
    directory = b""
    for place, path in enumerate(["", *paths]):
        kind = 5 if not path else 2 if path in streams else 1
        octets = (path.rpartition("/")[2] or "Root Entry").encode("utf-16-le")
        beside = inside[path.rpartition("/")[0]] if path else []
        right = beside[beside.index(place) + 1] if place in beside[:-1] else 0xFFFFFFFF
        child = inside[path][0] if kind != 2 and inside[path] else 0xFFFFFFFF
        directory += octets.ljust(64, b"\0") + struct.pack("<HBB", len(octets) + 2, kind, 1)
        directory += struct.pack("<LLL", 0xFFFFFFFF, right, child) + (bytes(16) if path else root_class) + bytes(20)
        directory += struct.pack("<LQ", starts.get(path, 0), len(streams.get(path, b""))) if path else b""
        directory += b"" if path else struct.pack("<LQ", root, root_size)
    first = big.put(directory)
    mini_table = struct.pack(f"<{len(mini.next)}L", *mini.next)
    mini_table += b"\xff" * (-len(mini_table) % 512)
    mini_first = big.put(mini_table)
    count = (len(big.next) + 127) // 127
    tables = big.put(bytes(512 * count), 0xFFFFFFFD)
    table = struct.pack(f"<{len(big.next)}L", *big.next).ljust(count * 512, b"\xff")
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<LLLLLLLLL", 0, count, first, 0, 4096, mini_first, len(mini_table) // 512, END, 0)
    header += struct.pack("<109L", *range(tables, tables + count), *[0xFFFFFFFF] * (109 - count))
    return header + big.held[: tables * 512] + table


def packaged(name, content):
    """A stream \\1Ole10Native as Packager writes it."""
    path = b"C:\\x\\" + name
    rest = struct.pack("<H", 2) + name + b"\0" + path + b"\0" + struct.pack("<HH", 0, 3)
    rest += struct.pack("<L", len(path) + 1) + path + b"\0" + struct.pack("<L", len(content)) + content
    return struct.pack("<L", len(rest)) + rest


def _ovba(content):
    """The compression of [MS-OVBA] section 2.4.1, literals only."""
    made = b"\1"
    for at in range(0, len(content), 3600):
        piece = content[at : at + 3600]
        tokens = b"".join(b"\0" + piece[start : start + 8] for start in range(0, len(piece), 8))
        made += struct.pack("<H", 0xB000 | (len(tokens) - 1)) + tokens
    return made


def _record(kind, value):
    return struct.pack("<HL", kind, len(value)) + value


def vba_project(code):
    """The vbaProject.bin of one module with this code ([MS-OVBA] section 2.3.4.2)."""
    name = b"Module1"
    wide = name.decode().encode("utf-16-le")
    info = (
        _record(1, struct.pack("<L", 3))
        + _record(2, struct.pack("<L", 0x409))
        + _record(0x14, struct.pack("<L", 0x409))
    )
    info += _record(3, struct.pack("<H", 1252)) + _record(4, b"P") + _record(5, b"") + _record(0x40, b"")
    info += _record(6, b"") + _record(0x3D, b"") + _record(7, struct.pack("<L", 0)) + _record(8, struct.pack("<L", 0))
    info += struct.pack("<HLLH", 9, 4, 1, 1) + _record(0x0C, b"") + _record(0x3C, b"")
    modules = _record(0x0F, struct.pack("<H", 1)) + _record(0x13, b"\xff\xff")
    modules += _record(0x19, name) + _record(0x47, wide) + _record(0x1A, name) + _record(0x32, wide)
    modules += _record(0x1C, b"") + _record(0x48, b"") + _record(0x31, struct.pack("<L", 0))
    modules += (
        _record(0x1E, struct.pack("<L", 0)) + _record(0x2C, b"\xff\xff") + _record(0x21, b"") + _record(0x2B, b"")
    )
    directory = _ovba(info + modules + _record(0x10, b""))
    project = b'ID="{0}"\r\nModule=Module1\r\nName="P"\r\n'
    return ole(
        {
            "PROJECT": project,
            "VBA/dir": directory,
            "VBA/_VBA_PROJECT": b"\xcc\x61\xff\xff\0\0\0",
            "VBA/Module1": _ovba(code),
        }
    )


# ── TNEF and RTF ─────────────────────────────────────────────────────────────────────────────────────────


def _attribute(level, tag, value):
    return struct.pack("<BHHL", level, tag, 6, len(value)) + value + struct.pack("<H", sum(value) & 0xFFFF)


def _property(kind, tag, value, named=b""):
    return struct.pack("<HH", kind, tag) + named + struct.pack("<LL", 1, len(value)) + value + bytes(-len(value) % 4)


def tnef(*files, embedded=b"", binary=b""):
    """winmail.dat with (short name, long name, content), an embedded message, a content in a property ([MS-OXTNEF])."""
    made = struct.pack("<LH", 0x223E9F78, 1) + _attribute(1, 0x9006, struct.pack("<L", 0x10000))
    for short, long, content in files:
        name = _property(0x1F, 0x3707, f"{long}\0".encode("utf-16-le"))
        name += struct.pack("<HH", 3, 0x8001) + bytes(16) + struct.pack("<LLL", 0, 5, 7)  # named by a number
        name += (
            struct.pack("<HH", 3, 0x8002) + bytes(16) + struct.pack("<LL", 1, 6) + "ab\0".encode("utf-16-le") + bytes(2)
        )
        name += struct.pack("<L", 7) + struct.pack("<HHLLL", 0x1003, 0x10, 2, 1, 2)
        made += _attribute(2, 0x9002, bytes(14)) + _attribute(2, 0x8010, short + b"\0")
        made += _attribute(2, 0x800F, content) + _attribute(2, 0x9005, struct.pack("<L", 4) + name)
    for kind, content in ((13, embedded and bytes(16) + embedded), (0x102, binary)):
        if content:
            made += _attribute(2, 0x9002, bytes(14))
            made += _attribute(2, 0x9005, struct.pack("<L", 1) + _property(kind, 0x3701, content))
    return made


def rtf(kind, content, between=b""):
    """An RTF document with an embedded object of a class."""
    made = struct.pack("<LLL", 0x501, 2, len(kind) + 1) + kind + b"\0" + bytes(8) + struct.pack("<L", len(content))
    digits = (made + content).hex().encode()
    half = len(digits) // 2
    return b"{\\rtf1 x{\\object\\objemb{\\*\\objdata " + digits[:half] + between + digits[half:] + b"}}}"


def onenote(*files):
    """A OneNote section with (extension, content), as far as files in it go ([MS-ONESTORE])."""
    made = bytes.fromhex("e4525c7b8cd8a74daeb15378d02996d3") + bytes(1008)
    for number, (extension, content) in enumerate(files, 1):
        own, place = uuid.UUID(int=number), len(made)
        made += bytes.fromhex("e716e3bd65261145a4c48d4d0b7a9eac") + struct.pack("<QLQ", len(content), 0, 0) + content
        made += bytes(-len(content) % 8) + bytes.fromhex("22a7fb71790f0b4abb13899256426b24")
        made += struct.pack("<QL", place, len(content) + 52) + own.bytes_le
        for text in (f"<ifndf>{{{own}}}", extension):
            made += struct.pack("<L", len(text)) + text.encode("utf-16-le")
    return made + bytes(64)

"""Kinds: which archive is this, by its first octets?

A name says nothing: mail programs and unpackers look inside, and so do we.
"""

from __future__ import annotations

from elemta_milter.archives.stream import Octets

HEAD = 1024
"""Octets that are enough to say so, but for an ISO image."""
_ISO = 0x8001

_MAGICS = {
    b"PK\3\4": "zip",
    b"PK\5\6": "zip",
    b"PK\7\x08": "zip",
    b"PK00PK\3\4": "zip",
    b"\x1f\x8b": "gz",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07\x00": "rar",
    b"Rar!\x1a\x07\x01": "rar",
    b"RE~^": "rar",  # of RAR 1.4
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "ole",  # a document, in which files can be packed
    b"{\\rt": "rtf",  # likewise
    b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3": "onenote",  # likewise
    b"MSCF\0\0\0\0": "cab",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP\x01": "lzip",
    b"\x1f\x9d": "compress",
    b"ZOO ": "zoo",
    b"SIT!": "stuffit",
    b"StuffIt": "stuffit",
    b"xar!\x00": "xar",
    b"EGGA": "egg",
    b"ALZ\x01": "alz",
    b"ISc(": "installshield",
    b"070701": "cpio",
    b"070702": "cpio",
    b"070707": "cpio",
    b"!<arch>\n": "ar",
    b"\x78\x9f\x3e\x22": "tnef",
    b"vhdxfile": "vhdx",
    b"conectix": "vhd",
    b"MSWIM\0\0\0": "wim",
    b"\0\5\x16\0": "applesingle",
    b"\xed\xab\xee\xdb": "rpm",
    b"hsqs": "squashfs",
    b"KDMV": "vmdk",
    b"QFI\xfb": "qcow",
    b"<<< Oracle VM VirtualBox Disk Image >>>": "vdi",
    b"!BDN": "pst",
}
"""How they begin. What has no reader here is an archive all the same: one that is not opened."""


def archive_kind(data: Octets) -> str:
    """The kind of archive that begins like this: "zip", "tar", "7z", "cab", …; "" for none."""
    head = bytes(data[:HEAD])
    return next((kind for magic, kind in _MAGICS.items() if head.startswith(magic)), "") or _weak(head, data)


def _weak(head: bytes, data: Octets) -> str:
    """Those whose magic is short, or stands elsewhere."""
    signs = (
        ("bz2", head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")),
        ("xz", _is_lzma(head)),
        ("tar", is_tar(head)),
        ("arj", head[:2] == b"\x60\xea" and _is_arj(head)),
        ("lha", head[2:5] in (b"-lh", b"-lz", b"-pm") and head[6:7] == b"-"),
        ("binhex", b"(This file must be converted with BinHex" in head),
        ("ace", head[7:14] == b"**ACE**"),
        ("cpio", head[:2] == b"\xc7\x71" and _is_old_cpio(head)),
        ("disk", _is_disk(head)),
        ("iso", bytes(data[_ISO : _ISO + 5]) in (b"CD001", b"BEA01")),
    )
    return next((kind for kind, there in signs if there), "")


def is_tar(head: bytes) -> bool:
    """Whether the first block is a tar header: its checksum says so (POSIX.1 pax, ustar interchange format)."""
    block = head[:512]
    if len(block) < 512 or not block[0]:
        return False
    try:
        told = int(block[148:156].strip(b" \0") or b"-", 8)
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return told in (sum(rest), sum(byte - ((byte & 0x80) << 1) for byte in rest))


def _is_lzma(head: bytes) -> bool:
    """An lzma file of old has no magic: its usual properties, a size that can be, and a range coder's first octet."""
    if head[:3] != b"\x5d\0\0" or head[13:14] != b"\0" or len(head) < 18:
        return False
    size = int.from_bytes(head[5:13], "little")
    return size == (1 << 64) - 1 or size < 1 << 40


def _is_disk(head: bytes) -> bool:
    """An image of a disk or of a part of one, which begins with the boot sector of FAT, exFAT or NTFS."""
    system = head[3:11] in (b"NTFS    ", b"EXFAT   ") or b"FAT" in (head[54:57], head[82:85])
    return system and head[510:512] == b"\x55\xaa"


def _is_old_cpio(head: bytes) -> bool:
    """A binary cpio archive: the name that its header tells the length of ends where it should."""
    size = int.from_bytes(head[20:22], "little")
    return 1 < size < HEAD - 26 and head[26 + size - 1 : 26 + size] == b"\0"


def _is_arj(head: bytes) -> bool:
    """Two octets are a weak magic: the sizes of the header must fit too."""
    return 30 <= head[4] <= 60 and int.from_bytes(head[2:4], "little") <= 2600 if len(head) > 10 else False

"""Sniff: which media type is this, by its octets?

Types that matter to a policy are known by signatures of our own, so that they are the same with every version of
libmagic and without it; libmagic names the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from elemta_milter.archives import oles

SNIFFED = 4096
"""Octets that libmagic gets."""
UNKNOWN = "application/octet-stream"
_INSTALLER = bytes.fromhex("84100c0000000000c000000000000046")  # the class id {000C1084-…} of MSI, as it is stored

_SIGNATURES: Mapping[bytes, str] = {
    b"\x7fELF": "application/x-elf",
    b"\xfe\xed\xfa\xce": "application/x-mach-binary",
    b"\xfe\xed\xfa\xcf": "application/x-mach-binary",
    b"\xce\xfa\xed\xfe": "application/x-mach-binary",
    b"\xcf\xfa\xed\xfe": "application/x-mach-binary",
    b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F": "application/x-ms-shortcut",
    b"ITSF\x03\0\0\0": "application/vnd.ms-htmlhelp",
    b"dex\n03": "application/x-dex",
    b"#@~^": "application/x-encoded-script",
    b"#!": "text/x-script",
    oles.MAGIC: "application/x-ole-storage",
    b"{\\rt": "application/rtf",
    b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3": "application/onenote",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
    b"ID3": "audio/mpeg",
    b"\x1aE\xdf\xa3": "video/x-matroska",
}
_ARCHIVES: Mapping[str, str] = {
    "zip": "application/zip",
    "gz": "application/gzip",
    "7z": "application/x-7z-compressed",
    "rar": "application/vnd.rar",
    "cab": "application/vnd.ms-cab-compressed",
    "tnef": "application/vnd.ms-tnef",
}
_OPEN_DOCUMENT = re.compile(rb"mimetype(application/[a-z0-9.+-]{1,80})")
_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE), media_type)
    for pattern, media_type in (
        (rb"<\s*hta:application", "application/hta"),
        (rb"<\s*(?:job|package)\b[^>]*>[^\0]{0,2000}?<\s*script", "application/x-wsf"),
        (
            rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n])[ \t]{0,100}\[internetshortcut\][^\[]*[\r\n][ \t]{0,100}url[ \t]{0,100}=",
            "application/x-mswinurl",
        ),
        (rb"\A(?:\xef\xbb\xbf)?\s*@echo\s+off", "application/x-bat"),
        (rb"<svg[\s>]", "image/svg+xml"),
        (rb"<!doctype\s+html|<html[\s>]|<script[\s>]", "text/html"),
    )
)
"""Text that is more than text; the first that is found counts."""
_DOS = "application/x-dosexec"
RUNNING = frozenset(
    [
        "application/vnd.microsoft.portable-executable",
        _DOS,
        "application/x-elf",
        "application/x-mach-binary",
        "application/x-ms-shortcut",
        "application/vnd.ms-htmlhelp",
        "application/x-dex",
        "application/java-vm",
        "application/x-encoded-script",
        "application/x-msi",
        "text/x-script",
        "application/hta",
        "application/x-wsf",
        "application/x-mswinurl",
        "application/x-bat",
    ]
)
"""What runs when it is opened."""


def media_type(data: memoryview, kind: str, magic: Callable[[bytes], str] | None = None) -> str:
    """The media type of what begins like this.

    Args:
        data: the content, or its beginning.
        kind: which archive it is, "" for none.
        magic: libmagic, where it is installed: the media type of some octets.
    """
    head = bytes(data[:SNIFFED])
    if not head:
        return "application/x-empty"
    found = next((each for start, each in _SIGNATURES.items() if head.startswith(start)), "") or _program(data, head)
    if found:
        return "application/x-msi" if found == "application/x-ole-storage" and _is_installer(data) else found
    if b"%PDF-" in head[:1024]:
        return "application/pdf"
    if kind:
        return _document(head, kind) or _ARCHIVES.get(kind, f"application/x-{kind}")
    text = head.replace(b"\0", b"") if _may_be_text(head) else b""
    found = next((each for pattern, each in _TEXTS if pattern.search(text)), "")
    if found:
        return found
    guessed = magic(head) if magic else ""
    if guessed == _DOS:  # what begins with MZ was found above; the rest is a guess by one octet
        guessed = ""
    return guessed or (UNKNOWN if b"\0" in head else "text/plain")


def _program(data: memoryview, head: bytes) -> str:
    """Programs whose magic is short, or shared."""
    if head[:2] == b"MZ":
        place = int.from_bytes(head[60:64], "little")
        if bytes(data[place : place + 4]) == b"PE\0\0":
            return "application/vnd.microsoft.portable-executable"
        return _DOS if b"\0" in head[2:64] else ""
    if head[:4] == b"\xca\xfe\xba\xbe":  # Java's version follows, or the count of architectures
        return "application/java-vm" if int.from_bytes(head[4:8], "big") >= 45 else "application/x-mach-binary"
    return ""


def _document(head: bytes, kind: str) -> str:
    """A zip archive that is a document."""
    if kind != "zip":
        return ""
    if named := _OPEN_DOCUMENT.search(head[:160]):
        return named[1].decode()
    if b"[Content_Types].xml" in head or b"_rels/.rels" in head:
        for folder, what in ((b"word/", "wordprocessingml"), (b"xl/", "spreadsheetml"), (b"ppt/", "presentationml")):
            if folder in head:
                return f"application/vnd.openxmlformats-officedocument.{what}"
        return "application/vnd.openxmlformats-officedocument"
    return ""


def _is_installer(data: memoryview) -> bool:
    """Whether the root entry of this OLE file has the class of an MSI file ([MS-CFB] sections 2.2 and 2.6.1)."""
    shift = int.from_bytes(data[30:32], "little")
    root = (int.from_bytes(data[48:52], "little") + 1) << shift if shift in (9, 12) else 0
    return bytes(data[root + 80 : root + 96]) == _INSTALLER


def _may_be_text(head: bytes) -> bool:
    """Text in ASCII or UTF-16, not a picture that happens to hold "<svg "."""
    controls = len(head.translate(None, bytes(range(32, 256)) + b"\t\r\n\f\0"))
    return controls * 50 < len(head) and (head.count(0) * 5 < len(head) * 3)

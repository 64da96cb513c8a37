"""Content: what does a part hold when its transfer encoding is taken off?

Takes a part and a limit; gives its octets, read as tolerantly as mail programs do, whether they were cut, and what was
wrong.  Linear in the limit for lawful parts, at worst in the size of the part; memory is bounded by the limit: what is
decoded is held once, and of a mapped body no more than a piece.

RFC 2045 section 6; uuencode as in POSIX; yEnc 1.3.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp, a2b_uu
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from elemta.charsets import codec_of, decode, keeps_ascii, undeclared
from elemta_milter.body import give_back
from elemta_milter.mime.description import UUENCODE
from elemta_milter.mime.parts import Part, Tree

PIECE = 1 << 18  # octets decoded at once
MAX_SEGMENTS = 1000  # of base64 with its padding, one behind the other
MAX_STEPS = 1_500_000  # lines of uuencode, escapes of yEnc: those of 64 MiB, if they are lawful
MAX_LINE = 1000  # octets of a line of uuencode that are kept; programs read some ninety

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NO_BASE64 = bytes(set(range(256)) - set(_BASE64) - {ord("=")})
_STRAY = bytes(set(_NO_BASE64) - set(b"\r\n\t "))
_PADDING = re.compile(rb"=+")
_IDENTITY = {"7bit", "8bit", "binary"}
_MINUS_42 = bytes((octet - 42) % 256 for octet in range(256))
_MINUS_106 = bytes((octet - 106) % 256 for octet in range(256))
_WIDE = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SOFT_END = re.compile(rb"=[ \t]*+(?:\r\n|\r|\n)")  # blanks before it are none (RFC 2045 section 6.7)
_META = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Content:
    """What a part holds.

    Attributes:
        octets: decoded, at most as many as were asked for.
        cut: there are more.
        defects: what is wrong with the encoding, in words, each once.
    """

    octets: bytes
    cut: bool = False
    defects: tuple[str, ...] = ()


def content(tree: Tree, part: Part, limit: int) -> Content:
    """The octets of a part, decoded, at most `limit`."""
    raw = tree.raw(part)
    encoding = "7bit" if part.media_type.startswith("multipart/") and part.parts else part.encoding
    defects: dict[str, None] = {}
    if encoding == "base64":
        pieces = _base64(raw, defects)
    elif encoding == "quoted-printable":
        pieces = _quoted_printable(raw)
    elif encoding in UUENCODE:
        pieces = _uuencode(raw, defects)
    elif encoding in {"yenc", "x-yenc"}:
        pieces = _yenc(raw, defects)
    else:
        if encoding not in _IDENTITY:
            defects[f"unknown encoding {encoding[:40]}"] = None
        pieces = (_piece(raw, at) for at in range(0, min(len(raw), limit + 1), PIECE))
    decoded = BytesIO()  # whose octets can be had without a copy
    for piece in pieces:
        decoded.write(piece)
        if decoded.tell() > limit:
            decoded.truncate(limit)
            return Content(decoded.getvalue(), cut=True, defects=tuple(defects))
    return Content(decoded.getvalue(), defects=tuple(defects))


def text_of(part: Part, octets: bytes) -> tuple[str, str]:
    """The text that a part's decoded octets are, and what is wrong with its charset, in words; "" for nothing."""
    charset = part.parameters.get("charset", "")
    for mark, codec in ((b"\xef\xbb\xbf", "utf-8"), *_WIDE.items()):
        if octets.startswith(mark):  # programs believe it more than the charset
            return decode(octets[len(mark) :], codec)[0], ""
    if not charset and part.media_type == "text/html" and (meta := _META.search(octets, 0, 4096)):
        charset = meta[1].decode() if keeps_ascii(meta[1].decode()) else ""  # or it could not be read there
    if not charset:
        return decode(octets)[0], ""
    found, fits = decode(octets, charset)
    if fits:
        return found, ""
    return found, f"not in its charset {charset[:40]}" if codec_of(charset) else f"unknown charset {charset[:40]}"


def other_texts_of(part: Part, octets: bytes) -> Iterator[str]:
    """The text as programs read it that know or believe less: not this charset, nor the mark, nor this octet order."""
    charset = part.parameters.get("charset", "")
    marked = octets.startswith(tuple(_WIDE))
    if marked or not keeps_ascii(charset):
        yield undeclared(octets)
    if not marked and codec_of(charset) == "utf_16":
        yield decode(octets, "utf-16-be")[0]


def _piece(raw: memoryview, at: int) -> bytes:
    """The octets to decode next; the memory of those before is given back, where the body is mapped."""
    if at:
        give_back(raw)
    return raw[at : at + PIECE].tobytes()


def _base64(raw: memoryview, defects: dict[str, None]) -> Iterator[bytes]:
    """Decode what is base64 and pass over the rest, also behind padding: some programs stop there, others go on."""
    rest, segments = b"", 0
    for at in range(0, len(raw), PIECE):
        piece = _piece(raw, at)
        if len(piece.translate(None, _STRAY)) < len(piece):
            defects["octets that are not base64"] = None
        piece = rest + piece.translate(None, _NO_BASE64)
        if b"=" not in piece:
            whole = len(piece) & ~3
            yield a2b_base64(piece[:whole])
            rest = piece[whole:]
            continue
        *padded, rest = _PADDING.split(piece)
        for segment in padded:
            if not segment:
                continue
            if segments:
                defects["base64 that goes on after its padding"] = None
            segments += 1
            if segments > MAX_SEGMENTS:
                defects["base64 in too many segments"] = None
                return
            yield _padded(segment, defects)
        whole = len(rest) & ~3
        if whole and segments:
            defects["base64 that goes on after its padding"] = None
        yield a2b_base64(rest[:whole])
        rest = rest[whole:]
    if rest:
        yield _padded(rest, defects, missing=True)


def _padded(segment: bytes, defects: dict[str, None], *, missing: bool = False) -> bytes:
    over = len(segment) % 4
    if over == 1:
        defects["base64 of a wrong length"] = None
        segment = segment[:-1]
    elif missing and over:
        defects["base64 without its padding"] = None
    return a2b_base64(segment + b"=" * (-len(segment) % 4))


def _quoted_printable(raw: memoryview) -> Iterator[bytes]:
    """Decode line by line as far as pieces are concerned: an escape is never cut in two."""
    at = 0
    while at < len(raw):
        piece = _piece(raw, at)
        if at + PIECE < len(raw):
            end = piece.rfind(b"\n") + 1
            if not end:
                end = len(piece) if b"=" not in piece[-2:] else piece.rindex(b"=", 0) or len(piece)
            piece = piece[:end]
        yield a2b_qp(_SOFT_END.sub(b"=\n", piece))
        at += len(piece)


def _uuencode(raw: memoryview, defects: dict[str, None]) -> Iterator[bytes]:
    """Decode line by line, from after the line that begins it, if there is one, to that which ends it."""
    begun = b"begin " not in raw[:PIECE].tobytes()
    rest, steps = b"", 0
    for at in range(0, len(raw), PIECE):
        piece = _piece(raw, at)
        lines = (rest + piece).splitlines()
        whole = at + PIECE >= len(raw) or piece.endswith((b"\r", b"\n"))
        rest = b"" if whole else lines.pop()[:MAX_LINE]
        steps += len(lines)
        if steps > MAX_STEPS:
            defects["a broken uuencode of too many lines"] = None
            return
        for line in lines:
            if not begun:
                begun = line.startswith(b"begin ")
            elif line.rstrip() == b"end":
                return
            elif line:
                yield _uu_line(line, defects)


def _uu_line(line: bytes, defects: dict[str, None]) -> bytes:
    octets = (line[0] - 32) & 63
    try:
        return a2b_uu(line)
    except Error:
        defects["a broken line of uuencode"] = None
    try:
        return a2b_uu(line[: (octets * 4 + 5) // 3])  # with a check sum behind it
    except Error:
        return b""


def _yenc(raw: memoryview, defects: dict[str, None]) -> Iterator[bytes]:
    escaped, steps = False, 0
    for at in range(0, len(raw), PIECE):
        piece = _piece(raw, at).translate(None, b"\r\n")
        if escaped:
            piece = b"=" + piece
        escaped = piece.endswith(b"=")
        steps += piece.count(b"=")
        if steps > MAX_STEPS:
            defects["a broken yEnc of too many escapes"] = None
            return
        first, *rest = piece[: len(piece) - escaped].split(b"=")
        yield first.translate(_MINUS_42) + b"".join(
            each[:1].translate(_MINUS_106) + each[1:].translate(_MINUS_42) for each in rest
        )

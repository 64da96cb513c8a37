r"""Encoding: which octets, and which fields, carry this text as a part of a message?

Encodes so that decoding gives the very octets back, line ends included: quoted-printable with CRLF line ends, base64 in
lines of 76.

RFC 2045 sections 5.1, 6.7 and 6.8; RFC 5322 section 2.1.1 (lines); RFC 3676 sections 4.2 and 4.4 (format=flowed).
"""

from __future__ import annotations

import re
from base64 import encodebytes
from binascii import b2a_qp
from collections.abc import Sequence

from elemta.charsets import codec_of
from elemta_milter.mime.description import describe

LONGEST_LINE = 998  # RFC 5322 section 2.1.1
ENCODINGS = frozenset({"7bit", "8bit", "binary", "quoted-printable", "base64"})
"""Transfer encodings in which a text can be written."""

_ASCII = bytes(range(0x20, 0x7F))
_NARROW = {
    "cp1252": "latin_1", "cp1254": "iso8859_9", "cp874": "tis_620", "gb18030": "gb2312", "cp949": "euc_kr",
    "cp932": "shift_jis", "big5hkscs": "big5",
}  # fmt: skip
"""What a charset's name stands for by itself, of those that programs read more into (`elemta.charsets`)."""
_CHARSET = re.compile(r";\s*charset(?:\*\d*)?\*?\s*=\s*(?:\"(?:\\.|[^\"\\])*\"|[^\s;]*)", re.IGNORECASE)
_STUFFED = (" ", ">", "From ")


def holds_ascii(charset: str) -> bool:
    """Whether ASCII octets stand for themselves wherever they stand; of a charset that is unknown, or "", they do."""
    codec = codec_of(charset) or "ascii"
    return not codec.startswith(("iso2022", "hz")) and _ASCII.decode(codec, "replace").encode() == _ASCII


def octets_in(text: str, charset: str) -> bytes | None:
    """The octets of `text` in `charset`, "" for ASCII; None where it cannot hold them. An unknown one holds ASCII."""
    codec = codec_of(charset) or "ascii"
    try:
        return text.encode(_NARROW.get(codec, codec))
    except UnicodeError:
        return None


def lines_of(text: str, *, flowed: bool = False) -> list[str]:
    """The lines of a text as they may stand in a mail, without blanks at their ends."""
    whole = text.encode("utf-8", "replace").decode()  # a stranger's words may hold what no text may
    lines = [line.rstrip() for line in whole.strip("\r\n").splitlines()]
    if flowed:  # RFC 3676 section 4.4: a blank at the end would join lines, one before these is taken away
        lines = [f" {line}" if line.startswith(_STUFFED) else line for line in lines]
    return lines


def transfer(octets: bytes, encoding: str, new: bytes) -> tuple[str, bytes]:
    """Encode `octets` as `encoding` does, or as quoted-printable where that cannot carry `new`, which is in them.

    Returns:
        The encoding, and the encoded octets.
    """
    if encoding == "base64":
        return encoding, encodebytes(octets).removesuffix(b"\n").replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        return encoding, quoted_printable(octets)
    lawful = encoding != "7bit" or new.isascii()
    if lawful and b"\0" not in new and max(map(len, new.splitlines()), default=0) <= LONGEST_LINE:
        return encoding, octets
    return "quoted-printable", quoted_printable(octets)


def quoted_printable(octets: bytes) -> bytes:
    """Encode; line ends are CRLF, and an end of a line that is none is encoded (RFC 2045 section 6.7)."""
    rest = octets.replace(b"\r\n", b"")
    if b"\r" in rest or b"\n" in rest:
        lines = (b2a_qp(line, istext=False) for line in octets.split(b"\r\n"))
        return b"\r\n".join(line.replace(b"\n", b"\r\n") for line in lines)
    encoded = b2a_qp(octets, istext=True)
    return encoded if b"\r\n" in octets else encoded.replace(b"\n", b"\r\n")


def text_part(text: str) -> tuple[list[tuple[str, str]], bytes]:
    """The fields and the octets of a new part that holds `text`."""
    octets = "\r\n".join(lines_of(text)).encode() + b"\r\n"
    charset = "us-ascii" if octets.isascii() else "utf-8"
    encoding, encoded = transfer(octets, "7bit", octets)
    fields = [("Content-Type", f"text/plain; charset={charset}"), ("Content-Transfer-Encoding", encoding)]
    return fields, encoded


def with_charset(value: bytes, media_type: str, charset: str) -> str:
    """A Content-Type with another charset; its other parameters stay where they can be read."""
    text = " ".join(value.decode("ascii", "replace").split())
    kept = _CHARSET.sub("", text).rstrip("; ") or media_type
    new = f"{kept}; charset={charset}"
    said = describe(((b"Content-Type", new.encode()),))
    if new.isascii() and said.media_type == media_type and said.parameters.get("charset") == charset:
        return new
    return f"{media_type}; charset={charset}"


def with_fields(raw: bytes, fields: Sequence[tuple[str, str]]) -> bytes:
    """A part's header with its empty line: `raw` with other values of these fields; the others stay as they are."""
    wanted = {name.lower().encode() for name, _ in fields}
    kept: list[bytes] = []
    keeping = True
    for line in raw.splitlines(keepends=True):
        if not line.strip(b"\r\n"):
            break
        if line[:1] not in b" \t":
            keeping = line.partition(b":")[0].strip().lower() not in wanted
        if keeping:
            kept.append(line if line.endswith(b"\n") else line.rstrip(b"\r") + b"\r\n")
    new = [f"{name}: {value}\r\n".encode() for name, value in fields]
    return b"".join([*kept, *new, b"\r\n"])

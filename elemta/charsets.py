"""Charsets: how do octets read that a mail says are in this charset?

Takes the charset's name as a mail writes it; gives text, as mail programs show it.  Never raises and never lets a mail
choose Python's codec: names are looked up in a table, since Python would try to import a module of that name, would
remember every name that it did not find, and has codecs that are no charsets.

RFC 2046 section 4.1.2; which charset programs take for which is in the WHATWG Encoding Standard.
"""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases

_NO_CHARSET = {
    "base64_codec", "bz2_codec", "hex_codec", "mbcs", "quopri_codec", "rot_13", "utf_7", "uu_codec", "zlib_codec",
}  # fmt: skip
_TAKEN_FOR = {  # what programs read in the place of what is said
    "latin_1": "cp1252", "iso8859_9": "cp1254", "tis_620": "cp874", "iso8859_11": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs",
}  # fmt: skip
_ALSO = {
    "ansi": "cp1252", "cp_1252": "cp1252", "cp874": "cp874", "iso_8859_8_i": "iso8859_8", "iso_8859_6_i": "iso8859_6",
    "koi8_u": "koi8_u", "koi8_t": "koi8_t", "ks_c_5601": "cp949", "unicode_1_1_utf_8": "utf_8", "utf8mb4": "utf_8",
    "windows_874": "cp874", "windows_932": "cp932", "windows_949": "cp949", "windows_31j": "cp932",
    "x_euc_jp": "euc_jp", "x_gbk": "gb18030", "x_mac_roman": "mac_roman", "x_sjis": "cp932", "x_windows_949": "cp949",
}  # fmt: skip
_ASCII = bytes(range(0x20, 0x7F)) * 4
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def _table() -> dict[str, str]:
    found = {alias: codec for alias, codec in aliases.items() if codec not in _NO_CHARSET}
    found |= {codec: codec for codec in found.values()} | _ALSO
    found |= {re.sub(r"^windows_", "cp", name): codec for name, codec in found.items()}
    found |= {f"windows_{codec[2:]}": codec for codec in set(found.values()) if codec.startswith("cp125")}
    return {_SEPARATORS.sub("_", name): _TAKEN_FOR.get(codec, codec) for name, codec in found.items()}


_CODECS = _table()


def codec_of(charset: str) -> str | None:
    """The Python codec that reads `charset` ("ISO-8859-1", "ks_c_5601-1987"); None when it is unknown or not used.

    UTF-7 is not used: hardly a program takes it any more, and what it hides no scanner sees.
    """
    return _CODECS.get(_SEPARATORS.sub("_", charset.lower()).strip("_")) if len(charset) <= 40 else None


def keeps_ascii(charset: str) -> bool:
    """Whether ASCII reads as itself in this charset, always; so it does in one that is unknown."""
    codec = codec_of(charset)
    return codec is None or (
        not codec.startswith("iso2022") and codecs.decode(_ASCII, codec, "replace") == _ASCII.decode()
    )


def decode(octets: bytes, charset: str = "us-ascii") -> tuple[str, bool]:
    """Read `octets`; what an unknown charset or US-ASCII does not explain, as `undeclared` does.

    Returns:
        The text; and whether the charset was known and fits.
    """
    codec = codec_of(charset)
    if codec is None:
        return undeclared(octets), False
    try:
        return codecs.decode(octets, codec), True
    except UnicodeError:
        return undeclared(octets) if codec == "ascii" else codecs.decode(octets, codec, "replace"), False


def undeclared(octets: bytes) -> str:
    """Read octets of no declared charset: UTF-8 if they are, else Latin-1 as programs know it."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("cp1252", "replace")

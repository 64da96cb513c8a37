"""Encoded words: what does "=?utf-8?Q?J=C3=B6rg?=" say to people?

Takes header text, gives it as a mail program would show it.  For display and for finding disguises only, never for
addresses.  Never raises: a word that cannot be decoded stays as it is.  Blanks or question marks within a word make it
none by the RFC, but not for mail programs.  RFC 2047 sections 2 and 6.2, RFC 2231 section 5.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from itertools import groupby
from unicodedata import category

from elemta.charsets import codec_of, decode

MOST = 998
"""Characters of a display name kept."""

_TEXT = r"[^?]*+(?:\?(?!=)(?!(?<==\?)(?!\?))[^?]*+){0,20}"  # bounded: each place where a word may begin is tried
_WORD = re.compile(rf"=\?([^?]+)\?([bBqQ])\?({_TEXT})\?=")
_WORDS = re.compile(rf"(?:=\?[^?]+\?[bBqQ]\?{_TEXT}\?=)+")
_LINE_ENDS = re.compile("[\r\n]+")
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t\r\n]++(?==\?)")


def decode_words(text: str) -> str:
    """Replace each encoded word by what it says; white space between two of them goes (RFC 2047 section 6.2)."""
    return _WORDS.sub(_decoded, _BETWEEN_WORDS.sub("", text)) if "=?" in text else text


def decode_loosely(text: str) -> str:
    """The same as programs do it that also take words of a charset that nobody knows."""
    return _WORD.sub(_loosely_decoded, _BETWEEN_WORDS.sub("", text))


def unfolded(text: str) -> str:
    """Decode a name that may stand on several lines; control characters stay."""
    return decode_words(_FOLD.sub("", text))


def on_one_line(text: str) -> str:
    """Decoded text as it is shown: no control characters, nor octets that are no UTF-8, nor what has no width."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "" if category(char) == "Cf" else " " for char in text)
    return " ".join(text.split())


def _loosely_decoded(word: re.Match[str]) -> str:
    charset, encoding, text = word.groups()
    octets = text.encode("utf-8", "surrogateescape")
    try:
        data = a2b_base64(octets + b"===") if encoding in "bB" else a2b_qp(octets, header=True)
    except ValueError:
        return word[0]
    return decode(data, charset.partition("*")[0])[0]


def _decoded(words: re.Match[str]) -> str:
    """Decode neighbours of one charset as one: many programs cut a character in two, though section 5 forbids it."""
    found = [_octets(word) for word in _WORD.finditer(words[0])]
    together = groupby(found, key=lambda each: each[0])
    return "".join(_text(charset, [octets for _, octets in same]) for charset, same in together)


def _octets(word: re.Match[str]) -> tuple[str, bytes]:
    """Give a word's charset and octets; "" and the word itself where it cannot be decoded."""
    charset, encoding, text = word.groups()
    charset = charset.partition("*")[0]  # RFC 2231 section 5: "charset*language"
    try:
        octets = _LINE_ENDS.sub("", text).encode("ascii")
        padding = b"==="  # some leave it out; what is no base64 is passed over
        data = a2b_base64(octets + padding) if encoding in "bB" else a2b_qp(octets, header=True)
    except ValueError:
        data = None
    if data is None or codec_of(charset) is None:
        return "", word[0].encode("utf-8", "surrogatepass")
    return charset.lower(), data


def _text(charset: str, octets: list[bytes]) -> str:
    data = b"".join(octets)
    return decode(data, charset)[0] if charset else data.decode("utf-8", "surrogatepass")

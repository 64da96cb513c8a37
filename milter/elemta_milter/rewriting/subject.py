r"""Subject: how does a subject read with a tag before it?

A tag stands once: also before "Re:" and behind the tags of others it is found.  The subject's own encoded words and its
folding stay as they are.

RFC 2047 sections 2, 5 and 6.2; RFC 5322 sections 2.2.3 and 3.6.5.
"""

from __future__ import annotations

import re
from binascii import b2a_base64

from elemta.addresses.encoded_words import decode_words
from elemta.charsets import undeclared

_BEFORE = re.compile(
    r"[^\s:\uff1a\[\]]{1,12}(?:\[\d{1,4}\]|\(\d{1,4}\))?\s?[:\uff1a]"  # "Re:", "AW[2]:"
    r"|\[[^\[\]]{0,80}\]"  # "[list]"
)
_FOLD = re.compile(r"(?<![ \t])[ \t]*+\r?\n(?=[ \t])")  # from where the blanks begin: linear
_LONGEST_WORD = 45  # octets of UTF-8 in an encoded word of at most 75 characters (RFC 2047 section 2)


def tagged(value: bytes, tag: str) -> str | None:
    r"""Give the field's new value, folded with "\n"; None where the tag stands already, or there is none.

    Args:
        value: the raw value as it came, b"" for none.
        tag: what shall stand before it.
    """
    tag, text = " ".join(tag.split()), _readable(value)
    if _stands(tag, text):  # as no tag does anywhere
        return None
    if tag.isascii():
        return f"{tag} {text}".rstrip()
    words = " ".join(_words(tag + " " if text.startswith("=?") else tag))  # between two the blank is not shown
    return f"{words} {text}".rstrip()


def _readable(value: bytes) -> str:
    return _FOLD.sub("\n", undeclared(value)).strip(" \t\r\n")


def _stands(tag: str, text: str) -> bool:
    """Whether the tag is the first word, but for marks of replies and the tags of others."""
    shown, wanted = " ".join(decode_words(text).split()).lower(), tag.lower()
    place = 0
    while not shown.startswith(wanted, place):
        before = _BEFORE.match(shown, place)
        if before is None:
            return False
        place = before.end()
        while shown[place : place + 1] == " ":
            place += 1
    return True


def _words(text: str) -> list[str]:
    """Encoded words; a character is never cut in two (RFC 2047 section 5)."""
    words, octets = [], b""
    for char in text:
        more = char.encode("utf-8", "replace")
        if len(octets) + len(more) > _LONGEST_WORD:
            words.append(octets)
            octets = b""
        octets += more
    return [f"=?utf-8?b?{b2a_base64(each, newline=False).decode()}?=" for each in [*words, octets]]

"""Encoded words: what does "=?utf-8?Q?J=C3=B6rg?=" say to people?

Takes header text, gives it as a mail program would show it.  For display and for finding disguises only, never for
addresses.  Never raises: a word that cannot be decoded stays as it is.  RFC 2047 sections 2 and 6.2, RFC 2231
section 5.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp

_WORD = re.compile(r"=\?([^?\s]+)\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t\r\n]++(?==\?)")


def decode_words(text: str) -> str:
    """Replace each encoded word by what it says; white space between two of them goes (RFC 2047 section 6.2)."""
    return _WORD.sub(_decoded, _BETWEEN_WORDS.sub("", text)) if "=?" in text else text


def _decoded(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    try:
        octets = text.encode("ascii")
        data = a2b_base64(octets) if encoding in "bB" else a2b_qp(octets, header=True)
        return data.decode(charset.partition("*")[0], "replace")  # RFC 2231 section 5: "charset*language"
    except (LookupError, ValueError):
        return match[0]

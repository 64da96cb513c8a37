"""Tag lists: which tags does a signature field or a key record hold?

Takes the octets of a `name=value; name=value` list; gives tag values by name, outer white space gone.  Says no to
what the grammar forbids (a name twice, an empty tag between semicolons, control characters); knows no tag's meaning.

RFC 6376 section 3.2 (grammar), section 2.10 and 2.11 (base64string, dkim-quoted-printable); RFC 8616 section 3 (UTF-8).
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp

WHITE = " \t\r\n"  # FWS: the line ends of folding count as white space

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAG = re.compile(r"[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)[ \t\r\n]*=(.*)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_HEX_OCTET = re.compile(rb"=[0-9A-F]{2}")
_NO_WHITE = dict.fromkeys(map(ord, WHITE))


class TagListError(ValueError):
    """Not a tag list, or a tag's value is not what its grammar asks; the text is for people."""


def parse(octets: bytes, *, most_octets: int, most_tags: int) -> dict[str, str]:
    """Read a tag list; the dictionary keeps the order.

    Raises:
        TagListError: the grammar or a bound is broken.
    """
    if len(octets) > most_octets:
        raise TagListError(f"tag list is longer than {most_octets} octets")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise TagListError("tag list is not UTF-8") from None
    if _CONTROL.search(text):
        raise TagListError("control character in a tag list")
    specs = text.split(";", most_tags + 1)
    if not specs[-1].strip(WHITE):  # RFC 6376 section 3.2: one semicolon may end the list
        specs.pop()
    if len(specs) > most_tags:
        raise TagListError(f"more than {most_tags} tags")
    tags: dict[str, str] = {}
    for spec in specs:
        tag = _TAG.match(spec)
        if tag is None:
            raise TagListError("not a tag=value list")
        name, value = tag.groups()
        if name in tags:  # RFC 6376 section 3.2: "Tags with duplicate names MUST NOT occur"
            raise TagListError(f"tag {name}= occurs twice")
        tags[name] = value.strip(WHITE)
    return tags


def first_tag(tags: dict[str, str]) -> str:
    """Name of the first tag; "" in an empty list."""
    return next(iter(tags), "")


def without_white(value: str) -> str:
    """Remove all white space, the folding inside included."""
    return "".join(value.split()) if value.isascii() else value.translate(_NO_WHITE)  # split() is much faster


def words(value: str) -> list[str]:
    """Read a colon-separated list, white space around the colons ignored."""
    return [word.strip(WHITE) for word in value.split(":")]


def base64string(value: str) -> bytes:
    """Decode a base64string, whose white space means nothing and whose padding may be left out.

    Raises:
        TagListError: not base64, or empty.
    """
    dense = without_white(value)
    if not _BASE64.fullmatch(dense):  # RFC 6376 section 2.10
        raise TagListError("not base64" if dense else "empty")
    dense = dense.rstrip("=")
    try:
        return a2b_base64(dense + "=" * (-len(dense) % 4))
    except Base64Error:
        raise TagListError("not base64") from None


def quoted_printable(value: str) -> str:
    """Decode dkim-quoted-printable; octets that are not UTF-8 become U+FFFD.

    Raises:
        TagListError: an "=" that begins no hexadecimal octet.
    """
    octets = without_white(value).encode()
    if octets.count(b"=") != len(_HEX_OCTET.findall(octets)):  # RFC 6376 section 2.11: upper case digits
        raise TagListError("not quoted-printable")
    return a2b_qp(octets).decode(errors="replace")

"""Printable: how do words of strangers appear in a log or on a terminal without doing harm there?

Envelope addresses, HELO names and header fields are written by whoever sends the mail.  What comes out of here holds
no control character, no line end, no terminal sequence, no sign that turns the direction of writing, and no surrogate;
letters of any script stay readable.
"""

from __future__ import annotations

import json
import re
import signal

LONGEST = 300  # characters of one value in a log line; SMTP allows addresses of up to 254 octets
_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but space, quote, "=" and backslash


def clean(text: str) -> str:
    """The same text on one line; each character that cannot be seen is written as Python's literals write it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def bare(text: str) -> bool:
    """Whether nothing in this value of a key=value line can be mistaken, and none of its parts is long."""
    return len(text) <= LONGEST and _BARE.fullmatch(text) is not None


def quoted(text: str, longest: int = LONGEST) -> str:
    """A value for a key=value line: bare where nothing can be mistaken, else in quotes with JSON's escapes."""
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    if _BARE.fullmatch(text):
        return text
    if text.isprintable():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(text).replace("\x7f", "\\u007f")  # DEL is the one ASCII control character that JSON lets pass


def storable(text: str) -> str:
    """The same text without surrogates: octets that were no UTF-8 stand as Python's literals write them."""
    if text.isascii():
        return text
    try:
        octets = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no octet
        octets = text.encode("utf-8", "backslashreplace")
    return octets.decode("utf-8", "backslashreplace")


def signal_name(number: int) -> str:
    """Give "SIGKILL" for 9; "SIGRTMIN+3" for a real-time signal, most of which Python has no name for."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")

"""The policy protocol: which requests do these octets hold, and how is an answer written?

Takes octets in any pieces; gives the attributes of one request after the other, as text whose octets that
are not UTF-8 survive (surrogateescape).  Does no I/O, knows nothing of mail, and never gives half a request:
what is not a request raises `ProtocolError`, after which the connection is good for nothing but to be closed.
Time is linear in the octets fed; what is kept is bounded by the three limits below.

Postfix SMTPD_POLICY_README, "Protocol description": `name=value` lines, an empty line ends the request; the
answer is `action=...` and an empty line.
"""

from __future__ import annotations

from itertools import repeat

Attributes = dict[str, str]

MAX_REQUEST = 65536  # octets of one request; Postfix's own are below 5,000
MAX_ATTRIBUTES = 128  # Postfix 3.12 sends 32
MAX_LINE = 16384  # octets of one line; Postfix's line_length_limit is 2,048
REQUEST_TYPE = "smtpd_access_policy"

_END = b"\n\n"
_NAME_AND_VALUE = repeat("="), repeat(1)  # what `str.split` is told for each line


class ProtocolError(Exception):
    """These octets are no request of the policy protocol; the text says why, without quoting them."""


class Requests:
    """The requests of one connection: `feed` octets as they come, take requests with `next`."""

    __slots__ = ("_buffer", "_searched", "_start")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # where the next request begins
        self._searched = 0  # no request ends before this place; never below _start

    @property
    def pending(self) -> int:
        """Octets fed and not yet taken."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Take what has arrived. The caller stops reading while more than MAX_REQUEST octets are pending."""
        if self._start == len(self._buffer):  # nothing is left over: so it is, as a rule
            self._buffer = bytearray(data)
            self._start = self._searched = 0
            return
        if self._start:
            del self._buffer[: self._start]
            self._searched -= self._start
            self._start = 0
        self._buffer += data

    def next(self) -> Attributes | None:
        """The next whole request; None until more octets are fed.

        Raises:
            ProtocolError: what comes next is not a request, or passes a limit.
        """
        buffer, start = self._buffer, self._start
        if start == len(buffer):
            return None
        if buffer.startswith(b"\n", start):
            raise ProtocolError("a request without attributes")
        end = buffer.find(_END, self._searched, start + MAX_REQUEST)
        if end < 0:
            if len(buffer) - start >= MAX_REQUEST:
                raise ProtocolError(f"a request of more than {MAX_REQUEST} octets")
            self._searched = max(len(buffer) - 1, start)
            return None
        self._start = self._searched = end + 2
        return _attributes(buffer[start:end])


def answer(action: str) -> bytes:
    """The octets of an answer. Whatever is not printable ASCII becomes "?": no line end can get out."""
    if not (action.isascii() and action.isprintable()):
        action = "".join(char if " " <= char <= "~" else "?" for char in action)
    return b"action=%s\n\n" % action.encode("ascii")


def _attributes(request: bytearray) -> Attributes:
    if 0 in request:
        raise ProtocolError("a NUL in a request")
    lines = request.decode("utf-8", "surrogateescape").split("\n")
    if len(lines) > MAX_ATTRIBUTES:
        raise ProtocolError(f"a request of more than {MAX_ATTRIBUTES} attributes")
    if len(request) > MAX_LINE and max(map(len, request.split(b"\n"))) > MAX_LINE:
        raise ProtocolError(f"a line of more than {MAX_LINE} octets")
    lines.reverse()  # an attribute sent twice: the first one counts, as in Postfix's own attr_scan
    try:
        attributes = dict(map(str.split, lines, *_NAME_AND_VALUE))  # a pair each, or ValueError
    except ValueError:
        raise ProtocolError("a line without =") from None
    if attributes.get("request") != REQUEST_TYPE:
        raise ProtocolError("a request that is not smtpd_access_policy")
    return attributes

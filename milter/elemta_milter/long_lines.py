"""Long lines: what becomes of lines that Postfix's SMTP client would break, and the signature with them?

They are broken before the mail is signed, at the octets where Postfix would do it, or at white space in the header:
then what is signed is what is sent.  Lines of the body of a very large mail stay, and the finding of `sign` says so.

RFC 5322 section 2.1.1 (998 octets are a must), section 2.2.3 (folding); RFC 6376 section 5.3 (what will be modified
before transmission must be so before signing); postconf(5): smtp_line_length_limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from elemta.facts import Body
from elemta_milter.edits import ChangeHeader, Edit, ReplaceBody

LONGEST_LINE = 998
"""Octets without the line end."""
MOST = 32 << 20
"""Octets of a body that is changed: all of it goes back to the MTA."""


def has_long_line(body: Body) -> bool:
    """Whether Postfix's SMTP client would break a line of this body."""
    rest = b""
    for piece in body.chunks():
        data = rest + piece
        at = 0
        while len(data) - at > LONGEST_LINE + 2:
            end = data.rfind(b"\n", at, at + LONGEST_LINE + 2)
            if end < 0:
                return True
            at = end + 1
        rest = data[at:]
    return any(len(line) > LONGEST_LINE for line in rest.split(b"\r\n"))


def is_changed(body: Body) -> bool:
    """Whether a body with long lines gets shorter ones."""
    return body.size <= MOST


def without_long_lines(
    header: Sequence[tuple[bytes, bytes]], body: Body, changes: Sequence[Edit], names: Collection[bytes]
) -> Sequence[Edit]:
    """Give `changes`, and what else must change so that no line is broken later.

    Args:
        header: as it is after `changes`, values with their leading space.
        body: likewise.
        changes: what is done to the mail so far.
        names: of fields that matter, lower case.
    """
    more: list[Edit] = list(_folded_fields(header, names))
    if is_changed(body) and has_long_line(body):
        changes = [change for change in changes if not isinstance(change, ReplaceBody)]  # a second one would be added
        more.append(ReplaceBody(_broken(b"".join(body.chunks()))))
    return (*changes, *more) if more else changes


def _broken(octets: bytes) -> bytes:
    """Break lines as Postfix does: what follows begins with a space."""
    pieces: list[bytes] = []
    copied = at = 0
    while len(octets) - at > LONGEST_LINE:
        end = octets.rfind(b"\r\n", at, at + LONGEST_LINE + 2)
        if end >= 0:  # many short lines at once
            at = end + 2
            continue
        end = octets.find(b"\r\n", at)
        end = len(octets) if end < 0 else end
        while end - at > LONGEST_LINE:
            pieces += [octets[copied : at + LONGEST_LINE], b"\r\n "]
            copied = at + LONGEST_LINE
            at = copied - 1  # the space is one of the next line's octets
        at = end
    return b"".join([*pieces, octets[copied:]])


def _folded_fields(header: Sequence[tuple[bytes, bytes]], names: Collection[bytes]) -> Iterator[ChangeHeader]:
    seen: Counter[bytes] = Counter()
    for name, value in header:
        lower = name.lower()
        if lower not in names:
            continue
        seen[lower] += 1
        if max(map(len, (name + b":" + value).split(b"\r\n"))) <= LONGEST_LINE:
            continue
        lines = (name + b": " + value.removeprefix(b" ")).split(b"\r\n")  # a changed field has a space there
        folded = b"\n".join(chain.from_iterable(map(_fold, lines)))
        try:
            yield ChangeHeader(name.decode(), seen[lower], folded[len(name) + 2 :].decode())
        except UnicodeDecodeError:
            continue  # libmilter's binding takes UTF-8 only


def _fold(line: bytes) -> Iterator[bytes]:
    """A line of a header field, folded before white space; where there is none, between two characters."""
    if len(line) > LONGEST_LINE:
        line = line.rstrip(b" \t") or b" "  # or they become a line of blanks, which some take for the header's end
    while len(line) > LONGEST_LINE:
        at = max(line.rfind(white, LONGEST_LINE // 2, LONGEST_LINE + 1) for white in (b" ", b"\t"))
        if at > 0:
            yield line[:at]
            line = line[at:]
        else:
            at = next((at for at in range(LONGEST_LINE, LONGEST_LINE - 4, -1) if line[at] & 0xC0 != 0x80), LONGEST_LINE)
            yield line[:at]
            line = b" " + line[at:]
    yield line

"""Canonical form: which octets of this message does a signature speak of?

Takes header fields as they came and the body piece by piece (a piece may end anywhere, inside a CRLF too); gives
canonical header fields and SHA-256 of the canonical body.  The work is linear in the octets whatever they are, and
the body is read once for all signatures, also those that cover only its beginning.  A bare CR or LF is an octet like
any other: only CRLF ends a line.

RFC 6376 sections 3.4.1 to 3.4.5 and 3.7; RFC 8301 section 3.1 (SHA-256 only).
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from hashlib import sha256

from msgspec import Struct

CRLF = b"\r\n"

_TAB = 0x09  # as a number: to look for octets in octets, Python tries first whether they are one
_TAB_TO_SPACE = bytes.maketrans(b"\t", b" ")


class Canon(StrEnum):
    """The two canonicalization algorithms (RFC 6376 section 3.4)."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


class BodySpec(Struct, frozen=True, order=True):
    """What of the body is to be hashed.

    Attributes:
        canon: how the body is made canonical.
        length: octets of the canonical body from its beginning (the l= tag); None for all.
    """

    canon: Canon = Canon.RELAXED
    length: int | None = None


def header_field(canon: Canon, name: bytes, value: bytes) -> bytes:
    """Give the canonical form of one header field, without a final CRLF."""
    if canon is Canon.SIMPLE:
        return name + b":" + value  # RFC 6376 section 3.4.1: no change
    unfolded = value.replace(CRLF, b"")  # RFC 6376 section 3.4.2
    if _TAB in unfolded or unfolded.find(b"  ") >= 0:
        unfolded = _one_space(unfolded)
    return canonical_name(name) + b":" + unfolded.strip(b" ")


def canonical_name(name: bytes) -> bytes:
    """Give a field's name in lower case, without white space before the colon (RFC 6376 section 3.4.2)."""
    return _usual_name(name) if len(name) <= _USUAL else _name(name)


def _name(name: bytes) -> bytes:
    return name.rstrip(b" \t").lower()


_USUAL = 60  # octets of a name that is worth remembering: mails have the same ones
_usual_name = lru_cache(maxsize=1024)(_name)


def _one_space(data: bytes) -> bytes:
    """Make every run of spaces and tabs one space."""
    if b"\t" in data:
        data = data.translate(_TAB_TO_SPACE)
    if b"  " in data:
        for run in (b" " * 64, b" " * 8, b"  "):  # long runs first: few passes, whatever their length
            while run in data:
                data = data.replace(run, b" ")
    return data


class BodyHasher:
    """Hashes the body for everybody who asked before it came.

    First `want` for each form, then `feed` for each piece, then `finish`; `digest` and `size` answer after that.
    """

    def __init__(self) -> None:
        self._streams: dict[Canon, _Stream] = {}

    @property
    def needs_body(self) -> bool:
        """Whether anybody asked; else the body need not be fed."""
        return bool(self._streams)

    def want(self, spec: BodySpec) -> None:
        """Ask for a hash, before the first piece."""
        stream = self._streams.setdefault(spec.canon, _Stream(spec.canon))
        if spec.length is not None:
            stream.mark(spec.length)

    def feed(self, piece: bytes) -> None:
        """Take the next octets of the body."""
        for stream in self._streams.values():
            stream.feed(piece)

    def finish(self) -> None:
        """Say that the body is complete; a second time does nothing."""
        for stream in self._streams.values():
            stream.finish()

    def size(self, canon: Canon) -> int:
        """Octets in the canonical body."""
        return self._streams[canon].size

    def digest(self, spec: BodySpec) -> bytes | None:
        """Give SHA-256 of the canonical body as far as `spec` says; None when the body is shorter than that."""
        return self._streams[spec.canon].digest(spec.length)


_UNLOCKED = 2047  # octets from which on hashlib lets other threads run meanwhile, who are in no hurry to let us go on
_SHORT = 32 << 10  # octets that are hashed in less time than such a change takes


class _Stream:
    """One canonical body on its way: stages, one running hash, and the places where its value is kept.

    The hash of a beginning (l=) is the running hash's value at that place, so many lengths cost one hash.
    """

    def __init__(self, canon: Canon) -> None:
        self.size = 0
        self._spaces = _Spaces() if canon is Canon.RELAXED else None
        self._line_ends = _LineEnds(empty=b"" if canon is Canon.RELAXED else CRLF)
        self._hash = sha256()
        self._marks: list[int] = []
        self._at: dict[int | None, bytes] = {}

    def mark(self, length: int) -> None:
        if length not in self._marks:
            self._marks.append(length)
            self._marks.sort(reverse=True)

    def feed(self, piece: bytes) -> None:
        if self._spaces is not None:
            piece = self._spaces.feed(piece)
        self._add_with_lines(*self._line_ends.feed(piece))

    def finish(self) -> None:
        if None in self._at:
            return
        if self._spaces is not None:
            self._add_with_lines(*self._line_ends.feed(self._spaces.finish()))
        self._add_with_lines(*self._line_ends.finish())
        self._at[None] = self._hash.digest()

    def digest(self, length: int | None) -> bytes | None:
        return self._at.get(length)

    def _add_with_lines(self, lines: int, piece: bytes) -> None:
        """Take so many line ends, of which a body may hold nothing else, and what follows them."""
        while lines > 0:
            self._add(CRLF * min(lines, _SHORT))
            lines -= _SHORT
        self._add(piece)

    def _add(self, piece: bytes) -> None:
        start, end = self.size, self.size + len(piece)
        while self._marks and self._marks[-1] <= end:
            mark = self._marks.pop()
            self._hash.update(piece[start - self.size : mark - self.size])
            self._at[mark] = self._hash.digest()
            start = mark
        self._take(piece[start - self.size :] if start > self.size else piece)
        self.size = end

    def _take(self, piece: bytes) -> None:
        """Hash; a short body in slices, so that no other thread gets in between (3 % of a mail's processor time)."""
        if len(piece) > _SHORT:
            self._hash.update(piece)
            return
        for start in range(0, len(piece), _UNLOCKED):
            self._hash.update(piece[start : start + _UNLOCKED])


class _Spaces:
    """RFC 6376 section 3.4.4 (a): no white space before a CRLF, one space elsewhere."""

    def __init__(self) -> None:
        self._held = b""  # what the next octets decide: a space, a CR, or both

    def feed(self, piece: bytes) -> bytes:
        data = self._held + piece if self._held else piece
        kept = data.removesuffix(b"\r")
        cr = b"\r" if len(kept) < len(data) else b""
        whole = kept.rstrip(b" \t")
        self._held = b" " + cr if len(whole) < len(kept) else cr
        return _one_space(whole).replace(b" \r\n", CRLF)

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held if held.endswith(b"\r") else b""  # the end of the body ends its last line


class _LineEnds:
    """RFC 6376 sections 3.4.3 and 3.4.4 (b): no empty line at the end of the body, and a CRLF after its last line."""

    def __init__(self, empty: bytes) -> None:
        self._empty = empty  # the canonical form of a body of nothing but line ends
        self._lines = 0  # CRLFs that came and are the end, unless more comes
        self._cr = b""  # a CR whose LF may be in the next piece
        self._something = False

    def feed(self, piece: bytes) -> tuple[int, bytes]:
        """Give how many line ends are no end of the body after all, and what follows them."""
        data = self._cr + piece if self._cr else piece
        kept = data.removesuffix(b"\r")
        self._cr = b"\r" if len(kept) < len(data) else b""
        end = _start_of_line_ends(kept)
        before, self._lines = self._lines, (len(kept) - end) // 2
        if not end:
            self._lines += before
            return 0, b""
        self._something = True
        return before, kept[:end]

    def finish(self) -> tuple[int, bytes]:
        """As `feed`."""
        if self._cr:
            return self._lines, b"\r" + CRLF
        return 0, CRLF if self._something else self._empty


def _start_of_line_ends(data: bytes) -> int:
    """Where the CRLFs at the end of `data` begin."""
    if not data.endswith(CRLF):
        return len(data)
    if data[-4:-2] != CRLF:
        return len(data) - 2
    text = len(data.rstrip(CRLF))
    ends = data[text:]  # CR and LF in any order, ending in CRLF: its last part where they take turns
    start = max(ends.rfind(b"\n\n"), ends.rfind(b"\r\r")) + 1
    return text + start + (ends[start : start + 1] == b"\n")

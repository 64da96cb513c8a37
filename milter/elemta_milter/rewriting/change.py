"""Change: what becomes of a message's own header fields and of its body?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Fields = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Splice:
    """Other octets in place of some of the body.

    Attributes:
        start: where those begin that go.
        end: where they end.
        octets: what comes in their place.
    """

    start: int
    end: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a message.

    Attributes:
        body: its body as it was, in memory or mapped from the spool.
        splices: what is other, in order, none in another.
        fields: its own header fields that are other, by name: the new value, None for none.
    """

    body: memoryview
    splices: tuple[Splice, ...] = ()
    fields: Mapping[str, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.splices or self.fields)

    def octets(self) -> bytes:
        """The new body."""
        pieces: list[bytes | memoryview] = []
        place = 0
        for splice in self.splices:
            pieces += [self.body[place : splice.start], splice.octets]
            place = splice.end
        return b"".join([*pieces, self.body[place:]])

    def header(self, before: Fields) -> list[tuple[bytes, bytes]]:
        """The header with the new fields, each in the place of the first of its name; new ones below."""
        left = {name.lower().encode(): value for name, value in self.fields.items()}
        new: list[tuple[bytes, bytes]] = []
        told: set[bytes] = set()
        for name, value in before:
            lower = name.lower()
            if lower not in left:
                new.append((name, value))
            elif lower not in told and (text := left[lower]) is not None:
                new.append((name, b" " + text.encode()))
            told.add(lower)
        new += [
            (name.encode(), b" " + value.encode())
            for name, value in self.fields.items()
            if value is not None and name.lower().encode() not in told
        ]
        return new

    def then(self, other: Change) -> Change:
        """Both; `other` changes what this one makes."""
        return Change(other.body, other.splices, {**self.fields, **other.fields})


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What becomes of a mail's content.

    Attributes:
        change: the change; None for none.
        impossible: why it cannot be made though it must be, in words: the mail must not go on.
    """

    change: Change | None = None
    impossible: str = ""


def in_place_of(body: memoryview, start: int, end: int, octets: bytes) -> Splice:
    """Other octets for those of a part; what follows still begins a line, also where the part had none of its own."""
    after = bytes(body[end : end + 1])
    apart = not after or after in b"\r\n" or octets.endswith(b"\n")
    return Splice(start, end, octets if apart else octets + b"\r\n")


def merged(splices: Sequence[Splice]) -> tuple[Splice, ...]:
    """In order; of two that overlap the first comes in the place of both."""
    found: list[Splice] = []
    for splice in sorted(splices, key=lambda each: (each.start, -each.end)):
        if found and splice.start < found[-1].end:
            last = found.pop()
            splice = Splice(last.start, max(last.end, splice.end), last.octets)  # noqa: PLW2901 - it is the merged one
        found.append(splice)
    return tuple(found)

"""Header fields: which of them does h= mean, and what is the hash of them?

Takes the header of one message; finds the instances that a list of names selects, from the bottom up, in time
linear in the list, and hashes them with the signature field itself.  One object serves every signature of the mail:
a field is made canonical once.

RFC 6376 sections 3.5 (h=), 3.7 and 5.4.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from elemta_milter.mailauth.canonical import CRLF, Canon, canonical_name, header_field

_B = re.compile(rb"(?:^|;)\s*b\s*=([^;]*)")

Headers = Sequence[tuple[bytes, bytes]]
"""(name, value) from top to bottom, raw: the value with its leading space and its folding, without the last CRLF."""


class HeaderFields:
    """The header of one message.

    Attributes:
        headers: see `Headers`.
        octets: size of the header as it is on the wire.
    """

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        octets = 3 * len(headers)
        places: dict[bytes, list[int]] = {}
        for place, (name, value) in enumerate(headers):
            octets += len(name) + len(value)
            key = canonical_name(name)  # RFC 5322 section 4.5: white space before the colon is no part of the name
            if key in places:
                places[key].append(place)
            else:
                places[key] = [place]
        self.octets = octets
        self._places = places
        self._canonical: dict[tuple[int, Canon], bytes] = {}

    def places(self, name: bytes) -> Sequence[int]:
        """Give the places of all fields called `name` (lower case), from top to bottom."""
        return self._places.get(name, ())

    def select(self, names: Sequence[bytes], without: int = -1) -> list[int]:
        """Give the places of the fields that h= names, in its order; names without a field left give none.

        Args:
            names: lower-case names.
            without: place of the signature itself, which never signs itself that way.
        """
        selected: list[int] = []
        left: dict[bytes, list[int]] = {}  # of each name: the places that no h= entry has taken yet
        for name in names:
            if name in left:
                places = left[name]
            elif name in self._places:
                places = left[name] = self._places[name].copy()
                if without in places:
                    places.remove(without)
            else:
                continue  # RFC 6376 section 3.5: a field that is not there is the null string
            if places:
                selected.append(places.pop())  # RFC 6376 section 5.4.2: from the bottom up
        return selected

    def canonical(self, place: int, canon: Canon) -> bytes:
        """Give one field's canonical form, without a final CRLF."""
        key = place, canon
        found = self._canonical.get(key)
        if found is None:
            name, value = self.headers[place]
            found = self._canonical[key] = header_field(canon, name, value)
        return found

    def digest(self, names: Sequence[bytes], canon: Canon, place: int) -> bytes:
        """Hash what the signature field at `place` signs (RFC 6376 section 3.7).

        Args:
            names: its h=, lower case.
            canon: header canonicalization.
            place: where it stands.
        """
        name, value = self.headers[place]
        return self._digest(self.select(names, place), canon, name, without_b(value))

    def digest_for(self, names: Sequence[bytes], canon: Canon, name: bytes, unsigned: bytes) -> bytes:
        """Hash what a new signature field will sign.

        Args:
            names: its h=, lower case.
            canon: header canonicalization.
            name: the field's name.
            unsigned: its value, with nothing in b=.
        """
        return self._digest(self.select(names), canon, name, unsigned)

    def _digest(self, places: Sequence[int], canon: Canon, name: bytes, unsigned: bytes) -> bytes:
        lines = [self.canonical(place, canon) for place in places]
        lines.append(header_field(canon, name, unsigned))  # without a CRLF after it
        return sha256(CRLF.join(lines)).digest()


def without_b(value: bytes) -> bytes:
    """Take the value of b= out of a signature field, the white space around it too (RFC 6376 section 3.7)."""
    found = _B.search(value)
    return value[: found.start(1)] + value[found.end(1) :] if found else value

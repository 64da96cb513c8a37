"""Zone: how is a key's record written for the DNS?

A TXT record holds strings of at most 255 octets (RFC 1035 section 3.3); verifiers join them without a space (RFC 6376
section 3.6.2.2).  Web forms mostly want the record in one piece, and split it themselves.
"""

from __future__ import annotations

STRING = 255
"""Octets of one string."""


def strings(record: str) -> list[str]:
    """The record in strings that the DNS can hold. A record is ASCII without quotes or backslashes."""
    return [record[at : at + STRING] for at in range(0, len(record), STRING)]


def lines(name: str, record: str) -> str:
    """The record as a master file has it (RFC 1035 section 5.1), the name absolute."""
    pieces = [f'"{each}"' for each in strings(record)]
    if len(pieces) == 1:
        return f"{name}. IN TXT {pieces[0]}\n"
    return f"{name}. IN TXT (\n" + "".join(f"    {each}\n" for each in pieces) + ")\n"

"""Scanners: what is sent to a virus or spam scanner, and who speaks to each?

A scanner gets the mail as it came: its header fields, an empty line, the body.
"""

from __future__ import annotations

from elemta.facts import Message


def head(message: Message) -> bytes:
    """Give the header as it came, with the empty line that ends it; `message.once(head)` makes it once a mail."""
    return b"".join([part for name, value in message.headers for part in (name, b":", value, b"\r\n")]) + b"\r\n"

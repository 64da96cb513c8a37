"""Addresses and domains: read as the wire shows them.

`envelope` splits SMTP addresses, `from_field` reads the authors of a message, `domains` gives A-labels.
"""

from elemta.addresses.domains import a_label, is_near, is_within
from elemta.addresses.envelope import bare, compared, is_address, mailbox, returned_to, split, written
from elemta.addresses.from_field import Authors, Mailbox, authors

__all__ = [
    "Authors",
    "Mailbox",
    "a_label",
    "authors",
    "bare",
    "compared",
    "is_address",
    "is_near",
    "is_within",
    "mailbox",
    "returned_to",
    "split",
    "written",
]

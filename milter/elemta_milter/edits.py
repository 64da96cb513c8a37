"""Edits: which changes can Postfix make to a message for us, and which names and addresses may they hold?

`planning.py` says which of them a decision asks for.
"""

from __future__ import annotations

import re

from msgspec import Struct

from elemta.addresses import is_address

_NAME = re.compile(r"[!-9;-~]{1,100}")  # RFC 5322 section 3.6.8: ftext


class Unlawful(ValueError):  # noqa: N818 - it is the edit that is unlawful
    """What was asked for cannot be done to any mail; the text says what."""


class AddHeader(Struct, frozen=True):
    """Add a field below the others."""

    name: str
    value: str


class InsertHeader(Struct, frozen=True):
    """Add a field as number `index` from the top, 0 above all."""

    index: int
    name: str
    value: str


class ChangeHeader(Struct, frozen=True):
    """Give the `nth` field of this name (from 1) a new value."""

    name: str
    nth: int
    value: str


class DeleteHeader(Struct, frozen=True):
    """Take out the `nth` field of this name (from 1)."""

    name: str
    nth: int


class AddRecipient(Struct, frozen=True):
    """Add an envelope recipient."""

    address: str


class RemoveRecipient(Struct, frozen=True):
    """Take out an envelope recipient."""

    address: str


class ChangeSender(Struct, frozen=True):
    """Give the envelope another sender; "" is the null sender."""

    address: str


class ReplaceBody(Struct, frozen=True):
    """Put other octets in place of the whole body."""

    data: bytes


class Quarantine(Struct, frozen=True):
    """Accept the message into the hold queue."""

    reason: str


Edit = (
    AddHeader
    | InsertHeader
    | ChangeHeader
    | DeleteHeader
    | AddRecipient
    | RemoveRecipient
    | ChangeSender
    | ReplaceBody
    | Quarantine
)


def is_field_name(text: str) -> bool:
    """Whether a header field may be called so."""
    return _NAME.fullmatch(text) is not None


def lawful_name(name: str) -> str:
    """Give the name of a header field.

    Raises:
        Unlawful: no field may be called so.
    """
    if not is_field_name(name):
        raise Unlawful(f"{name!r} is no header field's name")
    return name


def lawful_address(address: str) -> str:
    """Give an address of the envelope.

    Raises:
        Unlawful: it is none.
    """
    if not is_address(address):
        raise Unlawful(f"{address!r} is no address")
    return address

"""Look: what is this file, and what would it do to whoever opens it?

Takes a file of a walk; gives its media type and what else can be told of it.  Never raises for what a stranger sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from elemta_milter.archives import Budget, Entry
from elemta_milter.archives.budget import BrokenError
from elemta_milter.contents import office, pdf
from elemta_milter.contents.sniff import OLE, RUNNING, media_type

_CIPHERED = (b"-----BEGIN PGP MESSAGE-----", b"age-encryption.org/v1", b"Salted__")


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a file.

    Attributes:
        type: its media type.
        runs: it is a program, a script or a shortcut.
        macros: it holds macros.
        analysable: their code can be asked for.
        runs_itself: macros run when it is opened, as far as that is known without.
        encrypted: it cannot be read without a password or a key.
        does: what it does by itself (PDF): "javascript", "launch", "open_action", "embedded_file".
        broken: what is wrong with it; "" for nothing.
        unread: what of it could not be read; "" for nothing.
    """

    type: str
    runs: bool = False
    macros: bool = False
    analysable: bool = False
    runs_itself: bool = False
    encrypted: bool = False
    does: tuple[str, ...] = ()
    broken: str = ""
    unread: str = ""


def look(entry: Entry, budget: Budget, magic: Callable[[bytes], str] | None) -> Look:
    """See what a file is; `magic`: see `media_type`."""
    found = media_type(entry.data, entry.kind, magic)
    unread = "" if entry.whole or entry.kind else "only its beginning was looked at"
    if found == "application/pdf":
        seen = pdf.look(entry.data, budget)
        unread = unread or ("object streams that could not be unpacked" if seen.unread else "")
        return Look(found, encrypted=seen.encrypted, does=seen.does, unread=unread)
    unread = unread if bytes(entry.data[:8]) == OLE else ""  # of nothing else is the rest of interest
    try:
        document = _office(entry)
    except BrokenError as error:
        return Look(found, found in RUNNING, broken=str(error), unread=unread)
    return Look(
        found,
        found in RUNNING,
        document.macros,
        document.analysable,
        document.runs_itself,
        document.encrypted or bytes(entry.data[:64]).lstrip().startswith(_CIPHERED),
        unread=unread,
    )


def _office(entry: Entry) -> office.Office:
    """What it is as a document, or as a part of one."""
    if entry.document:
        return office.look_at_part(entry.name, entry.data)
    if entry.kind == "ole":
        return office.look(entry.data)
    return office.Office(macros=not entry.kind and office.has_active_mime(entry.data))

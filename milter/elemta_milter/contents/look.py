"""Look: what is this file, and what would it do to whoever opens it?

Takes a file of a walk; gives its media type and what else can be told of it.  Never raises for what a stranger sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from elemta_milter.archives import Budget, Entry
from elemta_milter.archives.budget import BrokenError
from elemta_milter.contents import office, pdf, remote, web
from elemta_milter.contents.names import extensions
from elemta_milter.contents.sniff import RUNNING, media_type

_TELLING = (office.RELATIONS, office.TYPES)
"""How the names of parts of OOXML end that are looked at even where the archive is not called a document."""
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
        does: what it does by itself (PDF, HTML, SVG): "javascript", "launch", "open_action", "embedded_file",
            "builds_file".
        broken: what is wrong with it; "" for nothing.
        unread: what of it could not be read; "" for nothing.
        fetches: it loads something from elsewhere when it is opened.
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
    fetches: bool = False


def look(entry: Entry, budget: Budget, magic: Callable[[bytes], str] | None) -> Look:
    """See what a file is; `magic`: see `media_type`."""
    found = media_type(entry.data, entry.kind, magic)
    unread = "" if entry.whole or entry.kind else "only its beginning was looked at"
    seen = pdf.look(entry.data, budget) if b"%PDF-" in bytes(entry.data[:1024]) else pdf.Pdf()  # whatever else it is
    if seen.unread:
        unread = unread or "object streams that could not be unpacked"
    elif found != "application/pdf" and entry.kind != "ole" and not entry.name.lower().endswith(_TELLING):
        unread = ""  # of nothing else is the rest of interest
    does = seen.does
    if not entry.document and web.is_page(found, extensions(entry.names)):
        does += web.does(entry.data)
    try:
        document = _office(entry, budget)
    except BrokenError as error:
        return Look(found, found in RUNNING, does=does, broken=str(error), unread=unread)
    return Look(
        found,
        found in RUNNING,
        document.macros,
        document.analysable,
        document.runs_itself,
        document.encrypted or seen.encrypted or bytes(entry.data[:64]).lstrip().startswith(_CIPHERED),
        does,
        unread=unread,
        fetches=document.fetches,
    )


def _office(entry: Entry, budget: Budget) -> office.Office:
    """What it is as a document, or as a part of one."""
    part = office.Office()
    if entry.paper or entry.name.lower().endswith(_TELLING):
        part = office.look_at_part(entry.name, entry.data)
    if entry.document or part != office.Office():
        return part
    if entry.kind == "ole":
        return office.look(entry.data)
    if entry.kind == "rtf":
        return office.Office(fetches=remote.has_remote_template(entry.data, budget.goes_on))
    return office.Office() if entry.kind else office.look_at_text(entry.data)

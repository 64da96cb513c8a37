"""attachments: what is attached, and in the archives within: which names, types, programs, macros, secrets?

Walks through all attachments and archives within bounds.  The result is `pass` when everything could be looked at, and
`neutral` when something could not: it is encrypted, broken, of a kind that is not opened, or beyond a bound.  What was
found is in the fields, whatever the result; which of it is not wanted here is for rules to say.

RFC 2183; RFC 2046 sections 5.2.2 and 5.2.3 (message/partial, message/external-body); RFC 8551 (S/MIME).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pydantic import Field as Setting

from elemta.check import UNTIL, Check, Field, Options, Seen
from elemta.config.types import Duration, Size
from elemta.facts import Message
from elemta.findings import Finding, Result
from elemta_milter.archives import Bounds, Budget
from elemta_milter.attached import Attached
from elemta_milter.files import attachments
from elemta_milter.mime import Part, tree_of
from elemta_milter.walking import walk

SMALL = 16 << 10
"""Octets of a body whose parts are found on the loop: well below a millisecond."""
NO_MAGIC = "libmagic is not installed: media types are told by our own few signatures"


class AttachmentsOptions(Options):
    """Options of `attachments`."""

    max_depth: int = Setting(5, ge=0, le=20, description="archives within each other that are opened")
    max_ratio: int = Setting(100, ge=10, description="octets unpacked from one octet, beyond the first MiB")
    max_parts: int = Setting(500, ge=1, le=1000, description="attachments looked at")
    max_entries: int = Setting(2000, ge=1, le=100_000, description="files looked at in all archives of one mail")
    max_octets: Size = Setting(256 << 20, description="octets unpacked from all archives of one mail")
    max_name: int = Setting(255, ge=16, le=4096, description="characters of a file name")
    max_cpu: Duration = Setting(1.0, description="processor time for one mail, but for macros (2s a document)")


class Attachments(Check[Message]):
    """What is attached, and what is in it?"""

    name = "attachments"
    fields: ClassVar = {
        "count": Field(int, "attachments, without the files in archives"),
        "names": Field(tuple, "names of attachments and of files in archives"),
        "extension": Field(tuple, "the extension of each, lower case, without the dot, tricks undone", never="."),
        "double_extension": Field(bool, "a name looks like something to read and is something to run: a.pdf.exe"),
        "bidi": Field(bool, "a name holds characters that hide its end or turn it round"),
        "type": Field(tuple, "media types by content"),
        "declared_type": Field(tuple, "media types as the mail's parts declare them"),
        "type_mismatch": Field(bool, "a content is of another family than its name, such as a program called .pdf"),
        "executable": Field(bool, "a program, script or shortcut, by content"),
        "encrypted": Field(bool, "an archive, a document or a mail part cannot be read without a password or key"),
        "macros": Field(bool, "a document holds macros"),
        "macro_autoexec": Field(bool, "macros run when the document is opened or closed"),
        "macro_keywords": Field(tuple, "words in macros that are suspicious: Shell, CreateObject"),
        "fetches": Field(bool, "a document loads a template or an object from another machine when it is opened"),
        "script": Field(
            tuple, "what a PDF, HTML or SVG does: javascript, launch, open_action, embedded_file, builds_file"
        ),
        "archives": Field(tuple, "kinds of archives: zip, tar, 7z"),
        "depth": Field(int, "archives that the deepest file lies in"),
        "ratio": Field(float, "the highest ratio of unpacked to packed octets, of what unpacks to over 1 MiB"),
        "octets": Field(int, "octets unpacked", unit="octets"),
        "excess": Field(tuple, "bounds that were passed: parts, entries, octets, ratio, depth, time, name"),
        "broken": Field(bool, "the mail's parts, an archive or a document are broken, or can be read in several ways"),
        "unread": Field(bool, "something is of a kind that is not opened, or lies elsewhere"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.NEUTRAL)
    Options = AttachmentsOptions

    async def open(self) -> None:
        """Find libmagic; without it our own signatures do."""
        try:
            import magic  # noqa: PLC0415 - only daemons with this check pay for it
        except ImportError:
            self._magic: Callable[[bytes], str] | None = None
        else:
            self._magic = magic.Magic(mime=True).from_buffer

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Walk through them, in a thread where there are any."""
        until = UNTIL.get()
        parts = None if facts.body.size > SMALL else _parts(facts)
        found: Attached
        if parts is None or parts:
            parts, found = await walk(self.tools, self._look, facts, parts, until)
        else:
            _, found = self._look(facts, parts, until)
        if not parts and not found.missed():
            return self.finding(Result.NONE, "no attachments", count=0)
        result = Result.NEUTRAL if found.missed() else Result.PASS
        warning = "" if self._magic else NO_MAGIC
        return Finding(self.name, result, found.reason(), found.fields(), warning=warning, detail=found.held)

    def _look(self, facts: Message, parts: list[Part] | None, until: float) -> tuple[list[Part], Attached]:
        """Give the parts, which are found here where they are not known, and what was found in them."""
        tree = tree_of(facts)
        parts = _parts(facts) if parts is None else parts
        options = self.options
        bounds = Bounds(
            depth=options.max_depth,
            entries=options.max_entries,
            octets=options.max_octets,
            ratio=options.max_ratio,
            seconds=options.max_cpu,
            name=options.max_name,
        )
        found = Attached(Budget(bounds, until), self._magic)
        found.passed(facts.truncated)
        found.structure(tree, "the mail")
        if len(parts) > options.max_parts:
            found.passed(f"{options.max_parts} attachments")
        for part in parts[: options.max_parts]:
            found.add(tree, part)
        return parts, found


def _parts(message: Message) -> list[Part]:
    return list(attachments(tree_of(message)))

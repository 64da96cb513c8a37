"""Attached: what was found in the attachments of one mail, put together from all of them?"""

from __future__ import annotations

import re
import time
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from elemta.findings import Value
from elemta_milter.archives import Budget, Entry, Walk
from elemta_milter.archives.walk import TOO_LONG
from elemta_milter.contents import macros, names
from elemta_milter.contents.families import contradicts
from elemta_milter.contents.look import Look, look
from elemta_milter.files import attachments, is_composite, read_text, text_with_files
from elemta_milter.mime import ENCODED, MAIL, Part, Tree, content, is_wrapped, read_octets, read_wrapped

LONGEST = 64 << 20
"""Octets of one attachment that are looked at."""
KEPT = 64 << 10
"""Characters of names, extensions and types that are told of one mail."""
MACROS = 3
"""Documents whose macros are analysed."""
MACRO_SECONDS = 2
"""Of processor time for each of them."""
MACRO_PATIENCE = 6.0
"""Seconds after which no macros of a mail are waited for any more: other mails wait for its thread."""
SHOWN = 3  # of each trouble, in the reason

_ELSEWHERE = {
    "message/partial": "a part of a mail that was cut into several",  # RFC 2046 section 5.2.2
    "message/external-body": "its content is elsewhere",  # RFC 2046 section 5.2.3
}
_READABLE = frozenset({"signed-data", "certs-only", "compressed-data"})
_READABLE_IDS = (bytes.fromhex("06092a864886f70d010702"), bytes.fromhex("060b2a864886f70d0109100109"))
"""Object identifiers of signed and of compressed data (CMS), in DER."""
_HEAD = 32  # octets in which they stand
_IN_BASE64 = re.compile(rb"\s*(?:-----BEGIN [A-Z0-9 ]{1,40}-----\s*)?([A-Za-z0-9+/]{44})")
"""How a file begins that is DER in base64, as many signed documents (.xml.p7m) are, or in PEM."""
_SEVERAL_WAYS = (
    "several Content-T",
    "a boundary that can be read",
    "a delimiter line with",
    "a delimiter line that",
    "a delimiter line of",
    "a line in a header that is no field",
    "octets that are not base64",
    "base64 that goes on",
    "base64 in too many",
    "a broken ",
)
"""How defects begin that let programs see other content than was looked at here."""


@dataclass
class Attached:
    """What was found so far.

    Attributes:
        held: by number of the mail's own part: names and media type of each file in it, itself included.
    """

    budget: Budget
    magic: Callable[[bytes], str] | None
    count: int = 0
    names: dict[str, None] = field(default_factory=dict)
    extensions: dict[str, None] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)
    declared: dict[str, None] = field(default_factory=dict)
    script: dict[str, None] = field(default_factory=dict)
    keywords: dict[str, None] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)  # what is so: of which file first
    held: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)
    _outer: str = ""
    _analysed: int = 0
    _macros_until: float = 0.0
    _kept: int = 0
    _mails: int = 0
    _files: int = 0

    def __post_init__(self) -> None:
        self.walk = Walk(self.budget)

    def passed(self, bound: str) -> None:
        """A bound was passed, in words; "" for none."""
        if bound:
            self.budget.excess[bound] = None

    def structure(self, tree: Tree, of: str) -> None:
        """What is wrong with the parts of a mail as a whole."""
        for bound in tree.excess:
            self.passed(bound)
        self._defects(tree.defects, of)
        if any(each.startswith("a multipart in ") for each in tree.defects):
            self._encoded_multiparts(tree, of)

    def _encoded_multiparts(self, tree: Tree, of: str) -> None:
        """Whether a program that decodes such a multipart as a whole finds more parts than stand in it as it is."""
        for part in tree.root.walk():
            if not (part.parts and part.encoding in ENCODED and part.media_type.startswith("multipart/")):
                continue
            if self.budget.goes_on():  # they can lie within each other
                inner = read_wrapped(tree, replace(part, parts=()), LONGEST)
                if sum(1 for _ in inner.root.walk()) > sum(1 for _ in part.walk()):
                    self._so("broken", f"{of}: a multipart in {part.encoding} with other parts before it is decoded")

    def _defects(self, defects: Iterable[str], of: str) -> None:
        for each in defects:
            if each.startswith(_SEVERAL_WAYS):
                self._so("broken", f"{of}: {each}")
            elif each.startswith("unknown encoding"):
                self._so("unread", f"{of}: {each}")

    def add(self, tree: Tree, part: Part) -> None:
        """Look at one attachment, or at all those in an encoded multipart."""
        if not self._mails:
            self._outer = part.number
        if part.media_type.startswith("multipart/") and is_wrapped(part) and self.budget.goes_on():
            self._within(read_wrapped(tree, part, LONGEST), "an encoded multipart")
            if not part.filenames:
                return
        self.count += 1
        self._keep(self.declared, part.media_type)
        name = part.filename
        for each in part.filenames:
            self._named(each)
        if is_composite(part) or not self.budget.goes_on():  # what an attached mail holds comes by itself
            return
        if part.media_type in _ELSEWHERE:
            self._so("unread", f"{name or part.media_type}: {_ELSEWHERE[part.media_type]}")
            return
        held = content(tree, part, LONGEST)
        self._s_mime(part, name, held.octets)
        if held.cut:
            self.passed(f"{LONGEST} octets of an attachment")
        self._defects(held.defects, name or part.media_type)
        if inner := text_with_files(part, held.octets):
            self._within(inner, "an encoded text")
        for entry in self.walk.over(held.octets, name, part.filenames):
            self._see(entry, part)

    def _s_mime(self, part: Part, name: str, octets: bytes) -> None:
        """Whether it is encrypted, or signed or compressed in a way that hides its content (RFC 8551 section 3.2)."""
        if part.is_s_mime:
            kind = part.parameters.get("smime-type", "").lower()
            encoded = _IN_BASE64.match(octets[:200])
            head = a2b_base64(encoded[1]) if encoded else octets[:_HEAD]
            readable = kind in _READABLE or (not kind and any(each in head for each in _READABLE_IDS))
            self._so("unread" if readable else "encrypted", f"{name or part.media_type}: S/MIME")

    def _within(self, tree: Tree, of: str) -> None:
        """Look at what is attached to a mail that is itself attached, and was encoded or is a file."""
        if self._mails >= self.budget.bounds.depth:
            self.passed(f"depth {self.budget.bounds.depth}")
            return
        self._mails += 1
        self.structure(tree, of)
        for part in attachments(tree):
            self.add(tree, part)
        self._mails -= 1

    def _see(self, entry: Entry, part: Part) -> None:
        seen = look(entry, self.budget, self.magic)
        if not entry.document:
            self._file(entry, part, seen.type)
        self._flag(entry, seen)
        self.script.update(dict.fromkeys(seen.does))
        declared, called = "" if entry.depth else part.media_type, names.extensions(entry.names)
        for read, there in (
            (read_octets, declared in MAIL or not names.MAILS.isdisjoint(called)),
            (read_text, declared != "text/plain" and not names.UUENCODED.isdisjoint(called)),
        ):
            if there:
                self._within(read(_octets(entry.data)), entry.path)
                if not entry.whole:
                    self._so("unread", f"{entry.path}: {TOO_LONG}")
        if seen.analysable:
            self._analyse(entry, seen)

    def _file(self, entry: Entry, part: Part, media_type: str) -> None:
        """Keep the names and the type of a file that somebody sent."""
        own = entry.names
        if entry.depth:
            self._files += 1
            for name in own:
                self._named(name)
        else:
            own = (entry.name, *part.filenames)
        self.held.setdefault(self._outer, []).append((own, media_type if entry.data else ""))
        if entry.data:
            self._keep(self.types, media_type)
        if contradicts(media_type, own, "" if entry.depth else part.media_type):
            self._so("type_mismatch", f"{entry.path} is {media_type}")

    def _flag(self, entry: Entry, seen: Look) -> None:
        for flag, there in (
            ("executable", seen.runs),
            ("macros", seen.macros),
            ("macro_autoexec", seen.runs_itself),
            ("encrypted", seen.encrypted),
            ("fetches", seen.fetches),
        ):
            if there:
                self._so(flag, entry.path)
        for flag, why in (("broken", seen.broken), ("unread", seen.unread)):
            if why:
                self._so(flag, f"{entry.path}: {why}")

    def _analyse(self, entry: Entry, seen: Look) -> None:
        """Ask what the macros do."""
        self._analysed += 1
        if self._analysed > MACROS:
            self.passed(f"{MACROS} documents with macros")
            return
        self._macros_until = self._macros_until or min(self.budget.until, time.monotonic() + MACRO_PATIENCE)
        told = macros.ask(entry.data, MACRO_SECONDS, self._macros_until)
        if told.there:
            self._so("macros", entry.path)
        if told.runs_itself:
            self._so("macro_autoexec", entry.path)
        if told.unread and seen.macros:
            self._so("unread", f"{entry.path}: {told.unread}")
        self.keywords.update(dict.fromkeys(told.keywords))

    def _named(self, name: str) -> None:
        if not name:
            return
        self._keep(self.names, name)
        for each in names.extensions((name,)):
            self._keep(self.extensions, each, first=each in names.RUNNING)
        if names.is_double(name):
            self._so("double_extension", name)
        if names.is_tricky(name):
            self._so("bidi", name)

    def _keep(self, to: dict[str, None], what: str, *, first: bool = False) -> None:
        """Keep so much and no more, but always what matters most."""
        if what in to:
            return
        self._kept += len(what)
        if first or self._kept <= KEPT:
            to[what] = None
        else:
            self.passed(f"{KEPT} characters of names")

    def _so(self, flag: str, of: str) -> None:
        self.flags.setdefault(flag, of)

    def missed(self) -> bool:
        """Whether something could not be looked at."""
        walk = self.walk
        seen = {"encrypted", "broken", "unread"} & self.flags.keys()
        return bool(seen or walk.encrypted or walk.broken or walk.unread or walk.excess)

    def fields(self) -> Mapping[str, Value]:
        """What rules may ask for."""
        walk, flags = self.walk, self.flags
        return {
            "count": self.count,
            "names": tuple(self.names),
            "extension": tuple(self.extensions),
            "double_extension": "double_extension" in flags,
            "bidi": "bidi" in flags,
            "type": tuple(self.types),
            "declared_type": tuple(self.declared),
            "type_mismatch": "type_mismatch" in flags,
            "executable": "executable" in flags,
            "encrypted": bool(walk.encrypted) or "encrypted" in flags,
            "macros": "macros" in flags,
            "macro_autoexec": "macro_autoexec" in flags,
            "macro_keywords": tuple(self.keywords),
            "fetches": "fetches" in flags,
            "script": tuple(self.script),
            "archives": tuple(dict.fromkeys(walk.archives)),
            "depth": walk.depth,
            "ratio": round(self.budget.ratio, 1),
            "octets": self.budget.octets,
            "excess": walk.excess,
            "broken": bool(walk.broken) or "broken" in flags,
            "unread": bool(walk.unread) or "unread" in flags,
        }

    def reason(self) -> str:
        """What was found, for people."""
        walk, flags = self.walk, dict(self.flags)
        said = [f"{self.count} attachment{'s' if self.count != 1 else ''}"]
        if self._files:
            said[0] += f" with {self._files} file{'s' if self._files != 1 else ''} in archives and documents"
        for what, first, all_ in (
            ("encrypted", flags.pop("encrypted", ""), walk.encrypted),
            ("broken", flags.pop("broken", ""), walk.broken),
            ("not opened", flags.pop("unread", ""), walk.unread),
        ):
            of = list(dict.fromkeys([*([first] if first else []), *all_]))
            if of:
                said.append(f"{what}: {', '.join(of[:SHOWN])}" + (f" and {len(of) - SHOWN} more" * (len(of) > SHOWN)))
        if walk.excess:
            said.append(f"more than {', '.join(walk.excess)}")
        said += [f"{flag.replace('_', ' ')}: {of}" for flag, of in flags.items()]
        return "; ".join(said)


def _octets(data: memoryview) -> bytes:
    """These octets; without a copy where they are all that is held."""
    return data.obj if isinstance(data.obj, bytes) and len(data.obj) == len(data) else bytes(data)

"""Attached: what was found in the attachments of one mail, put together from all of them?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from elemta.findings import Value
from elemta_milter.archives import Budget, Entry, Walk
from elemta_milter.contents import macros, names
from elemta_milter.contents.families import contradicts
from elemta_milter.contents.look import Look, look
from elemta_milter.mime import Part, Tree, content

LONGEST = 64 << 20
"""Octets of one attachment that are looked at."""
KEPT = 64 << 10
"""Characters of names, extensions and types that are told of one mail."""
MACROS = 3
"""Documents whose macros are analysed; each has so many seconds: """
MACRO_SECONDS = 2
SHOWN = 3  # of each trouble, in the reason

_ELSEWHERE = {
    "message/partial": "a part of a mail that was cut into several",  # RFC 2046 section 5.2.2
    "message/external-body": "its content is elsewhere",  # RFC 2046 section 5.2.3
    "message/rfc822": "an attached mail that was not opened",
    "message/global": "an attached mail that was not opened",
}


@dataclass
class Attached:
    """What was found so far."""

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
    _analysed: int = 0
    _kept: int = 0

    def __post_init__(self) -> None:
        self.walk = Walk(self.budget)

    def passed(self, bound: str) -> None:
        """A bound was passed, in words; "" for none."""
        if bound:
            self.budget.excess[bound] = None

    def add(self, tree: Tree, part: Part) -> None:
        """Look at one attachment."""
        self.count += 1
        self._keep(self.declared, part.media_type)
        name = part.filename or next(iter(part.filenames), "")
        for each in (name, *part.filenames):
            self._named(each)
        if part.media_type in _ELSEWHERE:
            self._so("unread", f"{name or part.media_type}: {_ELSEWHERE[part.media_type]}")
            return
        if part.media_type in ("application/pkcs7-mime", "application/x-pkcs7-mime"):  # RFC 8551 section 3.2
            signed = part.parameters.get("smime-type", "").lower() in ("signed-data", "certs-only")
            self._so("unread" if signed else "encrypted", f"{name or part.media_type}: S/MIME")
        if not self.budget.goes_on():
            return
        held = content(tree, part, LONGEST)
        if held.cut:
            self.passed(f"{LONGEST} octets of an attachment")
        for entry in self.walk.over(held.octets, name):
            self._see(entry, part)

    def _see(self, entry: Entry, part: Part) -> None:
        seen = look(entry, self.budget, self.magic)
        if not entry.document:
            for name in entry.names if entry.depth else ():
                self._named(name)
            self._keep(self.types, seen.type)
            own = entry.names if entry.depth else (entry.name, *part.filenames)
            if contradicts(seen.type, own, "" if entry.depth else part.media_type):
                self._so("type_mismatch", f"{entry.path} is {seen.type}")
        for flag, there in (("executable", seen.runs), ("macros", seen.macros), ("encrypted", seen.encrypted)):
            if there:
                self._so(flag, entry.path)
        for flag, why in (("broken", seen.broken), ("unread", seen.unread)):
            if why:
                self._so(flag, f"{entry.path}: {why}")
        self.script.update(dict.fromkeys(seen.does))
        if seen.analysable:
            self._analyse(entry, seen)

    def _analyse(self, entry: Entry, seen: Look) -> None:
        """Ask what the macros do."""
        self._analysed += 1
        if self._analysed > MACROS:
            self.passed(f"{MACROS} documents with macros")
            return
        told = macros.ask(entry.data, MACRO_SECONDS)
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
        if self.budget.entries:
            said[0] += f" with {self.budget.entries} file{'s' if self.budget.entries != 1 else ''} in archives"
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

"""Walk: what is in this attachment, and in the archives within it?

Gives the attachment itself, then every file in it, each with as much of its content as may be held.  Never raises for
what a stranger sent: what cannot be looked at, and why, is written down beside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from elemta_milter.archives import foreign, oles, onenotes, rars, rtfs, sevenzip, squeezed, tars, tnefs, zips
from elemta_milter.archives.budget import BrokenError, Budget, EncryptedError, UnreadableError
from elemta_milter.archives.hidden import KINDS, behind, hidden
from elemta_milter.archives.kinds import archive_kind
from elemta_milter.archives.member import Member
from elemta_milter.archives.stream import Octets, Stream

DOCUMENTS = frozenset(
    "docx docm dotx dotm doc dot xlsx xlsm xlsb xltx xltm xlam xls xlt pptx pptm potx potm ppsx ppsm ppam ppt pps pot"  # noqa: SIM905
    " sldx sldm vsdx vsdm vsd thmx odt ods odp odg odf odb ott ots otp otg sxw sxc sxi epub msg oxps xps pages numbers"
    " key".split()
)
"""Extensions of documents, some of which are zip archives."""
_UNPACKED = frozenset("zip zipx jar war ear apk xpi 7z rar cab tar gz tgz z arj iso img vhd".split())  # noqa: SIM905
"""Extensions of what is opened as an archive; a document that has such a name too is both."""
TOO_LONG = "too long to be opened within another archive"
_HEAD, _FILE = 1 << 16, 8 << 20
"""Octets of a file that are held: enough to know what it is, and enough to look into a document."""
_PAPERS = frozenset({"ole", "onenote", "rtf"})
"""Documents that are no archives, though files can be packed into them."""
_STREAMED = frozenset({"tar", *squeezed.MAKERS})


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: an attachment, or a file in one.

    Attributes:
        name: its name, with the folders that the archive gives.
        names: all its names: an archive can give several.
        depth: archives that it lies in.
        kind: which archive it is: "zip"; "" for none.
        data: its content, from the beginning; not all of it where it is longer than `Bounds.held`.
        whole: `data` is all.
        encrypted: its content cannot be read without a password.
        within: the archive it lies in, as its own `path`; "" for an attachment.
        document: it is a part of a document that happens to be an archive (OOXML, ODF).
        paper: it may be one: some name of what it lies in says so.
        start: where in `data` the archive begins.
    """

    name: str
    names: tuple[str, ...]
    depth: int
    kind: str
    data: memoryview
    whole: bool
    encrypted: bool = False
    within: str = ""
    document: bool = False
    start: int = 0
    paper: bool = False

    @property
    def path(self) -> str:
        """Its name for people, with those of the archives around it."""
        name = self.name or "(unnamed)"
        return f"{self.within}: {name}" if self.within else name


@dataclass
class Walk:
    """A walk through all attachments of a mail.

    Attributes:
        budget: what may be used, and what has been.
        depth: the deepest file so far.
        archives: kinds of archives that were found, in order.
        encrypted: paths of what is encrypted.
        broken: "PATH: what is wrong with it".
        unread: "PATH: why it was not read".
    """

    budget: Budget
    depth: int = 0
    archives: list[str] = field(default_factory=list)
    encrypted: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def excess(self) -> tuple[str, ...]:
        """Bounds that were passed, in words."""
        return tuple(self.budget.excess)

    def over(self, data: Octets, name: str, also: tuple[str, ...] = ()) -> Iterator[Entry]:
        """The attachment, and all files in it; `also`: other names that some programs show."""
        with self.budget.attachment(len(data)):
            yield from self._entries(Member(name, Stream(start=data), also))

    def _entries(
        self, member: Member, depth: int = 0, within: str = "", *, document: bool = False, paper: bool = False
    ) -> Iterator[Entry]:
        """A file, and those in it."""
        stream = member.stream
        name = self._name(member.name)
        names = tuple(dict.fromkeys((name, *(self._name(each) for each in member.also))))
        kind, start, data = self._content(stream)
        whole = not stream.peek(len(data) + 1)[len(data) :]
        entry = Entry(name, names, depth, kind, data, whole, member.encrypted, within, document, start, paper)
        holding = 0 if stream.in_memory else len(data)
        self.budget.holding += holding
        self.depth = max(self.depth, 0 if document else depth)
        self._note(entry, member)
        yield entry
        if kind and not self.budget.over:
            yield from self._inside(entry, stream)
            for other, place in behind(data, kind, _wanted_behind(entry)) if not self.budget.over else ():
                yield from self._inside(replace(entry, kind=other, start=place), stream)
        else:
            if not whole and not _UNPACKED.isdisjoint(_extensions(entry)):  # it can begin with anything
                _add(self.unread, f"{entry.path}: {TOO_LONG}")
            stream.skip(sys.maxsize)  # nobody looks at the rest, but it counts
        self.budget.holding -= holding
        if stream.broken and not self.budget.over:
            _add(self.broken, f"{entry.path}: {stream.broken}")
        if stream.unread:
            _add(self.unread, f"{entry.path}: {stream.unread}")

    def _content(self, stream: Stream) -> tuple[str, int, memoryview]:
        """What kind of archive it is, where that begins, and as much of it as is of use and may be held."""
        data = stream.peek(_HEAD)
        kind = archive_kind(data)
        if stream.in_memory or kind not in _STREAMED:
            room = max(self.budget.bounds.held - self.budget.holding, _HEAD)
            data = stream.peek(stream.in_memory or (room if kind else min(room, _FILE)))
        return (kind, 0, data) if kind else (*hidden(data), data)

    def _inside(self, entry: Entry, stream: Stream) -> Iterator[Entry]:
        """The files in an archive."""
        document = entry.kind == "zip" and (entry.document or _is_document(entry))
        paper = entry.kind == "zip" and (document or entry.paper or not DOCUMENTS.isdisjoint(_extensions(entry)))
        if entry.kind not in _PAPERS and not document:
            self.archives.append(entry.kind)
        try:
            for member in self._members(entry, stream):
                if entry.depth >= self.budget.bounds.depth:
                    self.budget.excess[f"depth {self.budget.bounds.depth}"] = None
                    return
                if not self.budget.entry():
                    return
                if _is_folder(member):
                    continue
                yield from self._entries(member, entry.depth + 1, entry.path, document=document, paper=paper)
        except BrokenError as error:
            if not self.budget.over:
                _add(self.broken, f"{entry.path}: {error}")
        except EncryptedError:
            _add(self.encrypted, entry.path)
        except UnreadableError as error:
            _add(self.unread, f"{entry.path}: {error}")

    def _members(self, entry: Entry, stream: Stream) -> Iterator[Member]:
        if entry.kind == "tar":
            return tars.members(stream, self.budget)
        if entry.kind in squeezed.MAKERS:
            return squeezed.members(stream, entry.kind, entry.names, self.budget)
        if not entry.whole:
            raise UnreadableError(TOO_LONG)
        if entry.kind == "zip":
            return zips.members(entry.data, self.budget)
        return self._packed(entry)

    def _packed(self, entry: Entry) -> Iterator[Member]:
        """The members of other archives: named by our reader, if there is one, and unpacked by it or by libarchive."""
        data = entry.data[entry.start :]
        readers = {
            "7z": sevenzip.members,
            "rar": rars.members,
            "ole": oles.members,
            "onenote": onenotes.members,
            "rtf": rtfs.members,
            "tnef": tnefs.members,
        }
        helped = foreign.installed() and entry.kind in foreign.KINDS
        if entry.kind not in readers:
            if not helped:
                raise UnreadableError(f"an archive that is not opened ({entry.kind})")
            return foreign.members(data, entry.kind, entry.names, self.budget)
        return self._helped(entry, readers[entry.kind](data, self.budget), helped=helped)

    def _helped(self, entry: Entry, named: Iterator[Member], *, helped: bool) -> Iterator[Member]:
        """The members that our reader names; where it could not unpack one, as libarchive gives it."""
        missing: dict[str, Member] = {}
        for count, member in enumerate(named, self.budget.entries):
            if count >= self.budget.bounds.entries:
                self.budget.entry()
                break
            if helped and not member.encrypted and member.unread not in ("", rars.SPLIT):
                missing[member.name.replace("\\", "/")] = member
            else:
                yield member
        if not missing:
            return
        try:
            for member in foreign.members(entry.data[entry.start :], entry.kind, entry.names, self.budget):
                if missing.pop(member.name, None) is not None:
                    yield member
        except BrokenError:
            if not missing:
                raise
        yield from missing.values()

    def _note(self, entry: Entry, member: Member) -> None:
        if entry.encrypted:
            _add(self.encrypted, entry.path)
        if member.defect:
            _add(self.broken, f"{entry.path}: {member.defect}")
        if member.unread and not entry.encrypted:
            _add(self.unread, f"{entry.path}: {member.unread}")

    def _name(self, name: str) -> str:
        """A name of bounded length; its end counts most."""
        most = self.budget.bounds.name
        if len(name) <= most:
            return name
        self.budget.excess[f"a name of {most} characters"] = None
        return "…" + name[-(most - 1) :]


def _is_folder(member: Member) -> bool:
    """Whether it is one, and not a file that is called like one."""
    return member.name.endswith(("/", "\\")) and not (
        member.encrypted or member.unread or member.defect or member.stream.peek(1)
    )


def _is_document(entry: Entry) -> bool:
    """Whether it is opened as a document (OOXML, ODF, EPUB): its parts are not files that anybody sent."""
    found = _extensions(entry)
    return not DOCUMENTS.isdisjoint(found) and _UNPACKED.isdisjoint(found)


def _wanted_behind(entry: Entry) -> frozenset[str]:
    """Which archives unpackers look for in a file that begins as something else, by what it is called."""
    called = _extensions(entry)
    return KINDS if entry.kind in _PAPERS and not _UNPACKED.isdisjoint(called) else KINDS & called


def _extensions(entry: Entry) -> set[str]:
    return {name.rpartition(".")[2].strip().lower() for name in entry.names}


def _add(to: list[str], what: str) -> None:
    """At most so many: they are for people."""
    if len(to) < 20 and what not in to:
        to.append(what)

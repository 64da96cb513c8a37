"""imitation: does From show the name of one of our people, or an address, that is not the author's?

Mail programs show the name and often nothing else.  Takes the authors of a message; reports `fail` with the kind of
imitation, `pass` when one of our people writes from an own address, `none` when From shows nobody we know.  Whether
that address is authentic is DMARC's part.  Never decides: mailing lists, too, put the names of others into From.

RFC 5322 section 3.4 (display names).
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator
from pydantic import Field as Setting

from elemta.addresses import Mailbox, a_label, is_near
from elemta.check import Check, Field, Options, Seen, Tools
from elemta.config.types import readable
from elemta.facts import Message
from elemta.findings import Finding, Result
from elemta.rules.refresh import follow, look
from elemta_milter.people import People, listed, read_file

MOST = 50  # authors looked at
_PEOPLE = "the people of imitation"  # in the log

_ADDRESS = re.compile(r"[\w.+-]{1,64}+@((?:[\w-]{1,63}\.){1,10}[\w-]{2,63})")


class PeopleFile(BaseModel):
    """Where the people are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, readable(read_file)] = Setting(
        description="`Name = address, address…` a line; @domain stands for all its addresses; "
        "read again when it changes"
    )
    _people: People = PrivateAttr()

    @property
    def people(self) -> People:
        """Who stood there when the configuration was read: all there is for a worker that begins when it is wrong."""
        return self._people

    @model_validator(mode="after")
    def _read(self) -> PeopleFile:
        self._people = People(path=Path(self.file))
        with suppress(OSError, ValueError):  # it has changed since
            self._people.reread()
        return self


class ImitationOptions(Options):
    """Options of `imitation`."""

    people: PeopleFile | dict[str, tuple[str, ...]] = Setting(
        default_factory=dict,
        description="names that others imitate, each with the addresses that they write from; or the file with them",
    )
    delimiter: str = Setting("+", max_length=1, description="jane+list@ is jane@ too; empty: no")

    @model_validator(mode="after")
    def _lawful(self) -> ImitationOptions:
        if isinstance(self.people, dict):
            listed(self.people)
        return self


class Imitation(Check[Message]):
    """Does From show the name of one of our people, or an address, that is not the author's?"""

    name = "imitation"
    fields: ClassVar = {
        "person": Field(str, "whose name From shows, as it is written in `people`"),
        "kind": Field(
            str,
            "name: just theirs; part: theirs with other words; address: another domain's address as a name",
            words=("name", "part", "address"),
        ),
        "shown": Field(str, "the name or address that From shows; a stranger's words"),
        "author": Field(str, "the author's address"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL)
    needs_body = False
    only_dns = True  # it waits for nothing
    Options = ImitationOptions

    def __init__(self, options: ImitationOptions, tools: Tools) -> None:
        super().__init__(options, tools)
        named = options.people
        self._people = named.people if isinstance(named, PeopleFile) else People(listed(named))
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the file, if there is one and it changed, and go on doing so."""
        if self._people.path is not None:
            await look(self._people, _PEOPLE, self.tools)
            self._following = asyncio.create_task(follow(self._people, _PEOPLE, self.tools))

    async def close(self) -> None:
        """Follow the file no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Look at each author; the first imitation counts."""
        found = [finding for box in facts.authors.mailboxes[:MOST] if (finding := self._look(box)) is not None]
        failed = next((finding for finding in found if finding.result is Result.FAIL), None)
        return failed or next(iter(found), self.finding(Result.NONE, "From shows nobody we know"))

    def _look(self, box: Mailbox) -> Finding | None:
        author = f"{box.local}@{box.domain}"
        whole_name = f"{box.display} ({box.comments})" if box.comments else box.display
        for shown in dict.fromkeys((box.display, whole_name)):  # some programs show comments, some do not
            called = self._people.called(shown)
            if called is None:
                continue
            person, whole = called
            if person.addresses.covers(box.local, box.domain, self.options.delimiter):
                return self.finding(
                    Result.PASS,
                    f"{person.name} writes from {author}",
                    person=person.name,
                    shown=shown,
                    author=author,
                )
            return self._fail("name" if whole else "part", shown, author, person.name)
        for match in _ADDRESS.finditer(whole_name):
            if not is_near(a_label(match[1]) or match[1].lower(), box.domain):
                return self._fail("address", match[0], author, None)
        return None

    def _fail(self, kind: str, shown: str, author: str, person: str | None) -> Finding:
        reason = f'From shows "{shown}", but the author is {author}'
        return self.finding(Result.FAIL, reason, person=person, kind=kind, shown=shown, author=author)

"""People: whose name is this, and is the address theirs?

The names of those whom others like to imitate, each with the addresses that they write from; in the configuration
itself or in a file, a person a line, # starts a comment:

    Jane Doe = jane@example.org, jane.doe@example.net
    Example Support = @example.org                      every address of the domain

Names are compared as people read them: without case, accents and punctuation, in any order of the words or without
blanks between them, and with letters of other scripts that look like Latin ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from elemta.addresses import a_label, split
from elemta.rules.kept_file import KeptFile, file_lines
from elemta.rules.senders import Allowed

MORE_WORDS = 4  # that may stand beside a name: "Jane Doe (Example, Managing Director)"
MAX_NAME = 500  # characters of a name that is compared

_LOOKS_LIKE = str.maketrans(
    "аеорсухіјѕһԁԛԝгквмнтзьαορνικτυχηıłøđ013",  # noqa: RUF001 - they look like those below
    "aeopcyxijshdqwrkbmhtzbaopviktuxnilodole",
)
_WORD = re.compile(r"[^\W_]+")
_NO_WIDTH = frozenset({"Mn", "Me", "Cf"})  # most accents, variation selectors, what shows nothing

Words = frozenset[str]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whose name is known.

    Attributes:
        name: as written.
        addresses: what they write from.
    """

    name: str
    addresses: Allowed


@dataclass(slots=True)
class People(KeptFile):
    """All of them.

    Attributes:
        by_name: by the words of the name, and by its letters in one word.
    """

    by_name: dict[Words, Person] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many there are."""
        return len({id(person) for person in self.by_name.values()})

    def take(self, path: Path) -> None:
        """Read the people of the file."""
        self.by_name = read_file(path)

    def called(self, name: str) -> tuple[Person, bool] | None:
        """Whose name is this? And whether it is the whole of it; None for nobody's."""
        in_order = _words(name)
        words = _names(in_order)
        person = self.by_name.get(words) or self.by_name.get(_letters(in_order))
        if person is not None:
            return person, True
        if len(in_order) < 3:
            return None
        near = (
            known for known in self.by_name if len(known) > 1 and known < words and len(words - known) <= MORE_WORDS
        )
        longest = max(near, key=len, default=None)
        person = self._spelled(in_order) if longest is None else self.by_name[longest]
        return None if person is None else (person, False)

    def _spelled(self, words: list[str]) -> Person | None:
        """Whose name stands in these with blanks where they do not belong, as in "Jane Do e, Managing Director"?"""
        for before in range(MORE_WORDS + 1):
            for behind in range(MORE_WORDS + 1 - before):
                part = words[before : len(words) - behind]
                person = self.by_name.get(_letters(part)) if len(part) > 1 else None
                if person is not None and len(words_of(person.name)) > 1:
                    return person
        return None


def words_of(name: str) -> Words:
    """The words of a name as people read them; an initial between names does not count."""
    return _names(_words(name))


def _names(words: list[str]) -> Words:
    return frozenset([word for word in words if len(word) > 1] or words)


def _letters(words: list[str]) -> Words:
    """The words as one: blanks may stand where they do not belong, also in the place of a hidden character."""
    return frozenset({"".join(words)})


def _words(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name[:MAX_NAME]).casefold())
    plain = "".join(char for char in plain if not _is_mark(char))
    return _WORD.findall(plain.translate(_LOOKS_LIKE))


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in _NO_WIDTH or unicodedata.combining(char) != 0


def listed(people: Mapping[str, Iterable[str]]) -> dict[Words, Person]:
    """Make the people of names with their addresses.

    Raises:
        ValueError: a name without words or addresses, or an address that is none.
    """
    found: dict[Words, Person] = {}
    for name, addresses in people.items():
        _add(found, name, addresses)
    return found


def read_file(path: Path) -> dict[Words, Person]:
    """The people of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is wrong; the text begins with "path:line: ".
    """
    found: dict[Words, Person] = {}
    for number, line in enumerate(file_lines(path), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, addresses = text.partition("=")
        try:
            _add(found, name.strip(), addresses.split(","))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return found


def _add(found: dict[Words, Person], name: str, addresses: Iterable[str]) -> None:
    """Add somebody; people of one name are told apart by nobody, so the addresses of each are those of all."""
    words, allowed = words_of(name), _allowed(name, addresses)
    if not words:
        raise ValueError(f'"{name}" is no name')
    if namesake := found.get(words):
        theirs = namesake.addresses
        allowed = Allowed(allowed.addresses | theirs.addresses, allowed.domains | theirs.domains)
    found[words] = found[_letters(_words(name))] = Person(name, allowed)


def _allowed(name: str, addresses: Iterable[str]) -> Allowed:
    whole, domains = set[str](), set[str]()
    for word in (each.strip() for each in addresses):
        if not word:
            continue
        local, domain = split(word)
        known = a_label(domain)
        if known is None or " " in word:
            raise ValueError(f'"{word}" is no address; write `{name} = LOCAL@DOMAIN, @DOMAIN`')
        if local:
            whole.add(f"{local.lower()}@{known}")
        else:
            domains.add(known)
    if not whole and not domains:
        raise ValueError(f'"{name}" has no address; write `{name} = LOCAL@DOMAIN`')
    return Allowed(frozenset(whole), frozenset(domains))

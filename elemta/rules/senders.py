"""Senders: which addresses may this login use?

A file with one login a line and the addresses it may use; # starts a comment; a login may have several lines.

    anna        anna@example.org, info@example.org
    newsletter  @news.example.org                     every address of the domain
    shop        @.shop.example.org                    every address of every domain below it
    relay       *                                     every address

Logins and addresses are compared without case, domains as A-labels.  `anna+list@example.org` is Anna's too where "+" is
the delimiter (Postfix: recipient_delimiter).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from elemta.addresses import a_label, bare, split
from elemta.rules.kept_file import KeptFile, file_lines


@dataclass(frozen=True, slots=True)
class Allowed:
    """The addresses that one login may use.

    Attributes:
        addresses: whole addresses, lower case.
        domains: domains of which every address is allowed.
        below: domains below which every address is allowed.
        every: every address is allowed.
    """

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()
    every: bool = False

    def covers(self, local: str, domain: str, delimiter: str = "") -> bool:
        """Whether LOCAL@DOMAIN is one of them; what follows the `delimiter` in the local part does not count."""
        if self.every:
            return True
        local, domain = bare(local.lower()), a_label(domain) or domain.lower()
        if domain in self.domains or f"{local}@{domain}" in self.addresses:
            return True
        if delimiter and f"{local[:1]}{local[1:].partition(delimiter)[0]}@{domain}" in self.addresses:
            return True
        return any(domain.endswith(f".{name}") for name in self.below)

    def __or__(self, other: Allowed) -> Allowed:
        return Allowed(
            self.addresses | other.addresses,
            self.domains | other.domains,
            self.below | other.below,
            self.every or other.every,
        )


NOTHING = Allowed()


@dataclass(slots=True)
class Senders(KeptFile):
    """The map.

    Attributes:
        by_login: what each login may use, by its name in lower case.
    """

    by_login: dict[str, Allowed] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many logins."""
        return len(self.by_login)

    def take(self, path: Path) -> None:
        """Read the map."""
        self.by_login = read_file(path)

    def of(self, login: str) -> Allowed | None:
        """What `login` may use; None when the file does not name it."""
        return self.by_login.get(login.lower())


def read_file(path: Path) -> dict[str, Allowed]:
    """What each login may use, by its name in lower case.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is wrong; the text begins with "path:line: ".
    """
    found: dict[str, Allowed] = {}
    for number, line in enumerate(file_lines(path), 1):
        login, *rest = line.partition("#")[0].split(None, 1) or [""]
        if not login:
            continue
        try:
            allowed = _allowed(login, *rest)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        found[login.lower()] = found.get(login.lower(), NOTHING) | allowed
    return found


def _allowed(login: str, text: str = "") -> Allowed:
    if not text:
        raise ValueError(f'the login "{login}" has no address; write `{login} LOCAL@DOMAIN`')
    allowed = NOTHING
    for word in (each.strip() for each in text.split(",")):
        if word:
            allowed |= _entry(word)
    return allowed


def _entry(word: str) -> Allowed:
    if word == "*":
        return Allowed(every=True)
    local, domain = ("", word[1:]) if word.startswith("@") else split(word)
    name = a_label(domain.removeprefix("."))
    if name is None or len(word.split()) > 1:
        raise ValueError(
            f'"{word}" is no address; write LOCAL@DOMAIN, @DOMAIN, @.DOMAIN or *, with commas between them'
        )
    if local:
        return Allowed(addresses=frozenset((f"{bare(local.lower())}@{name}",)))
    return Allowed(below=frozenset((name,))) if domain.startswith(".") else Allowed(domains=frozenset((name,)))

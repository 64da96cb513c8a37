"""Named sets: is this address, domain or word one of those?

Entries are IP addresses and networks, words (compared without case; domains as A-labels), or `.example.org`
(`*.example.org` is the same), which means every name below example.org.  A set of a million entries answers in about a
microsecond: words are hashed, networks are hashed once for each prefix length that occurs.

Inline sets never change.  A file is read again when it changes; a broken new version is reported and the
old one stays.  A dynamic set is a snapshot of the state store, taken anew when the store's version moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from pathlib import Path

from elemta.addresses import a_label, bare
from elemta.config.problems import quoted
from elemta.config.types import network
from elemta.findings import Value
from elemta.rules.kept_file import KeptFile, file_lines

_PREFIX = r"/(?:\d{1,3}|\d{1,3}(?:\.\d{1,3}){3})"  # its length, or a netmask
_LOOKS_LIKE_IP = re.compile(rf"[0-9a-fA-F]*[:.][0-9a-fA-F:.]*(?:{_PREFIX})?")
_MAPPED = 0xFFFF  # what stands before the IPv4 address in an IPv4-mapped one, which is meant as that
_DOTS = re.compile(r"(?:\*?\.)+", re.ASCII)
_HAS_NETWORK = re.compile(rf"[0-9a-fA-F:.]+{_PREFIX}")


@dataclass(frozen=True, slots=True)
class Members:
    """The entries of a set, ready to be asked.

    Attributes:
        words: lower-case words, addresses and domains.
        suffixes: domains of which every name below is a member.
        networks4: (shift, network numbers) for each IPv4 prefix length that occurs.
        networks6: likewise for IPv6.
    """

    words: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()
    networks4: tuple[tuple[int, frozenset[int]], ...] = ()
    networks6: tuple[tuple[int, frozenset[int]], ...] = ()

    def __len__(self) -> int:
        networks = sum(len(numbers) for _, numbers in (*self.networks4, *self.networks6))
        return len(self.words) + len(self.suffixes) + networks

    def __contains__(self, value: Value) -> bool:
        if isinstance(value, str):
            word = value.lower()
            return (
                word in self.words
                or (bool(self.suffixes) and self._below(word))
                or (bool(self.networks4 or self.networks6) and self._address(word))
            )
        if isinstance(value, IPv4Address):
            return _in_networks(int(value), self.networks4)
        if isinstance(value, IPv6Address):
            number = int(value)
            if number >> 32 == _MAPPED:  # what a check found; a client's address is IPv4 by then
                return _in_networks(number & 0xFFFF_FFFF, self.networks4)
            return _in_networks(number, self.networks6)
        return str(value) in self.words

    def _address(self, word: str) -> bool:
        """A text that spells an address (a HELO name, say)."""
        try:
            return bool(_LOOKS_LIKE_IP.fullmatch(word)) and ip_address(word) in self
        except ValueError:
            return False

    def _below(self, word: str) -> bool:
        _, _, domain = word.rpartition("@")
        while domain:
            _, _, domain = domain.partition(".")
            if domain in self.suffixes:
                return True
        return False


def _in_networks(number: int, networks: tuple[tuple[int, frozenset[int]], ...]) -> bool:
    for shift, numbers in networks:  # noqa: SIM110 - a generator is twice as slow, and a mail may ask thousands of sets
        if number >> shift in numbers:
            return True
    return False


def members(entries: Iterable[str], *, lenient: bool = False) -> Members:
    """Make the set of `entries`.

    Args:
        entries: as people write them; with `lenient`, as rules made them: of 10.0.0.1/8 the network around it is meant,
            and what is no network is a word then.
        lenient: see there.

    Raises:
        ValueError: an entry that is meant as a network is none ("10.0.0.1/8"); the text names it.
    """
    words: set[str] = set()
    suffixes: set[str] = set()
    networks: dict[tuple[int, int], set[int]] = {}
    for entry in entries:
        if _LOOKS_LIKE_IP.fullmatch(entry) and _network(entry, networks, lenient):
            continue
        if entry.startswith((".", "*.")) and (domain := entry.partition(".")[2]):
            suffixes.add(a_label(domain) or domain.lower())
        else:
            words.add(entry.lower())
            if not entry.isascii() or '"' in entry or (entry.endswith(".") and "." in entry[:-1]):
                words.add(_compared(entry))  # other texts are known as they are
    by_version: dict[int, list[tuple[int, frozenset[int]]]] = {4: [], 6: []}
    for (version, shift), numbers in sorted(networks.items()):
        by_version[version].append((shift, frozenset(numbers)))
    return Members(frozenset(words), frozenset(suffixes), tuple(by_version[4]), tuple(by_version[6]))


def meant(entry: str) -> None:
    """Find what `members` takes for a word, and which no mail can hold, or which is meant as a network.

    Raises:
        ValueError: it is one such as 10/8, or has blanks around it, or several lines; the text names it.
    """
    if len(entry.splitlines()) > 1:
        raise ValueError(f"{quoted(entry)} holds several lines; write one entry, or {{file: PATH}} for all of the set")
    if entry != entry.strip():
        raise ValueError(f"{quoted(entry)} has blanks around it, which no mail has; write it without")
    if _HAS_NETWORK.fullmatch(entry) and not _LOOKS_LIKE_IP.fullmatch(entry):
        network(entry)


def literal(fact: str) -> str:
    """What a mail says, as an entry that means no more: of ".com" and "0.0.0.0/0" is left "com" and "0.0.0.0".

    Who writes a pattern is the administrator: `.{sender.domain}`, `{client.address}/24`.
    """
    if dots := _DOTS.match(fact):
        fact = fact[dots.end() :]
    return fact.partition("/")[0] if _HAS_NETWORK.fullmatch(fact) else fact


def _network(entry: str, networks: dict[tuple[int, int], set[int]], lenient: bool) -> bool:
    """File `entry` under its prefix length if it is an address or a network."""
    try:
        named = network(entry)
    except ValueError:
        if not _HAS_NETWORK.fullmatch(entry):
            return False
        if not lenient:
            raise
        try:
            named = network(str(ip_interface(entry).network))  # of {client.address}/24, say
        except ValueError:
            return False
    shift = named.max_prefixlen - named.prefixlen
    networks.setdefault((named.version, shift), set()).add(int(named.network_address) >> shift)
    return True


def _compared(entry: str) -> str:
    """A word as what it may be, a domain or an address, in the form in which these are compared."""
    local, at, domain = entry.rpartition("@")
    return bare(local.lower()) + at + (a_label(domain) or domain.lower())


def read_file(path: Path) -> Members:
    """The set kept in the file `path`: one entry a line, # starts a comment.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is wrong; the text begins with "path:line: ".
    """
    lines = file_lines(path)
    number = 0

    def entries() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(lines, 1):  # noqa: B007 - told where an entry is wrong
            entry = line.partition("#")[0].strip()
            meant(entry)
            if entry:
                yield entry

    try:
        return members(entries())  # which reads each network once: there may be a million
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {error}") from None


@dataclass(slots=True)
class NamedSet(KeptFile):
    """A set that rules name.

    Attributes:
        name: as in the YAML.
        members: what it holds now.
        dynamic: it is kept in the state store.
        entries: of a dynamic one, how many the store had when it was taken; members may be fewer: case does not count.
    """

    name: str
    members: Members = field(default_factory=Members)
    dynamic: bool = False
    entries: int = 0

    @property
    def size(self) -> int:
        """How many entries it holds."""
        return len(self.members)

    def take(self, path: Path) -> None:
        """Read its file."""
        self.members = read_file(path)

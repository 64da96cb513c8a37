"""Named sets: is this address, domain or word one of those?

Entries are IP addresses and networks, words (compared without case; domains as A-labels), or `.example.org`,
which means every name below example.org.  A set of a million entries answers in about a microsecond: words
are hashed, networks are hashed once for each prefix length that occurs.

Inline sets never change.  A file is read again when it changes; a broken new version is reported and the
old one stays.  A dynamic set is a snapshot of the state store, taken anew when the store's version moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from stat import S_ISREG

from elemta.addresses import a_label
from elemta.config.types import network
from elemta.findings import Value

_LOOKS_LIKE_IP = re.compile(r"[0-9a-fA-F]*[:.][0-9a-fA-F:.]*(?:/\d{1,3})?")
_HAS_NETWORK = re.compile(r"[0-9a-fA-F:.]+/\d{1,3}")


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
            return _in_networks(int(value), self.networks6)
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


def members(entries: Iterable[str]) -> Members:
    """Make the set of `entries`.

    Raises:
        ValueError: an entry that is meant as a network is none ("10.0.0.1/8"); the text names it.
    """
    words: set[str] = set()
    suffixes: set[str] = set()
    networks: dict[tuple[int, int], set[int]] = {}
    for entry in entries:
        if _LOOKS_LIKE_IP.fullmatch(entry) and _network(entry, networks):
            continue
        if entry.startswith(".") and len(entry) > 1:
            suffixes.add(a_label(entry[1:]) or entry[1:].lower())
        else:
            words.add(entry.lower() if entry.isascii() else _word(entry))
    by_version: dict[int, list[tuple[int, frozenset[int]]]] = {4: [], 6: []}
    for (version, shift), numbers in sorted(networks.items()):
        by_version[version].append((shift, frozenset(numbers)))
    return Members(frozenset(words), frozenset(suffixes), tuple(by_version[4]), tuple(by_version[6]))


def _network(entry: str, networks: dict[tuple[int, int], set[int]]) -> bool:
    """File `entry` under its prefix length if it is an address or a network."""
    try:
        named = network(entry)
    except ValueError:
        if _HAS_NETWORK.fullmatch(entry):
            raise
        return False
    shift = named.max_prefixlen - named.prefixlen
    networks.setdefault((named.version, shift), set()).add(int(named.network_address) >> shift)
    return True


def _word(entry: str) -> str:
    """A word with letters beyond ASCII: its domain as A-labels."""
    local, at, domain = entry.rpartition("@")
    return local.lower() + at + (a_label(domain) or domain.lower())


def read_file(path: Path) -> Members:
    """The set kept in the file `path`: one entry a line, # starts a comment.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is wrong; the text begins with "path:line: ".
    """
    entries: list[str] = []
    for number, line in enumerate(file_lines(path), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        if _HAS_NETWORK.fullmatch(entry):
            try:
                network(entry)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
        entries.append(entry)
    return members(entries)


def file_lines(path: Path) -> list[str]:
    """The lines of a file that people write.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file; reading a pipe would wait for ever.
    """
    if not S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a file; name a file")
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


@dataclass(slots=True)
class NamedSet:
    """A set that rules name; its members may be exchanged while mail goes by.

    Attributes:
        name: as in the YAML.
        members: what it holds now.
        path: the file it is kept in, None for inline and dynamic sets.
        dynamic: it is kept in the state store.
        stamp: the file's mark (change time in ns, size, inode) when it was read.
    """

    name: str
    members: Members = field(default_factory=Members)
    path: Path | None = None
    dynamic: bool = False
    stamp: tuple[int, int, int] = (0, 0, 0)

    @property
    def size(self) -> int:
        """How many entries it holds."""
        return len(self.members)

    def changed(self) -> bool:
        """The file is not the one that was read. A file that is gone counts as unchanged: the entries stay.

        Called from a thread: it asks the file system.
        """
        try:
            return self.path is not None and file_stamp(self.path) != self.stamp
        except OSError:
            return False

    def reread(self) -> None:
        """Read the file again.

        Raises:
            OSError, ValueError: it cannot be used; the entries stay, and the same file is not tried again.
        """
        if self.path is None:
            return
        self.stamp = file_stamp(self.path)
        self.members = read_file(self.path)


def file_stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file's content does: (change time in ns, octets, inode).

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino

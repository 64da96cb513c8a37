"""Patterns: is this address or name one of those that the administrator wrote down?

A word is an address, a domain or a login name; * stands for any characters and ? for one.  Case does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from elemta.addresses import a_label, split
from elemta.rules.patterns import glob

Matches = Callable[[str], bool]


def matcher(words: str | Collection[str]) -> Matches:
    """Tell of a text whether it is one of `words`."""
    wanted = [words.lower()] if isinstance(words, str) else [word.lower() for word in words]
    exact = frozenset(a_label(word) or word for word in wanted) | frozenset(wanted)
    globs = [glob(word) for word in wanted if "*" in word or "?" in word]

    def matches(text: str) -> bool:
        text = text.lower()
        return text in exact or any(looks_like(text) for looks_like in globs)

    return matches


def address_matcher(words: str | Collection[str]) -> Matches:
    """Tell of an address whether it, or its domain ("example.org", "@example.org"), is one of `words`.

    The null sender is "<>".
    """
    matches = matcher([_comparable(word) for word in ([words] if isinstance(words, str) else words)])

    def matches_address(address: str) -> bool:
        return matches(_comparable(split(address)[1])) or matches(_comparable(address) if address else "<>")

    return matches_address


def _comparable(word: str) -> str:
    """An address or a domain, its domain as A-labels."""
    local, at, domain = word.rpartition("@")
    name = a_label(domain) or domain
    return f"{local}{at}{name}" if local else name

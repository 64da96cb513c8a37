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
    """Tell of an address whether it, or its domain, is one of `words`; "<>" is the null sender."""
    matches = matcher(words)

    def matches_address(address: str) -> bool:
        local, domain = split(address)
        name = a_label(domain) or domain
        return matches(name) or matches(f"{local}@{name}" if address else "<>")

    return matches_address

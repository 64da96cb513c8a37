"""Shop: where are the rings of keys, which of the keys does the configuration name, and who asks the DNS for them?"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

from elemta.cli import fail
from elemta.cli._despite import settings_despite
from elemta.config.model import KeyRing, Settings
from elemta.config.problems import ConfigErrors
from elemta.dns import open_resolver
from elemta_milter.keyring.duties import in_use
from elemta_milter.keyring.publication import Publication, look
from elemta_milter.keyring.ring import STATES, Ring, RingError, read

_OURS = ("sign", "seal", "dns", "user")
"""Sections that say something of keys."""


class Shop:
    """Where the rings are, and who asks the DNS."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.settings = _settings(args.config)
        self.parent = Path(args.keys) if args.keys else Path(args.config).parent / "keys"
        self.now = time.time()

    def directory(self, domain: str) -> Path:
        """Where the ring of a domain is: where `sign:` says, else below the keys' directory.

        Raises:
            RingError: another domain's ring is there.
        """
        named = [directory for name, directory in self.named() if name == domain]
        directory = named[0] if named else self.parent / domain
        if (directory / STATES).exists() and (found := read(directory).domain) != domain:
            raise RingError(f"{directory} holds the keys of {found}, not of {domain}")
        return directory

    def named(self) -> list[tuple[str, Path]]:
        """The rings that `sign:` names, with their domains."""
        rings = ((entry.domain.lower(), entry.keys) for entry in self.settings.sign)
        return [(domain, Path(keys.directory)) for domain, keys in rings if isinstance(keys, KeyRing)]

    def in_use(self, ring: Ring) -> set[str]:
        """Selectors of the keys that the configuration names one by one."""
        return in_use(self.settings, ring)

    def rings(self, domain: str | None) -> list[Ring]:
        """The ring of `domain`, or all there are.

        Raises:
            RingError: one cannot be read; there is none of that domain.
        """
        if domain is not None:
            return [read(self.directory(domain))]
        found = sorted(path for path in _inside(self.parent) if (path / STATES).exists())
        every = {directory.resolve(): directory for directory in (*found, *(path for _, path in self.named()))}
        return [read(directory) for directory in every.values()]

    def published(self, rings: Iterable[Ring]) -> dict[str, Publication]:
        """What the DNS says of every key, by the name of its record."""
        wanted = {ring.name(key): key.record for ring in rings for key in ring.keys}

        async def ask() -> dict[str, Publication]:
            resolver = open_resolver(self.settings.dns)
            try:
                return await look(resolver, wanted)
            finally:
                await resolver.close()

        return asyncio.run(ask())


def _inside(directory: Path) -> list[Path]:
    """What is in a directory that may be missing; one that may not be read raises OSError, as `glob` would not."""
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def _settings(path: str) -> Settings:
    """The settings, or the defaults where there are none yet, or those that matter are wrong."""
    try:
        return settings_despite(path, lambda place: place[0] in _OURS)
    except ConfigErrors as errors:
        if Path(path).exists():
            fail(f"{errors}\nelemta dkim: goes on as if nothing stood in {path}", os.EX_OK)
        return Settings(host="unknown.invalid")

"""The ring: which keys has this domain, where are they, and how far has each come?

A directory of one domain, `keys/example.org/`, with one PEM file a key and `keys.json`, which says of each key its
state and since when.  Owned by the daemon's user, readable by nobody else.  Written whole and exchanged at once, under
a lock, so that two commands or a reload in between see one state or the other.

    new        made; nobody has seen its record in the DNS yet
    published  the record was seen
    active     signs
    retiring   signs no more; its record must stay until the mail that it signed has arrived everywhere
    retired    the private key is gone; the record may go
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

STATES = "keys.json"
LONGEST = 1 << 20
"""Octets of `keys.json` that are read; a key takes 250."""
_HALF_WRITTEN = re.compile(r"\.(?:keys\.json|.+\.pem)\.[a-z0-9_]{8}")
"""Names of the files that `replacing` writes."""


class State(StrEnum):
    """How far a key has come; see the module's docstring."""

    NEW = "new"
    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


WAITING = (State.NEW, State.PUBLISHED)
"""States of keys that will sign."""


class RingError(Exception):
    """This ring cannot be used; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the ring.

    Attributes:
        selector: s=.
        kind: "rsa" or "ed25519".
        file: the file's name in the directory.
        record: the TXT record to publish.
        state: how far it has come.
        since: when it came to each state, seconds since 1970, by state.
    """

    selector: str
    kind: str
    file: str
    record: str
    state: State = State.NEW
    since: dict[str, int] = field(default_factory=dict)

    def now(self, state: State, at: float) -> Key:
        """The same key in another state."""
        return replace(self, state=state, since={**self.since, state.value: int(at)})

    def age(self, at: float) -> float:
        """Seconds in its state."""
        return max(0.0, at - self.since.get(self.state, at))


@dataclass(frozen=True, slots=True)
class Ring:
    """The keys of one domain.

    Attributes:
        directory: where they are.
        domain: whose they are, A-labels.
        keys: all of them, retired ones too, in the order in which they were made.
    """

    directory: Path
    domain: str
    keys: tuple[Key, ...] = ()

    def of(self, *states: State) -> tuple[Key, ...]:
        """The keys in these states."""
        return tuple(key for key in self.keys if key.state in states)

    def path(self, key: Key) -> Path:
        """Where the private key is."""
        return self.directory / key.file

    def name(self, key: Key) -> str:
        """Where the public key is published (RFC 6376 section 3.6.2.1)."""
        return f"{key.selector}._domainkey.{self.domain}"

    def find(self, selector: str) -> Key:
        """The key with this selector.

        Raises:
            RingError: there is none.
        """
        for key in self.keys:
            if key.selector == selector:
                return key
        known = ", ".join(key.selector for key in self.keys) or "none"
        raise RingError(f"{self.domain} has no key {selector}; it has {known}")


def read(directory: Path) -> Ring:
    """The ring in `directory`.

    Raises:
        RingError: there is none, or what says so cannot be read.
    """
    path = directory / STATES
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST)
    except FileNotFoundError:
        raise RingError(f"{directory} is no ring of keys; make one with `elemta dkim new DOMAIN`") from None
    except OSError as error:
        raise RingError(f"cannot read {path}: {error.strerror}") from None
    try:
        said = json.loads(text)
        return Ring(directory, str(said["domain"]), tuple(_key(each) for each in said["keys"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RingError(f"{path} is broken ({type(error).__name__}: {error}); take it from a backup") from None


def active(directory: str, domain: str) -> list[tuple[str, str]]:
    """Selectors and files of the keys that sign for `domain`.

    Raises:
        RingError: there is none, or the ring is another domain's.
    """
    ring = read(Path(directory))
    if ring.domain != domain.lower():
        raise RingError(f"{directory} holds the keys of {ring.domain}, not of {domain}")
    found = [(key.selector, str(ring.path(key))) for key in ring.of(State.ACTIVE)]
    if not found:
        raise RingError(f"no key in {directory} is active; `elemta dkim rotate {domain}` once the DNS shows one")
    return found


def _key(said: dict[str, Any]) -> Key:
    key = Key(**{**said, "state": State(said["state"])})
    msgspec.convert(said, Key)  # are its values of their types?
    if Path(key.file).name != key.file:
        raise ValueError(f'"{key.file}" is no name of a file')
    return key


def write(ring: Ring, owner: tuple[int, int] | None = None) -> None:
    """Put the ring's states in the place of what its directory said.

    Args:
        ring: the ring; its directory is there.
        owner: user and group id of the new file, None for our own.

    Raises:
        OSError: it cannot be written.
    """
    keys = [{**asdict(key), "state": key.state.value} for key in ring.keys]
    text = json.dumps({"domain": ring.domain, "keys": keys}, indent=1) + "\n"
    with replacing(ring.directory / STATES, owner) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path, owner: tuple[int, int] | None) -> Iterator[Any]:
    """A new file with mode 0600 that takes the place of `path` at the end, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other commands away from this ring. The lock is on the directory itself and ends with the process.

    What a command that was killed had half written, private keys among it, is removed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path in directory.iterdir():
            if _HALF_WRITTEN.fullmatch(path.name):
                with suppress(OSError):  # whoever may only read is not in its way
                    path.unlink()
        yield
    finally:
        os.close(descriptor)

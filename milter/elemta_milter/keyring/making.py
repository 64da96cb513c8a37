"""Making: a new private key for this domain, in a file that only the daemon may read.

RSA with 2,048 bits or more (RFC 8301 section 3.2), Ed25519 (RFC 8463).  A selector is never used twice, since old mail
would be measured by the new key: it holds the day it was made on.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from elemta_milter.keyring.ring import Key, Ring, State, replacing
from elemta_milter.mailauth.signing import PrivateKey, SigningKey

KINDS = ("rsa", "ed25519")
BITS = 2048


def make(ring: Ring, kind: str, at: float, *, bits: int = BITS, selector: str = "") -> tuple[Ring, Key]:
    """Make a key and write its file; gives the ring with it, which is still to be written.

    Args:
        ring: the ring; its directory is there.
        kind: "rsa" or "ed25519".
        at: now, seconds since 1970.
        bits: of RSA.
        selector: s=; default: the first letter of the kind and the day, such as r20261123.

    Raises:
        SigningError: the selector is no name in the DNS.
        FileExistsError: there is a key with this selector.
        OSError: the file cannot be written.
    """
    taken = {key.selector for key in ring.keys}
    taken.update(path.stem for path in ring.directory.glob("*.pem"))  # a key that was made when the power failed
    selector = selector or _selector(kind, at, taken)
    private: PrivateKey = Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, bits)
    signing = SigningKey(ring.domain, selector, private)
    key = Key(signing.selector, kind, f"{signing.selector}.pem", signing.record).now(State.NEW, at)
    path = ring.path(key)
    if key.selector in taken:
        raise FileExistsError(None, "there is a key with this selector", str(path))
    with replacing(path, owner_of(ring.directory)) as file:
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Ring(ring.directory, ring.domain, (*ring.keys, key)), key


def _selector(kind: str, at: float, taken: Collection[str]) -> str:
    plain = f"{kind[0]}{datetime.fromtimestamp(at, UTC):%Y%m%d}"
    more = (plain + letter for letter in ("", *"abcdefghijklmnopqrstuvwxyz"))
    return next((name for name in more if name not in taken), f"{kind[0]}{int(at)}")


def directory_for(directory: Path, user: str) -> Path:
    """The directory of a domain's ring, made with its parent for the daemon's `user` where it is missing.

    Raises:
        OSError: it cannot be made.
    """
    account = _account(user)
    for each in (directory.parent, directory):
        if not each.is_dir():
            each.mkdir(mode=0o700, parents=True)
            if account is not None:
                os.chown(each, *account)
    return directory


def owner_of(directory: Path) -> tuple[int, int] | None:
    """Who owns the directory, where we may give files away; else None."""
    if os.geteuid() != 0:
        return None
    status = directory.stat()
    return status.st_uid, status.st_gid


def _account(user: str) -> tuple[int, int] | None:
    """User and group id to give files to; None where we are not root or there is no such user."""
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return None
    return account.pw_uid, account.pw_gid

"""Key files: is this private key one that we may sign with?

Reads one PEM file when the configuration is loaded.  A key that somebody else can read is refused, and one that the
daemon could not read again at a reload; never reads a key while mail is waiting.
"""

from __future__ import annotations

import os
import pwd
import stat

from elemta_milter.mailauth.signing import PrivateKey, SigningError, load_private_key

LONGEST = 64 << 10
"""Octets of a key file that are read; RSA with 16,384 bits takes 13,000."""


class KeyFileError(Exception):
    """This key cannot be used; the text says why, and what to do."""


def load(path: str, user: str) -> PrivateKey:
    """Load the private key in the file `path` for a daemon that runs as `user`.

    Raises:
        KeyFileError: it is missing, broken, too short, or not secret.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(f"cannot read the key {path}: {error.strerror}") from None
    try:
        _secret(os.fstat(descriptor), path, _account(user))  # of what was opened, whatever the name means by now
        pem = os.read(descriptor, LONGEST)
    finally:
        os.close(descriptor)
    try:
        return load_private_key(pem)
    except SigningError as error:
        raise KeyFileError(f"{path}: {error}") from None


def _account(user: str) -> tuple[int, int]:
    """User and group id of the daemon when mail arrives."""
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            pass  # it stays root
        else:
            return account.pw_uid, account.pw_gid
    return os.geteuid(), os.getegid()


def _secret(about: os.stat_result, path: str, account: tuple[int, int]) -> None:
    uid, gid = account
    if not stat.S_ISREG(about.st_mode):
        raise KeyFileError(f"{path} is no file")
    mode = stat.S_IMODE(about.st_mode)
    if mode & 0o007:
        raise KeyFileError(f"everybody may use the key {path} (mode {mode:04o}); chmod 0600 it")
    if mode & 0o070 and about.st_gid != gid:
        raise KeyFileError(
            f"a group that is not the daemon's may use the key {path} (mode {mode:04o}); chmod 0600 it, or chgrp it"
        )
    if uid not in (0, about.st_uid) and not mode & 0o040:
        raise KeyFileError(f"the daemon could not read the key {path} again at a reload; chown it to the daemon's user")

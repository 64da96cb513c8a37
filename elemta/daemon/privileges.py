"""Privileges: who are we when mail arrives?  Started as root, we become the configured user."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

_log = logging.getLogger("elemta.daemon.privileges")


class PrivilegeError(Exception):
    """The configured user cannot be become."""


def prepare(directories: Iterable[Path], user: str, group: str = "") -> None:
    """Make the directories we write to; where we are root, owned by `user`, and of `group` if that is named.

    A directory that is there already is left as it is.

    Raises:
        OSError: one cannot be made.
    """
    for directory in directories:
        if directory.is_dir():
            continue
        directory.mkdir(parents=True, mode=0o750)
        account = _account(user)
        if os.geteuid() == 0 and account is not None:
            os.chown(directory, account.pw_uid, _group(group) or account.pw_gid)


def drop(user: str, *, named: bool) -> None:
    """Become `user` if we are root; for ever.

    Args:
        user: the account's name.
        named: the configuration names it, so a missing account is an error and not only a warning.

    Raises:
        PrivilegeError: there is no such account.
    """
    if os.geteuid() != 0 or user == "root":
        return
    account = _account(user)
    if account is None:
        if named:
            raise PrivilegeError(f'there is no user "{user}"; create it, or set `user:` to one that exists')
        _log.warning("there is no user %s: staying root; create it, or set `user:`", user)
        return
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def whoami() -> str:
    """Who this process is, for people."""
    try:
        return f"the user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"the user with the number {os.geteuid()}"


def _group(name: str) -> int:
    """The number of a group; 0 if there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid if name else 0
    except KeyError:
        return 0


def _account(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None

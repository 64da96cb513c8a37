"""Sockets: where do we listen, who may connect, and is the place free?"""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from elemta.config.types import Listen

_log = logging.getLogger("elemta.daemon.sockets")
BACKLOG = 1024


class SocketError(OSError):
    """We cannot listen there; the text says why and what to do."""


class _Unix(socket.socket):
    """A listener on a unix socket.

    Attributes:
        made: the file that it made: device and inode, which are no other file's while the socket is open.
    """

    made: tuple[int, int] = 0, 0


def listen(where: Listen, group: str) -> socket.socket:
    """Open a listening, non-blocking socket that forked workers can share.

    A unix socket gets mode 0660 and the group `group`, so that Postfix may connect and nobody else; a stale one
    (nobody answers) is replaced, a living one is not.

    Raises:
        SocketError: the place is taken, or not ours to write.
    """
    try:
        opened = _unix(Path(where.path), group) if where.path else _inet(where)
        opened.listen(BACKLOG)
    except OSError as error:
        if isinstance(error, SocketError):
            raise
        raise SocketError(error.errno, f"cannot listen on {where}: {error.strerror}") from error
    opened.setblocking(False)  # a worker that loses the race for a connection must not be parked in accept()
    return opened


def _inet(where: Listen) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux hands it on to accepted connections
    opened.bind((where.host, where.port))
    return opened


def _unix(path: Path, group: str) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _remove_stale(path)
    opened = _Unix(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        opened.bind(str(path))
    finally:
        os.umask(before)
    opened.made = _file(path)
    _give_to(path, group)
    return opened


def _file(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise SocketError(errno.EEXIST, f"{path} exists and is no socket; remove it or listen elsewhere")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise SocketError(error.errno, f"{path}: {error.strerror}") from error
    raise SocketError(errno.EADDRINUSE, f"another process listens on {path}; stop it first")


def _give_to(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        _log.warning("there is no group %s: only our own group may connect to %s", group, path)
    except PermissionError:
        _log.warning("not allowed to give %s to the group %s: start as root, or join that group", path, group)


def unreachable(opened: socket.socket, where: Listen) -> str:
    """Why nobody can connect to this listener: its file was taken away; "" where it is there, or out of sight."""
    try:
        if isinstance(opened, _Unix):
            Path(where.path).lstat()
    except FileNotFoundError:
        return f"nobody can connect, {where.path} was taken away; reload to have it again"
    except OSError:
        pass  # in a directory into which only who started us may look
    return ""


def shut(opened: socket.socket) -> None:
    """Turn away who waits to be accepted and who comes from now on, whichever processes hold the listener open too."""
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
        while True:  # those that wait at a unix socket
            opened.accept()[0].close()


def remove(opened: socket.socket, where: Listen) -> None:
    """Close a listener for good and take its file away; one that is not ours to take stays, and is stale.

    Somebody may listen there again, since nobody answered any more: then the file is his.
    """
    shut(opened)
    with suppress(OSError):
        if isinstance(opened, _Unix) and _file(Path(where.path)) == opened.made:
            Path(where.path).unlink()
    opened.close()

"""The daemons' skeleton: command line, configuration, logging, sockets, privileges, then the supervisor.

    def main() -> int:
        return daemon.run(MilterService())

Runs in the foreground and logs to standard error.  Exit statuses are those of sysexits.h: 64 usage, 66 no
configuration file, 67 no such user, 71 the system refused (a socket, a directory), 78 the configuration is wrong.
"""

from __future__ import annotations

import argparse
import errno
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

from elemta import streams
from elemta.config.load import loaded_and
from elemta.config.problems import ConfigErrors
from elemta.config.state_url import state_place
from elemta.daemon import privileges, sockets
from elemta.daemon.observing import Observing, section
from elemta.daemon.status import metrics_directory
from elemta.daemon.supervisor import Supervisor
from elemta.daemon.worker import Service
from elemta.observe.outlet import detach
from elemta.policy import Policy
from elemta.store.urls import preload
from elemta.version import VERSION, refuse_python

DEFAULT_CONFIG = "/etc/elemta/elemta.yaml"
FILES = 65_536
"""Open files of one process, connections included; systemd begins with 1,024 and allows 524,288."""


def run(service: Service) -> int:
    """Be the daemon `service` until SIGTERM; the exit status."""
    streams.claim()
    refuse_python()
    path, was_root = _arguments(service).config, os.geteuid() == 0
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # a reload asked for too early waits for the supervisor
    try:
        policy = loaded_and(Policy.compile, path)
        settings = policy.settings
        own = section(settings, service.name)
        detach()
        watch = Observing(settings, service.name)
        privileges.prepare(_directories(policy), settings.user)
        if own.listen.path:
            privileges.prepare([Path(own.listen.path).parent], settings.user, own.group)
        listener = sockets.listen(own.listen, own.group)
        preload(settings.state)
        _more_files()
        privileges.drop(settings.user, named="user" in settings.model_fields_set)
        watch.start_metrics()
    except ConfigErrors as error:
        return _fail(str(error), error.status)
    except privileges.PrivilegeError as error:
        return _fail(str(error), os.EX_NOUSER)
    except OSError as error:
        return _fail(error.strerror if isinstance(error, sockets.SocketError) else _told(error, was_root), os.EX_OSERR)

    def load() -> Policy:
        policy = loaded_and(Policy.compile, path)
        privileges.prepare(_directories(policy), policy.settings.user)
        return policy

    supervisor = Supervisor(service, load, watch)
    try:
        return supervisor.run(policy, listener)
    finally:
        last = supervisor.current  # a reload may have led elsewhere
        sockets.remove(*((last.listener, last.listen) if last else (listener, own.listen)))
        watch.gone()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n")


def _arguments(service: Service) -> argparse.Namespace:
    parser = _Parser(
        prog=f"elemta-{service.name}",
        description=(type(service).__doc__ or "").partition("\n")[0],
        epilog="SIGHUP reads the configuration again, all or nothing. SIGTERM finishes what is under way and ends.",
    )
    default = os.environ.get("ELEMTA_CONFIG") or DEFAULT_CONFIG
    text = f"the configuration (default: $ELEMTA_CONFIG, or {DEFAULT_CONFIG})"
    parser.add_argument("--config", default=default, metavar="FILE", help=text)
    parser.add_argument("--version", action="version", version=f"elemta {VERSION}")
    return parser.parse_args()


def _directories(policy: Policy) -> list[Path]:
    """Where this daemon writes."""
    settings = policy.settings
    found = [Path(settings.journal.path).parent, Path(settings.spool), Path(metrics_directory(settings))]
    place = state_place(settings.state)
    if place.scheme == "sqlite":
        found.append(Path(place.path).parent)
    return found


def _more_files() -> None:
    """Let each process open as many files as the system lets us: it begins with fewer than one worker may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _told(error: OSError, was_root: bool) -> str:
    """Say what the system refused, and where there is a choice."""
    told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        told += "; " if was_root else "; start as root, "
        told += f"make it writable for {privileges.whoami()}, "
        told += "or name other places: state, journal, spool, metrics, listen"
    return told


def _fail(text: str | None, status: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - before the log is set up
    return status

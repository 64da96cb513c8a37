"""Birth: how does a worker or a keeper come into the world, with what of its parent's, and how is it told to go?

    process = fork(service, generation, slot, forget)
    send_away(process, inbox)

The child never returns from `fork`: it works until it is told to go, and ends by os._exit, because threads of
libmilter must not hold it up.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from elemta.daemon.generation import KEEPER, Generation, Process
from elemta.daemon.observing import be_keeper
from elemta.daemon.worker import PATIENCE, READY, RETIRE, Post, Service, work

GRACE = 35.0
"""Seconds that a worker may take to go before it is killed; at a reload, to take no connection any more."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_log = logging.getLogger("elemta.daemon.birth")


def fork(service: Service, generation: Generation, slot: int, forget: Callable[[], None]) -> Process:
    """Fork the process of this slot; the parent's side of it.

    `forget` is called in the child, to close what is the parent's alone.

    Raises:
        OSError: the system has no room for it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for stream in sys.stdout, sys.stderr:  # what a plugin has printed would come from the child, too
        with suppress(OSError):  # nobody reads it any more, or the disk is full
            stream.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # what comes to the child while it has our handlers is lost
    try:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _live(service, generation, slot, theirs, forget)
    except OSError:
        ours.close()
        theirs.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    theirs.close()
    return Process(pid, slot, ours, time.monotonic())


def send_away(process: Process, inbox: socket.socket | None) -> None:
    """Tell it to go; a worker to hand its connections to the generation that reads `inbox`, where there is one."""
    replaced = inbox is not None and process.slot != KEEPER
    process.goes(GRACE, PATIENCE if replaced else 0.0)
    try:
        if inbox is not None and replaced:
            socket.send_fds(process.control, [RETIRE], [inbox.fileno()])
        else:
            os.kill(process.pid, signal.SIGTERM)
    except OSError:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _live(
    service: Service, generation: Generation, slot: int, control: socket.socket, forget: Callable[[], None]
) -> NoReturn:
    status = os.EX_SOFTWARE
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        forget()
        if slot == KEEPER:
            status = be_keeper(generation.policy.settings, service.name, control, READY)
        else:
            post = Post(slot, generation.policy, generation.listener, control, generation.inbox[0])
            status = work(service, post)
    except BaseException:  # noqa: BLE001 - whatever it was, a child must end here
        _log.exception("process for slot %d failed", slot)
    finally:
        os._exit(status)

"""Trying: does the code of a plugin let the process live that imports it?

A configuration with plugins is read by processes that must not die of it: the supervisor, the command line.  So code
is first imported in a process that is forked for nothing else.  What it raises is told by whoever imports it next.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from elemta.printable import signal_name

SECONDS = 20.0
"""How long an import may take."""
_LIVES = 87  # exit status of a process that has come to its end


def fatal(load: Callable[[], object]) -> str:
    """Why `load` must not be called in this process; "" when it may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: there are threads; the child takes no locks
        pid = os.fork()
    if pid == 0:
        _try(load)
    ended = select.poll()
    descriptor = os.pidfd_open(pid)
    ended.register(descriptor, select.POLLIN)
    late = not ended.poll(SECONDS * 1000)
    os.close(descriptor)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # and what it may have started
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if late:
        return f"its code does not come to an end within {SECONDS:g} s"
    if code < 0:
        return f"its code ends the process that runs it by {signal_name(-code)}"
    return "" if code == _LIVES else f"its code ends the process that runs it, with exit status {code}"


def _try(load: Callable[[], object]) -> None:
    """Be the process that imports it; never returns."""
    try:
        os.setsid()
        faulthandler.disable()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        nowhere = Path(os.devnull).open("r+")  # noqa: SIM115 - until the process ends
        for standard in (0, 1, 2):
            os.dup2(nowhere.fileno(), standard)
        sys.stdout = sys.stderr = nowhere
        load()
    except BaseException:  # noqa: BLE001, S110 - it is raised, and told, once more where it is really imported
        pass
    finally:
        os._exit(_LIVES)

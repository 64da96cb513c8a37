"""A plugin's process, seen from the worker: ask it, and know when it does not answer as it should.

One question at a time.  Whatever goes wrong ends the process, with all that it has started: a plugin that hangs in a
loop or in C code can be ended in no other way.  What it wrote that is no answer ends it too, also when nothing was
asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from elemta.plugins.answer import ANSWER, read_answer
from elemta.plugins.chatter import Chatter
from elemta.plugins.child import READY
from elemta.plugins.wire import Json, in_memory
from elemta.printable import signal_name

START = 20.0  # seconds in which it must be ready
LEAVE = 2.0  # seconds in which it must end when it is asked to
_MARK = "ELEMTA_PLUGIN_PROCESS"
"""A variable by which the processes are known that a plugin has started."""
_LOOK = 0.02  # seconds between two looks whether it has ended


class ProcessError(OSError):
    """The process did not answer; the text says why. It is gone."""


class Process:
    """One process of one plugin. Lives on the loop.

    Attributes:
        gone: it cannot be asked any more.
        asked: questions so far.
        tired: it has asked to be replaced: its memory grows.
        depends: what the plugin said that it depends on, with the last answer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.gone = False
        self.asked = 0
        self.tired = False
        self.depends: Mapping[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._waiting: asyncio.Future[bytes] | None = None
        self._mark = f"{_MARK}={os.urandom(8).hex()}"
        ours, pipe = os.pipe2(os.O_CLOEXEC)
        try:
            # On the loop's own thread: the kernel ends the child when the thread that started it ends.
            self._popen = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", "elemta.plugins.child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                pass_fds=[theirs.fileno()],
                env=_environment(self._mark),
                start_new_session=True,
            )
        except OSError:
            self._socket.close()
            os.close(ours)
            raise
        finally:
            theirs.close()
            os.close(pipe)
        self._chatter = Chatter(name, ours)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    async def start(self, what: Json) -> None:
        """Tell it what to be, and wait until it is.

        Raises:
            ProcessError: it cannot be that, or takes too long.
        """
        answer = await self._exchange(b"be", what, None, time.monotonic() + START)
        if answer != READY:
            try:
                why = str(read_answer(answer).get("failed"))
            except ValueError as error:
                why = str(error)
            raise self._end(f"it cannot start: {why}")

    async def ask(self, question: Json, body: int | None, until: float) -> Json:
        """Its answer.

        Args:
            question: for `child.py`; the number is added here.
            body: a descriptor of the mail's body; stays open here.
            until: `time.monotonic()` at which it is ended when it has not answered.

        Raises:
            ProcessError: it did not answer, or what it wrote is no answer.
        """
        self.asked += 1
        octets = await self._exchange(b"see", {**question, "number": self.asked}, body, until)
        try:
            answer = read_answer(octets)
        except ValueError as error:
            raise self._end(f"it wrote what is no answer: {error}") from None
        if answer.get("number") != self.asked:
            raise self._end("it wrote what is no answer to this question")
        self.tired = answer.get("tired") is True
        depends = answer.get("depends")
        if isinstance(depends, dict):
            self.depends = {str(key)[:100]: str(why)[:500] for key, why in list(depends.items())[:20]}
        return answer

    async def leave(self) -> None:
        """Let it close what it has open and end; end it when it does not."""
        if not self.gone:
            self._let_go()
            await self._ended(LEAVE)
        self.kill()
        until = time.monotonic() + LEAVE
        while self._popen.poll() is None and time.monotonic() < until:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(_LOOK)

    def kill(self) -> None:
        """End it and all that it has started, now."""
        self._let_go()
        if self._popen.returncode is None:  # not reaped: the number is still its own, and its group's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            _kill_marked(self._mark.encode())
        self._reap()

    async def _exchange(self, word: bytes, what: Json, body: int | None, until: float) -> bytes:
        self._waiting = self._loop.create_future()
        try:
            descriptor = in_memory(json.dumps(what).encode())
            try:
                socket.send_fds(self._socket, [word], [descriptor] if body is None else [descriptor, body])
            finally:
                os.close(descriptor)
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                octets = await self._waiting
        except TimeoutError:
            raise self._end("it did not answer in time and was killed") from None
        except OSError as error:  # it ended just now
            raise self._end(await self._how_it_ended(str(error))) from None
        finally:
            self._waiting = None
        if not octets:
            raise self._end(await self._how_it_ended("it closed its socket"))
        return octets

    def _readable(self) -> None:
        try:
            octets = self._socket.recv(ANSWER + 1)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets and not self.gone:
            self._loop.remove_reader(self._socket)  # or the end is read again and again
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(octets)
        else:
            self.kill()  # it has ended, or wrote what nobody asked for

    async def _how_it_ended(self, otherwise: str) -> str:
        by_itself = await self._ended(1.0)
        self.kill()
        status = self._popen.poll()
        if status is None or not by_itself:
            return otherwise
        return f"it was ended by {signal_name(-status)}" if status < 0 else f"it ended with exit status {status}"

    async def _ended(self, patience: float) -> bool:
        """Wait whether it ends, without taking its exit status: so long its group can be ended safely."""
        until = time.monotonic() + patience
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):  # WNOHANG: nothing here blocks
            while os.waitid(os.P_PID, self.pid, look) is None and time.monotonic() < until:  # noqa: ASYNC110, ASYNC222
                await asyncio.sleep(_LOOK)
            return os.waitid(os.P_PID, self.pid, look) is not None  # noqa: ASYNC222
        return True

    def _end(self, why: str) -> ProcessError:
        self.kill()
        return ProcessError(why)

    def _let_go(self) -> None:
        if not self.gone:
            self.gone = True
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _reap(self) -> None:
        """Take its exit status, so that no zombie stays; its last words are read then."""
        if self._popen.poll() is None:
            self._loop.call_later(_LOOK, self._reap)
        else:
            self._chatter.close()


def _kill_marked(mark: bytes) -> None:
    """End what left the group: a process keeps the environment with which its program began, whoever its parent is."""
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in (each / "environ").read_bytes().split(b"\0"):
                os.kill(int(each.name), signal.SIGKILL)


def _environment(mark: str) -> dict[str, str]:
    """Ours, for a process that keeps its address space small and counts no metrics."""
    own = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    own[_MARK] = mark.partition("=")[2]
    return {**own, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}

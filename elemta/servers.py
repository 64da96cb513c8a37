"""Servers: which of several servers of one kind is asked, and which is left alone since it does not answer?

For scanners and others that are asked by a blocking client: each question runs in a thread of this kind's own, so a
kind that hangs takes no threads from another.  A server that failed `FAILURES` times in a row is left alone (its
breaker is open): questions then cost microseconds, not timeouts.  After a pause it gets a ping in the background; if
it answers, one single question is tried on it; an answer closes the breaker, a failure doubles the pause.

A question that one server could not answer goes to the next, as long as there is time.  No server left is trouble.
A server that says that it cannot answer this very question (`Declined`) is well: nothing is counted against it, or
three odd mails would have it left alone.  Nor is a question that had waited for a thread until most of its time was
over: in a burst the last ones do, and the server is only busy.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

FAILURES = 3
PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds
PING_PATIENCE = 5.0  # seconds
THREADS = 8
"""Questions of one kind at once in one worker; more wait their turn within the mail's budget."""
MARGIN = 0.1
"""Seconds, a tenth of the time at most, that a question ends before nobody waits for it: so what is told is which
server did what, not only that time is over."""

_log = logging.getLogger("elemta.servers")


class ServerError(OSError):
    """A server could not be asked, or said what is no answer; another may be asked. The text says what happened."""


class Declined(ServerError):  # noqa: N818 - it says what the server did
    """A server that is well does not answer this one question; another may be asked. The text says why."""


class NoServer(ServerError):  # noqa: N818 - it says what there is not
    """No server answered; the text says of each why."""


@dataclass
class _Server:
    """One server and its breaker.

    Attributes:
        failures: in a row.
        why: what the last failure was; "" while it answers.
        pause: seconds that it is left alone for, once its breaker is open.
        again: when the next ping is due (`time.monotonic`).
        open: it is left alone.
        pinging: a ping is under way.
        trial: a ping was answered; the next question decides.
        trying: that question is under way.
    """

    name: str
    failures: int = 0
    why: str = ""
    pause: float = PAUSE
    again: float = 0.0
    open: bool = False
    pinging: bool = False
    trial: bool = False
    trying: bool = False
    since: float = field(default_factory=time.monotonic)


class Servers:
    """All servers of one kind. Open and close it with the check that uses it."""

    def __init__(
        self, kind: str, names: Sequence[str], ping: Callable[[str, float], None], *, balance: bool = False
    ) -> None:
        """Take them.

        Args:
            kind: whose they are, for log lines and threads: the check's name.
            names: how they are told apart, and told to `ping` and to questions: "unix:/run/clamav/clamd.ctl".
            ping: ask the server of this name for a sign of life, until `time.monotonic()` is the second argument;
                raises OSError or EOFError when there is none.
            balance: ask them in turn; else the first that answers is always the first to be asked.
        """
        self._kind = kind
        self._servers = [_Server(name) for name in names]
        self._ping = ping
        self._balance = balance
        self._turn = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, kind)
        self._pings = ThreadPoolExecutor(max(1, len(names)), f"{kind}-ping")

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pings.shutdown(wait=False, cancel_futures=True)

    @property
    def states(self) -> Mapping[str, str]:
        """By name, why it is left alone at present; "" for those that are asked.

        A ping that was answered is enough: where mail is kept away from a host that is not ready, no question would
        ever come to try the server on.
        """
        with self._lock:
            self._ping_due()
            return {each.name: each.why if each.open and not each.trial else "" for each in self._servers}

    async def ask(self, question: Callable[[str, float], T], until: float) -> T:
        """Ask the first server that answers.

        Args:
            question: blocking; takes a server's name and the `time.monotonic()` by which it must be done, and raises
                OSError or EOFError when that server gave no clear answer, `Declined` when that is no fault of the
                server. Called again for another server.
            until: when the whole must be done.

        Raises:
            NoServer: none answered.
        """
        if not self._candidates():  # no thread, no waiting: this is what a dead scanner costs
            raise NoServer(self._story())
        loop, now = asyncio.get_running_loop(), time.monotonic()
        until -= min(MARGIN, max(0.0, until - now) / 10)
        return await loop.run_in_executor(self._threads, self._ask, question, until, now + (until - now) / 2)

    def _ask(self, question: Callable[[str, float], T], until: float, half: float) -> T:
        """Ask; `half`: when half of the time is over."""
        said: list[str] = []
        late = time.monotonic() > half
        candidates = self._in_turn(self._candidates())
        for place, server in enumerate(candidates):
            now = time.monotonic()
            if now >= until:
                said.append("no time is left")
                break
            if not self._take(server):
                continue
            share = now + (until - now) / (len(candidates) - place)
            try:
                answer = question(server.name, share)
            except Declined as error:
                said.append(f"{server.name}: {error}")
                self._give_back(server)
            except (OSError, EOFError) as error:
                why = _words(error)
                said.append(f"{server.name}: {why}")
                if late and time.monotonic() >= share:
                    self._give_back(server)
                else:
                    self._failed(server, why)
            except BaseException:
                self._give_back(server)
                raise
            else:
                self._answered(server)
                return answer
        raise NoServer("; ".join(said) or self._story())

    def _candidates(self) -> list[_Server]:
        with self._lock:
            self._ping_due()
            return [each for each in self._servers if not each.open or (each.trial and not each.trying)]

    def _in_turn(self, candidates: list[_Server]) -> list[_Server]:
        """Who is asked first moves on by one with each question, over those that answer."""
        if not self._balance or not candidates:
            return candidates
        with self._lock:
            self._turn += 1
            first = self._turn % len(candidates)
        return candidates[first:] + candidates[:first]

    def _story(self) -> str:
        now = time.monotonic()
        return "; ".join(
            f"{each.name}: not asked, it has not answered for {now - each.since:.0f} s ({each.why})"
            for each in self._servers
        )

    def _take(self, server: _Server) -> bool:
        """Whether it may be asked; the one question that decides is asked once."""
        with self._lock:
            if server.open:
                if not server.trial or server.trying:
                    return False
                server.trying = True
            return True

    def _give_back(self, server: _Server) -> None:
        with self._lock:
            server.trying = False

    def _answered(self, server: _Server) -> None:
        with self._lock:
            if server.open:
                _log.warning("%s: %s answers again", self._kind, server.name)
            server.failures, server.why, server.pause = 0, "", PAUSE
            server.open = server.trial = server.trying = False

    def _failed(self, server: _Server, why: str) -> None:
        with self._lock:
            if not server.failures:
                server.since = time.monotonic()
            server.failures += 1
            server.why = why
            if server.open and server.trying:
                server.pause = min(server.pause * 2, LONGEST_PAUSE)
                self._open(server)
            elif not server.open and server.failures >= FAILURES:
                _log.error("%s: %s does not answer and is left alone: %s", self._kind, server.name, why)
                self._open(server)

    def _open(self, server: _Server) -> None:
        server.open, server.trial, server.trying = True, False, False
        server.again = time.monotonic() + server.pause

    def _ping_due(self) -> None:
        """Ping those whose pause is over; the lock is held."""
        now = time.monotonic()
        for server in self._servers:
            if server.open and not server.trial and not server.pinging and now >= server.again:
                server.pinging = True
                try:
                    self._pings.submit(self._ping_one, server)
                except RuntimeError:  # closed meanwhile
                    server.pinging = False

    def _ping_one(self, server: _Server) -> None:
        why = ""
        try:
            self._ping(server.name, time.monotonic() + PING_PATIENCE)
        except (OSError, EOFError) as error:
            why = _words(error)
        except Exception as error:  # noqa: BLE001 - a thread of ours must not end in silence
            _log.exception("%s: the ping of %s crashed", self._kind, server.name)
            why = repr(error)
        with self._lock:
            server.pinging = False
            if why:
                server.why = why
                server.pause = min(server.pause * 2, LONGEST_PAUSE)
                server.again = time.monotonic() + server.pause
            else:
                server.trial = True


def _words(error: OSError | EOFError) -> str:
    """What happened, without its number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

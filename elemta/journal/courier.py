"""Journal courier: how does every decision reach the journal without holding up the mail?

Each worker starts a process of its own that writes its decisions to the file (`python -m elemta.journal`, with `Writer`
inside); a thread in the worker would take the interpreter from the mail.  `decided` packs what is kept of a decision;
a quarter of a second later, or as soon as 100 wait, they go through a pipe.  A clean stop loses nothing; kill -9 of
the worker what came in that quarter, kill -9 of the writing process nothing: what it has not acknowledged is kept,
and goes to the next one.

Frames to the process: four octets of length, then msgpack: [fingerprint, words] of a policy, or [again, what `dispatch`
made of decisions].  It answers with a line of JSON when it begins, and one for each attempt to write: `State`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from elemta.decision import Decision
from elemta.journal.dispatch import dispatch
from elemta.journal.write import BOUND, REMIND, RETRY, in_words

INTERVAL = 0.25  # seconds between two deliveries
BATCH = 100  # decisions in one frame; as many waiting are sent at once
ON_THE_WAY = 4000  # decisions sent and not acknowledged; the others wait here, where the oldest can be dropped
OCTETS = 64 << 20  # of those that wait: as many usual ones as BOUND; a hostile mail's is a hundred times as long
OCTETS_ON_THE_WAY = 16 << 20


class State(msgspec.Struct):
    """What the writing process says.

    Attributes:
        settled: decisions that stand in the file, or never will, since it began.
        written: those that stand there.
        failures: attempts that failed.
        trouble: why the file cannot be written now, "" when it can.
        report: for the log, "" for nothing.
    """

    settled: int
    written: int
    failures: int
    trouble: str
    report: str = ""


class Courier:
    """Brings the decisions of one worker to its writing process.

    Attributes:
        written: decisions that stand in the file.
        failures: attempts to write that failed, and processes that ended.
        trouble: why nothing can be written now, "" when it can.
    """

    def __init__(
        self, path: str, report: Callable[[str], None], *, interval: float = INTERVAL, bound: int = BOUND
    ) -> None:
        """Make it; nothing is started yet.

        Args:
            path: the file.
            report: is told of trouble in words.
            interval: seconds between two deliveries.
            bound: decisions to keep in memory while nothing can be written, of OCTETS in all.
        """
        self.path = path
        self.written = 0
        self.failures = 0
        self.trouble = ""
        self._report = report
        self._interval = interval
        self._offered = 0
        self._taken = 0  # from the queue
        self._lost = 0
        self._bound = bound
        self._queue: deque[bytes] = deque()
        self._octets = 0  # in the queue
        self._sent: deque[bytes] = deque()  # on the way
        self._octets_sent = 0
        self._again = 0  # so many at the head of the queue may stand in the file already
        self._counting = threading.Lock()  # held while the queue changes: decisions come from any thread
        self._words: dict[str, str] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._process: Process | None = None
        self._told = State(0, 0, 0, "")  # by the present process
        self._loop: asyncio.AbstractEventLoop | None = None
        self._working: asyncio.Task[None] | None = None
        self._stopping = False

    def open(self) -> None:
        """Start to write; on the worker's loop."""
        self._loop = asyncio.get_running_loop()
        self._working = self._loop.create_task(self._work())
        self._tick()

    def policy(self, fingerprint: str, document: Mapping[str, object]) -> None:
        """Keep the words of a policy (`Policy.describe()`) beside the decisions that it will make."""
        self._words[fingerprint] = in_words(document)
        self._frame([fingerprint, self._words[fingerprint]])

    def decided(self, decision: Decision) -> None:
        """Take note, on any thread; some five microseconds, never raises, never waits."""
        try:
            packed = dispatch(decision)
        except Exception as error:  # noqa: BLE001 - a plugin's finding may hold anything
            self._lost += 1
            self._report(f"journal: decision {decision.id} cannot be written down: {error!r}")
            return
        queue = self._queue
        with self._counting:
            queue.append(packed)
            self._octets += len(packed)
            self._offered += 1
            if len(queue) > self._bound or self._octets > OCTETS:
                self._drop()
        if len(queue) == BATCH and self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver)

    def _drop(self) -> None:
        """Let the oldest go where too many wait, or too long ones."""
        while len(self._queue) > self._bound or (self._octets > OCTETS and len(self._queue) > 1):
            self._octets -= len(self._queue.popleft())
            self._again = max(0, self._again - 1)

    @property
    def waiting(self) -> int:
        """Decisions that do not stand in the file yet."""
        return len(self._queue) + len(self._sent)

    @property
    def dropped(self) -> int:
        """Decisions that will never stand in the file."""
        return self._lost + max(0, self._offered - self._taken - len(self._queue))

    async def close(self, grace: float = 5.0) -> int:
        """Write what waits, for at most `grace` seconds; the number of decisions that are lost."""
        deadline = time.monotonic() + grace
        while self._queue and time.monotonic() < deadline:
            self._deliver()
            await asyncio.sleep(0.01)
        self._stopping = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # it writes the rest and ends
        if self._working is not None:
            await asyncio.wait([self._working], timeout=max(0.1, deadline - time.monotonic()))
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        if lost := self.waiting:
            self._report(f"journal: stopped with {lost} decisions unwritten: {self.trouble or 'out of time'}")
            self._lost += lost
            with self._counting:
                self._taken += len(self._queue)
                self._queue.clear()  # what was on the way, too: it was taken back
                self._octets = 0
        return lost

    async def _work(self) -> None:
        """Keep one process writing; the same trouble is told once a minute."""
        reported = 0.0
        while True:
            try:
                why = await self._serve()
            except OSError as error:
                why = f"it cannot be started: {sys.executable}: {error.strerror or error}"
            except ValueError as error:  # as msgspec's errors are, and a line that does not end
                why = f"it said what is no answer: {error}"
            finally:
                self._take_back()
            if self._stopping and not self.waiting:
                return
            self.failures += 1
            before, self.trouble = self.trouble, f"the process that writes it ended: {why}"
            now = time.monotonic()
            if self.trouble != before or now - reported >= REMIND:
                reported = now
                counts = f"{self.waiting} waiting, {self.dropped} dropped"
                self._report(f"journal: {self.trouble}; another is started, {counts}")
            await asyncio.sleep(RETRY)

    async def _serve(self) -> str:
        """Start a process and listen to it until it ends; how it ended."""
        command = (sys.executable, "-P", "-m", "elemta.journal", self.path)  # -P: nothing from where we were started
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self._told = State(0, 0, 0, "")
        self._process = process
        try:
            for fingerprint, text in self._words.items():
                self._frame([fingerprint, text])
            self._deliver()
            if self._stopping and process.stdin is not None:
                process.stdin.close()
            while line := await process.stdout.readline():
                self._learn(msgspec.json.decode(line, type=State))
            return f"exit status {await process.wait()}"
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _learn(self, state: State) -> None:
        before, self._told = self._told, state
        state.settled = max(state.settled, before.settled)  # counted while rows went by, it may be too low for a moment
        if state.settled - before.settled > len(self._sent):
            raise ValueError(f"{state.settled} decisions settled, more than it was sent")
        for _ in range(state.settled - before.settled):
            self._octets_sent -= len(self._sent.popleft())
        written = state.written - before.written
        self.written += written
        self._lost += state.settled - before.settled - written
        self.failures += state.failures - before.failures
        if state.report:
            self._report(state.report)
        self.trouble = state.trouble

    def _take_back(self) -> None:
        """What was on the way waits again, before the others."""
        with self._counting:
            self._again += len(self._sent)
            self._taken -= len(self._sent)
            self._octets += self._octets_sent
            self._queue.extendleft(reversed(self._sent))
            self._sent.clear()
            self._octets_sent = 0
            self._drop()

    def _tick(self) -> None:
        if self._loop is not None and not self._stopping:
            self._deliver()
            self._loop.call_later(self._interval, self._tick)

    def _deliver(self) -> None:
        """Send what waits."""
        queue, sent = self._queue, self._sent
        while queue and self._process is not None and len(sent) < ON_THE_WAY and self._octets_sent < OCTETS_ON_THE_WAY:
            with self._counting:
                again = self._again > 0
                most = min(self._again or BATCH, BATCH, len(queue))
                packed = [queue.popleft() for _ in range(most)]
                self._taken += most
                self._again -= most if again else 0
                octets = sum(map(len, packed))
                self._octets -= octets
            sent += packed
            self._octets_sent += octets
            self._frame([again, packed])

    def _frame(self, told: list[object]) -> None:
        """Tell the process, if it runs."""
        if self._process is not None and self._process.stdin is not None:
            data = self._encode(told)
            self._process.stdin.write(len(data).to_bytes(4, "big") + data)

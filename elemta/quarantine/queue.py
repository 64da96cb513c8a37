"""Hold queue: what does Postfix keep on hold, and how is it told to let go of a mail or to delete it?

Everything goes through Postfix's own programs: postqueue(1) lists, postcat(1) reads, postsuper(1) acts.  They know the
queue's form and its locks; its files are never touched here.  postsuper is only ever pointed at the queue `hold`: what
Postfix is delivering cannot be hit.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from elemta.config.types import duration

PATIENCE = 120.0  # seconds for one program; a queue of 100,000 files is read in a few
BATCH = 100  # mails whose headers one postcat reads
LONGEST_LINE = 1 << 16  # octets of a mail's line that are taken at once
LONGEST_HEADER = 1 << 18  # octets kept of one of many headers; a mail may be all header
NUDGED = 200  # mails for which a delivery is asked at once; more wait for the next queue run
_WHERE = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/sbin"))  # where PATH of a user may not lead
_DONE = re.compile(r"postsuper: ([0-9A-Za-z]+): (?:released from hold|requeued|removed)$", re.MULTILINE)
_MARK = re.compile(rb"\*\*\* ([A-Z ]+) hold/([0-9A-Za-z]+) \*\*\*\n")


class QueueError(Exception):
    """Postfix's queue cannot be used; the text says why, and what to do.

    Attributes:
        status: the exit status that says the same, of sysexits.h.
    """

    def __init__(self, text: str, status: int = os.EX_UNAVAILABLE) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Queued:
    """A mail on the hold queue.

    Attributes:
        queue_id: Postfix's queue id.
        arrived: seconds since 1970, whole ones.
        size: octets.
        sender: the envelope sender, "" for the null sender.
        recipients: the envelope recipients.
    """

    queue_id: str
    arrived: float
    size: int
    sender: str
    recipients: tuple[str, ...]


class _Recipient(msgspec.Struct):
    address: str


class _Line(msgspec.Struct):
    """A line of `postqueue -j`, see postqueue(1)."""

    queue_name: str
    queue_id: str
    arrival_time: int
    message_size: int
    sender: str
    recipients: list[_Recipient] = []


class HoldQueue:
    """The hold queue of one Postfix instance. Every method may raise QueueError."""

    def __init__(self, directory: str) -> None:
        """`directory`: that of the instance's main.cf."""
        self.directory = directory
        self._line = msgspec.json.Decoder(_Line)

    def mails(self) -> list[Queued]:
        """All that is on hold, oldest first."""
        found = []
        for octets in self._lines("postqueue", "-j"):
            try:
                line = self._line.decode(octets.decode("utf-8", "replace"))
            except msgspec.DecodeError as error:
                raise QueueError(f"postqueue -j says what is not understood: {error}", os.EX_PROTOCOL) from error
            if line.queue_name == "hold":
                addresses = tuple(each.address for each in line.recipients)
                sender = "" if line.sender == "MAILER-DAEMON" else line.sender  # so it lists the null sender
                found.append(Queued(line.queue_id, line.arrival_time, line.message_size, sender, addresses))
        return sorted(found, key=lambda mail: (mail.arrived, mail.queue_id))

    def read(self, queue_id: str, *, body: bool) -> Iterator[bytes]:
        """A mail's header, with `body` the whole mail: its lines, long ones in pieces; line ends are LF."""
        yield from self._lines("postcat", "-qbh" if body else "-qh", queue_id, longest=LONGEST_LINE)

    def headers(self, queue_ids: Sequence[str]) -> dict[str, bytes]:
        """The headers of many mails by queue id, as far as LONGEST_HEADER; those that have just gone are missing."""
        found: dict[str, bytearray] = {}
        rest = list(queue_ids)
        while rest:
            batch, known = rest[:BATCH], len(found)
            try:
                self._read_headers(batch, found)
            except QueueError as error:
                if "No such file" not in str(error):
                    raise
                rest = rest[len(found) - known + 1 :]  # postcat ends at the first that is gone: go on behind it
            else:
                rest = rest[len(batch) :]
        return {queue_id: bytes(header) for queue_id, header in found.items()}

    def _read_headers(self, queue_ids: Sequence[str], found: dict[str, bytearray]) -> None:
        """Put the header of each into `found`. Envelopes and headers are read: no line of these is like a mark."""
        header, begins = bytearray(), True
        for line in self._lines("postcat", "-qeh", *queue_ids, longest=LONGEST_LINE):
            mark = _MARK.fullmatch(line) if begins else None
            begins = line.endswith(b"\n")
            if mark is not None:
                header = bytearray()
                if mark[1] == b"MESSAGE CONTENTS":
                    found[mark[2].decode()] = header
            elif len(header) < LONGEST_HEADER:
                header += line

    def lifetimes(self) -> tuple[float, float]:
        """Seconds from its arrival after which Postfix gives up a mail that it cannot deliver; and a bounce."""
        done = self._run("postconf", "-xh", "maximal_queue_lifetime", "bounce_queue_lifetime")
        if done.returncode:
            raise _trouble("postconf", done.stderr)
        words = done.stdout.decode("utf-8", "replace").splitlines()
        try:  # postconf(5): a bare number is days
            mail, bounce = (duration(f"{word}d" if word.isdigit() else word) for word in words)
        except ValueError as error:
            raise QueueError(f"maximal_queue_lifetime, bounce_queue_lifetime: {error}", os.EX_CONFIG) from None
        return mail, bounce

    def release(self, queue_ids: Sequence[str]) -> set[str]:
        """Move mails to the deferred queue and ask Postfix to deliver them; the ids of those that were on hold."""
        done = self._super("-H", queue_ids)
        for queue_id in sorted(done)[:NUDGED]:
            if self._run("postqueue", "-i", queue_id).returncode:
                break  # Postfix is not running: it begins with the deferred queue when it starts
        return done

    def requeue(self, queue_ids: Sequence[str]) -> set[str]:
        """Take mails in once more, with a new queue id and no age; the ids of those that were on hold."""
        return self._super("-r", queue_ids)

    def delete(self, queue_ids: Sequence[str]) -> set[str]:
        """Delete mails for ever; the ids of those that were on hold."""
        return self._super("-d", queue_ids)

    def _super(self, option: str, queue_ids: Sequence[str]) -> set[str]:
        if not queue_ids:
            return set()
        ids = "".join(f"{each}\n" for each in queue_ids)
        done = self._run("postsuper", option, "-", "hold", given=ids.encode())
        acted = set(_DONE.findall(done.stderr.decode("utf-8", "replace")))
        if done.returncode and not acted:
            raise _trouble("postsuper", done.stderr)
        return acted & set(queue_ids)

    def _lines(self, program: str, *arguments: str, longest: int = -1) -> Iterator[bytes]:
        """The lines it prints as they come: a queue, or a mail, may be larger than the memory is meant for."""
        command = self._command(program, arguments)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
            try:
                if process.stdout is not None and process.stderr is not None:
                    while line := process.stdout.readline(longest):
                        yield line
                    said = process.stderr.read()  # a line or two: never so much that writing it would block
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise _trouble(program, said)

    def _run(self, program: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = self._command(program, arguments)
        try:
            return subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise QueueError(f"{program} gave no answer in {PATIENCE:.0f} s; is the disk of the queue well?") from None

    def _command(self, program: str, arguments: Iterable[str]) -> list[str]:
        path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + os.pathsep + _WHERE)
        if path is None:
            raise QueueError(f"there is no {program} here; the quarantine is looked after on the machine of Postfix")
        return [path, "-c", self.directory, *arguments]


def _trouble(program: str, said: bytes) -> QueueError:
    """What a program of Postfix complains of, and what to do."""
    lines = said.decode("utf-8", "backslashreplace").splitlines()
    words = next((line for line in lines if ": fatal: " in line), lines[-1] if lines else f"{program}: failed")
    words = words.replace(": fatal: ", ": ")
    if "main.cf" in words and "No such file" in words:
        return QueueError(f"{words}; does quarantine.postfix name the directory of main.cf?", os.EX_CONFIG)
    if any(sign in words for sign in ("superuser", "ermission denied", "alternate_config_directories", "not allowed")):
        return QueueError(f"{words}; run this as root", os.EX_NOPERM)
    return QueueError(f"{words}; is Postfix running?" if "system is down" in words else words)

"""The log: what happened to each mail, in one line on standard error?

Two forms, chosen by `log.format`: key=value text, or one JSON object a line.  The words for events are these and no
others, so that a log can be searched and counted:

    decided      a judgement, one line each           started, stopped    a daemon
    reloaded     the configuration was read again     worker_died         and is being started again
    trouble      something that needs a look          note                anything else worth knowing

Whatever a stranger wrote (HELO, addresses) leaves here with its control characters escaped and its length bounded; no
mail can forge a line.  Lines carry no time of day in the text form where systemd's journal adds its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Literal

from elemta.decision import Decision
from elemta.facts import Message
from elemta.observe.outlet import Outlet
from elemta.printable import LONGEST, bare, quoted
from elemta.verdict import ActionKind, Verdict

Format = Literal["text", "json"]
Told = str | int | float | bool | None | Mapping[str, str] | list[str]
RESERVED = frozenset({
    "time", "level", "event", "id", "stage", "queue_id", "class", "disposition", "rule", "client", "helo", "login",
    "sender", "recipients", "recipient", "size", "shadow", "labels", "ms", "reply", "daemon", "findings",
})  # fmt: skip
GATHER = 0.05  # seconds that a line about a mail waits for others
LATE = 1.0  # seconds after which the loop that should write them is taken to hang
LONGEST_TEXT = 8000  # characters of a text of our own, such as a traceback
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log:
    """Writes events. One method for each event of the vocabulary; nothing else writes to the log.

    What our modules and libraries log through the standard `logging` appears as `note` lines in the same form, or as
    `trouble` from a warning upwards.
    """

    def __init__(self, format_: Format = "text", level: str = "info", *, daemon: str = "", fd: int = 2) -> None:
        """Take over standard error.

        Args:
            format_: "text" or "json".
            level: the least that is written: debug, info, warning, error.
            daemon: "milter" or "policyd", named in every line but `decided`, whose stage tells it.
            fd: where to write; standard error.
        """
        self.json = format_ == "json"
        self.daemon = daemon
        self.level = _LEVELS[level]
        self._outlet = Outlet(fd)
        self._told = 0  # lines that were dropped, as far as the log says so
        self._timed = self.json or "JOURNAL_STREAM" not in os.environ
        self._second = 0, ""  # the present second, and how it is written
        logging.getLogger().handlers[:] = [_Standard(self)]
        logging.getLogger().setLevel(logging.WARNING)  # libraries: only what is wrong
        logging.getLogger("elemta").setLevel(self.level)

    def started(self, **more: Told) -> None:
        """The daemon answers: version, workers, listen, policy."""
        self.event("started", logging.INFO, more)

    def stopped(self, **more: Told) -> None:
        """The daemon has stopped: seconds it took, decisions that were lost."""
        self.event("stopped", logging.INFO, more)

    def reloaded(self, *, ok: bool, **more: Told) -> None:
        """The configuration was read again; with `ok=False` the old one stays, and `reason` says why."""
        self.event("reloaded", logging.INFO if ok else logging.ERROR, {"ok": ok, **more})

    def worker_died(self, slot: int, **more: Told) -> None:
        """A worker ended by itself: status or signal, seconds until the next start."""
        self.event("worker_died", logging.ERROR, {"slot": slot, **more})

    def trouble(self, text: str, **more: Told) -> None:
        """Something that needs a look and does not stop the mail."""
        self.event("trouble", logging.WARNING, {"text": text, **more})

    def note(self, text: str, **more: Told) -> None:
        """Anything else worth knowing."""
        self.event("note", logging.INFO, {"text": text, **more})

    def event(self, name: str, level: int, told: Mapping[str, Told]) -> None:
        """Write one line."""
        if level >= self.level:
            if self.daemon:
                told = {"daemon": self.daemon, **told}
            line = json_line(name, told) if self.json else text_line(name, told)
            self.write(line, logging.getLevelName(level).lower())

    def write(self, line: str, level: str = "info") -> None:
        """Write a line. It never raises: a log that cannot be written must not stop the mail."""
        self.put(self.finished(line, level))

    def finished(self, line: str, level: str = "info") -> bytes:
        """A line with its time and its end."""
        if self.json:
            line = f'{{"time":"{self._time()}","level":"{level}",{line[1:]}\n'
        elif self._timed:
            line = f"{self._time()} {line}\n"
        else:
            line += "\n"
        return line.encode("utf-8", "backslashreplace")

    def put(self, lines: bytes) -> None:
        """Write finished lines, in one call."""
        if self._outlet.put(lines):
            told, self._told = self._told, self.dropped
            self.trouble(f"{self._told - told} lines of this log were dropped: nobody read it, or there was no room")

    @property
    def dropped(self) -> int:
        """Lines that were dropped since nobody read the log."""
        return self._outlet.dropped

    def _time(self) -> str:
        """Now, as RFC 3339 writes it, UTC; the part before the fraction is made once a second."""
        now = time.time()
        second, until_second = self._second  # read and written as one: other threads log, too
        if second != int(now):
            second = int(now)
            until_second = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second, until_second
        return f"{until_second}.{int((now - second) * 1000):03d}Z"


class MailLog:
    """Writes one line for each decision; an `Observer`.

    In a worker lines gather for GATHER seconds and go out together: a thread that writes lets go of the interpreter and
    waits for it again behind all the others, which cost more than the line.
    """

    def __init__(self, log: Log, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Write to `log`: what gathers, on `loop`; each line at once where there is none."""
        self._log = log
        self._loop = loop
        self._line = _decided_json if log.json else _decided_text
        self._enabled = log.level <= logging.INFO
        self._keys: dict[str, str] = {}
        self._gathered: deque[bytes] = deque()
        self._due = 0.0  # until when (`time.monotonic`) the loop will have called `_write`; 0 when it shall not

    def decided(self, decision: Decision) -> None:
        """Write it soon, on any thread."""
        if not self._enabled:
            return
        self._gathered.append(self._log.finished(self._line(decision, self._keys)))
        now, due = time.monotonic(), self._due
        if now < due:
            return
        self._due, loop = now + LATE, self._loop
        try:
            if loop is not None and not due:
                loop.call_soon_threadsafe(loop.call_later, GATHER, self._write)
                return
        except RuntimeError:  # the loop has ended
            pass
        self._write()

    def close(self) -> None:
        """Write what has gathered; from now on each line is written at once."""
        self._loop = None
        self._write()

    def _write(self) -> None:
        """Write what has gathered, in as few calls as keep the lines of several processes apart."""
        self._due = 0.0  # before the lines are taken: who adds one afterwards sees to it that it is written
        together = bytearray()
        with suppress(IndexError):  # all is taken, perhaps by another thread
            while True:
                line = self._gathered.popleft()
                if together and len(together) + len(line) > PIPE_BUF:
                    self._log.put(bytes(together))
                    together.clear()
                together += line
        if together:
            self._log.put(bytes(together))


class _Standard(logging.Handler):
    """Brings what comes through the standard `logging` into our form."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a format that does not fit its arguments
            text = str(record.msg)
        told: dict[str, Told] = {"from": record.name.removeprefix("elemta."), "text": text}
        if record.exc_info:
            told["traceback"] = logging.Formatter().formatException(record.exc_info)[-LONGEST_TEXT:]
        self._log.event("trouble" if record.levelno >= logging.WARNING else "note", record.levelno, told)


def text_line(event: str, told: Mapping[str, Told]) -> str:
    """`event key=value ...`; values are quoted where they must be, None is left out."""
    return " ".join((event, *(f"{key}={_text(value)}" for key, value in told.items() if value is not None)))


def json_line(event: str, told: Mapping[str, object]) -> str:
    """One JSON object, ASCII only."""
    return json.dumps({"event": event, **told}, separators=(",", ":"), default=str).replace("\x7f", "\\u007f")


def _text(value: Told) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value if isinstance(value, str) else str(value), LONGEST_TEXT)


def _decided_text(decision: Decision, keys: dict[str, str]) -> str:
    facts, verdict = decision.facts, decision.verdict
    envelope = facts.envelope if isinstance(facts, Message) else facts
    client, recipients = envelope.client, envelope.recipients
    helo, sender, recipient = client.helo, envelope.sender, recipients[0] if recipients else ""
    if not (helo and bare(helo + sender + recipient)):
        helo, sender, recipient = quoted(helo), _inner(sender), _inner(recipient)
    line = (
        f"decided id={decision.id} stage={decision.stage}"
        f"{f' queue_id={quoted(envelope.queue_id)}' if envelope.queue_id else ''}"
        f" class={decision.klass} disposition={verdict.disposition} rule={verdict.rule or '-'}"
        f" client={client.address_text or '-'} helo={helo} sender=<{sender}>"
        f"{f' login={quoted(client.login)}' if client.login else ''}"
        f" recipients={len(recipients)} recipient=<{recipient}> size={facts.size or '-'}"
    )
    for finding in decision.findings:
        check = finding.check
        line += f" {keys.get(check) or _key(check, keys)}{finding.result}"
    if decision.shadow:
        line += f" shadow={','.join(decision.shadow)}"
    if verdict.actions and (labels := _labels(verdict)):
        line += f" labels={quoted(','.join(labels))}"
    line += f" ms={decision.seconds * 1000:.1f}"
    return f"{line} reply={quoted(verdict.reply)}" if verdict.reply else line


def _decided_json(decision: Decision, keys: dict[str, str]) -> str:  # noqa: ARG001 - the same shape as the text form
    envelope, verdict = decision.envelope, decision.verdict
    client, recipients = envelope.client, envelope.recipients
    return json_line("decided", {
        "id": decision.id, "stage": decision.stage, "queue_id": envelope.queue_id[:LONGEST], "class": decision.klass,
        "disposition": verdict.disposition.value, "rule": verdict.rule,
        "client": client.address_text, "helo": client.helo[:LONGEST], "login": client.login[:LONGEST],
        "sender": envelope.sender[:LONGEST], "recipients": len(recipients),
        "recipient": recipients[0][:LONGEST] if recipients else "", "size": decision.facts.size or None,
        "findings": {finding.check: finding.result for finding in decision.findings},
        "shadow": list(decision.shadow), "labels": _labels(verdict),
        "ms": round(decision.seconds * 1000, 1), "reply": verdict.reply[:LONGEST],
    })  # fmt: skip


def _labels(verdict: Verdict) -> list[str]:
    return [action.value[:LONGEST] for action in verdict.actions if action.kind is ActionKind.LABEL]


def _inner(address: str) -> str:
    """An address between angle brackets: quoted where it could be mistaken."""
    return quoted(address) if address else ""


def _key(check: str, keys: dict[str, str]) -> str:
    """The key of a check's result, with its "=": its name, unless the line has a field of that name."""
    keys[check] = f"check.{check}=" if check in RESERVED else f"{check}="
    return keys[check]

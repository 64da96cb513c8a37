"""The milter with an engine that does what the mail itself says and writes down what it saw.

    with EchoMilter() as milter:                 # a real process, libmilter and all
        ... send mails to milter.address, with a field such as
            X-Do: {"then": "reject", "reply": "550 5.7.1 No", "actions": [["add_header", "X-New", "1"]]}
        [seen] = milter.seen(1)                  # {"sender": ..., "headers": [[name, value], ...], "body": sha256, ...}

Other words in X-Do: "raise" (RuntimeError or OSError), "exit" (on libmilter's thread), "sleep" (seconds), "authres"
(a result word of spf).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from elemta.config.model import Journal, Milter, Settings
from elemta.config.types import Listen
from elemta.daemon import sockets
from elemta.decision import Decision, new_id
from elemta.facts import Envelope, Message
from elemta.findings import AuthResult, Finding, Result
from elemta.verdict import Action, ActionKind, Disposition, Verdict

HOST = "mx1.example.org"
TESTS = str(Path(__file__).resolve().parents[1])


class EchoMilter:
    """The process; a context manager.

    early, body: what the engine wants. bounds: other values for `elemta_milter.bounds.Bounds`.
    """

    def __init__(
        self,
        *,
        listen: str = "",
        early: bool = True,
        body: bool = True,
        budget: float = 25,
        trusted: tuple[str, ...] = (),
        **bounds: float,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="elemta-echo-"))
        self.directory.chmod(0o755)
        self.spool = self.directory / "spool"
        self.spool.mkdir()
        self.address = listen or f"unix:{self.directory}/milter.sock"
        self._settings = {
            "listen": self.address, "early": early, "body": body, "budget": budget, "trusted": trusted,
            "spool": str(self.spool), "seen": str(self.directory / "seen"), "bounds": bounds,
        }  # fmt: skip
        self._log = self.directory / "log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.echo", json.dumps(self._settings)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))},
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.log()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def seen(self, count: int, timeout: float = 10) -> list[dict[str, Any]]:
        """What was written down, in order; at least `count` mails and cancellations."""
        path = self.directory / "seen"
        deadline = time.monotonic() + timeout
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            assert time.monotonic() < deadline, f"{len(lines)} of {count} seen\n{self.log()}"
            time.sleep(0.02)

    def memory(self) -> int:
        """The most memory that was ever resident, octets."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


class _Case:
    def __init__(self, out: Any) -> None:
        self._out = out
        self._started: list[Envelope] = []

    def start(self, envelope: Envelope) -> None:
        self._started.append(envelope)

    def start_now(self, _envelope: Envelope) -> bool:
        return False

    def cancel(self) -> None:
        self._note(cancelled=True)

    def _note(self, **facts: Any) -> None:
        started = [each.sender for each in self._started]
        self._out.write(json.dumps({"started": started, **facts}) + "\n")
        self._out.flush()

    def message_now(self, _message: Message) -> Decision | None:
        return None

    async def message(self, message: Message) -> Decision:
        envelope, client = message.envelope, message.envelope.client
        digest, size, pieces = hashlib.sha256(), 0, 0
        for piece in message.body.chunks():
            digest.update(piece)
            size += len(piece)
            pieces += 1
        self._note(
            sender=envelope.sender,
            recipients=envelope.recipients,
            recipient_count=envelope.recipient_count,
            size=envelope.size,
            smtputf8=envelope.smtputf8,
            queue_id=envelope.queue_id,
            client={
                name: getattr(client, name) if name in ("port", "cipher_bits") else str(getattr(client, name) or "")
                for name in client.__struct_fields__
            },
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.headers],
            body=digest.hexdigest(),
            body_size=size,
            pieces=pieces,
            truncated=message.truncated,
        )
        orders = [json.loads(value.decode("latin-1")) for value in message.header("X-Do")]
        return await _obey(orders[0] if orders else {}, message)


class _Exit:
    """Findings whose reader, on libmilter's thread, meets a sys.exit()."""

    def __iter__(self) -> Any:
        sys.exit(3)


async def _obey(order: dict[str, Any], message: Message) -> Decision:
    if "sleep" in order:
        await asyncio.sleep(order["sleep"])
    if "raise" in order:
        raise {"RuntimeError": RuntimeError, "OSError": OSError}[order["raise"]]
    findings: Any = _Exit() if order.get("exit") else ()
    if "authres" in order:
        word = order["authres"]
        result = AuthResult("spf", word, "", (("smtp.mailfrom", message.envelope.sender),))
        findings = (Finding("spf", Result(word), authres=(result,)),)
    actions = tuple(Action(ActionKind(kind), name, value) for kind, name, value in order.get("actions", ()))
    verdict = Verdict(Disposition(order.get("then", "accept")), "echo", order.get("reply", ""), actions=actions)
    return Decision(new_id(), time.time(), "message", "inbound", message, {}, findings, verdict)


def main() -> None:
    """Be the process."""
    import uvloop  # noqa: PLC0415

    from elemta_milter import bounds, port, reply, service, session, wire  # noqa: PLC0415

    given = json.loads(sys.argv[1])
    limits = bounds.Bounds(**given["bounds"])
    for module in (bounds, port, reply, session, wire):
        if hasattr(module, "BOUNDS"):
            module.BOUNDS = limits
    for function in (session.Session.__init__, wire.Wire.__init__):
        function.__kwdefaults__["bounds"] = limits
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    settings = Settings(
        host=HOST,
        spool=given["spool"],
        journal=Journal(path=str(Path(given["spool"]).parent / "journal.db")),
        milter=Milter(budget=f"{given['budget']}s", trusted=tuple(given["trusted"])),
    )  # type: ignore[call-arg]
    listener = sockets.listen(Listen.parse(given["listen"]), "postfix")

    out = Path(given["seen"]).open("a", encoding="utf-8")  # noqa: SIM115 - for the process's whole life

    service.Case = lambda _engine, _budget: _Case(out)  # type: ignore[assignment,misc]

    async def serve() -> None:
        engine = SimpleNamespace(
            tools=SimpleNamespace(threads=None),
            wants=SimpleNamespace(early=given["early"], body=given["body"]),
            policy=SimpleNamespace(settings=settings, sets={}, parts={}),
            undone=lambda _decision: None,
        )
        worker: Any = SimpleNamespace(
            slot=0,
            opened=SimpleNamespace(metrics=SimpleNamespace(connections=None, gauge=lambda _family, _value: None)),
            listener=listener,
            engine=engine,
            settings=settings,
            stopping=asyncio.Event(),
            deadline=math.inf,
            ready=lambda: print("ready", flush=True),
            closed=lambda: None,
        )

        def go() -> None:
            worker.deadline = time.monotonic() + 3.0
            worker.stopping.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, go)
        await service.MilterService().serve(worker)

    uvloop.run(serve())
    os._exit(0)


if __name__ == "__main__":
    main()

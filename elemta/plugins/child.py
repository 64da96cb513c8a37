"""The process of a plugin: how does a check answer questions here, where it can harm nobody but itself?

Started by `process.py` as `python -m elemta.plugins.child DESCRIPTOR PARENT`.  The descriptor is one end of a socket of
whole messages: first comes what to be (the plugin's source and options, our settings, the memory that it may take),
then one question at a time.  The process dies with the worker that started it, and takes no core dump.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import json
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from elemta.check import CLASS, UNTIL, Check
from elemta.config.model import Settings
from elemta.dns import DEADLINE, DnsError
from elemta.findings import Finding
from elemta.plugins.answer import ANSWER, REASON, finding_data
from elemta.plugins.contract import depends
from elemta.plugins.sources import EntrySource, FileSource
from elemta.plugins.wire import Json, read_facts, read_seen
from elemta.store import StoreError
from elemta.tools import open_tools

READY = b"ready"
_WORD = 64  # octets of a word that comes with descriptors
_PR_SET_PDEATHSIG = 1
_EXPECTED = (DnsError, StoreError, OSError, TimeoutError, EOFError)  # as in elemta.case: no mistake of the plugin
_SETTLED = 100  # questions after which growing memory is a leak
_ROOM = 0.75  # of the memory that was left at the start


def main() -> int:
    """Be the process of a plugin until the worker closes the socket; the exit status."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    faulthandler.register(signal.SIGUSR1)  # systemctl kill -s USR1 reaches all of a daemon
    own = socket.socket(fileno=descriptor)
    own.set_inheritable(False)  # no program that the plugin starts shall hold it
    os.register_at_fork(after_in_child=own.close)  # nor a process that it forks
    _, [first], _, _ = socket.recv_fds(own, _WORD, 1)
    what = _read(first)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (what["memory"], what["memory"]))
    sys.path += [each for each in what["path"] if each not in sys.path]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(_serve(own, what))
    return os.EX_OK


async def _serve(own: socket.socket, what: Json) -> None:
    try:
        settings = Settings.model_validate_json(json.dumps(what["settings"]))
        source = EntrySource(**what["entry"]) if "entry" in what else _file(what["file"])
        kind = next(check for check in source.load() if check.name == what["name"])
        options = kind.Options.model_validate_json(json.dumps(what["options"] or {}), strict=True)
        async with open_tools(settings) as tools, contextlib.AsyncExitStack() as stack:
            check = kind(options, tools)
            await check.open()
            stack.push_async_callback(check.close)
            own.send(READY)
            await _answer_all(own, check, what["memory"])
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises while it starts
        traceback.print_exc()
        with contextlib.suppress(OSError):
            own.send(_short({"failed": f"{type(error).__name__}: {error}"}))


async def _answer_all(own: socket.socket, check: Check[Any], memory: int) -> None:
    own.setblocking(False)
    asked, start = 0, _taken()
    while (question := await _question(own)) is not None:
        descriptors = question.pop("descriptors")
        try:
            told = await _ask(check, question, descriptors[0] if descriptors else None)
        finally:
            for each in descriptors:
                os.close(each)
        asked += 1
        told |= {"number": question["number"], "depends": depends(check)}
        if asked >= _SETTLED and _taken() > start + _ROOM * (memory - start):
            told["tired"] = True
        own.send(_short(told))


async def _ask(check: Check[Any], question: Json, body: int | None) -> Json:
    CLASS.set(question["class"])
    UNTIL.set(question["until"])
    DEADLINE.set(question["dns"])
    facts = read_facts(question["facts"], body)
    try:
        finding = await check.run(facts, read_seen(question["seen"]))
        if not isinstance(finding, Finding):
            return {"error": f"run must return a Finding, and returned {type(finding).__name__}"}
        return {"finding": finding_data(finding)}
    except _EXPECTED as error:
        return {"error": f"{type(error).__name__}: {error}"}
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - its author reads of it in the log
        traceback.print_exc()
        return {"error": f"crashed: {type(error).__name__}: {error}", "tired": isinstance(error, MemoryError)}


async def _question(own: socket.socket) -> Json | None:
    """The next question, with its body's descriptor; None when the worker has closed the socket."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, descriptors, _, _ = socket.recv_fds(own, _WORD, 2)
        except BlockingIOError:
            readable = asyncio.Event()
            loop.add_reader(own, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(own)
            continue
        if not descriptors:
            return None
        return {**_read(descriptors[0]), "descriptors": descriptors[1:]}


def _read(descriptor: int) -> Json:
    """What stands in a file that came over the socket."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        data: Json = json.loads(file.read())
        return data


def _short(told: Json) -> bytes:
    """An answer that is not too long; what cannot be said is an error."""
    if "error" in told:
        told["error"] = told["error"][:REASON]
    try:
        octets = json.dumps(told).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps({**told, "finding": None, "error": f"its finding cannot be told: {error}"}).encode()
    if len(octets) > ANSWER:
        text = f"its finding has {len(octets):,} octets; at most {ANSWER:,} can be told"
        return json.dumps({"number": told.get("number"), "tired": told.get("tired"), "error": text}).encode()
    return octets


def _file(data: Json) -> FileSource:
    return FileSource(data["path"], data["text"].encode("latin-1"))


def _taken() -> int:
    """Octets of address space in use."""
    pages = int(Path("/proc/self/statm").read_bytes().partition(b" ")[0])
    return pages * resource.getpagesize()


def _die_with(parent: int) -> None:
    """Be killed when the worker ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended meanwhile
        os._exit(os.EX_OK)


if __name__ == "__main__":
    sys.exit(main())

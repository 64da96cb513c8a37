"""Macros: what do a document's macros do: run by themselves, start programs, fetch files?

Asked of olevba (oletools), whose regular expressions can take any time on a hostile document: so it runs in a process
of its own, with so much processor time and memory and no more, and for documents that hold macros only.

Started as a program, it reads the document from standard input and writes what it found as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

_MEMORY = 512 << 20
_ANSWER = 1 << 16
_KEYWORDS = 50
_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class Macros:
    """What olevba says.

    Attributes:
        there: there are macros.
        runs_itself: some run when the document is opened or closed.
        keywords: what makes them suspicious: "Shell", "CreateObject", …
        unread: why nothing is known; "" when it is.
    """

    there: bool = False
    runs_itself: bool = False
    keywords: tuple[str, ...] = ()
    unread: str = ""


def ask(document: memoryview, seconds: int, until: float = math.inf) -> Macros:
    """Let olevba look at a document, for at most so many seconds of processor time and a few of waiting.

    Args:
        document: an OLE file.
        seconds: of processor time.
        until: `time.monotonic()` at which nobody waits any more.
    """
    patience = min(2 * seconds + _GRACE, until - time.monotonic())
    if patience <= 0:
        return Macros(unread="there was no time to look at its macros")
    command = [sys.executable, "-P", "-m", __spec__.name, str(seconds)]
    try:
        done = subprocess.run(  # noqa: S603 - no word of the mail is in the command
            command, input=document, capture_output=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return Macros(unread="its macros take too long to look at")
    try:
        told = json.loads(done.stdout[:_ANSWER])
        return Macros(bool(told["there"]), bool(told["runs_itself"]), tuple(map(str, told["keywords"])))
    except (ValueError, KeyError, TypeError):
        return Macros(unread="its macros could not be looked at")


def main() -> None:
    """Look at the document on standard input."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        answer = _look(sys.stdin.buffer.read())
    print(json.dumps(answer))  # noqa: T201 - this is what it was started for


def _look(document: bytes) -> dict[str, object]:
    from oletools.olevba import VBA_Parser  # noqa: PLC0415 - costs a tenth of a second, here and nowhere else

    parser = VBA_Parser("document", data=document)
    there = bool(parser.detect_macros())
    found = parser.analyze_macros() if there else []
    return {
        "there": there,
        "runs_itself": any(kind == "AutoExec" for kind, *_ in found),
        "keywords": sorted({str(word) for kind, word, *_ in found if kind == "Suspicious"})[:_KEYWORDS],
    }


if __name__ == "__main__":
    main()

"""Journal process: writes what the courier of one worker brings, until its pipe ends.

Signals that end a daemon do not end this: the worker's last decisions are still to come.  SIGUSR1 has it write its
stacks, as the others of the daemon.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from elemta.journal.courier import State
from elemta.journal.dispatch import reference
from elemta.journal.entry import Row, row
from elemta.journal.write import Writer


def main() -> int:
    """Write the journal at the path that is the first argument; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)
    telling = threading.Lock()

    def tell(report: str = "") -> None:
        with telling:  # two threads tell: what is told later was counted later
            state = State(writer.written + writer.dropped, writer.written, writer.failures, writer.trouble, report)
            try:
                sys.stdout.buffer.write(msgspec.json.encode(state) + b"\n")
                sys.stdout.buffer.flush()
            except OSError:  # the worker was killed: nobody listens, and what it sent is still written
                return

    writer = Writer(sys.argv[1], tell, settled=tell)
    writer.open()
    tell()  # we are there: what the process before us ended of is over, also where no decision waits
    for told in frames(sys.stdin.buffer):
        match told:
            case [bool(again), list(packed)]:
                writer.take(_rows(packed, writer), again=again)
                writer.flush()  # they have waited in the worker
            case [str(fingerprint), str(words)]:
                writer.words(fingerprint, words)
    return 1 if writer.close() else 0


def _rows(packed: list[bytes], writer: Writer) -> Iterator[Row]:
    for each in packed:
        try:
            yield row(each)
        except Exception as error:  # noqa: BLE001 - a plugin's finding may hold anything
            writer.lose(f"journal: decision {reference(each)} cannot be written down: {error!r}")


def frames(source: BinaryIO) -> Iterator[list[object]]:
    """What the courier sent; a frame that was cut off by its death is left out."""
    while len(head := source.read(4)) == 4:
        data = source.read(int.from_bytes(head, "big"))
        if len(data) < int.from_bytes(head, "big"):
            return
        yield msgspec.msgpack.decode(data)


if __name__ == "__main__":
    sys.exit(main())

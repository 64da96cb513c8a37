"""Streams: are standard input, output and error there, as everything that is started takes for granted?"""

from __future__ import annotations

import os
import sys


def claim() -> None:
    """What the shell closed (`>&-`) is /dev/null: else the next file or socket that is opened would take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123 - it stays open
            os.set_inheritable(stream.fileno(), True)  # of programs that are started, too
            setattr(sys, name, stream)

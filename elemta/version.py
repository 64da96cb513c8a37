"""Version: which Elemta is this, and does it run on this Python?"""

from __future__ import annotations

import os
import sys

VERSION = "0.1.0"
_OLDEST, _NEWEST = (3, 11), (3, 13)


def refuse_python(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """End the program on a Python that is not supported.

    3.14 and later leak every milter connection that libmilter moves to another thread.
    """
    if not _OLDEST <= version[:2] <= _NEWEST:
        found = ".".join(map(str, version[:2]))
        print(f"elemta runs on Python 3.11 to 3.13; this is {found}", file=sys.stderr)  # noqa: T201
        sys.exit(os.EX_UNAVAILABLE)

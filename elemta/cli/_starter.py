"""The starter policy: what does an administrator begin with?

Writes `elemta/config/starter.yaml`, with this server's name and domain filled in.  Never writes over a file.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from elemta.cli import _terminal, fail
from elemta.config.names import host_name

_HOST = "mx1.example.org"
_DOMAIN = "example.org"


def write(path: str, host: str, domain: str) -> int:
    """Write the policy to the file `path` ("-": standard output); the exit status.

    Args:
        path: a file that does not exist; its directory is made.
        host: this server's name; "" leaves the example.
        domain: the domain whose mail it takes and sends; "" leaves the example.

    Raises:
        OSError: it cannot be written.
    """
    try:
        text = starter(host, domain)
    except ValueError as error:
        return fail(f"elemta config init: {error}", os.EX_USAGE)
    if path == "-":
        _terminal.out(text)
        return os.EX_OK
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return fail(f"elemta config init: {path} is there already; name another file", os.EX_CANTCREAT)
    _terminal.out(f"{path}: written; see whether it says what you want, then run elemta config check {path}\n")
    return os.EX_OK


def starter(host: str = "", domain: str = "") -> str:
    """The text of the starter policy for a server.

    Raises:
        ValueError: a name is none.
    """
    text = (files("elemta.config") / "starter.yaml").read_text(encoding="utf-8")
    text = text.replace(_HOST, "@HOST@").replace(_DOMAIN, host_name(domain) if domain else _DOMAIN)
    return text.replace("@HOST@", host_name(host) if host else _HOST)

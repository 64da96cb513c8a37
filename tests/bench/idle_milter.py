"""A milter that does nothing, in the way of Elemta's: the floor under what any milter in Python can reach here.

    python tests/bench/idle_milter.py SOCKET WORKERS

The same workers on one socket, the same steps negotiated and agreed to be quiet; every callback returns at once.
"""

from __future__ import annotations

import os
import socket
import sys

import Milter

from elemta_milter.negotiation import terms


def negotiate(ctx, offer):
    agreed = terms(offer[0], offer[1], body=False)
    offer[:] = [int(agreed.acts), int(agreed.steps), 0, 0]
    return Milter.CONTINUE


def quiet(*_):
    return Milter.NOREPLY


def go_on(*_):
    return Milter.CONTINUE


def main() -> None:
    path, workers = sys.argv[1], int(sys.argv[2])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)  # noqa: PTH101
    listener.listen(1024)
    listener.setblocking(False)
    for _ in range(workers - 1):
        if os.fork() == 0:
            break
    Milter.set_connect_callback(quiet)
    Milter.set_helo_callback(go_on)
    Milter.set_envfrom_callback(quiet)
    Milter.set_envrcpt_callback(quiet)
    Milter.set_header_callback(quiet)
    Milter.set_eom_callback(go_on)
    Milter.set_abort_callback(go_on)
    Milter.set_close_callback(go_on)
    Milter.set_flags(Milter.CURR_ACTS)
    Milter.setconn(f"fd:{listener.fileno()}")
    Milter.register("idle", negotiate=negotiate)
    Milter.opensocket(False)
    Milter.main()


if __name__ == "__main__":
    main()

"""Feeding: how does a body reach those who hash it, without the loop waiting for it?

A short body is hashed where we are; a long one in a thread, where hashing lets other threads run (it holds no lock).
"""

from __future__ import annotations

from elemta.at_once import on_loop
from elemta.check import Tools
from elemta.facts import Body
from elemta_milter.mailauth.canonical import BodyHasher

BIG = 256 << 10
"""Octets from which on a body is hashed in a thread: about two milliseconds of work."""


async def feed(hasher: BodyHasher, body: Body, tools: Tools) -> None:
    """Give `hasher` the whole body, if anybody asked it for a hash.

    Raises:
        OSError: a spooled body cannot be read.
    """
    if not hasher.needs_body:
        return
    if body.size > BIG and on_loop():
        await tools.in_thread(feed_now, hasher, body)
    else:
        feed_now(hasher, body)


def feed_now(hasher: BodyHasher, body: Body) -> None:
    """Give `hasher` the whole body and finish it.

    Raises:
        OSError: a spooled body cannot be read.
    """
    for piece in body.chunks():
        hasher.feed(piece)
    hasher.finish()

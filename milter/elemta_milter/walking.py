"""Walking: how is a whole mail looked through in a thread, without many long ones in memory at once?

Mails whose body is held in memory are looked through a few at a time.  Of those whose body is spooled only one at a
time is, in a worker: what is mapped of it and what is decoded from it then stand in memory once, however many wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from elemta.at_once import elsewhere, on_loop
from elemta.check import Tools
from elemta.facts import Message
from elemta_milter.body import SpooledBody, give_back
from elemta_milter.mime import tree_of


async def walk(tools: Tools, look: Callable[..., Any], message: Message, *args: Any) -> Any:  # noqa: ANN401
    """Give what `look` gives of a message and `args`; in a thread, if that can be waited for.

    Raises:
        OSError: a spooled body cannot be read.
    """
    if isinstance(message.body, SpooledBody):
        if not on_loop():
            await elsewhere()
        return await tools.in_turn(_walked, look, message, *args)
    return await tools.in_few(look, message, *args) if on_loop() else look(message, *args)


def _walked(look: Callable[..., Any], message: Message, *args: Any) -> Any:  # noqa: ANN401
    found = look(message, *args)
    give_back(tree_of(message).body)  # it may wait for other checks
    return found

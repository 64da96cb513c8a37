"""Acting: how is a held mail released or deleted, and what does the journal say of it?

A mail is released with `postsuper -H`: it goes on from where it stopped, behind cleanup(8) and the milters, so it is
delivered as it was judged and is not judged again.  It keeps its age, though, and Postfix gives a mail up that is older
than maximal_queue_lifetime at the first 4xx.  So one that is old is taken in once more (`postsuper -r`, as postsuper(1)
advises): it gets a new queue id and one more Received field, and the milters do not see it either.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping, Sequence

from elemta.journal import Act, Deed
from elemta.quarantine.holding import Held
from elemta.quarantine.queue import HoldQueue

OLD = 0.5  # of the time that Postfix keeps trying


def release(queue: HoldQueue, mails: Sequence[Held], now: float) -> dict[str, Deed]:
    """Let `mails` go; what was done, by queue id. Those that are not on hold any more are missing.

    Raises:
        QueueError: nothing could be done.
        ValueError: one of them is somebody else's.
    """
    if not mails:
        return {}
    lifetime, of_bounce = queue.lifetimes()
    young: list[Held] = []
    old: list[Held] = []
    for held in mails:
        limit = OLD * (lifetime if held.mail.sender else of_bounce)
        (old if now - held.mail.arrived > limit else young).append(held)
    done = dict.fromkeys(queue.release(_ours(young)), Deed.RELEASED)
    return done | dict.fromkeys(queue.requeue(_ours(old)), Deed.REQUEUED)


def delete(queue: HoldQueue, mails: Sequence[Held], deed: Deed = Deed.DELETED) -> dict[str, Deed]:
    """Delete `mails`; as `release`."""
    return dict.fromkeys(queue.delete(_ours(mails)), deed)


def acts(mails: Iterable[Held], done: Mapping[str, Deed], now: float) -> list[Act]:
    """What the journal shall say."""
    who = user()
    return [
        Act(held.decision.id, now, done[held.mail.queue_id], who)
        for held in mails
        if held.decision is not None and held.mail.queue_id in done
    ]


def user() -> str:
    """Who does this: "root", "root (sudo by alice)"."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    sudo = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {sudo})" if sudo and sudo != name else name


def _ours(mails: Iterable[Held]) -> list[str]:
    ids = []
    for held in mails:
        if held.decision is None:
            raise ValueError(f"{held.mail.queue_id} was put on hold by somebody else")
        ids.append(held.mail.queue_id)
    return ids

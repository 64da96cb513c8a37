"""State: what must outlive a mail, shared by all workers of both daemons?

The `Store` port speaks in the field's own operations, each atomic, so that a backend can do one in one
statement (SQLite) or one script (Redis).  `sqlite.py` is the default and needs no set-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct


class StoreError(Exception):
    """The store could not answer: locked for too long, full disk, refused connection. A check lets it rise."""


class GreyTerms(Struct, frozen=True):
    """The terms of greylisting, in seconds.

    Attributes:
        delay: a first retry before this age of the triplet is too early.
        window: a triplet not retried within this age is forgotten and starts anew.
        keep: a triplet that passed is remembered this long after its last mail.
        proven: this many different triplets passed by a client network make it proven: no more waiting;
            0 switches that off.
    """

    delay: float
    window: float
    keep: float
    proven: int = 5


class Grey(Struct, frozen=True):
    """The state of one triplet after this attempt was counted.

    Attributes:
        passed: the mail may pass.
        known: the triplet had passed before.
        proven: it passes since its client network is proven, not for its own age.
        wait: seconds until a retry passes; 0 when passed.
        attempts: attempts seen of this triplet, this one included.
    """

    passed: bool
    known: bool = False
    proven: bool = False
    wait: float = 0.0
    attempts: int = 1


class Quota(Struct, frozen=True):
    """What a message wants to use of one limit.

    Attributes:
        key: what is limited: a limit, its window and the value it counts for, as a digest.
        part: the part of the message that wants it, such as a recipient; "" is the message as a whole, in the place of
            all its parts.
        amount: how much it wants; 0 where nobody knows yet.
        window: seconds.
        most: what may be used within any span of that length.
    """

    key: str
    part: str
    amount: int
    window: float
    most: int


class Use(Struct, frozen=True):
    """How much of one quota was used up before.

    Attributes:
        used: by others, and by other parts of the same message; what is reserved is used.
        wait: seconds until there is room; 0 when there is.
    """

    used: int
    wait: float = 0.0


class Store(Protocol):
    """The port. `now` and `until` are seconds since 1970. Every method may raise StoreError."""

    async def greylist(self, triplet: str, network: str, now: float, terms: GreyTerms) -> Grey:
        """Count an attempt of `triplet` from `network`; concurrent attempts are counted once each, atomically."""
        ...

    async def reserve(self, message: str, quotas: Sequence[Quota], now: float) -> Sequence[Use]:
        """Reserve all `quotas` for `message` if there is room for all, else none; atomically.

        What the same part of the message has reserved before is replaced, not added.  A reservation lapses after the
        window, or after five minutes.
        """
        ...

    async def consume(self, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float) -> int:
        """Make final what `message` has reserved, once; how many keys had something reserved.

        Args:
            message: as in `reserve`.
            queue_id: by which it can be given back within an hour; "" for never.
            within: by key, the least and the most that the whole message really uses.
            now: when.
        """
        ...

    async def release(self, message: str, part: str | None = None, keys: Sequence[str] = ()) -> int:
        """Reserve no more for this part of `message`, nor of these keys for it as a whole; how many quotas went.

        For None, nothing for any of its parts.
        """
        ...

    async def give_back(self, queue_id: str) -> bool:
        """Take back what was made final under this queue id; False when there was nothing."""
        ...

    async def contacts(self, pairs: Sequence[str], now: float) -> Mapping[str, float]:
        """Which of these pairs of correspondents are remembered, each with the time of its first mail."""
        ...

    async def remember_contacts(self, pairs: Sequence[str], now: float, until: float) -> None:
        """Remember these pairs until then; one that is already there keeps its first time and gets the later end."""
        ...

    async def add_to_set(self, name: str, entry: str, until: float) -> None:
        """Put `entry` into the dynamic set `name`; `until` 0 = for ever; an entry already there gets the later end."""
        ...

    async def remove_from_set(self, name: str, entry: str) -> bool:
        """Take `entry` out; False when it was not there."""
        ...

    async def set_entries(self, name: str, now: float) -> Mapping[str, float]:
        """The entries that have not expired, each with its end (0 = none)."""
        ...

    async def set_size(self, name: str, now: float) -> int:
        """How many entries have not expired; cheap enough to ask every second, also of many."""
        ...

    async def sets_version(self) -> int:
        """A number that changes whenever any dynamic set was changed by anyone; cheap enough to ask every second."""
        ...

    async def settle(self) -> None:
        """Do what writes have left to do, such as waiting for the disk; called now and then where no mail waits."""
        ...

    async def expire(self, now: float) -> int:
        """Throw away what has expired; the number of rows thrown away."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...

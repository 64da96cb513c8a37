"""Redis, rehearsed: what would the state store say of a mail that is only judged to see what would happen?

Reads what is there, and writes nothing; what the mail itself would have reserved is remembered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from elemta.config.state_url import StatePlace
from elemta.store import Quota, Use, redis_limits
from elemta.store.redis import RedisStore


class RehearsedStore(RedisStore):
    """The `Store` port for one mail."""

    def __init__(self, place: StatePlace) -> None:
        super().__init__(place)
        self._own: dict[tuple[str, str], int] = {}

    async def reserve(self, message: str, quotas: Sequence[Quota], now: float) -> Sequence[Use]:
        """Reserve for this mail, here only."""
        own = [self._by_other_parts(quota) for quota in quotas]
        asked = [replace(quota, amount=max(quota.amount, 1) + more) for quota, more in zip(quotas, own, strict=True)]
        uses = await self._ask(redis_limits.reserve, self._run, message, asked, now, only_look=True)
        if not any(use.wait for use in uses):
            whole = {quota.key for quota in quotas if not quota.part}
            self._own = {place: amount for place, amount in self._own.items() if place[0] not in whole}
            self._own |= {(quota.key, quota.part): quota.amount for quota in quotas}
        return [Use(use.used + more, use.wait) for use, more in zip(uses, own, strict=True)]

    def _by_other_parts(self, quota: Quota) -> int:
        parts = self._own.items()
        return sum(amount for (key, part), amount in parts if key == quota.key and quota.part not in ("", part))

    async def consume(self, message: str, queue_id: str, within: Mapping[str, tuple[int, int]], now: float) -> int:
        """Nothing is used."""
        return 0

    async def release(self, message: str, part: str | None = None, keys: Sequence[str] = ()) -> int:
        """Nothing was reserved but here."""
        gone = [(key, its) for key, its in self._own if part in (None, its) or (not its and key in keys)]
        for each in gone:
            del self._own[each]
        return len(gone)

    async def give_back(self, queue_id: str) -> bool:
        """Nothing was used."""
        return False

    async def remember_contacts(self, pairs: Sequence[str], now: float, until: float) -> None:
        """Nothing is remembered."""

    async def add_to_set(self, name: str, entry: str, until: float) -> None:
        """Nothing is added."""

    async def remove_from_set(self, name: str, entry: str) -> bool:
        """Nothing is taken out."""
        return False

    async def _swap(self, key: bytes, before: bytes | None, after: object, seconds: float) -> bool:
        return True

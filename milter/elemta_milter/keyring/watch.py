"""Watching: are the keys that sign and seal still published, and does one of them wait for the administrator?

Looks once an hour, in one worker of the milter.  Tells the metrics each time and the log once a day; changes nothing,
and no mail waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elemta.check import Tools
from elemta.config.model import KeyFile, KeyRing, Settings
from elemta.observe import Metrics
from elemta_milter.keyring import publication
from elemta_milter.keyring.duties import DAY, duties, in_use
from elemta_milter.keyring.publication import Publication, Seen
from elemta_milter.keyring.ring import WAITING, RingError, State, read
from elemta_milter.mailauth.signing import SigningKey

SOON = 20.0
"""Seconds until the first look: a start or a reload has other things to do."""
HOUR = 3600.0

_log = logging.getLogger("elemta.keyring")


@dataclass(frozen=True, slots=True)
class Count:
    """What the metrics show of one domain.

    Attributes:
        age: seconds that the oldest key has signed.
        waiting: keys that do not sign yet.
        unpublished: keys that sign, and whose record the DNS does not show.
    """

    age: float = 0.0
    waiting: int = 0
    unpublished: int = 0


async def watch(settings: Settings, keys: Iterable[SigningKey], tools: Tools, metrics: Metrics) -> None:
    """Look until cancelled.

    Args:
        settings: where the keys are.
        keys: all that sign and seal.
        tools: who asks the DNS, and the clock.
        metrics: whom to tell.
    """
    records = {key.record_name: key.record for key in keys}
    said: dict[str, float] = {}
    counts: dict[str, Count] = {}
    await asyncio.sleep(SOON)
    try:
        while True:
            published = await publication.look(tools.resolver, records)
            counts, texts = await tools.in_thread(survey, settings, published, tools.clock())
            for domain, count in counts.items():
                _show(metrics, domain, count)
            now = time.monotonic()
            for text in texts:
                if now - said.get(text, -DAY) >= DAY:
                    said[text] = now
                    _log.warning("%s", text)
            await asyncio.sleep(HOUR)
    finally:
        for domain in counts:  # the next generation of workers tells from now on
            _show(metrics, domain, Count())


def _show(metrics: Metrics, domain: str, count: Count) -> None:
    metrics.dkim_key_age.child(domain).set(count.age)
    metrics.dkim_keys_waiting.child(domain).set(count.waiting)
    metrics.dkim_keys_unpublished.child(domain).set(count.unpublished)


def survey(settings: Settings, published: Mapping[str, Publication], at: float) -> tuple[dict[str, Count], list[str]]:
    """What the metrics show, by domain, and what the log says.

    Args:
        settings: where the keys are.
        published: what the DNS says of each key that signs, by the name of its record.
        at: now, seconds since 1970.
    """
    texts = [
        f"{name} signs, and no other server can verify it: {said.reason or said.seen}"
        for name, said in published.items()
        if said.seen not in (Seen.PUBLISHED, Seen.UNKNOWN)
    ]
    counts: dict[str, Count] = {}
    for domain, used in _used(settings):
        ages, waiting = [0.0], 0
        if isinstance(used, KeyRing):
            try:
                ring = read(Path(used.directory))
            except RingError as error:
                texts.append(str(error))
                continue
            ages += [key.age(at) for key in ring.of(State.ACTIVE)]
            waiting = len(ring.of(*WAITING))
            named = in_use(settings, ring)
            texts += duties(ring, at, named)
            texts += [
                f"{ring.name(key)} signs still, though it is {key.state}: systemctl reload elemta-milter"
                for key in ring.of(State.RETIRING, State.RETIRED)
                if ring.name(key) in published and key.selector not in named  # its record may go soon
            ]
        else:
            ages += [_age(key.file, at) for key in used]
        unseen = sum(_is_of(domain, name) and said.seen in _BAD for name, said in published.items())
        before = counts.get(domain, Count())
        counts[domain] = Count(max(before.age, *ages), max(before.waiting, waiting), unseen)
    return counts, texts


def _used(settings: Settings) -> Iterator[tuple[str, KeyRing | Sequence[KeyFile]]]:
    """The domains of `sign` and `seal`, with their keys."""
    for entry in settings.sign:
        yield entry.domain.lower(), entry.keys
    if settings.seal is not None:
        yield settings.seal.domain.lower(), (settings.seal.key,)


_BAD = (Seen.MISSING, Seen.DIFFERENT, Seen.REVOKED)


def _is_of(domain: str, name: str) -> bool:
    return name.partition("._domainkey.")[2] == domain


def _age(file: str, at: float) -> float:
    """Seconds since a key file was written."""
    try:
        return max(0.0, at - Path(file).stat().st_mtime)
    except OSError:
        return 0.0

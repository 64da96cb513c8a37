"""Duties: which keys wait for the administrator, and what shall he do?

Takes a ring, the time, and which of its keys the configuration names; gives one sentence a duty, with the command that
does it.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from pathlib import Path

from elemta.config.model import KeyRing, Settings
from elemta_milter.keyring.ring import Key, Ring, State
from elemta_milter.keyring.rotation import GRACE, NAMED

OLD = 365 * 86400.0
"""Seconds after which a key that signs should be exchanged (M3AAWG: at least every six months to a year)."""
DAY = 86400.0


def in_use(settings: Settings, ring: Ring) -> set[str]:
    """Selectors of the keys whose files `sign:` and `seal:` name one by one."""
    of_sign = [keys for keys in (entry.keys for entry in settings.sign) if not isinstance(keys, KeyRing)]
    of_seal = [settings.seal.key] if settings.seal else []
    files = {Path(key.file).resolve() for key in chain(*of_sign, of_seal)}
    return {key.selector for key in ring.keys if ring.path(key).resolve() in files}


def duty(ring: Ring, key: Key, at: float, named: Collection[str] = ()) -> str:
    """What is to be done about this key; "" for nothing."""
    days = int(key.age(at) // DAY)
    match key.state:
        case State.NEW:
            since = f" (waiting for {_days(days)})" if days else ""
            return f"publish it{since}: elemta dkim dns {ring.domain} {key.selector}"
        case State.PUBLISHED:
            return f"let it sign: elemta dkim rotate {ring.domain}"
        case State.ACTIVE if key.age(at) >= OLD:
            return f"in use for {_days(days)}: elemta dkim rotate {ring.domain}"
        case State.RETIRING if key.age(at) >= GRACE:
            return f"its time has passed: {NAMED if key.selector in named else f'elemta dkim retire {ring.domain}'}"
    return ""


def duties(ring: Ring, at: float, named: Collection[str] = ()) -> list[str]:
    """All duties of a ring, each with the key's name first."""
    found = [(key, duty(ring, key, at, named)) for key in ring.keys]
    return [f"{ring.name(key)}: {text}" for key, text in found if text]


def _days(days: int) -> str:
    return "a day" if days == 1 else f"{days} days"

"""Parts: what do the daemons' packages read of the settings themselves, and say of a mail that is kept?

A part acts on kept mail after the judgement (signing, sealing) and judges nothing.  The policy makes each part from the
settings when it is compiled, so that a missing key is a mistake of the configuration like any other; the engine asks it
what it will do, so that this stands in the decision.  The doing is the daemon's, by `policy.parts[name]`.

An entry point of the group `elemta.parts` names a callable: settings -> (the part, or None where the settings do not
ask for it; every problem found).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Protocol

from elemta.check import Seen
from elemta.config.model import Settings
from elemta.config.problems import Problem
from elemta.facts import Message
from elemta.findings import Finding
from elemta.plugins import PluginError
from elemta.verdict import Verdict

GROUP = "elemta.parts"


class Part(Protocol):
    """Something that will be done to kept mail."""

    needs_body: bool

    def see(self, klass: str, message: Message, seen: Seen, verdict: Verdict) -> Finding:
        """Say what will be done to this mail, or why nothing; never waits, never raises.

        May be called from any thread; on the loop only for a small mail, unless `needs_body` is False.
        """
        ...


def find_parts(settings: Settings) -> tuple[Mapping[str, Part], list[Problem]]:
    """The parts that the settings ask for, by name, and what is wrong with what they ask for.

    Raises:
        PluginError: an entry point cannot be loaded.
    """
    parts: dict[str, Part] = {}
    problems: list[Problem] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            make: Callable[[Settings], tuple[Part | None, list[Problem]]] = entry.load()
        except (ImportError, AttributeError) as error:
            raise PluginError(f"entry point {entry.name} = {entry.value}: {error}") from error
        part, more = make(settings)
        problems += more
        if part is not None:
            parts[entry.name] = part
    return parts, problems

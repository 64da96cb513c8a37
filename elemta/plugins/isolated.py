"""An isolated plugin: a check whose `run` is made in a process of its own.

For the engine it is a check like any other.  Whatever becomes of the process costs this finding only: it is trouble,
and what that means is the policy's word.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elemta.check import CLASS, UNTIL, Check, Seen, Tools
from elemta.config.model import Settings
from elemta.dns import DEADLINE
from elemta.facts import Message
from elemta.findings import Finding, Result
from elemta.plugins.answer import REASON, read_finding
from elemta.plugins.finding import Plugin
from elemta.plugins.pool import Pool
from elemta.plugins.process import ProcessError
from elemta.plugins.sources import EntrySource
from elemta.plugins.wire import Facts, Json, body_file, facts_data, seen_data

LONGEST = 60.0  # seconds for a question to which nobody set a limit
AHEAD = 5.0  # seconds that a worker waits for the first process before it takes mail


class Isolated(Check[Any]):
    """What does the plugin see, asked in a process of its own?"""

    name = "isolated"

    def __init__(self, plugin: Plugin, options: Any, tools: Tools, settings: Settings) -> None:  # noqa: ANN401
        super().__init__(options, tools)
        self.plugin = plugin
        self._settings = settings
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Start nothing: the policy service has checks that it never asks."""
        own = self._settings.plugins
        self._pool = Pool(self.plugin.check.name, _what(self.plugin, self._settings), own.processes)

    async def ahead(self) -> None:
        """Have one process ready before the first mail comes, if it is quick about it."""
        if self._pool is not None:
            await asyncio.wait({self._pool.ahead()}, timeout=AHEAD)

    async def close(self) -> None:
        """End its processes."""
        if self._pool is not None:
            await self._pool.close()

    def dependencies(self) -> Mapping[str, str]:
        """Its processes, and what the plugin itself depends on."""
        return {"process": self._pool.why, **self._pool.depends} if self._pool is not None else {}

    async def run(self, facts: Facts, seen: Seen) -> Finding:
        """Ask one of the processes."""
        assert self._pool is not None  # noqa: S101 - it was opened
        until = min(UNTIL.get(), time.monotonic() + LONGEST)
        question = {
            "class": CLASS.get(),
            "until": until,
            "dns": min(DEADLINE.get(), until),
            "facts": facts_data(facts),
            "seen": seen_data(seen),
        }
        try:
            answer = await self._pool.ask(question, lambda: self._body(facts), until)
            if "error" in answer:
                return self._trouble(str(answer["error"])[:REASON])
            return read_finding(self.plugin.check, answer.get("finding"))
        except ProcessError as error:
            return self._trouble(f"the plugin's process: {error}")
        except ValueError as error:
            return self._trouble(f"the plugin's answer: {error}"[:REASON])

    def _body(self, facts: Facts) -> int | None:
        if isinstance(facts, Message) and self.plugin.check.needs_body:
            return body_file(facts.body)
        return None

    def _trouble(self, why: str) -> Finding:
        return Finding(self.plugin.check.name, Result.TEMPERROR, why, trouble=True)


def _what(plugin: Plugin, settings: Settings) -> Json:
    """What each process shall be: see `child.py`."""
    source = plugin.source
    if isinstance(source, EntrySource):
        where: Json = {"entry": asdict(source)}
    else:
        where = {"file": {"path": source.path, "text": source.text.decode("latin-1")}}
    return {
        **where,
        "name": plugin.check.name,
        "options": settings.checks.get(plugin.check.name),
        "settings": settings.model_dump(mode="json", by_alias=True, include={"host", "dns", "state"}),
        "memory": settings.plugins.memory,
        "path": [str(Path(each).absolute()) for each in sys.path if each],
    }

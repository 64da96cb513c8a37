"""Which journal: where do the daemons write, also while the configuration has mistakes?

A daemon goes on with the policy that it has when a new one is wrong.  What it decided can be asked for all the same.
"""

from __future__ import annotations

import os

from elemta.cli import fail
from elemta.config.load import Loaded, loaded_and
from elemta.config.model import Settings
from elemta.config.problems import ConfigErrors

_ELSEWHERE = frozenset(Settings.model_fields) - {"journal"}


def journal_path(config: str) -> str:
    """The journal of the configuration in the file `config`; mistakes in other sections are told in one line.

    Raises:
        ConfigErrors: the mistakes may be about the journal.
    """
    found: list[str] = []

    def note(loaded: Loaded) -> None:
        found.append(loaded.settings.journal.path)

    try:
        loaded_and(note, config)
    except ConfigErrors as errors:
        if not found or not all(problem.path and problem.path[0] in _ELSEWHERE for problem in errors.problems):
            raise
        fail(f"warning: {config} has mistakes, `elemta config check {config}` tells them", os.EX_OK)
    return found[0]

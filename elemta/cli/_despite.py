"""Despite: what do the settings say that a command wants, also while others have mistakes?

A daemon goes on with the policy that it has when a new one is wrong; whoever asks what it did, or changes a set of it,
is not held up by mistakes that are none of his.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from elemta.cli import fail
from elemta.config.load import Loaded, loaded_and
from elemta.config.model import Settings
from elemta.config.problems import ConfigErrors, Path


def settings_despite(config: str, matters: Callable[[Path], bool]) -> Settings:
    """The settings of the file `config`; mistakes at places that do not matter are told in one line.

    Raises:
        ConfigErrors: a mistake matters, or concerns the file as a whole.
    """
    found: list[Settings] = []

    def note(loaded: Loaded) -> None:
        found.append(loaded.settings)

    try:
        loaded_and(note, config)
    except ConfigErrors as errors:
        sections = Settings.model_fields
        whole = any(not each.path or each.path[0] not in sections for each in errors.problems)
        if not found or whole or any(matters(each.path) for each in errors.problems):
            raise
        fail(f"warning: {config} has mistakes, `elemta config check {config}` tells them", os.EX_OK)
    return found[0]


def journal_path(config: str) -> str:
    """The journal of the configuration in the file `config`; mistakes in other sections are told in one line.

    Raises:
        ConfigErrors: the mistakes may be about the journal.
    """
    return settings_despite(config, lambda path: path[0] == "journal").journal.path

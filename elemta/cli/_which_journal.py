"""Which journal: where do the daemons write, also while the configuration has mistakes?"""

from __future__ import annotations

from elemta.cli._despite import settings_despite


def journal_path(config: str) -> str:
    """The journal of the configuration in the file `config`; mistakes in other sections are told in one line.

    Raises:
        ConfigErrors: the mistakes may be about the journal.
    """
    return settings_despite(config, lambda path: path[0] == "journal").journal.path

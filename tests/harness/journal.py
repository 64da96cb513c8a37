"""A journal that a test writes in its own process, without a courier."""

from __future__ import annotations

from collections.abc import Mapping

from elemta.decision import Decision
from elemta.journal import Writer
from elemta.journal.dispatch import dispatch
from elemta.journal.entry import row
from elemta.journal.write import in_words


class JournalWriter(Writer):
    """Takes decisions as they are; in a daemon the courier brings them."""

    def policy(self, fingerprint: str, document: Mapping[str, object]) -> None:
        """Keep the words of a policy."""
        self.words(fingerprint, in_words(document))

    def decided(self, decision: Decision) -> None:
        """Take note."""
        self.take((row(dispatch(decision)),))

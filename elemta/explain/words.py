"""Words and colours of verdicts, the same wherever one is told."""

from __future__ import annotations

from collections.abc import Mapping

from elemta.verdict import Disposition

WIDTH = 100  # columns, where nothing else is known
DONE: Mapping[Disposition, str] = {
    Disposition.ACCEPT: "accepted",
    Disposition.QUARANTINE: "quarantined",
    Disposition.DISCARD: "discarded",
    Disposition.DEFER: "deferred",
    Disposition.REJECT: "rejected",
}
COLOUR: Mapping[Disposition, str] = {Disposition.ACCEPT: "32", Disposition.REJECT: "31"}  # SGR: green, red
OTHER_COLOUR = "33"  # yellow

"""Words and colours of verdicts, the same wherever one is told."""

from __future__ import annotations

from collections.abc import Mapping

from elemta.journal.acts import Deed
from elemta.verdict import Disposition

WIDTH = 100  # columns, where nothing else is known
DONE: Mapping[Disposition, str] = {
    Disposition.ACCEPT: "accepted",
    Disposition.QUARANTINE: "quarantined",
    Disposition.DISCARD: "discarded",
    Disposition.DEFER: "deferred",
    Disposition.REJECT: "rejected",
}
DEED: Mapping[Deed, str] = {
    Deed.RELEASED: "released",
    Deed.REQUEUED: "released as a new message, with a new queue id,",
    Deed.DELETED: "deleted",
    Deed.EXPIRED: "deleted, since its time was over,",
    Deed.UNDONE: "not carried out, the mail was deferred",
}
COLOUR: Mapping[Disposition, str] = {Disposition.ACCEPT: "32", Disposition.REJECT: "31"}  # SGR: green, red
OTHER_COLOUR = "33"  # yellow

"""Quarantine: which mails does Elemta keep on Postfix's hold queue, why, and what becomes of them?

`queue.py` speaks with Postfix's own programs, `holding.py` joins its hold queue with the journal, `choice.py` picks
mails by criteria, `acting.py` releases and deletes.  What somebody else put on hold is told apart and left alone.
"""

from elemta.quarantine.choice import Choice
from elemta.quarantine.holding import Held, held
from elemta.quarantine.queue import HoldQueue, Queued, QueueError

__all__ = ["Choice", "Held", "HoldQueue", "QueueError", "Queued", "held"]

"""Journal: what was decided about each mail, and why?

Every `Decision` is kept in one SQLite file that the workers of both daemons share.  `dispatch.py` packs what is kept of
one, `courier.py` brings it to a process that writes it with `write.py`, and never holds up the mail; `read.py` finds
decisions again and throws old ones away, `schema.py` knows what stands in the file, `entry.py` makes a row of what was
packed and an entry of a row, `acts.py` keeps what was done with held mail later.
"""

from elemta.journal.acts import Act, Deed, record
from elemta.journal.courier import Courier
from elemta.journal.entry import Entry
from elemta.journal.read import BEGINNING, Mark, Reader, expire
from elemta.journal.schema import JournalError
from elemta.journal.write import Writer

__all__ = [
    "BEGINNING",
    "Act",
    "Courier",
    "Deed",
    "Entry",
    "JournalError",
    "Mark",
    "Reader",
    "Writer",
    "expire",
    "record",
]

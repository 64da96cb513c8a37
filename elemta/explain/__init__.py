"""Explain: why did this mail get this verdict, in words for people?

Takes entries of the journal, or of a rehearsal, and gives text for a terminal (`story`, `table`) or plain data for
JSON (`data`): what was seen, which rules were read and why each matched or did not, which one decided, what shadow
rules would have done, and where the time went.  What strangers wrote is shown with its control characters escaped.
"""

from elemta.explain.rules import ReadRule, data, rules_read
from elemta.explain.story import story
from elemta.explain.table import table
from elemta.explain.words import WIDTH

__all__ = ["WIDTH", "ReadRule", "data", "rules_read", "story", "table"]

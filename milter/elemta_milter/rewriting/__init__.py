"""Rewriting: how does a mail read with a banner, with a tagged subject, with a notice in an attachment's place?

From the parts of a message to a `Change`; without configuration or daemon.  Octets outside the parts that are changed
stay as they were.
"""

from elemta_milter.rewriting.banner import add_banners
from elemta_milter.rewriting.bounds import RewritingBounds
from elemta_milter.rewriting.change import Change, Rewritten
from elemta_milter.rewriting.notices import replace_parts
from elemta_milter.rewriting.subject import tagged
from elemta_milter.rewriting.texts import Banner, Skipped

__all__ = [
    "Banner",
    "Change",
    "RewritingBounds",
    "Rewritten",
    "Skipped",
    "add_banners",
    "replace_parts",
    "tagged",
]

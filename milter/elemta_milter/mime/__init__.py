"""MIME: the parts of a message and what they hold, read as mail programs read them; without configuration or daemon."""

from elemta_milter.mime.bounds import BOUNDS, MimeBounds
from elemta_milter.mime.content import content, other_texts_of, text_of
from elemta_milter.mime.description import ENCODED, MAIL
from elemta_milter.mime.parts import Part, Tree
from elemta_milter.mime.tree import read, read_octets, tree_of
from elemta_milter.mime.wrapped import is_wrapped, read_wrapped, trees

__all__ = [
    "BOUNDS",
    "ENCODED",
    "MAIL",
    "MimeBounds",
    "Part",
    "Tree",
    "content",
    "is_wrapped",
    "other_texts_of",
    "read",
    "read_octets",
    "read_wrapped",
    "text_of",
    "tree_of",
    "trees",
]

"""Parts: what is a part of a MIME message, and what is the tree of them?

RFC 2045 (fields of a part), RFC 2046 (multipart, message), RFC 2183 (disposition), RFC 2231 (parameters).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_S_MIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_S_MIME_NAMES = (".p7m", ".p7z")


@dataclass(frozen=True, slots=True)
class Part:
    """One part, as it stands in the body of the message.

    Attributes:
        number: its place, as IMAP counts (RFC 9051 section 6.4.5): "" for the whole message, "1", "2.1".
        depth: how many parts it lies in; 0 for the whole message.
        header: (name, value) of its own fields in order, raw octets, as `Message.headers`.
        header_start: where its header begins in the body; 0 for the whole message, whose header is not in the body.
        start: where its content begins.
        end: where its content ends; the line end before the boundary belongs to the boundary.
        media_type: "text/plain", lower case; the default where the field is missing or cannot be read
            (RFC 2045 section 5.2, RFC 2046 section 5.1.5).
        parameters: of Content-Type, names in lower case, decoded.
        disposition: "attachment", "inline", …, lower case; "" for none.
        filename: the name that a mail program would show, decoded; "" for none.
        filenames: every name that the part's fields give, each once: programs differ in which they take.
        encoding: Content-Transfer-Encoding in lower case; "7bit" where there is none.
        parts: the parts of a multipart or of an attached message, in order.
    """

    number: str
    depth: int
    header: tuple[tuple[bytes, bytes], ...]
    header_start: int
    start: int
    end: int
    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    disposition: str = ""
    filename: str = ""
    filenames: tuple[str, ...] = ()
    encoding: str = "7bit"
    parts: tuple[Part, ...] = ()

    @property
    def is_s_mime(self) -> bool:
        """Whether it is a mail within S/MIME; by its name, where the type says nothing (RFC 8551 section 3.10)."""
        by_name = self.media_type == "application/octet-stream" and any(
            name.lower().rstrip(". ").endswith(_S_MIME_NAMES) for name in self.filenames
        )
        return by_name or self.media_type in _S_MIME

    def walk(self) -> Iterator[Part]:
        """This part and all below it, in the order of the message."""
        pending = [self]
        while pending:
            part = pending.pop()
            yield part
            pending += reversed(part.parts)


@dataclass(frozen=True, slots=True)
class Tree:
    """A message's parts.

    Attributes:
        root: the whole message.
        body: its octets, in memory or mapped from the spool.
        excess: bounds that were passed, in words: what lies beyond was not looked at ("1,000 parts").
        defects: what is wrong with the structure, in words, each once ("a multipart without its last boundary").
    """

    root: Part
    body: memoryview
    excess: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()

    def raw(self, part: Part) -> memoryview:
        """The octets of a part's content as they stand, still encoded."""
        return self.body[part.start : part.end]

"""Description: what do the fields of one part say of it?

Takes the part's own header fields; gives media type, file names, encoding and boundaries.  Where fields contradict each
other or can be read in several ways, the reading that shows more attachments counts, and the contradiction is reported.
Never raises.

RFC 2045 sections 5 and 6, RFC 2046 section 5.1, RFC 2183 section 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from elemta_milter.mime.bounds import BOUNDS
from elemta_milter.mime.parameters import MAX_PIECES, Value, parameters, texts

MAX_NAME = 1024  # characters of a file name kept, those at its end
MAIL = frozenset({"message/rfc822", "message/global", "message/news"})
"""Types of a part that is a whole message (RFC 2046 section 5.2.1, RFC 6532 section 3.7)."""
UUENCODE = frozenset({"uuencode", "x-uuencode", "uue", "x-uue"})
ENCODED = UUENCODE | {"base64", "quoted-printable", "yenc", "x-yenc"}

_BLANKS = bytes(range(0x21)) + b"\x7f"  # what some mail programs pass over in a field's name
_MEDIA_TYPE = re.compile(r"([^\s/]+)\s*/\s*([^\s/]+)")
_ENCODING = re.compile(rb"[A-Za-z0-9-]+")
_COMMENT = re.compile(rb"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class Description:
    """What a part says of itself; see `Part` for what is not told here.

    Attributes:
        boundaries: what begins its delimiter lines after "--", of a multipart; every reading.
        defects: what is wrong with it, in words.
        excess: bounds that were passed, in words: what lies beyond was not read.
        pieces: of its fields that were read; see `parameters`.
    """

    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    disposition: str = ""
    filenames: tuple[str, ...] = ()
    encoding: str = "7bit"
    boundaries: tuple[bytes, ...] = ()
    defects: tuple[str, ...] = ()
    excess: tuple[str, ...] = ()
    pieces: int = 0

    @property
    def is_multipart(self) -> bool:
        """Whether it holds parts between delimiter lines."""
        return self.media_type.startswith("multipart/")

    @property
    def is_message(self) -> bool:
        """Whether it holds a whole message."""
        return self.media_type in MAIL

    @property
    def is_encoded(self) -> bool:
        """Whether its octets must be decoded; what is encoded in an unknown way is taken as it stands."""
        return self.encoding in ENCODED


def describe(
    header: Sequence[tuple[bytes, bytes]],
    default: str = "text/plain",
    most: int = BOUNDS.part_header,
    pieces: int = MAX_PIECES,
) -> Description:
    """Read the fields, `most` octets of them and so many pieces of each; `default`: of a part that tells no type."""
    by_name: dict[bytes, list[bytes]] = {}
    room = most
    for name, value in header:
        lower = name.strip(_BLANKS).lower()
        if lower in _DESCRIBING:
            by_name.setdefault(lower, []).append(value[: max(room, 0)])
            room -= len(name) + len(value)
    if not by_name:
        return Description(default)
    pieces = min(pieces, MAX_PIECES)
    types = [parameters(value, pieces) for value in by_name.get(b"content-type", ())]
    dispositions = [parameters(value, pieces) for value in by_name.get(b"content-disposition", ())]
    encodings = [_encoding(value) for value in by_name.get(b"content-transfer-encoding", ())]
    defects = [f"several {name} fields" for name in _NAMES if len(by_name.get(name.lower().encode(), ())) > 1]
    media_types = [_media_type(each, default) for each in types]
    if any(not _MEDIA_TYPE.fullmatch(each.word) for each in types):
        defects.append("a Content-Type that cannot be read")
    media_type = min(media_types, key=_shows_less, default=default)
    boundaries = _boundaries(types) if media_type.startswith("multipart/") else ()
    if len(boundaries) > 1:
        defects.append("a boundary that can be read in several ways")
    excess = [f"{most} octets of header fields that describe a part"] if room < 0 else []
    if any(each.cut for each in (*types, *dispositions)):
        excess.append("the pieces of header fields that are read")
    places = ((dispositions, "filename"), (types, "name"), (types, "filename"), (dispositions, "name"))
    names = [name for values, key in places for each in values for name in each.readings.get(key, ())]
    names += [name for field in _OLD_NAMES for value in by_name.get(field, ()) for name in texts(value)]
    return Description(
        media_type,
        {name: readings[0] for each in reversed(types) for name, readings in each.readings.items()},
        next((each.word for each in dispositions if each.word), "attachment" if dispositions else ""),
        tuple(dict.fromkeys(name[-MAX_NAME:] for name in names)),
        "base64" if "base64" in encodings else encodings[0] if encodings else "7bit",
        boundaries,
        tuple(defects),
        tuple(excess),
        sum(each.pieces for each in (*types, *dispositions)),
    )


_NAMES = ("Content-Type", "Content-Disposition", "Content-Transfer-Encoding")
_OLD_NAMES = (b"content-name", b"x-sun-data-name")
"""Fields of no RFC from which Thunderbird takes a file's name where nothing else tells it."""
_DESCRIBING = frozenset({*(name.lower().encode() for name in _NAMES), *_OLD_NAMES})


def _media_type(value: Value, default: str) -> str:
    """Give type/subtype; RFC 2045 section 5.2: what cannot be read is the default, but a multipart shows its parts."""
    match = _MEDIA_TYPE.match(value.word)
    if match is None:
        return "multipart/mixed" if value.word.startswith("multipart") or "boundary" in value.readings else default
    return f"{match[1]}/{match[2]}"


def _shows_less(media_type: str) -> int:
    """How little of a part's content a program shows as parts or attachments that takes it for this."""
    if media_type.startswith("multipart/"):
        return 0
    if media_type.startswith("message/"):
        return 1
    return 3 if media_type.startswith("text/") else 2


def _boundaries(types: Sequence[Value]) -> tuple[bytes, ...]:
    """Every reading of every boundary; blanks at its end are not a part of it (RFC 2046 section 5.1.1)."""
    texts = [text.rstrip() for each in types for text in each.readings.get("boundary", ())]
    found = [text.encode() for text in texts] + [text.encode("cp1252", "replace") for text in texts]
    return tuple(dict.fromkeys(boundary for boundary in found if boundary))


def _encoding(value: bytes) -> str:
    words = [word.decode().lower() for word in _ENCODING.findall(_COMMENT.sub(b" ", value))]
    return next((word for word in words if word in ENCODED), words[0] if words else "7bit")

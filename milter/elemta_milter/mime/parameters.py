"""Parameters: what does a field such as Content-Type or Content-Disposition say, in every way that programs read it?

Takes the raw value of the field; gives its first word and, of each parameter, every reading: of continuations in any
order, with charsets, doubled or with holes (RFC 2231), of encoded words where none may be (RFC 2047), of comments that
some programs take for text, of quotes that are left open.  The reading that most programs show comes first.  Never
raises; linear in the size of the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from elemta.addresses.encoded_words import decode_words
from elemta.charsets import decode, undeclared

MAX_READINGS = 50  # of one parameter
MAX_PIECES = 5000  # of one field

_BLANKS = "".join(map(chr, range(0x21))) + ","
_LINE_END = re.compile("[\r\n]+")
_UNQUOTED = r'(?P<special>["(;])|(?P<text>[^"(;]++)'
_TOKEN = re.compile(rf'(?P<quoted>"(?:[^"\\]|\\.)*+")|{_UNQUOTED}', re.DOTALL)
_TOKEN_AFTER_OPEN_QUOTE = re.compile(_UNQUOTED)
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NAME = re.compile(r"([^*\s]+)(?:\*(\d{1,6}))?(\*)?")
_BLANK_BEFORE_NAME = re.compile(r"[\s,](?=[A-Za-z-]{4,}\*?[\d*]*\s*=)")

Token = tuple[str, str]  # quoted or text, as written; comments are gone


@dataclass(frozen=True, slots=True)
class Value:
    """A field's value.

    Attributes:
        word: what stands before the parameters, lower case: "multipart/mixed", "attachment".
        readings: by name in lower case, every reading of the parameter, each once.
        pieces: quoted texts, others, and what separates them, as often as they were read.
        cut: it has more of them, or more readings of one parameter, than were to be read.
    """

    word: str = ""
    readings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pieces: int = 0
    cut: bool = False

    def first(self, name: str) -> str:
        """What most programs read; "" where the parameter is absent."""
        return next(iter(self.readings.get(name, ())), "")


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter as it stands: `name*section*=text`; `others`: what else programs take for its text."""

    name: str
    section: int | None
    extended: bool
    text: str
    others: tuple[str, ...] = ()


def parameters(value: bytes, most: int = MAX_PIECES) -> Value:
    """Read the raw value of a field, at most so many pieces of it."""
    text = _LINE_END.sub("", value.decode("latin-1"))  # one character for each octet
    word, found, pieces, cut = _read(text, most, comments=True)
    if "(" in text:  # programs that know no comments
        _, more, again, more_cut = _read(text, most, comments=False)
        found, pieces, cut = found + more, pieces + again, cut or more_cut
    by_name: dict[str, list[_Parameter]] = {}
    for parameter in found:
        by_name.setdefault(parameter.name, []).append(parameter)
    readings = {name: _unique(_readings(same)) for name, same in by_name.items()}
    cut = cut or any(len(of) > MAX_READINGS for of in readings.values())
    return Value(word, {name: of[:MAX_READINGS] for name, of in readings.items() if of}, pieces, cut)


def texts(value: bytes) -> tuple[str, ...]:
    """Every reading of the raw value of a field that is a text and nothing else, the most likely first."""
    return _unique(_plain(_LINE_END.sub("", value.decode("latin-1")).strip(' \t"')))


def _read(text: str, most: int, *, comments: bool) -> tuple[str, list[_Parameter], int, bool]:
    """Give the first word, the parameters, how many pieces were read, and whether there are more."""
    (first, *rest), pieces, cut = _segments(text, most, comments=comments)
    word = "".join(part for kind, part in first if kind == "text")
    if "=" in word and (blank := _BLANK_BEFORE_NAME.search(word)):  # "attachment filename=a.exe"
        place = word.index("=")
        word = word[: blank.start()]
        rest = [_after(first, min(place, blank.end())), *rest]
    found = [each for segment in rest if (each := _parameter(segment)) is not None]
    return word.partition("(")[0].strip(_BLANKS).lower(), found, pieces, cut


def _after(segment: list[Token], place: int) -> list[Token]:
    """What follows the first `place` characters of the text in a segment."""
    left = place
    for number, (kind, part) in enumerate(segment):
        if kind == "text":
            if left < len(part):
                return [(kind, part[left:]), *segment[number + 1 :]]
            left -= len(part)
    return []


def _segments(text: str, most: int, *, comments: bool) -> tuple[list[list[Token]], int, bool]:
    """Cut at each ";" outside quotes and comments; and how many pieces were read, and whether there are more."""
    segments: list[list[Token]] = [[]]
    place, token, open_comment = 0, _TOKEN, not comments
    pieces = 0
    while match := token.match(text, place):
        if pieces >= most:
            return segments, pieces, True
        pieces += 1
        kind, part, place = str(match.lastgroup), match[0], match.end()
        if part == ";":
            segments.append([])
            continue
        if part == '"':
            token = _TOKEN_AFTER_OPEN_QUOTE  # or each of the quotes that follow would be looked for its end
        elif part == "(" and not open_comment and not _in_value(text, place - 1, segments[-1]):
            end = _end_of_comment(text, place)
            open_comment = not end  # and so is any that follows
            if end:
                place = end
                continue
        segments[-1].append(("quoted" if kind == "quoted" else "text", part))
    return segments, pieces, False


def _in_value(text: str, place: int, segment: list[Token]) -> bool:
    """Tell whether a parenthesis belongs to a value without quotes, as in filename=report(1).pdf."""
    return text[place - 1 : place] not in {"", " ", "\t", '"', "=", ")"} and bool(segment) and "=" in segment[-1][1]


def _end_of_comment(text: str, place: int) -> int:
    depth = 1
    for match in _PARENTHESIS.finditer(text, place):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if not depth:
            return match.end()
    return 0


def _parameter(segment: list[Token]) -> _Parameter | None:
    before = ""
    for number, (kind, part) in enumerate(segment):
        if kind == "text" and "=" in part:
            name, _, rest = part.partition("=")
            match = _NAME.fullmatch((before + name).strip().lower())
            if match is None:
                return None
            section = None if match[2] is None else int(match[2])
            values = _values([("text", rest), *segment[number + 1 :]])
            return _Parameter(match[1], section, match[3] is not None, values[0], values[1:])
        before += part.strip('"')
    return None


def _values(tokens: list[Token]) -> tuple[str, ...]:
    """Give what programs take for the value; the most likely first."""
    whole = "".join(_ESCAPED.sub(r"\1", part[1:-1]) if kind == "quoted" else part for kind, part in tokens).strip()
    quoted = [_ESCAPED.sub(r"\1", part[1:-1]) for kind, part in tokens if kind == "quoted"]
    found = [whole, *quoted[:1]]
    if not quoted:
        found[:0] = [whole.strip('"')] if '"' in whole else []
        found += [whole.partition("(")[0].strip(), *whole.split(None, 1)[:1]]
    elif any("\\" in part for kind, part in tokens if kind == "quoted"):
        found.append("".join(part.strip('"') for _, part in tokens).strip())  # C:\dir\file
    return _unique(found) or ("",)


def _readings(same: list[_Parameter]) -> Iterator[str]:
    """Every reading of the parameters of one name."""
    for each in same:
        if each.section is None and each.extended:
            for text in (each.text, *each.others):
                yield _extended(text)
    sections = [each for each in same if each.section is not None]
    if sections:
        yield from _joined(sections)
        yield from _joined(sections[::-1])
    for each in same:
        if each.section is None and not each.extended:
            for text in (each.text, *each.others):
                yield from _plain(text)
                if each.name == "boundary":  # octets to compare, which nobody decodes
                    yield undeclared(_octets(text))


def _joined(sections: list[_Parameter]) -> Iterator[str]:
    """Join continuations (RFC 2231 section 3) in the order of their numbers; of equal ones the first counts."""
    by_number: dict[int, _Parameter] = {}
    for each in sections:
        by_number.setdefault(each.section or 0, each)
    ordered = [by_number[number] for number in sorted(by_number)]
    whole = next((count for count, number in enumerate(sorted(by_number)) if number != count), len(ordered))
    for taken in (ordered, ordered[:whole]):  # some stop at the first hole
        if any(each.extended for each in taken):
            charset, text = _charset(taken[0].text) if taken[0].extended else ("", taken[0].text)
            texts = [text, *(each.text for each in taken[1:])]
            octets = b"".join(
                unquote_to_bytes(_octets(text)) if each.extended else _octets(text)
                for text, each in zip(texts, taken, strict=True)
            )
            yield _decoded(octets, charset)
        else:
            yield from _plain("".join(each.text for each in taken))


def _extended(text: str) -> str:
    """Read charset'language'percent-encoded (RFC 2231 section 4)."""
    charset, rest = _charset(text)
    return _decoded(unquote_to_bytes(_octets(rest)), charset)


def _charset(text: str) -> tuple[str, str]:
    parts = text.split("'", 2)
    return (parts[0], parts[2]) if len(parts) == 3 else ("", text)


def _plain(text: str) -> Iterator[str]:
    """Read a value in which some programs find encoded words or percent-encoding, and some an end at a NUL."""
    shown = decode_words(undeclared(_octets(text)))
    yield shown
    if "\0" in shown:
        yield shown.replace("\0", "")
        yield shown.partition("\0")[0]
    if "%" in text:
        yield undeclared(unquote_to_bytes(_octets(text)))


def _decoded(octets: bytes, charset: str) -> str:
    return decode(octets, charset)[0] if charset else undeclared(octets)


def _octets(text: str) -> bytes:
    return text.encode("latin-1")


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in dict.fromkeys(texts) if text)

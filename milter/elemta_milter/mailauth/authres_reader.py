"""Authentication-Results, read: what does this field say, and does it claim to be ours?

Takes the raw value of a field; gives what stands in it, as far as it can be read (`reason` tells what of it does not
follow the grammar), and whether it bears one of our names, also when that is disguised.  Never raises, and takes
time in proportion to the size.  Whether a field may be believed is not asked here.

RFC 8601 section 2.2 (grammar) and section 5 (removing forgeries), RFC 8616 (U-labels), RFC 2047 (encoded words).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import idna
from msgspec import Struct

from elemta.addresses import a_label
from elemta.addresses.encoded_words import decode_words

MAX_OCTETS = 65_536
MAX_RESULTS = 1_000
MAX_PROPERTIES = 4_000

_SPACE = re.compile(r"[ \t\r\n]*+")
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ID = re.compile(r'[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]++')  # RFC 2045 section 5.1, with UTF-8
_KEY = re.compile(r"[A-Za-z0-9_-]++")
_KEYWORD = re.compile(r"(?:[A-Za-z0-9-]*[A-Za-z0-9])?")  # RFC 5321 section 4.1.2; "" is told of where it stands
_NAME = re.compile(r"[A-Za-z0-9_.-]++")
_DIGITS = re.compile(r"[0-9]{1,9}+")
_PVALUE = re.compile(r'(?:"(?:[^"\\]|\\.)*+"|[^\x00-\x20\x7f;()"]++)++', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NOT_TEXT = re.compile(r'[\x00-\x20\x7f\\"]+')
_COMMENT = re.compile(r"\([^()]*\)")  # as readers take it who do not know the rest of the grammar
_ODD_COMMENT = re.compile(r"\\|\([^()]*\(")
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HIDDEN = {"Cc", "Cf", "Cs"}  # controls, formats, octets that are no UTF-8
_CONTROLS = bytes(range(33)) + b"\x7f"


class Resinfo(Struct, frozen=True):
    """One result as it stands in a field, names and result word in lower case, values unquoted.

    Attributes:
        method: "spf".
        version: of the method; None where the field names none (that is 1).
        result: "pass".
        reason: "" for none.
        properties: pairs such as ("smtp.mailfrom", "a@b.test"), in order.
    """

    method: str
    version: int | None
    result: str
    reason: str
    properties: tuple[tuple[str, str], ...]


class Parsed(Struct, frozen=True):
    """A field, as far as it could be read.

    Attributes:
        authserv_id: unquoted, as written; "" where there is none.
        version: of the field; None where it names none (that is 1).
        results: in order; () for "none".
        reason: for people, why the field does not follow the grammar of RFC 8601; "" when it does.
    """

    authserv_id: str
    version: int | None
    results: tuple[Resinfo, ...]
    reason: str


def parse(value: bytes | str) -> Parsed:
    """Read the value of an Authentication-Results field."""
    return _Reader(_text(value)).field()


def is_authentication_results(name: bytes) -> bool:
    """Tell whether a field's name is Authentication-Results, in any case, with spaces or controls around it."""
    if len(name) <= 22:
        return len(name) == 22 and name.lower() == b"authentication-results"
    return name.translate(None, _CONTROLS).lower() == b"authentication-results"


def claims(value: bytes | str, host: str) -> bool:
    """Tell whether a field bears our name, also when disguised (RFC 8601 section 5).

    Where no name can be read from the field, or none that is a token, or where not all readers agree on where encoded
    words and comments end, it is enough that ours is mentioned anywhere, or that the field is too long to be read.
    """
    text, own = _text(value), _comparable(host)
    return any(_claims(text, shown, own) for shown in _readings(text))


def is_ours(field: Parsed, host: str) -> bool:
    """Tell whether a field says plainly that it is ours, in a version that is known; `claims` takes more for ours.

    RFC 8601 section 2.3 (whose results they are), section 2.2 (version).
    """
    return field.version in {None, 1} and _comparable(field.authserv_id) == _comparable(host)


def _claims(text: str, shown: str, own: str) -> bool:
    reader = _Reader(shown)
    name = reader.authserv_id()
    if _comparable(name) == own:
        return True
    plain = _ID.fullmatch(name) and not reader.trouble and reader.at_end_of_head()
    if plain and "=?" not in text and not _ODD_COMMENT.search(shown, 0, reader.place):
        return False
    if len(text) > MAX_OCTETS and not _ID.fullmatch(name):
        return True
    forms = (reader.without_comments(), reader.raw, _COMMENT.sub("", reader.raw))
    mentions = [_NOT_TEXT.sub("", form).lower() for form in forms]
    spellings = [spelling for spelling in (own, _u_label(own)) if spelling]
    return any(spelling in mention for spelling in spellings for mention in mentions)


class _Reader:
    """A place in a field's value; it only moves forward."""

    def __init__(self, raw: str) -> None:
        self.raw = raw[:MAX_OCTETS]
        self.place = 0
        self.trouble = "" if len(raw) <= MAX_OCTETS else f"longer than {MAX_OCTETS} octets"

    def field(self) -> Parsed:
        name = self.authserv_id()
        version = self.number() if name else None
        results: list[Resinfo] = []
        if not name:
            self.note("no authserv-id")
        elif self.skip() != ";":
            self.note("no ; after the authserv-id" if self.place < len(self.raw) else "no result")
        elif self.none():
            pass
        else:
            self.resinfos(results)
        return Parsed(name, version, tuple(results), self.trouble)

    def note(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble

    def skip(self) -> str:
        """Skip white space and comments (CFWS); give the character that follows, "" at the end."""
        while True:
            if space := _SPACE.match(self.raw, self.place):
                self.place = space.end()
            following = self.raw[self.place : self.place + 1]
            if following != "(":
                return following
            self.comment()

    def comment(self) -> None:
        depth = 0
        for match in _PARENTHESIS.finditer(self.raw, self.place):
            depth += {"(": 1, ")": -1}.get(match[0], 0)
            if not depth:
                self.place = match.end()
                return
        self.note("comment without an end")
        self.place = len(self.raw)

    def take(self, pattern: re.Pattern[str]) -> str:
        """Take what matches here, after CFWS; "" for nothing."""
        self.skip()
        match = pattern.match(self.raw, self.place)
        if not match:
            return ""
        self.place = match.end()
        return match[0]

    def stray(self) -> str:
        """Step over a character that fits nowhere; a quote without an end takes all that follows with it."""
        start = self.place
        self.place = len(self.raw) if self.raw[start] == '"' else start + 1
        return self.raw[start : self.place]

    def character(self, char: str) -> bool:
        if self.skip() != char:
            return False
        self.place += 1
        return True

    def number(self) -> int | None:
        digits = self.take(_DIGITS)
        return int(digits) if digits else None

    def authserv_id(self) -> str:
        return _unquoted(self.take(_QUOTED)).strip() if self.skip() == '"' else self.take(_ID)

    def at_end_of_head(self) -> bool:
        self.number()
        return self.skip() in {";", ""}

    def none(self) -> bool:
        """RFC 8601 section 2.2: no-result."""
        start = self.place
        if self.character(";") and self.take(_KEY).lower() == "none" and not self.skip():
            return True
        self.place = start
        return False

    def resinfos(self, results: list[Resinfo]) -> None:
        parts = properties = 0
        while self.character(";"):
            if not self.skip() and results:
                return  # a last semicolon: not in the grammar, but common
            parts += 1
            if parts > MAX_RESULTS or properties > MAX_PROPERTIES:
                self.note("too many results")
                return
            resinfo = self.resinfo()
            if resinfo:
                results.append(resinfo)
                properties += len(resinfo.properties)
            while self.skip() not in {";", ""}:
                self.note("text that is no result")
                if not self.take(_PVALUE):
                    self.stray()

    def resinfo(self) -> Resinfo | None:
        method = self.take(_KEY).lower()
        version = self.number() if method and self.character("/") else None
        if not method or not self.character("="):
            self.note("no method=result")
            return None
        result = self.take(_KEY).lower()
        if not result:
            self.note(f"{method[:80]} without a result")
            return None
        self.keywords(method, result)
        reason, properties = "", []
        while _KEY.match(self.raw, self.place if self.skip() else len(self.raw)):
            key = self.take(_KEY).lower()
            dotted = self.character(".")
            name = self.take(_NAME).lower() if dotted else ""
            value = self.pvalue() if self.character("=") else None
            if value is None or (dotted and not name):
                self.note(f"{key[:80]} is no property")
            elif dotted:
                self.keywords(key, name)
                properties.append((f"{key}.{name}", value))
            elif key == "reason":
                reason = value
            else:
                self.note(f"{key[:80]} has no property type")
                properties.append((key, value))
        return Resinfo(method, version, result, reason, tuple(properties))

    def keywords(self, *names: str) -> None:
        """RFC 8601 section 2.2: methods, results, property types and properties are keywords; others are read too."""
        for name in names:
            if not _KEYWORD.fullmatch(name):
                self.note(f"{name[:80]} is no keyword")

    def pvalue(self) -> str | None:
        """A value, unquoted where the whole is one quoted-string; local-parts keep their quotes."""
        value = self.take(_PVALUE)
        if not value:
            return None
        return _unquoted(value) if _QUOTED.fullmatch(value) else value

    def without_comments(self) -> str:
        parts: list[str] = []
        self.place = 0
        while self.skip():
            parts.append(self.take(_PVALUE) or self.stray())
        return "".join(parts)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _readings(text: str) -> Iterator[str]:
    """Give the field as it stands, and without what hides a name from a program but not from a reader.

    The latter may end a comment where no program sees an end.  Some take what is hidden for nothing, some for a space.
    """
    yield (raw := text[:MAX_OCTETS])
    text = decode_words(raw)
    if text.isascii() and not _INVISIBLE.search(text):
        if text != raw:
            yield text
        return
    text = unicodedata.normalize("NFKC", _with_few_marks(text)).replace("\u3002", ".")
    hidden = [ord(char) for char in set(text) if unicodedata.category(char) in _HIDDEN and char not in "\t\r\n"]
    for instead in ("", " ") if hidden else ("",):
        shown = text.translate(dict.fromkeys(hidden, instead))
        yield "".join(" " if char.isspace() else char for char in shown)  # U+2028 and others that stay themselves


def _with_few_marks(text: str) -> str:
    """Leave 30 of a run of combining marks (UAX 15 section 13): to sort them takes the square of their number."""
    marks = "".join(char for char in set(text) if unicodedata.combining(unicodedata.normalize("NFKD", char)[0]))
    return re.sub(f"([{marks}]{{30}})[{marks}]+", r"\1", text) if marks else text


def _unquoted(quoted: str) -> str:
    text = quoted[1:-1].replace("\r", "").replace("\n", "")
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _comparable(name: str) -> str:
    return a_label(name.rstrip(".")) or name.casefold()


def _u_label(name: str) -> str:
    try:
        return idna.decode(name) if "xn--" in name else ""
    except UnicodeError:
        return ""

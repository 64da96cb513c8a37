"""From: who says that he wrote this message, and could two mail programs disagree on it?

Takes the raw values of all From fields of a message; gives the authors.  Never raises on what a sender wrote and
never guesses: a field that two mail programs could read differently comes back with `trouble` and with every
domain that any of them could find, so that nobody takes the wrong one for proof.  Linear in the size, bounded.

RFC 5322 sections 3.4 and 4.4 (also the obsolete forms), RFC 6854 (groups), RFC 6532 (UTF-8), RFC 2047 (encoded
words, for display only).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from elemta.addresses.domains import a_label, readings
from elemta.addresses.encoded_words import MOST, decode_loosely, decode_words, on_one_line, unfolded

MAX_OCTETS = 65_536  # of all From fields of a message together
MAX_MAILBOXES = 1_000
MAX_TOKENS = 16_000  # a mailbox with a quoted name takes about twelve


class Mailbox(Struct, frozen=True):
    """One author.

    Attributes:
        display: display name or comment for people, encoded words decoded; may be "".
        local: local part as written, quotes included.
        domain: A-labels; "[192.0.2.1]" for an address literal; as written where it is no domain; "" if absent.
        comments: what stands in parentheses beside a name; some programs show it as a part of that, some do not.
    """

    display: str
    local: str
    domain: str
    comments: str = ""


class Authors(Struct, frozen=True):
    """Who says that he wrote the message.

    Attributes:
        mailboxes: all of them, of all From fields, in order.
        fields: how many From fields the message has.
        trouble: for people, why mail programs could disagree on the author; "" when they cannot.
        domains: each domain that some reading finds, once, in order: A-labels (or "[192.0.2.1]").
    """

    mailboxes: tuple[Mailbox, ...]
    fields: int
    trouble: str
    domains: tuple[str, ...]


def authors(values: Sequence[bytes]) -> Authors:
    """Read the authors from the raw values of all From fields of a message."""
    plain = _plain_author(values[0]) if len(values) == 1 else None
    return plain or _weighed_authors(values)


def _plain_author(value: bytes) -> Authors | None:
    """The author of a From that nobody can read in two ways: an address of atoms, at most after a plain name.

    That is most of all mail, in a tenth of the time; None for any other.
    """
    plain = _PLAIN.fullmatch(value)
    if plain is None:
        return None
    display, quoted, local, domain = (part.decode() if part else "" for part in plain.groups())
    name = a_label(domain)
    return None if name is None else Authors((Mailbox((display or quoted).strip(), local, name),), 1, "", (name,))


def _weighed_authors(values: Sequence[bytes]) -> Authors:
    from_fields = [_FromField(value) for value in _within(values, MAX_OCTETS)]
    mailboxes = [mailbox for field in from_fields for mailbox in field.mailboxes]
    domains = dict.fromkeys(domain for field in from_fields for domain in field.domains)
    trouble = next((field.trouble for field in from_fields if field.trouble), "")
    if len(values) != 1:  # RFC 5322 section 3.6: exactly one
        trouble = f"{len(values)} From fields" if values else "no From field"
    elif sum(map(len, values)) > MAX_OCTETS:
        trouble = f"From field longer than {MAX_OCTETS} octets"
    elif len(mailboxes) > MAX_MAILBOXES:
        trouble = f"more than {MAX_MAILBOXES} authors"
    return Authors(tuple(mailboxes[:MAX_MAILBOXES]), len(values), trouble, tuple(domains)[:MAX_MAILBOXES])


def _within(values: Sequence[bytes], octets: int) -> Iterator[bytes]:
    for value in values:
        if octets <= 0:
            return
        yield value[:octets]
        octets -= len(value) + 1


# No group is possessive, only classes are: the Python of Debian 12 (3.11.2) misreads groups that are.
_PLAIN = re.compile(
    rb"""[ ]?(?: (?: ([A-Za-z0-9]++(?:[ ][A-Za-z0-9]++)*) | "([A-Za-z0-9 .,_-]*+)" )[ ] (?=<) )?
         (?:<(?=.*>\Z)|(?!.*>))
         ([A-Za-z0-9_+-]++(?:\.[A-Za-z0-9_+-]++)*) @ ([A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+)+) >?""",
    re.VERBOSE,
)

# Controls, bare CR or LF: mail programs cut or skip there.  Folding (RFC 5322 section 2.2.3) is the only exception.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\n(?![ \t])")
_DECODED_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK_LINE = re.compile(r"\n[ \t]+\r?\n")  # RFC 5322 section 4.2: obsolete folding; some take it for the end
_UNQUOTED = r"""(?P<space>[ \t\r\n]++)
      | (?P<text>[^ \t\r\n"()<>@,;:.\[\]\\]++)
      | (?P<literal>\[[^\[\]\\<>@]*+\])
      | (?P<special>[<>@,;:.()\[\]\\"])
    """
_TOKEN = re.compile(rf'(?P<quoted>"(?:[^"\\]|\\.)*+") | {_UNQUOTED}', re.VERBOSE | re.DOTALL)
_TOKEN_AFTER_OPEN_QUOTE = re.compile(_UNQUOTED, re.VERBOSE)
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)
_AROUND_DOT = re.compile(r"(?<![ \t\r\n])[ \t\r\n]*+\.[ \t\r\n]*+")  # RFC 5322 section 4.4: obs-domain
_AT_DOMAIN = re.compile(r"(\w(?=@\w))?@[ \t\r\n]*+(?:\[([^\[\]]*+)\]|([^\x00-,/:-@\[-^`{-\x7f]*+))")

Token = tuple[str, str]  # kind (space, text, quoted, literal, comment, or the special itself), text as written


class _FromField:
    """One From field being read: `odd` is bearable while all readings find one domain; `trouble` never is."""

    def __init__(self, value: bytes) -> None:
        self.raw = value.decode("utf-8", "surrogateescape")
        self.mailboxes: list[Mailbox] = []
        self.trouble = "control character or bare line end in From" if _CONTROL.search(self.raw) else ""
        if _BLANK_LINE.search(self.raw):
            self.trouble = self.trouble or "blank line folded into From"
        self.odd = ""
        self.bare: list[str] = []  # what is no comment
        for entry in self._entries(self._tokens()):
            if len(self.mailboxes) <= MAX_MAILBOXES:
                self._read(entry)
        self.domains = dict.fromkeys(mailbox.domain for mailbox in self.mailboxes if mailbox.domain)
        self._weigh()

    def _tokens(self) -> Iterator[Token]:
        raw, place, count, token = self.raw, 0, 0, _TOKEN
        while match := token.match(raw, place):
            kind, text, place = str(match.lastgroup), match[0], match.end()
            if text == "(":
                place = self._end_of_comment(place)
                kind, text = "comment", raw[match.end() : place - 1]
                if "<" in text and "@" in text:
                    self.odd = self.odd or "address inside a comment in From"
            elif text in {'"', "[", "\\"}:
                self.trouble = self.trouble or f"From has a stray {text}"
                if text == '"':  # none of those that follow ends either, and each would be looked for its end
                    token = _TOKEN_AFTER_OPEN_QUOTE
            elif text in {")", "]"}:
                self.odd = self.odd or f"From has a stray {text}"
            if kind != "comment":
                self.bare.append(text)
            count += 1
            if count > MAX_TOKENS:
                self.trouble = self.trouble or "From has too many parts"
                return
            yield (text if kind == "special" else kind), text

    def _end_of_comment(self, place: int) -> int:
        depth = 1
        for match in _PARENTHESIS.finditer(self.raw, place):
            depth += {"(": 1, ")": -1}.get(match[0], 0)
            if not depth:
                return match.end()
        self.trouble = self.trouble or "From has a comment without an end"
        return len(self.raw) + 1

    def _entries(self, tokens: Iterator[Token]) -> Iterator[list[Token]]:
        """Cut at commas outside angle brackets; group names (RFC 5322 section 3.4) go."""
        entry: list[Token] = []
        angle = group = False
        for token in tokens:
            kind = token[0]
            if kind == "<" and angle:
                self.trouble = self.trouble or "From has < inside <>"
            angle = kind == "<" or (angle and kind != ">")
            if angle or kind not in {",", ";", ":"}:
                entry.append(token)
                continue
            if kind != ",":
                self._group(entry, kind, group=group)
                group = kind == ":"
            if kind != ":":
                yield entry
            entry = []
        if angle:
            self.trouble = self.trouble or "From has < without >"
        if group:
            self.odd = self.odd or "From has a group without an end"
        yield entry

    def _group(self, entry: list[Token], kind: str, *, group: bool) -> None:
        """Look at the ":" that begins a group or the ";" that ends it."""
        if kind == ":" and any(other == "@" for other, _ in entry):
            self.trouble = self.trouble or "From has an address before a colon"
        elif kind == ":" and any("@" in text or "=?" in text for _, text in entry):
            self.odd = self.odd or "From has an address in the name of a group"
        if group == (kind == ":"):
            self.odd = self.odd or f"From has a misplaced {kind}"

    def _read(self, entry: list[Token]) -> None:
        """Read one mailbox: name-addr or addr-spec."""
        kinds = [kind for kind, _ in entry]
        comments = [text for kind, text in entry if kind == "comment"]
        if not any(kind not in {"space", "comment"} for kind in kinds):
            if any("@" in text or "=?" in text for text in comments):
                self.odd = self.odd or "From has a comment in the place of an address"
            return  # RFC 5322 section 4.4: obsolete lists have empty members
        if "<" in kinds:
            start = kinds.index("<")
            stop = kinds.index(">", start) if ">" in kinds[start:] else len(kinds)
            phrase, address, rest = entry[:start], entry[start + 1 : stop], entry[stop + 1 :]
            if ">" in kinds[:start] or any(kind not in {"space", "comment"} for kind, _ in rest):
                self.odd = self.odd or "From has text after an address"
            if any(kind in {"@", "literal"} for kind, _ in phrase):
                self.odd = self.odd or "From has an address before <"
        else:
            phrase, address = [], entry
            if ">" in kinds:
                self.trouble = self.trouble or "From has > without <"
        local, domain = self._address(address)
        if not domain:
            self.odd = self.odd or "From has an address without a domain"
        if domain or "<" in kinds:
            name, beside = self._names(phrase, comments)
            self.mailboxes.append(Mailbox(name, local, domain, beside))

    def _names(self, phrase: list[Token], comments: list[str]) -> tuple[str, str]:
        whole = _plain(phrase), " ".join(comments)
        if any(_DECODED_CONTROL.search(unfolded(text)) for text in whole):  # programs cut or skip there, too
            self.odd = self.odd or "From has a control character in an encoded word"
        said, beside = (unfolded(text[:MOST]) for text in whole)
        if not said.strip() and comments:
            said, beside = unfolded(comments[-1][:MOST]), ""
        return on_one_line(said), on_one_line(beside)

    def _address(self, tokens: list[Token]) -> tuple[str, str]:
        tokens = self._without_route(_trimmed(tokens))
        ats = [place for place, (kind, _) in enumerate(tokens) if kind == "@"]
        if not ats:
            return "".join(text for kind, text in tokens if kind != "comment"), ""
        if len(ats) > 1:
            self.trouble = self.trouble or "From has two @ in an address"
        before, after = _trimmed(tokens[: ats[-1]]), _trimmed(tokens[ats[-1] + 1 :])
        if any(kind in {"space", "comment"} for kind, _ in before):
            self.odd = self.odd or "From has spaces or comments inside an address"
        if not _dotted(after, {"text", "literal"}):
            self.trouble = self.trouble or "From has a malformed domain"
        local = "".join(text for kind, text in before if kind != "comment")
        domain = "".join(text for kind, text in after if kind in {"text", "literal", "."})
        if not local or "=?" in local or "=?" in domain:
            self.trouble = self.trouble or "From has a malformed local part"
        if '"' in local and not _dotted(before, {"text", "quoted"}):
            self.trouble = self.trouble or "From has a malformed local part"
        elif "<" in local or ">" in local:  # for programs that look for those first
            self.odd = self.odd or "From has < or > in a local part"
        return local, a_label(domain) or domain

    def _without_route(self, tokens: list[Token]) -> list[Token]:
        """RFC 5322 section 4.4: "<@a,@b:user@domain>" means user@domain, but not every program knows it."""
        for place, (kind, _) in enumerate(tokens):
            if kind == ":":
                self.trouble = self.trouble or "From has a source route"
                return _trimmed(tokens[place + 1 :])
        return tokens

    def _weigh(self) -> None:
        """Decide whether the oddities can mislead: they can when the text names another domain anywhere."""
        read = len(self.domains)
        if any(a_label(domain) is None for domain in self.domains if not domain.startswith("[")):
            self.trouble = self.trouble or "From has a domain that is none"
        if self.trouble or self.odd:
            decoders = (decode_words, decode_loosely) if "=?" in self.raw else ()  # for those who decode, then read
            for text in (self.raw, "".join(self.bare).replace('"', ""), *(decode(self.raw) for decode in decoders)):
                self._find(text)
        if not read or len(self.domains) > 1:
            self.trouble = self.trouble or self.odd
        if not self.raw.strip():
            self.trouble = self.trouble or "From is empty"

    def _find(self, text: str) -> None:
        """Add each domain that stands after an @, whatever is around it."""
        joined = _AROUND_DOT.sub(".", text)
        for attached, literal, name in dict.fromkeys(_AT_DOMAIN.findall(text) + _AT_DOMAIN.findall(joined)):
            for domain in [f"[{literal}]"] if literal else readings(name):
                if attached or literal or "." in domain:  # "Bob @ Work" is no address
                    self.domains[domain] = None


def _trimmed(tokens: list[Token]) -> list[Token]:
    start, stop = 0, len(tokens)
    while start < stop and tokens[start][0] in {"space", "comment"}:
        start += 1
    while stop > start and tokens[stop - 1][0] in {"space", "comment"}:
        stop -= 1
    return tokens[start:stop]


def _dotted(tokens: list[Token], words: set[str]) -> bool:
    """Tell whether the tokens are words joined by dots, with nothing between them."""
    if tokens and tokens[-1][0] == ".":  # the root's dot
        tokens = tokens[:-1]
    return len(tokens) % 2 == 1 and all(
        kind in words if place % 2 == 0 else kind == "." for place, (kind, _) in enumerate(tokens)
    )


def _plain(phrase: list[Token]) -> str:
    return "".join(
        re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if kind == "quoted" else text
        for kind, text in phrase
        if kind != "comment"
    )

"""HTML: what text does it show, what does it hide, and where do its links lead?

Takes HTML as a mail holds it, however broken; gives its text and the addresses in it as they are written, entities
resolved.  A scanner and no parser: it knows tags, their attributes and what a style hides, in one pass over the text
and in bounded memory.  Never raises.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html import unescape

MAX_LINKS = 10_000

ADDRESSES = frozenset(
    "href src action formaction background poster data cite longdesc ping xlink:href lowsrc dynsrc codebase manifest to o:href".split()  # noqa: SIM905,E501
)
"""Attributes whose value is an address."""

_TAG = re.compile(r"</?([A-Za-z][^\t\n\f\r />]*+)")  # no other character is a blank in HTML
_ATTRIBUTE = re.compile(
    r"""[\t\n\f\r /]*+ (?: (?P<end>>) | (?P<name>[^\t\n\f\r />][^\t\n\f\r />=]*+)
        (?:[\t\n\f\r ]*+=[\t\n\f\r ]*+
        (?: "(?P<double>[^"]*+)"? | '(?P<single>[^']*+)'? | (?P<bare>[^\t\n\f\r >]*+) ) )? )""",
    re.VERBOSE,
)
_RAW = {
    name: re.compile(rf"</{name}(?=[\t\n\f\r />])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript")
}
"""Elements in which there is no markup; in the last there is for programs that run no scripts."""
_NO_SCRIPT = re.compile("<noscript", re.IGNORECASE)
_FRAME = re.compile("<(?:iframe|noembed|noframes)", re.IGNORECASE)
"""Elements in which there is markup for programs that do not know them."""
_FOREIGN = re.compile("<(?:svg|math)", re.IGNORECASE)
"""Elements in which there is markup in every other, for programs that know them (HTML Standard, section 13.2.6.5)."""
_SCRIPTING = frozenset(_RAW)
_USUAL = _SCRIPTING - {"noscript"}
_FRAMELESS = _USUAL - {"iframe", "noembed", "noframes"}
_NO_RAW: frozenset[str] = frozenset()
_COMMENT_END = re.compile("--!?>")
_CONDITION = re.compile(r"<!--\[if\b[^<>]*+>", re.IGNORECASE)
"""How a comment begins that Outlook reads."""
_REFRESH = re.compile(r"[\s\d.]*[\s;,]*(?:url\s*=\s*)?([\"']?)", re.IGNORECASE)
_STYLED = re.compile(r"(?:url\(|@import(?:\s*+url\()?+)\s*+[\"']?([^\"')\s]++)", re.IGNORECASE)
_STYLE_ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{1,6})[\t\n\f\r ]?|(.))")
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all|(?:font-size|max-height|opacity)\s*:\s*0(?![.\d]*[1-9])",
    re.IGNORECASE,
)
_HUGE_ENTITY = re.compile(r"&#(?:0*+[1-9][0-9]{7,}+|[xX]0*+[1-9a-fA-F][0-9a-fA-F]{6,}+);?")
_ZEROS = re.compile(r"(?<=&#)0{9,}+")  # of which int() takes no thousands
_VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"))
_BREAKING = frozenset(("br", "p", "div", "td", "th", "tr", "li", "hr", "h1", "h2", "h3", "table", "blockquote", "pre"))


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link with a text: <a href=…>text</a>.

    Attributes:
        address: where it leads, as written.
        text: what it shows, blanks collapsed.
    """

    address: str
    text: str


@dataclass(slots=True)
class Html:
    """What was found.

    Attributes:
        shown: the text, piece by piece.
        hidden: text that a style hides.
        addresses: of every attribute that holds one, in order, as written.
        anchors: the links with a text.
        styles: style sheets and style attributes, which may hold addresses too.
        cut: there were more than MAX_LINKS addresses.
    """

    shown: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    cut: bool = False


def scan(text: str) -> Html:
    """Look through HTML."""
    found = Html()
    _Scanner(text, found).scan()
    for sign, raw in (_NO_SCRIPT, _SCRIPTING), (_FRAME, _FRAMELESS), (_FOREIGN, _NO_RAW):
        if not sign.search(text):
            continue
        also = Html()
        _Scanner(text, also, raw).scan()
        found.addresses = list(dict.fromkeys(found.addresses + also.addresses))
        found.anchors = list(dict.fromkeys(found.anchors + also.anchors))
        found.cut = found.cut or also.cut
    return found


class _Scanner:
    """One pass.

    Attributes:
        raw: the elements in which there is no markup for the program as which it reads.
        within: it stands in a comment or an attribute of a document.
    """

    def __init__(self, text: str, found: Html, raw: frozenset[str] = _USUAL, *, within: bool = False) -> None:
        self.text = text
        self.found = found
        self.raw = raw
        self.within = within
        self.address: str | None = None  # of the anchor that is open
        self.anchor: list[str] = []  # its text
        self.hider = ""  # the element that hides, and how many of its name are open
        self.hiders = 0

    def scan(self) -> None:
        text, place = self.text, 0
        while (at := text.find("<", place)) >= 0:
            self._text(text[place:at])
            place = self._markup(at)
        self._text(text[place:])
        self._close_anchor()

    def _text(self, raw: str) -> None:
        if not raw:
            return
        text = resolved(raw)
        if self.hider:
            self.found.hidden.append(text)
            return
        self.found.shown.append(text)
        if self.address is not None:
            self.anchor.append(text)

    def _markup(self, at: int) -> int:
        """Take what begins with "<"; where it ends."""
        text = self.text
        match = _TAG.match(text, at)
        if match is None:
            return self._no_tag(at)
        name = match[1].lower()
        attributes, end = self._attributes(match.end())
        if text[at + 1] == "/":
            self._end_tag(name)
        else:
            self._start_tag(name, attributes)
            if name in self.raw:
                closing = _RAW[name].search(text, end)
                stop = closing.start() if closing else len(text)
                if name == "style":
                    self._style(text[end:stop])
                elif name in {"textarea", "xmp"}:
                    self._text(text[end:stop])
                return stop
        return end

    def _no_tag(self, at: int) -> int:
        text = self.text
        if text.startswith(("<!-->", "<!--->"), at):  # a whole comment
            return text.index(">", at) + 1
        if text.startswith("<!--", at):
            closing = _COMMENT_END.search(text, at + 4)
            if condition := _CONDITION.match(text, at):
                self._inner(text[condition.end() : closing.start() if closing else len(text)])
            return closing.end() if closing else len(text)
        if text[at + 1 : at + 2] in {"!", "?", "/"}:
            end = text.find(">", at)
            return len(text) if end < 0 else end + 1
        self._text("<")
        return at + 1

    def _inner(self, text: str) -> None:
        """A document within this one."""
        if not self.within:
            _Scanner(text, self.found, self.raw, within=True).scan()

    def _attributes(self, place: int) -> tuple[dict[str, str], int]:
        """Read the attributes of a tag; of equal ones the first counts. A quote without an end takes the rest."""
        found: dict[str, str] = {}
        while (match := _ATTRIBUTE.match(self.text, place)) and match.end() > place:
            place = match.end()
            if match["end"]:
                return found, place
            value = match["double"] or match["single"] or match["bare"] or ""
            found.setdefault(match["name"].lower(), value)
        return found, len(self.text)

    def _start_tag(self, name: str, attributes: dict[str, str]) -> None:
        if name == "a":
            self._close_anchor()
        self._addresses(name, attributes)
        style = attributes.get("style", "")
        if style:
            self._style(resolved(style))
        if "srcdoc" in attributes:
            self._inner(resolved(attributes["srcdoc"]))
        if name == "a" and "href" in attributes:
            self.address = resolved(attributes["href"])
        if name in _BREAKING:
            self._text(" ")
        if self.hider:
            self.hiders += name == self.hider
        elif name not in _VOID and ("hidden" in attributes or _HIDING.search(style)):
            self.hider, self.hiders = name, 1

    def _end_tag(self, name: str) -> None:
        if name == "a":
            self._close_anchor()
        if name == self.hider:
            self.hiders -= 1
            if not self.hiders:
                self.hider = ""
        if name in _BREAKING:
            self._text(" ")

    def _addresses(self, name: str, attributes: dict[str, str]) -> None:
        for attribute, value in attributes.items():
            if attribute in ADDRESSES:
                self._address(resolved(value))
            elif attribute in {"srcset", "imagesrcset"}:
                for each in value.split(","):
                    self._address(resolved(each).strip().partition(" ")[0])
        if name == "meta" and "content" in attributes:
            content = resolved(attributes["content"])  # 0; url=http://…, or without url=
            start = _REFRESH.match(content)
            if start is not None:
                self._address(content[start.end() :].partition(start[1] or "\0")[0].strip())

    def _style(self, text: str) -> None:
        """A style sheet, or the style of an element."""
        self.found.styles.append(text)
        for match in _STYLED.finditer(_STYLE_ESCAPE.sub(_character, text) if "\\" in text else text):
            self._address(match[1])

    def _address(self, address: str) -> None:
        if len(self.found.addresses) >= MAX_LINKS:
            self.found.cut = True
        elif address:
            self.found.addresses.append(address)

    def _close_anchor(self) -> None:
        if self.address is not None and len(self.found.anchors) < MAX_LINKS:
            self.found.anchors.append(Anchor(self.address, " ".join("".join(self.anchor).split())))
        self.address, self.anchor = None, []


def _character(escape: re.Match[str]) -> str:
    """What an escape of CSS stands for (CSS Syntax Module, section 4.3.7)."""
    number = int(escape[1] or "0", 16)
    return chr(number) if 0 < number <= sys.maxunicode else escape[2] or "\ufffd"


def resolved(text: str) -> str:
    """The text with its entities resolved."""
    return unescape(_ZEROS.sub("0", _HUGE_ENTITY.sub("\ufffd", text))) if "&" in text else text

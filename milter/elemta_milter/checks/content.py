"""content: what does the text of the message say of itself, and where do its links lead?

Takes the text and HTML of a message, attached messages and attached HTML included; reports sizes, charsets, links with
the hosts they lead to, and what looks like a disguise: a link whose text names another domain, a host behind a user
name, text that nobody sees.  Never asks anybody and never says that a mail is bad; `uribl` asks lists about the hosts.

Links are read as browsers read them (`elemta_milter.links`), within bounds: what lies beyond is told in `excess`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import ClassVar

from pydantic import Field as Setting

from elemta.check import Check, Field, Options, Seen
from elemta.config.types import Size
from elemta.facts import Message
from elemta.findings import Finding, Result, Value
from elemta_milter.contents.names import MAILS, extensions
from elemta_milter.contents.web import TYPES, is_page
from elemta_milter.links.html import Html, scan
from elemta_milter.links.urls import Url, read_url, shown_host, urls_in
from elemta_milter.mime import BOUNDS, MAIL, Part, Tree, content, other_texts_of, read_octets, text_of, tree_of, trees
from elemta_milter.walking import walk

LITTLE = 16 << 10
"""Octets of a body up to which it is read where we are: a few milliseconds of work."""
SECONDS = 2.0
"""Of processor time, up to which links are read: hosts beyond ASCII are slow."""
_AS_HTML = frozenset({"text/x-amp-html", "text/amp-html", "text/watch-html", "application/vnd.wap.xhtml+xml"})
_FOLDED = frozenset({"text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory"})
_FOLD, _ESCAPED, _FLOWED = re.compile(r"\r?\n[ \t]"), re.compile(r"\\([nN,;\\])"), re.compile(r" \r?\n")
_SCHEME = re.compile(r"[\x00-\x20]*[A-Za-z][A-Za-z0-9+.-]{0,30}:")
SHOWN = 3  # mismatches told of in the reason


class ContentOptions(Options):
    """Options of `content`."""

    max_size: Size = Setting(1 << 20, ge=1, le=1 << 26, description="octets of text that are read, decoded")
    max_urls: int = Setting(200, ge=1, le=5000, description="different links that are kept")


@dataclass(slots=True)
class _Seen:
    """What was seen so far."""

    room: int
    most: int
    text: int = 0
    html: int = 0
    has_html: bool = False
    hidden: int = 0
    charsets: dict[str, None] = field(default_factory=dict)
    urls: dict[tuple[str, str], Url] = field(default_factory=dict)  # by text and host: it can be read in several ways
    mismatches: dict[str, None] = field(default_factory=dict)
    defects: dict[str, None] = field(default_factory=dict)
    excess: dict[str, None] = field(default_factory=dict)
    began: float = field(default_factory=time.thread_time)

    def goes_on(self) -> bool:
        """Whether there is time to read another link."""
        if time.thread_time() - self.began > SECONDS:
            self.excess[f"{SECONDS:g} s of processor time"] = None
            return False
        return True


class Content(Check[Message]):
    """What does the text of the message say of itself, and where do its links lead?"""

    name = "content"
    fields: ClassVar = {
        "text_size": Field(int, "plain text, decoded", "octets"),
        "html_size": Field(int, "HTML, decoded", "octets"),
        "has_html": Field(bool, "the message has a part of HTML"),
        "hidden_size": Field(int, "characters of HTML text that a style hides; newsletters have some"),
        "charset": Field(tuple, "the charsets that its texts name, lower case"),
        "urls": Field(tuple, "the links, cleaned"),
        "url_hosts": Field(tuple, "the host names they lead to, as A-labels", domain=True),
        "url_domains": Field(tuple, "the registered domains of those, by the public suffix list", domain=True),
        "url_addresses": Field(tuple, "the IP addresses that links lead to, however they were written"),
        "url_disguised": Field(
            bool, "a link hides its host: behind a user name with a dot, an odd number, or a name that no host has"
        ),
        "link_mismatch": Field(bool, "the text of a link shows another registered domain than it leads to"),
        "defects": Field(tuple, "what is wrong with the structure, encodings and charsets of the message"),
        "excess": Field(tuple, "bounds that were passed: what lies beyond was not read"),
    }
    results: ClassVar = (Result.NONE, Result.PASS, Result.NEUTRAL)
    only_dns = True  # it waits for nothing
    Options = ContentOptions

    async def open(self) -> None:
        """Load the suffix list."""
        from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - half a megabyte that others do not need

        suffixes = PublicSuffixList()
        self._registered: Callable[[str], str | None] = suffixes.privatesuffix
        self._known_suffix: Callable[[str], str | None] = PublicSuffixList(accept_unknown=False).publicsuffix

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Read the texts; a long message in a thread."""
        finding: Finding = await walk(self.tools, self._look, facts) if facts.body.size > LITTLE else self._look(facts)
        return finding

    def _look(self, message: Message) -> Finding:
        so_far = _Seen(self.options.max_size, self.options.max_urls)
        texts = 0
        read = list(trees(tree_of(message), self.options.max_size))
        for tree in read:  # which grows
            so_far.defects |= dict.fromkeys(tree.defects)
            so_far.excess |= dict.fromkeys(tree.excess)
            for part in tree.root.walk():
                if _is_text(part):
                    texts += 1
                    self._read(tree, part, so_far)
                if _is_mail(part) and so_far.goes_on():
                    read += self._within(tree, part, so_far, len(read))
        return self._told(so_far) if texts else self.finding(Result.NONE, "no text", **_odd(so_far))

    def _within(self, tree: Tree, part: Part, so_far: _Seen, read: int) -> tuple[Tree, ...]:
        """What is in a file that is a message."""
        if read > BOUNDS.wrapped:
            so_far.excess[f"{BOUNDS.wrapped} messages that are files or encoded"] = None
            return ()
        found = content(tree, part, so_far.room)
        if found.cut:
            so_far.excess[f"{self.options.max_size} octets of text"] = None
        return trees(read_octets(found.octets), so_far.room)

    def _read(self, tree: Tree, part: Part, so_far: _Seen) -> None:
        found = content(tree, part, so_far.room)
        if found.cut:
            so_far.excess[f"{self.options.max_size} octets of text"] = None
        so_far.room -= len(found.octets)
        text, defect = text_of(part, found.octets)
        so_far.defects |= dict.fromkeys((*found.defects, *([defect] if defect else ())))
        if charset := part.parameters.get("charset"):
            so_far.charsets[charset.lower()[:40]] = None
        page = _is_page(part)
        if page:
            so_far.html += len(found.octets)
            so_far.has_html = so_far.has_html or part.media_type != "image/svg+xml"
            self._read_html(scan(text), so_far)
        else:
            so_far.text += len(found.octets)
        if not page or _is_shown_as_text(part):
            for reading in _readings(part, text):
                _keep(urls_in(reading, so_far.goes_on), so_far)
        for other in other_texts_of(part, found.octets):  # where links lead, and no more: much of it is none
            _keep(_links(scan(other).addresses if page else (), so_far.goes_on), so_far)
            _keep(urls_in(other, so_far.goes_on), so_far)

    def _read_html(self, html: Html, so_far: _Seen) -> None:
        _keep(_links(html.addresses, so_far.goes_on), so_far)
        for text in ("".join(html.shown), "".join(html.hidden), " ".join(html.styles)):
            _keep(urls_in(text, so_far.goes_on), so_far)
        so_far.hidden += sum(len(" ".join(text.split())) for text in html.hidden)
        if html.cut:
            so_far.excess["links of HTML"] = None
        for anchor in takewhile(lambda _: so_far.goes_on(), html.anchors):
            shown = shown_host(anchor.text)
            leads = read_url(anchor.address) if shown else None
            if leads is not None and self._differ(anchor.text, shown, leads):
                so_far.mismatches[f"{shown} leads to {leads.host or leads.address}"] = None

    def _differ(self, text: str, shown: str, leads: Url) -> bool:
        """Whether the domain that a link shows is another than that it leads to; "report.pdf" is none."""
        if "/" not in text and not text.lower().startswith("www.") and self._known_suffix(shown) is None:
            return False
        return not leads.host or self._domain(shown) != self._domain(leads.host)

    def _domain(self, host: str) -> str:
        return self._registered(host) or host

    def _told(self, so_far: _Seen) -> Finding:
        urls = so_far.urls.values()
        texts = tuple(dict.fromkeys(url.text for url in urls))
        hosts = tuple(dict.fromkeys(url.host for url in urls if url.host))
        fields: dict[str, Value] = {
            "text_size": so_far.text,
            "html_size": so_far.html,
            "has_html": so_far.has_html,
            "hidden_size": so_far.hidden,
            "charset": tuple(so_far.charsets),
            "urls": texts,
            "url_hosts": hosts,
            "url_domains": tuple(dict.fromkeys(self._domain(host) for host in hosts)),
            "url_addresses": tuple(dict.fromkeys(str(url.address) for url in urls if url.address is not None)),
            "url_disguised": any(url.odd for url in urls),
            "link_mismatch": bool(so_far.mismatches),
            **_odd(so_far),
        }
        words = [f"{len(texts)} links to {len(hosts)} hosts", *list(so_far.mismatches)[:SHOWN]]
        result = Result.NEUTRAL if so_far.excess else Result.PASS
        if so_far.excess:
            words.append(f"not read in whole: more than {', '.join(so_far.excess)}")
        return Finding(self.name, result, "; ".join(words), fields)


def _is_text(part: Part) -> bool:
    """Whether a mail program shows it, or a browser."""
    empty = part.media_type.startswith("multipart/") and not part.parts
    return part.media_type.startswith("text/") or empty or (not part.parts and _is_page(part))


def _is_mail(part: Part) -> bool:
    """Whether it is a file that mail programs open as a message, though it is not declared as one."""
    return not part.parts and part.media_type not in MAIL and not MAILS.isdisjoint(extensions(part.filenames))


def _is_page(part: Part) -> bool:
    """Whether it is HTML or a picture with links, by its type or by the name of the file."""
    return part.media_type in _AS_HTML or is_page(part.media_type, extensions(part.filenames))


def _is_shown_as_text(page: Part) -> bool:
    """Whether mail programs show this page as it is: it is only called .html, which a browser opens."""
    return page.media_type.startswith("text/") and page.media_type not in _AS_HTML | TYPES


def _readings(part: Part, text: str) -> tuple[str, ...]:
    """The text as mail programs put its lines together, where these are broken within words."""
    if part.media_type in _FOLDED:  # RFC 5545 sections 3.1 and 3.3.11
        return (_ESCAPED.sub(lambda escape: "\n" if escape[1] in "nN" else escape[1], _FOLD.sub("", text)),)
    if part.parameters.get("delsp", "").lower() == "yes":  # RFC 3676 section 4.2, which not all of them know
        return text, _FLOWED.sub("", text)
    return (text,)


def _odd(so_far: _Seen) -> dict[str, Value]:
    return {"defects": tuple(so_far.defects), "excess": tuple(so_far.excess)}


def _links(addresses: Iterable[str], goes_on: Callable[[], bool]) -> Iterator[Url]:
    """What addresses in HTML lead to, also those of another scheme that hold one (view-source:http://…)."""
    for each in takewhile(lambda _: goes_on(), addresses):
        url = read_url(each)
        if url is not None:
            yield url
        elif _SCHEME.match(each):
            yield from urls_in(each, goes_on)


def _keep(urls: Iterable[Url], so_far: _Seen) -> None:
    for url in urls:
        if (url.text, url.host) not in so_far.urls:
            if len(so_far.urls) >= so_far.most:
                so_far.excess[f"{so_far.most} links"] = None
                return
            so_far.urls[url.text, url.host] = url

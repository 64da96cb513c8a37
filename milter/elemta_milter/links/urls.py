"""URLs: which host does this link lead to, however it is disguised?

Takes a link as it is written, in text or in an attribute; gives its host as a browser would read it: with backslashes,
tabs and line ends inside, behind a user name, percent-encoded, as an IP address in decimal, octal or hexadecimal
numbers, in letters beyond ASCII.  Linear, never raises, never looks anything up.

RFC 3986 for what is lawful; the WHATWG URL Standard for what is read all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import takewhile
from urllib.parse import unquote

from elemta.addresses import a_label

MAX_URL = 2048  # characters of a link that are kept
MAX_HOST = 1024
MAX_USER = 512  # of what stands before the host, those at its end

Address = IPv4Address | IPv6Address

_IN_TEXT = re.compile(
    r"(?:(?<![A-Za-z0-9])(?:https?|ftp|file):[/\\]{1,9}|(?<![A-Za-z0-9_./@-])www\d{0,3}\.)"
    r"[^\s<>\"`{}|^\x00-\x20\x7f]++",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}):")
_PORT = re.compile(r":[0-9]*+\Z")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]*|\d+")
_IN_HOST = re.compile(r"[\w.%:@\[\]\u00ad\u200b-\u200d\u3002\uff0e\uff61-]+")
_HOST_IN_TEXT = re.compile(
    r"(?:[A-Za-z]+:[/\\]++)?+[A-Za-z0-9.:-]*+(?P<more>[^\u2e80-\U0010ffff/\\?#]*+)(?P<joined>[^/\\?#]?)"
)
"""A link up to the end of its host; `joined` begins what people write without a blank in Chinese and Japanese."""
_BARE = re.compile(r"(?:[\w-]{1,63}\.){1,10}[^\W\d_]{2,63}")
_ENDS = ".,;:!?'\"*_~>]}\u2026\u201c\u201d\u00bb"
_CLOSING = 50  # parentheses of the sentence that are taken off a link, at most
_REMOVED = {ord(char): None for char in "\t\r\n"}
_CONTROLS = "".join(map(chr, range(0x21)))
_SPECIAL = frozenset(("http", "https", "ftp", "file"))
_NEVER_ASKED = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f]|\A\.|\.\.")
"""What makes browsers refuse a host (forbidden domain code points of the URL Standard), or the DNS (an empty label)."""


@dataclass(frozen=True, slots=True)
class Url:
    """A link that leads somewhere.

    Attributes:
        text: the link, cleaned, at most MAX_URL characters.
        host: the host's name as A-labels; "" where it is an IP address.
        address: the host's IP address; None where it has a name.
        odd: it is disguised: an address that is written as none is, a host behind a user name that looks like one, or
            below which stands what is no name in the DNS, though browsers ask for it.
    """

    text: str
    host: str
    address: Address | None = None
    odd: bool = False


def urls_in(text: str, goes_on: Callable[[], bool] = lambda: True) -> Iterator[Url]:
    """Find the links in plain text; one without a scheme where it begins with "www.".

    `goes_on` is asked before each is read, since a long host beyond ASCII takes a millisecond; False ends it.
    """
    for match in _IN_TEXT.finditer(text):
        if not goes_on():
            return
        yield from _readings(_trimmed(match[0]))


def _readings(link: str) -> Iterator[Url]:
    """What a link in a text is to mail programs: some end it where no name of a host goes on, some do not."""
    first = read_url(link, in_text=True)
    if first is not None:
        yield first
    host = _HOST_IN_TEXT.match(link)
    if host is None or not (host["more"] or host["joined"]):
        return
    told = {first and (first.host, first.address)}
    for other in (read_url(link[: host.start("joined")], in_text=True), read_url(link)):
        if other is not None and (other.host, other.address) not in told:
            told.add((other.host, other.address))
            yield replace(other, odd=False)  # it may be just a sentence that goes on


def read_url(link: str, *, in_text: bool = False) -> Url | None:
    """Read a link; None for one that leads to no host (relative, mailto:, data:)."""
    link = link.strip(_CONTROLS).translate(_REMOVED)
    match = _SCHEME.match(link)
    scheme, rest = (match[1].lower(), link[match.end() :]) if match else ("", link)
    if scheme not in _SPECIAL:
        no_scheme = (not scheme and link[:2].replace("\\", "/") == "//") or link[:4].lower() == "www."
        if not no_scheme:
            return None
        scheme, rest = "http", link
    slashes, rest = rest, rest.replace("\\", "/").lstrip("/")  # browsers do not count them
    if scheme == "file" and (len(slashes) - len(rest) in {0, 1, 3} or rest[1:2] in {":", "|"}):
        return None  # a file of this machine
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    rest = rest[max(len(user) - MAX_USER, 0) :][:MAX_URL]
    host = unquote(_PORT.sub("", host)[:MAX_HOST])
    if in_text and (lawful := _IN_HOST.match(host)):
        host = lawful[0]
    address = _address(host)
    name = "" if address is not None else a_label(host) or ""
    known = address is not None or bool(name)
    name = name if known else _lawful_end(host)
    if address is None and (not name or _NUMBER.fullmatch(name.rpartition(".")[2])):
        return None
    below = not known and not _NEVER_ASKED.search(host)
    odd = below or "." in unquote(user[:MAX_URL]) or (address is not None and str(address) != host.strip("[]"))
    return Url(f"{scheme}://{rest}"[:MAX_URL], name, address, odd)


def _lawful_end(host: str) -> str:
    """The end of a host that is a name: browsers ask the DNS for others, too, and whoever owns the end can answer."""
    labels = host.removesuffix(".").split(".")
    lawful = list(takewhile(a_label, reversed(labels)))
    return (a_label(".".join(reversed(lawful))) or "") if len(lawful) > 1 else ""


def shown_host(text: str) -> str:
    """The host's name that a link's text shows, as A-labels; "" where it shows none."""
    words = text.split(None, 2)
    if len(words) != 1:
        return ""
    word = words[0]
    if _BARE.fullmatch(word):
        return a_label(word) or ""
    first = next(urls_in(word), None)
    if first is None and _BARE.match(word):  # example.org/path
        first = read_url(f"http://{_trimmed(word)}", in_text=True) if "/" in word else None
    return first.host if first else ""


def _trimmed(link: str) -> str:
    """Without the punctuation of the sentence in which it stands."""
    link = link.rstrip(_ENDS)
    for _ in range(_CLOSING):
        if not link.endswith(")") or link.count("(", -200) >= link.count(")", -200):
            break
        link = link[:-1].rstrip(_ENDS)
    return link


def _address(host: str) -> Address | None:
    """Read an IP address as browsers do: one to four numbers, each decimal, octal (0…) or hexadecimal (0x…)."""
    if host.startswith("["):
        try:
            found = IPv6Address(host[1:].partition("]")[0])
        except ValueError:
            return None
        return found.ipv4_mapped or found
    parts = host.removesuffix(".").split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        return None
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):
        return None
    return IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(numbers[:-1])) + numbers[-1])


def _number(part: str) -> int:
    if part[:2].lower() == "0x":
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") and len(part) > 1 else int(part)

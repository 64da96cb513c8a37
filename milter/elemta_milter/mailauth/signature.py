"""Signature fields: what does a DKIM-Signature, an ARC-Message-Signature or an ARC-Seal claim?

Takes the raw value of one field; gives its claims, checked for form and for what they must say among themselves.
Never looks at the message or at the clock.

RFC 6376 sections 3.5 and 6.1.1; RFC 8301 section 3.1; RFC 8463 section 3; RFC 8616 sections 3 and 5 (U-labels);
RFC 8617 sections 4.1.2 and 4.1.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from msgspec import Struct

from elemta.addresses.domains import a_label, is_within
from elemta_milter.mailauth import taglist
from elemta_milter.mailauth.canonical import BodySpec, Canon
from elemta_milter.mailauth.keys import ALGORITHMS
from elemta_milter.mailauth.limits import Limits
from elemta_milter.mailauth.taglist import TagListError

T = TypeVar("T")

FOREVER = 10**12
"""A time that never comes: RFC 6376 section 3.5 lets a value of more than 12 digits be infinite."""

HISTORIC = frozenset({"rsa-sha1"})
"""Algorithms that RFC 8301 section 3.1 forbids; a field that names one can be read, so that its domain is known."""

KEPT_NAMES = 1000  # characters of an h= whose reading is kept

_DIGITS = re.compile(r"[0-9]+")
_INSTANCE = re.compile(r"[0-9]{1,2}")
_BASE64_TEXT = re.compile(r"[A-Za-z0-9+/=]*")
_ALGORITHM_TEXT = re.compile(r"[A-Za-z0-9-]{1,40}")


class Source(Struct, frozen=True):
    """Who claims to sign: what every signature field has.

    Attributes:
        algorithm: a=, "rsa-sha256".
        domain: d= as A-labels.
        selector: s= as A-labels.
        signature: b=, decoded.
        signed_at: t=, seconds since 1970; None when absent.
    """

    algorithm: str
    domain: str
    selector: str
    signature: bytes
    signed_at: int | None

    @property
    def historic(self) -> bool:
        """The algorithm is known, and must not be used: the signature cannot pass."""
        return self.algorithm in HISTORIC

    @property
    def kind(self) -> str:
        """The key type that a= asks for."""
        return ALGORITHMS.get(self.algorithm, "rsa")

    @property
    def key_name(self) -> str:
        """Where the key is published (RFC 6376 section 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


class Signature(Struct, frozen=True):
    """What a message signature (DKIM-Signature or ARC-Message-Signature) claims.

    Attributes:
        source: who claims it.
        names: h=, lower case, in order.
        header_canon: how header fields are made canonical.
        body: what of the body is signed, and how it is made canonical.
        body_hash: bh=, decoded.
        expires_at: x=, seconds since 1970; None when it never does.
        identity: i= of DKIM, decoded; "@" and the domain when absent; "" for ARC.
        subdomain: the domain of i= is a subdomain of d=.
    """

    source: Source
    names: tuple[bytes, ...]
    header_canon: Canon
    body: BodySpec
    body_hash: bytes
    expires_at: int | None
    identity: str = ""
    subdomain: bool = False


class Seal(Struct, frozen=True):
    """What an ARC-Seal claims.

    Attributes:
        source: who claims it.
        validation: cv=, "none", "pass" or "fail".
    """

    source: Source
    validation: str


class Label(Struct, frozen=True):
    """What can be said of a field, right or wrong, to tell it from others; "" where nothing can be read.

    Attributes:
        domain: d= as A-labels.
        selector: s= as A-labels.
        algorithm: a=.
        b: b= without white space.
    """

    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    b: str = ""


def tags_of(value: bytes, limits: Limits) -> dict[str, str]:
    """Read a signature field's tag list.

    Raises:
        TagListError: it is none.
    """
    return taglist.parse(value, most_octets=limits.tag_list_octets, most_tags=limits.tags)


def label(tags: dict[str, str]) -> Label:
    """Read what names a signature, for reports about one that may be wrong."""
    algorithm = tags.get("a", "")
    b = taglist.without_white(tags.get("b", ""))
    return Label(
        a_label(tags.get("d", "")) or "",
        a_label(tags.get("s", "")) or "",
        algorithm if _ALGORITHM_TEXT.fullmatch(algorithm) else "",
        b if _BASE64_TEXT.fullmatch(b) else "",
    )


def dkim(tags: dict[str, str], limits: Limits) -> Signature:
    """Read a DKIM-Signature (RFC 6376 sections 3.5 and 6.1.1).

    Raises:
        TagListError: a tag is missing or wrong.
    """
    if _required(tags, "v") != "1":
        raise TagListError("v= is not 1")
    source = _source(tags)
    identity = _decoded(tags, "i", taglist.quoted_printable) if "i" in tags else "@" + source.domain
    local, at, domain = identity.rpartition("@")
    within = a_label(domain) or ""
    if not at or domain.endswith(".") or not is_within(within, source.domain):
        raise TagListError("domain of i= is not within d=")  # RFC 6376 section 3.5
    if not local.isprintable():  # RFC 5321 section 4.1.2: no local part holds a control, encoded or not
        raise TagListError("control character in i=")
    names = _names(tags, limits)
    if b"from" not in names:
        raise TagListError("From is not signed")  # RFC 6376 sections 5.4 and 6.1.1
    return _message_signature(tags, source, names, f"{local}@{within}", subdomain=within != source.domain)


def arc_message(tags: dict[str, str], limits: Limits) -> Signature:
    """Read an ARC-Message-Signature: DKIM's tags, no v=, and i= is the instance (RFC 8617 section 4.1.2).

    Raises:
        TagListError: a tag is missing or wrong.
    """
    names = _names(tags, limits) if tags.get("h") != "" else ()  # nothing asks that From be signed
    if b"arc-seal" in names:
        raise TagListError("ARC-Seal is signed")  # RFC 8617 section 4.1.2
    return _message_signature(tags, _arc_source(tags), names)


def arc_seal(tags: dict[str, str]) -> Seal:
    """Read an ARC-Seal (RFC 8617 section 4.1.3).

    Raises:
        TagListError: a tag is missing or wrong.
    """
    if "h" in tags:
        raise TagListError("h= in an ARC-Seal")  # RFC 8617 section 4.1.3
    validation = _required(tags, "cv")
    if validation not in {"none", "pass", "fail"}:
        raise TagListError("cv= is not none, pass or fail")
    return Seal(_arc_source(tags), validation)


def instance(text: str, limits: Limits) -> int:
    """Read an ARC instance number (RFC 8617 section 4.2.1).

    Raises:
        TagListError: not from 1 to 50.
    """
    if not _INSTANCE.fullmatch(text) or not 1 <= int(text) <= limits.arc_sets:
        raise TagListError(f"i= is not from 1 to {limits.arc_sets}")
    return int(text)


def _message_signature(
    tags: dict[str, str], source: Source, names: tuple[bytes, ...], identity: str = "", *, subdomain: bool = False
) -> Signature:
    if "q" in tags and "dns/txt" not in taglist.words(tags["q"]):
        raise TagListError("q= has no known query method")
    header, slash, body = tags.get("c", "simple/simple").partition("/")  # RFC 6376 section 3.5, c=
    body_hash = _decoded(tags, "bh", taglist.base64string)
    if len(body_hash) != 32 and not source.historic:
        raise TagListError("bh= is no SHA-256 hash")
    signed, expires = source.signed_at, _time(tags, "x")
    if signed is not None and expires is not None and expires <= signed:
        raise TagListError("x= is not after t=")  # RFC 6376 section 3.5, x=
    return Signature(
        source,
        names,
        _canon(header),
        BodySpec(_canon(body if slash else "simple"), _length(tags)),
        body_hash,
        None if expires == FOREVER else expires,
        identity,
        subdomain,
    )


def _source(tags: dict[str, str]) -> Source:
    algorithm = _required(tags, "a")
    if algorithm not in ALGORITHMS and algorithm not in HISTORIC:
        raise TagListError("a= is not a known algorithm")
    domain = _required(tags, "d")
    host = a_label(domain) or ""
    if "." not in host or domain.endswith("."):  # RFC 6376 section 3.5: at least two labels
        raise TagListError("d= is no domain")
    selector = a_label(_required(tags, "s"))
    if selector is None or tags["s"].endswith("."):
        raise TagListError("s= is no selector")
    if len(selector) + len(host) > 253 - len("._domainkey."):  # RFC 1035 section 2.3.4
        raise TagListError("s= and d= make no name in the DNS")
    return Source(algorithm, host, selector, _decoded(tags, "b", taglist.base64string), _time(tags, "t"))


def _arc_source(tags: dict[str, str]) -> Source:
    source = _source(tags)
    if source.historic:
        raise TagListError(f"{source.algorithm} must not be used")  # RFC 8301 section 3.1
    return source


def _required(tags: dict[str, str], name: str) -> str:
    value = tags.get(name)
    if value is None:
        raise TagListError(f"{name}= is missing")  # RFC 6376 section 6.1.1
    return value


def _names(tags: dict[str, str], limits: Limits) -> tuple[bytes, ...]:
    value = _required(tags, "h")
    if value.count(":") >= limits.signed_names:
        raise TagListError(f"more than {limits.signed_names} names in h=")
    return _listed(value) if len(value) <= KEPT_NAMES else _listed.__wrapped__(value)


@lru_cache(maxsize=1024)  # a sender lists the same names in all mail, and 5 us of 100 are saved
def _listed(value: str) -> tuple[bytes, ...]:
    names = tuple(name.encode().lower() for name in taglist.words(value))
    if b"" in names:
        raise TagListError("empty name in h=")
    return names


def _canon(word: str) -> Canon:
    try:
        return Canon(word)
    except ValueError:
        raise TagListError("c= is not a known canonicalization") from None


def _decoded(tags: dict[str, str], name: str, decode: Callable[[str], T]) -> T:
    value = _required(tags, name)
    try:
        return decode(value)
    except TagListError as error:
        raise TagListError(f"{name}= is {error}") from None


def _time(tags: dict[str, str], name: str) -> int | None:
    value = tags.get(name)
    if value is None:
        return None
    if not _DIGITS.fullmatch(value):
        raise TagListError(f"{name}= is no time")
    digits = value.lstrip("0") or "0"
    return int(digits) if len(digits) <= 12 else FOREVER


def _length(tags: dict[str, str]) -> int | None:
    value = tags.get("l")
    if value is None:
        return None
    if not _DIGITS.fullmatch(value) or len(value) > 76:  # RFC 6376 section 3.5, l=
        raise TagListError("l= is no length")
    return int(value)

"""DMARC record: what does a domain owner ask for?

Takes the text of one TXT record at _dmarc.DOMAIN; gives a `Record`, or why it is none.  Never asks the DNS.
RFC 9989 sections 4.7 (tags), 4.8 (grammar) and 4.10.1 (what a record without a usable policy means).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from elemta.addresses import a_label, split

MAX_OCTETS = 65_535  # of a TXT record
MAX_CACHED = 512  # octets of a record whose reading is kept
MAX_URIS = 50  # reporting addresses kept
MAX_SIZE = 20  # digits of a reporting address's size

_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")  # RFC 9989 section 4.7, v: case-sensitive, first
_VALUE = re.compile(r"[\t\x20-\x3a\x3c-\x7e]+")  # RFC 9989 section 4.8; a tab may stand beside a comma
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@$&'()*+;=%-]+")  # RFC 3986, less "," and "!"
_UNITS = "kmgtKMGT"
_SIZE = re.compile(rf"[0-9]+[{_UNITS}]?")
_FO = re.compile(r"[01dsDS](?::[01dsDS]){0,3}")


class Policy(StrEnum):
    """What a domain owner prefers for mail that fails, from mild to strict."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def strictness(self) -> int:
        """0, 1 or 2."""
        return _STRICTNESS[self]

    @property
    def below(self) -> Policy:
        """One level down: what t=y asks for."""
        return Policy.QUARANTINE if self is Policy.REJECT else Policy.NONE


_STRICTNESS = {Policy.NONE: 0, Policy.QUARANTINE: 1, Policy.REJECT: 2}


@dataclass(frozen=True, slots=True)
class Record:
    """A DMARC policy record.

    Attributes:
        text: the record as published.
        p: policy for the domain itself; None where the record has no usable one: DMARC does not apply then.
        sp: policy for subdomains, None where not given.
        np: policy for subdomains that do not exist, None where not given.
        adkim: "r" relaxed or "s" strict alignment of DKIM.
        aspf: likewise of SPF.
        psd: "y" a public suffix, "n" an organizational domain, "u" not said.
        testing: t=y.
        fo: options for failure reports, as published: "0", "1:d:s".
        rua: URIs for aggregate reports, valid ones, without the obsolete size.
        ruf: URIs for failure reports, likewise.
        ri: seconds between aggregate reports (RFC 7489 section 6.3; gone in RFC 9989).
    """

    text: str
    p: Policy | None
    sp: Policy | None = None
    np: Policy | None = None
    adkim: str = "r"
    aspf: str = "r"
    psd: str = "u"
    testing: bool = False
    fo: str = "0"
    rua: tuple[str, ...] = ()
    ruf: tuple[str, ...] = ()
    ri: int = 86_400

    def policy_for(self, *, subdomain: bool, exists: bool = True) -> Policy:
        """Give the policy that applies (RFC 9989 section 4.10.1).

        Args:
            subdomain: the author domain is below the domain of this record.
            exists: the author domain exists in the DNS.
        """
        candidates = (self.np if not exists else None, self.sp, self.p) if subdomain else (self.p,)
        return next((policy for policy in candidates if policy is not None), Policy.NONE)


def parse_record(txt: bytes) -> tuple[Record | None, str]:
    """Read one TXT record.

    Returns:
        The record and "", or None and for people why this is no DMARC record.  A record whose `p` is None is one
        (it counts in the tree walk), with the reason why it asks for nothing.
    """
    if len(txt) > MAX_OCTETS or not _VERSION.match(txt):
        return None, "not a DMARC record: it must begin with v=DMARC1;"
    return _parse_small(txt) if len(txt) <= MAX_CACHED else _parse(txt)


def size_limits(text: str, tag: str) -> dict[str, int]:
    """Octets that the URIs of `rua` or `ruf` take at most ("!10m"), for those that say so.

    RFC 7489 section 6.2; RFC 9989 has dropped the notation, RFC 9990 section 3.5 still wants it heeded.
    """
    limits: dict[str, int] = {}
    for item in _tags(text).get(tag, "").split(",")[: 4 * MAX_URIS]:
        uri, bang, size = item.strip(" \t").partition("!")
        if bang and len(size) <= MAX_SIZE and _SIZE.fullmatch(size):
            limits.setdefault(uri, int(size.rstrip(_UNITS)) << 10 * ("kmgt".find(size[-1:].lower()) + 1))
    return limits


def _parse(txt: bytes) -> tuple[Record, str]:
    text = txt.decode("utf-8", "replace")
    tags = _tags(text)
    policies = {name: _policy(tags[name]) for name in ("p", "sp", "np") if name in tags}
    rua = _uris(tags.get("rua", ""))
    reason = ""
    if "p" not in policies or None in policies.values():
        if not rua:  # RFC 9989 section 4.10.1: no DMARC processing
            reason = "record has no valid policy and no reporting address"
        policies = {} if reason else {"p": Policy.NONE}
    record = Record(
        text=text,
        p=policies.get("p"),
        sp=policies.get("sp"),
        np=policies.get("np"),
        adkim=_choice(tags, "adkim", "rs"),
        aspf=_choice(tags, "aspf", "rs"),
        psd=_choice(tags, "psd", "uyn"),
        testing=_choice(tags, "t", "ny") == "y",
        fo=_failure_options(tags.get("fo", "")),
        rua=rua,
        ruf=_uris(tags.get("ruf", "")),
        ri=_interval(tags.get("ri", "")),
    )
    return record, reason


_parse_small = lru_cache(maxsize=4096)(_parse)  # the same few domains send most of the mail


def _tags(text: str) -> dict[str, str]:
    """Give the tags by lower-case name; what breaks the grammar is left out (RFC 9989 section 4.8)."""
    tags: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        name, value = name.strip(" \t").lower(), value.strip(" \t")
        if equals and (_VALUE.fullmatch(value) or name in {"p", "sp", "np"}):
            tags.setdefault(name, value)  # a repeated tag is an error: the first one stands
    return tags


def _policy(value: str) -> Policy | None:
    try:
        return Policy(value.lower())
    except ValueError:
        return None


def _choice(tags: dict[str, str], name: str, values: str) -> str:
    """Give the tag's value where it is one of the letters, else the first letter: the default."""
    value = tags.get(name, "").lower()
    return value if len(value) == 1 and value in values else values[0]


def _failure_options(value: str) -> str:
    options = value.replace(" ", "")
    letters = options.lower().split(":")
    lawful = _FO.fullmatch(options) and len(set(letters)) == len(letters) and not {"0", "1"} <= set(letters)
    return options.lower() if lawful else "0"


def _interval(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 10 and int(value) else 86_400


def _uris(value: str) -> tuple[str, ...]:
    """Give the valid URIs of a list (RFC 9989 section 4.6); the obsolete "!10m" is dropped."""
    uris: dict[str, None] = {}
    for item in value.split(",")[: 4 * MAX_URIS]:
        uri, bang, size = item.strip(" \t").partition("!")
        if bang and not _SIZE.fullmatch(size):
            continue
        if _URI.fullmatch(uri) and _deliverable(uri):
            uris[uri] = None
    return tuple(uris)[:MAX_URIS]


def _deliverable(uri: str) -> bool:
    """Tell whether a mailto: URI has an address; other schemes are not ours to judge."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "mailto":
        return True
    local, domain = split(rest.partition("?")[0])
    return bool(local) and a_label(domain) is not None

"""Domains: which name in the DNS does this text mean?

Takes a domain as text of any form (upper case, trailing dot, U-labels, A-labels); gives the one form in which
domains are compared and asked for.  Never looks anything up and never raises.

RFC 1035 section 2.3.4 (sizes), RFC 5890 section 2.3 (A-labels and U-labels), UTS 46 (mapping).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import takewhile

import idna

MAX_NAME = 512  # characters of a domain before it becomes A-labels

_LDH = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


def a_label(domain: str) -> str | None:
    """Give the A-label form of `domain`, lower-cased and without a trailing dot; None when it is no domain."""
    return _a_label(domain) if len(domain) <= MAX_NAME else None


def is_within(domain: str, other: str) -> bool:
    """Whether `domain` is `other` or below it, both as A-labels."""
    return domain == other or domain.endswith(f".{other}")


def is_near(domain: str, other: str) -> bool:
    """Whether one is the other or below it, both as A-labels."""
    return is_within(domain, other) or is_within(other, domain)


def readings(text: str) -> list[str]:
    """Give the domains, as A-labels, that people may see in `text`: itself, or what is left where it is no domain.

    Characters that show nothing ("example.com" and then U+202E) are passed over by some programs, and end a name for
    others.
    """
    for shown in (
        (text,),
        (filter(str.isprintable, text), takewhile(str.isprintable, text)),
        (takewhile(str.isascii, text),),
    ):
        names = (a_label("".join(chars).rstrip(".")) for chars in shown)
        found = list(dict.fromkeys(name for name in names if name))
        if found:
            return found
    return []


@lru_cache(maxsize=8192)
def _a_label(domain: str) -> str | None:
    name = domain if domain.isascii() else _from_u_labels(domain)
    name = name.lower().removesuffix(".")
    return name if len(name) <= 253 and _LDH.fullmatch(name) else None  # RFC 1035 section 2.3.4


def _from_u_labels(domain: str) -> str:
    """Map by UTS 46 (not transitional) and encode label by label; "" where a label is not lawful."""
    try:
        labels = idna.uts46_remap(domain, std3_rules=False).split(".")
        return ".".join(label if label.isascii() else _encode(label) for label in labels)
    except UnicodeError:  # idna.IDNAError is one
        return ""


def _encode(label: str) -> str:
    try:
        return idna.alabel(label).decode("ascii")
    except (idna.InvalidCodepointContext, idna.IDNABidiError):
        raise
    except idna.InvalidCodepoint:  # a symbol: in the DNS by UTS 46, though IDNA 2008 forbids it
        return "xn--" + label.encode("punycode").decode("ascii")

"""Authentication-Results: how is evidence written down for the programs behind us, and what do such fields say?

Takes results (`elemta.findings.AuthResult`) and gives a field's value; takes a field's value and gives what it
says, or whether it claims to be ours.  What a sender chose (addresses, domains, reasons) can never end its value,
its result or the field.  Never raises on what a sender wrote, never trusts: who wrote a field is not asked here.

RFC 8601 section 2.2 (grammar), section 5 (removing forgeries), RFC 8616 and RFC 6532 (UTF-8), RFC 5322 (folding).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from elemta.addresses import a_label
from elemta.findings import AuthResult
from elemta_milter.mailauth.authres_reader import (
    Parsed,
    Resinfo,
    claims,
    is_authentication_results,
    is_ours,
    parse,
)

__all__ = ["Parsed", "Resinfo", "claims", "is_authentication_results", "is_ours", "parse", "render"]

MAX_VALUE = 400  # octets of a value kept; an address of RFC 5321 section 4.5.3.1 has 320
LINE = 78  # RFC 5322 section 2.1.1: should; 998 is a must, and no value comes near it

_USUAL = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+|\w+(?:\.\w+)*@[\w-]+(?:\.[\w-]+)*", re.ASCII)
"""A token (RFC 2045 section 5.1), or an address as most are."""
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a1-\U0010ffff-]+"
# but for what makes an encoded word behind the "=" (see _quoted)
_DOT_ATOM = re.compile(rf"(?!\?|.*=\?)(?:{_ATOM}(?:\.{_ATOM})*)?")  # RFC 5322 section 3.2.3, RFC 6532
_LABEL = r"[A-Za-z0-9_\u00a1-\U0010ffff-]+"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_KEYWORD = re.compile(r"[A-Za-z0-9-]+")  # RFC 5321 section 4.1.1.1
_NOT_KEYWORD = re.compile(r"[^A-Za-z0-9.-]+")


def render(authserv_id: str, results: Sequence[AuthResult]) -> str:
    r"""Give the value of an Authentication-Results field, folded with "\n\t", one line or more for each result."""
    head = _authserv_id(authserv_id) + ";"
    if not results:
        return head + " none"  # RFC 8601 section 2.2: no-result
    return "\n\t".join([head, ";\n\t".join(_resinfo(result) for result in results)])


def _authserv_id(name: str) -> str:
    """Give our name as RFC 8601 section 2.2 has it: a `value`, so never an address."""
    return _quoted(_clean(name)) if "@" in name else _value(name)


def _resinfo(result: AuthResult) -> str:
    parts = [f"{_keyword(result.method)}={_keyword(result.result)}"]
    if result.reason:
        parts.append("reason=" + _quoted(_clean(result.reason)))
    parts += [f"{_property(name)}={_value(value)}" for name, value in result.properties]
    return _folded(parts)


def _folded(parts: Sequence[str]) -> str:
    line = " ".join(parts)
    if len(line) < LINE - 8:  # the tab
        return line
    lines: list[str] = []
    width = LINE
    for part in parts:
        if width + 1 + len(part) >= LINE:
            lines.append(part)
            width = 8 + len(part)  # the tab
        else:
            lines[-1] += " " + part
            width += 1 + len(part)
    return "\n\t".join(lines)


@lru_cache(maxsize=256)  # names are our own words, not a sender's
def _keyword(text: str) -> str:
    return text if _KEYWORD.fullmatch(text) else _NOT_KEYWORD.sub("-", text).replace(".", "-").strip("-") or "x"


@lru_cache(maxsize=256)
def _property(name: str) -> str:
    ptype, _, rest = name.partition(".")
    return f"{_keyword(ptype)}.{_keyword(rest)}"


def _value(value: str) -> str:
    """Give `value` as a pvalue: token, [local-part]@domain-name, or quoted-string."""
    if len(value) < MAX_VALUE // 4 and _USUAL.fullmatch(value):
        return value
    text = _clean(value)
    if text.endswith("..."):
        return _quoted(text)
    local, at, domain = text.rpartition("@")  # all of it: a source route (RFC 5321 appendix C) is no part of a pvalue
    if at and _DOMAIN.fullmatch(domain):
        if _DOT_ATOM.fullmatch(local):
            return text
        if len(local) > 1 and local[0] == local[-1] == '"':
            return f"{_quoted(local[1:-1])}@{domain}"
    if not text.isascii() and _DOMAIN.fullmatch(text) and a_label(text):  # RFC 8616 section 5: a U-label
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    r"""Quote, without any \" or \\ inside: readers that split at quotes would take the rest for results.

    Nor any =? that begins an encoded word: programs that decode them before they read would find results in it.
    """
    return '"' + text.replace("\\", "/").replace('"', "'").replace("=?", "=\\?") + '"'


def _clean(text: str) -> str:
    """Cut to MAX_VALUE octets; controls, line ends and all that does not print become "?"."""
    text = text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
    octets = text.encode()
    return text if len(octets) <= MAX_VALUE else octets[:MAX_VALUE].decode("utf-8", "ignore") + "..."

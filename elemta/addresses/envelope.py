"""Addresses: which local part, and which domain, does a mail address name?

Takes addresses as the wire shows them (SMTP envelope, and the From fields of a message, raw); gives (local part,
domain), A-labels, and the authors of a message.  Never looks anything up and never raises on what a sender wrote.

RFC 5321 section 4.1.2 and appendix C; for the From field see `from_field`, for A-labels `domains`.
"""

from __future__ import annotations

import re

from elemta.addresses.domains import a_label

_PLAIN = re.compile(r"[^@\"<>\\\x80-\U0010ffff]++@[^@\"<>\[\\\x80-\U0010ffff]*+(?<!\.)")
_PLAIN_LOCAL = re.compile(r'[^\s()<>\[\]:;@\\,"]+', re.ASCII)  # RFC 5321 section 4.1.2; Postfix takes a..b, too
_USUAL = re.compile(r"[^@()<>\[\\\s\",:;]*@[^@()<>\[\\\s\",:;]*")
_LAWFUL = re.compile(r'(?>"[^\x00-\x1f\x7f<>]*"@(?!\Z))?[^\x00-\x20\x7f<>\ud800-\udfff]+')
_QUOTING = re.compile(r'\\(.)|"', re.DOTALL)


def is_address(text: str) -> bool:
    """Whether the envelope may hold this address; "" is none."""
    return _LAWFUL.fullmatch(text) is not None


def mailbox(path: str) -> str:
    """The address that the MTA reads in the argument of MAIL or RCPT, without its outer angle brackets.

    Postfix takes what mail once allowed (unless strict_rfc821_envelopes): comments, blanks, a phrase before <address>
    and a source route (RFC 5321 appendix C).  None of it is part of the address, nor are quotes: for Postfix,
    "a@b.test" and a@"b".test are a@b.test.
    """
    if _USUAL.fullmatch(path):
        return path
    kept: list[str] = []
    place, end, depth, inside, opened = 0, len(path), 0, "", False
    last = path.rfind(">")
    while place < end:
        char = path[place]
        if char == "\\":
            kept += () if depth else path[place + 1 : place + 2]
            place += 2
            continue
        place += 1
        if depth or (char == "(" and not inside):
            depth += {"(": 1, ")": -1}.get(char, 0)
        elif char == '"' and inside != "]":
            inside = "" if inside else char
        elif inside:
            kept.append(char)
            inside = "" if char == inside else inside
        elif char == "<":
            kept.clear()
            opened = True
        elif char == ">" and opened and kept and place > last:
            break
        elif char not in " \t,;>":  # two addresses with a comma between them are refused
            kept.append(char)
            inside = "]" if char == "[" else ""
    return written("".join(kept))


def compared(address: str) -> str:
    """The one form of an envelope address in which it is compared, but for case.

    No source route, no quotes that the local part does not need, the domain as A-labels without a final dot.
    """
    if _PLAIN.fullmatch(address):
        return address
    local, domain = split(address)
    return f"{bare(local)}@{a_label(domain) or domain.lower()}" if domain else address


def bare(local: str) -> str:
    r"""A local part without quotes that it does not need: "anna"@, an\na@ and anna@ are the same, a."b"@ and a.b@ too.

    RFC 5321 section 4.1.2; Postfix takes quotes around one atom of it as well.
    """
    if '"' not in local and "\\" not in local:
        return local
    inner = _QUOTING.sub(r"\1", local)
    return inner if _PLAIN_LOCAL.fullmatch(inner) else _quoted(inner)


def written(address: str) -> str:
    """The address as SMTP has it, of what Postfix tells a policy service, where no quotes are: "an na"@example.org.

    Of @b.test:a@example.org, which was in quotes, Postfix takes the route off only when it rewrites it.
    """
    if _USUAL.fullmatch(address):
        return address
    if address.startswith("@"):
        address = _without_route(address)
    local, _, domain = address.rpartition("@")
    return address if not local or _PLAIN_LOCAL.fullmatch(local) else f"{_quoted(local)}@{domain}"


def returned_to(sender: str) -> str:
    """The sender that Postfix makes of one without @: b.test!a and a%b.test become a@b.test.

    See swap_bangpath and allow_percent_hack in postconf(5).  What needs quotes stays one of this server's.
    """
    if not _PLAIN_LOCAL.fullmatch(sender) or "" in sender.split("."):
        return sender
    domain, swapped, local = sender.partition("!")
    if not swapped:
        local, swapped, domain = sender.rpartition("%")
    return f"{local}@{domain}" if swapped else sender


def _quoted(local: str) -> str:
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def split(address: str) -> tuple[str, str]:
    """Split an envelope address into local part and domain, both as written; "" for a part that is absent.

    Angle brackets around it and a source route before it are dropped; a domain may be "[192.0.2.1]".
    """
    if address.startswith("<") and address.endswith(">"):
        address = address[1:-1]
    if address.startswith("@"):  # RFC 5321 appendix C: "@a,@b:user@domain" means user@domain
        address = _without_route(address)
    if '"' in address:
        at = _last_unquoted_at(address)
    elif address.endswith("]") and "@[" in address:
        at = address.rindex("@[")
    else:
        at = address.rfind("@")
    return (address, "") if at < 0 else (address[:at], address[at + 1 :])


def _without_route(address: str) -> str:
    literal = False
    for place, char in enumerate(address):
        if char == ":" and not literal:
            return address[place + 1 :]
        literal = char == "[" or (literal and char != "]")
    return address


def _last_unquoted_at(address: str) -> int:
    last, quoted, escaped = -1, False, False
    for place, char in enumerate(address):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "@" and not quoted:
            last = place
    return address.rfind("@") if quoted else last

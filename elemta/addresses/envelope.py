"""Addresses: which local part, and which domain, does a mail address name?

Takes addresses as the wire shows them (SMTP envelope, and the From fields of a message, raw); gives (local part,
domain), A-labels, and the authors of a message.  Never looks anything up and never raises on what a sender wrote.

RFC 5321 section 4.1.2 and appendix C; for the From field see `from_field`, for A-labels `domains`.
"""

from __future__ import annotations


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

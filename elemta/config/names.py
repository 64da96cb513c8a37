"""Names: what may a name, a host, a DNS server and a state URL look like in the configuration?

Types for the settings; each reader returns the value as the rest of the program wants it and raises ValueError with a
text that teaches.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, WithJsonSchema

from elemta.config.problems import quoted
from elemta.config.state_url import DEFAULT, SCHEMES, state_place, without_password

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123 section 2.1, RFC 1035 section 2.3.4
_FIELD = re.compile(r"[!-9<-~]{1,100}")  # RFC 5322 section 2.2, less the semicolon
_PASSING = frozenset({"return-path", "received", "authentication-results", "bcc", "dkim-signature"})
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*/=?^_`{|}~.-]{1,60}")  # RFC 5322 section 3.2.3, less the delimiter +
_SERVER = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")


def name(text: str) -> str:
    """A name that the administrator gives to a rule, a set, a class or a check."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a name; write at most 64 letters, digits, - and _, a letter first")
    return text


def host_name(text: str) -> str:
    """A host name in A-labels, without a final dot."""
    bare = text.removesuffix(".")
    if not text.isascii():
        raise ValueError(f"{quoted(text)} is not a host name; write it in A-labels (xn--…)")
    if len(bare) > 253 or not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise ValueError(f"{quoted(text)} is not a host name; write one such as mx1.example.org")
    if bare.rpartition(".")[2].isdigit():
        raise ValueError(f"{quoted(text)} is an address or a number; write a host name such as mx1.example.org")
    return bare


def selector(text: str) -> str:
    """A DKIM selector: labels of letters, digits and hyphens (RFC 6376 section 3.1)."""
    if len(text) > 190 or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(f"{quoted(text)} is not a selector; write letters, digits and hyphens, such as r2026")
    return text.lower()


def signed_name(text: str) -> str:
    """A header field that a signature may cover, lower case: none that is added or taken away on the way."""
    name = text.lower()
    if not _FIELD.fullmatch(name):
        raise ValueError(f"{quoted(text)} is not a header field's name; write one such as subject")
    if name in _PASSING or name.startswith("arc-"):  # RFC 6376 section 5.4
        raise ValueError(f"{quoted(text)} is added or removed on a mail's way, and a signature over it would break")
    return name


def dns_server(text: str) -> str:
    """ADDRESS or ADDRESS:PORT, an IPv6 address in brackets; the port is always in what is returned."""
    match = _SERVER.fullmatch(text)
    try:
        address = ip_address((match[1] or match[2]) if match else "")
    except ValueError:
        address = None
    port = int(match[3] or 53) if match else 0
    if match is None or address is None or not 0 < port < 65536 or isinstance(address, IPv6Address) != bool(match[1]):
        raise ValueError(f'{quoted(text)} is not a DNS server; write ADDRESS:PORT, "127.0.0.1:53" or "[::1]:53"')
    return f"[{address}]:{port}" if match[1] else f"{address}:{port}"


def mail_address(text: str) -> str:
    """LOCAL@DOMAIN of ASCII, no quotes; lower case."""
    local, _, domain = text.rpartition("@")
    if not _LOCAL.fullmatch(local):
        raise ValueError(f"{quoted(text)} is not a mail address; write one such as dmarc@example.org")
    return f"{local}@{host_name(domain)}".lower()


def smtp_server(text: str) -> str:
    """HOST:PORT, ADDRESS:PORT, [ADDRESS]:PORT; the port is 25 where it is not given."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, ":", "25")
    if not colon:
        host, port = text, "25"
    try:
        named = str(ip_address(host[1:-1])) if host[:1] == "[" and host[-1:] == "]" else _host_or_address(host)
    except ValueError:
        named = ""
    if not named or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise ValueError(f"{quoted(text)} is not an SMTP server; write HOST:PORT, 127.0.0.1:25 or [::1]:25")
    return f"[{named}]:{port}" if ":" in named else f"{named}:{port}"


def _host_or_address(text: str) -> str:
    return str(ip_address(text)) if text.replace(".", "").isdigit() else host_name(text)


def one_line(text: str) -> str:
    """Words for people, as a header field or XML can hold them; a text over several lines becomes one."""
    line = " ".join(text.split())
    if not line.isprintable():
        raise ValueError("holds a character that does not print; write it without")
    return line


def report_interval(seconds: float) -> float:
    """At least an hour: the grid on which reports lie."""
    if seconds < 3600:
        raise ValueError("reports lie on whole hours; write 1h or more")
    return seconds


def state_url(text: str) -> str:
    """Where state is kept, as `elemta.config.state_url` reads it."""
    state_place(text)
    return text


def masked(url: str) -> str:
    """`url` with its password as ***; anything else unchanged."""
    if url.partition("://")[0] in SCHEMES:  # there a password may hold every sign
        return without_password(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    if not colon:
        return url
    host = parts.netloc.rpartition("@")[2]
    return SplitResult(parts.scheme, f"{user}:***@{host}", parts.path, parts.query, parts.fragment).geturl()


Name = Annotated[
    str,
    AfterValidator(name),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"}),
]
HostName = Annotated[
    str,
    AfterValidator(host_name),
    WithJsonSchema({"type": "string", "format": "hostname", "x-kind": "a host name", "examples": ["mx1.example.org"]}),
]
SignedName = Annotated[
    str,
    AfterValidator(signed_name),
    WithJsonSchema({"type": "string", "x-kind": "a header field's name", "examples": ["subject"]}),
]
Selector = Annotated[
    str,
    AfterValidator(selector),
    WithJsonSchema({"type": "string", "x-kind": "a selector", "examples": ["r2026"]}),
]
MailAddress = Annotated[
    str,
    AfterValidator(mail_address),
    WithJsonSchema({"type": "string", "x-kind": "a mail address", "examples": ["dmarc@example.org"]}),
]
OneLine = Annotated[str, AfterValidator(one_line)]
SmtpServer = Annotated[
    str,
    AfterValidator(smtp_server),
    WithJsonSchema({"type": "string", "x-kind": "an SMTP server", "examples": ["127.0.0.1:25", "postfix:25"]}),
]
DnsServer = Annotated[
    str,
    AfterValidator(dns_server),
    WithJsonSchema({"type": "string", "x-kind": "a DNS server", "examples": ["127.0.0.1:53", "[::1]:53"]}),
]
StateUrl = Annotated[
    str,
    AfterValidator(state_url),
    WithJsonSchema({"type": "string", "x-kind": "a state store", "examples": [DEFAULT, "redis://10.0.0.5/0"]}),
]

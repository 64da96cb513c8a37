"""Mail: how does a report travel?

Takes what is to be said and the keys; gives the octets of a signed message.  Made by hand, line by line: what is
signed here is what is sent.

RFC 9990 section 3.5.2, RFC 9991, RFC 5965 section 2 (multipart/report), RFC 3834 section 5 (Auto-Submitted).
"""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.policy import SMTP
from email.utils import formatdate

from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.signing import FIELD, SigningKey, sign

Header = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Sender:
    """Who writes.

    Attributes:
        name: for people.
        address: From.
        keys: all sign; none: it goes unsigned.
    """

    name: str
    address: str
    keys: tuple[SigningKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the mail.

    Attributes:
        header: its own fields, folded with CRLF.
        body: CRLF line ends.
    """

    header: Header
    body: bytes


def text_part(text: str) -> Part:
    """Words for people, ASCII."""
    header = (("Content-Type", "text/plain; charset=us-ascii"), ("Content-Transfer-Encoding", "7bit"))
    return Part(header, text.replace("\n", "\r\n").encode("ascii", "replace"))


def gzip_part(file_name: str, data: bytes) -> Part:
    """The report itself (RFC 9990 section 3.5.2; RFC 6713)."""
    header = (
        ("Content-Type", f'application/gzip;\r\n name="{file_name}"'),
        ("Content-Transfer-Encoding", "base64"),
        ("Content-Disposition", f'attachment;\r\n filename="{file_name}"'),
    )
    return Part(header, encodebytes(data).replace(b"\n", b"\r\n"))


def mail(sender: Sender, recipient: str, subject: str, reference: str, parts: Sequence[Part], *, now: float,
         kind: str = "mixed") -> bytes:  # fmt: skip
    """The whole message, signed.

    Args:
        sender: who writes.
        recipient: to whom.
        subject: folded with CRLF.
        reference: what is the same for every copy of this report; it becomes Message-ID and boundary.
        parts: at least one.
        now: seconds since 1970.
        kind: "mixed", or "report; report-type=feedback-report".
    """
    boundary = f"=_{reference}"
    domain = sender.address.rpartition("@")[2]
    header = [
        ("From", str(Address(sender.name, addr_spec=sender.address)) if sender.name.isascii() else _encoded(sender)),
        ("To", f"<{recipient}>"),
        ("Subject", subject),
        ("Date", formatdate(now)),
        ("Message-ID", f"<{reference}@{domain}>"),
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/{kind};\r\n boundary="{boundary}"'),
    ]
    body = b"".join(f"--{boundary}\r\n".encode() + _fields(part.header) + b"\r\n" + part.body for part in parts)
    body += f"--{boundary}--\r\n".encode()
    return _signatures(header, body, sender.keys, int(now)) + _fields(header) + b"\r\n" + body


def _signatures(header: Header, body: bytes, keys: Sequence[SigningKey], now: int) -> bytes:
    spec = BodySpec(Canon.RELAXED)
    hasher = BodyHasher()
    hasher.want(spec)
    hasher.feed(body)
    hasher.finish()
    body_hash = hasher.digest(spec)
    assert body_hash is not None  # noqa: S101 - no length was asked for
    fields = HeaderFields([(name.encode(), b" " + value.encode()) for name, value in header])
    signed = (sign(fields, key, body_hash=body_hash, now=now) for key in keys)
    return b"".join(FIELD + b":" + value + b"\r\n" for value in signed)


def _fields(header: Header) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in header).encode("ascii")


def _encoded(sender: Sender) -> str:
    """From with a name that is not ASCII (RFC 2047)."""
    field = SMTP.header_factory("From", [Address(sender.name, addr_spec=sender.address)])
    folded: str = field.fold(policy=SMTP)
    return folded.partition(":")[2].strip()

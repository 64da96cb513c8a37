"""SMTP client for tests: what did the server say to each command?

`Session` speaks to any SMTP server, can pretend to be any client (XCLIENT), and never raises for a refusal: every
command gives a `Reply`; a lost connection is a reply with code 0.  `send()` carries one message and gives an `Outcome`.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

_QUEUED = re.compile(r"queued as ([0-9A-Za-z]+)")
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})\b")


@dataclass(frozen=True)
class Reply:
    """One reply; code 0 means that the connection was lost."""

    code: int
    text: str

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 400

    @property
    def enhanced(self) -> str:
        """The enhanced status code, "5.7.1", or ""."""
        found = _ENHANCED.match(self.text)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass(frozen=True)
class Outcome:
    """What became of one message: a reply for each command that was sent, None for those that were not."""

    mail: Reply
    rcpts: tuple[Reply, ...] = ()
    data: Reply | None = None  # the answer to DATA, 354
    end: Reply | None = None  # the answer to the whole message

    @property
    def accepted(self) -> bool:
        return self.end is not None and self.end.ok

    @property
    def final(self) -> Reply:
        """The reply that settled the message: the last one; where all recipients were refused, the first of those."""
        return self.end or self.data or next((reply for reply in self.rcpts if not reply.ok), self.mail)

    @property
    def queue_id(self) -> str:
        found = _QUEUED.search(self.end.text) if self.end else None
        return found[1] if found else ""


class Session:
    """One SMTP connection. `hello` holds the reply that opened it: the banner's if that was a refusal, else EHLO's.

    xclient: attributes by name in any case, for example {"addr": "192.0.2.7", "name": "mail.example.com",
    "login": "alice"}; addr takes plain IPv6 too. Not given: NAME=[UNAVAILABLE] when addr is given.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        helo: str = "client.example.com",
        xclient: Mapping[str, object] | None = None,
        starttls: bool = False,
        timeout: float = 60,
    ) -> None:
        self._smtp = smtplib.SMTP(timeout=timeout, local_hostname="localhost")
        self.helo = helo
        self.hello = Reply(*_decoded(self._smtp.connect(*address)))
        if not self.hello.ok:
            return
        self.hello = self.ehlo()
        if starttls and self.hello.ok and self.command("STARTTLS").ok:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self._smtp.sock = context.wrap_socket(self._smtp.sock)
            self._smtp.file = None
            self.hello = self.ehlo()
        if xclient and self.hello.ok:
            self.hello = self.command("XCLIENT " + _xclient(xclient))
            if self.hello.ok:
                self.hello = self.ehlo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._smtp.sock:
            self.command("QUIT")
        self.close()

    def close(self) -> None:
        """Hang up without QUIT."""
        self._smtp.close()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._smtp.send(data)

    def reply(self) -> Reply:
        """Read one reply."""
        try:
            return Reply(*_decoded(self._smtp.getreply()))
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            self._smtp.close()
            return Reply(0, f"connection lost: {error}")

    def command(self, line: str | bytes) -> Reply:
        """Send one line and read its reply. Text may hold surrogate escapes for raw bytes."""
        raw = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
        try:
            self.write(raw + b"\r\n")
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            self._smtp.close()
            return Reply(0, f"connection lost: {error}")
        return self.reply()

    def pipeline(self, lines: Iterable[str]) -> list[Reply]:
        """Send all lines in one packet, then read all replies."""
        sent = [line.encode("utf-8", "surrogateescape") + b"\r\n" for line in lines]
        self.write(b"".join(sent))
        return [self.reply() for _ in sent]

    def ehlo(self) -> Reply:
        return self.command(f"EHLO {self.helo}")

    def mail(self, sender: str, *options: str) -> Reply:
        return self.command(" ".join((f"MAIL FROM:<{sender}>", *options)))

    def rcpt(self, recipient: str, *options: str) -> Reply:
        return self.command(" ".join((f"RCPT TO:<{recipient}>", *options)))

    def rset(self) -> Reply:
        return self.command("RSET")

    def bdat(self, chunk: bytes, *, last: bool = False) -> Reply:
        try:
            self.write(f"BDAT {len(chunk)}{' LAST' if last else ''}\r\n".encode() + chunk)
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            return Reply(0, f"connection lost: {error}")
        return self.reply()

    def body(self, data: bytes) -> Reply:
        """After the 354: the message, dot-stuffed and ended, and its reply."""
        stuffed = re.sub(rb"(?m)^\.", b"..", data)
        ending = b".\r\n" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n.\r\n"
        try:
            self.write(stuffed + ending)
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            return Reply(0, f"connection lost: {error}")
        return self.reply()

    def send(
        self,
        sender: str,
        recipients: str | Iterable[str],
        data: bytes | str,
        *,
        mail_options: Iterable[str] = (),
        rcpt_options: Iterable[str] = (),
        chunks: int = 0,
        raw: bool = False,
    ) -> Outcome:
        """Carry one message.

        data: line ends become CRLF unless raw. chunks: octets per BDAT chunk; 0 uses DATA.
        DATA is not sent when every recipient was refused (then RSET leaves the session usable).
        """
        if not self.hello.ok:
            return Outcome(self.hello)
        content = data.encode() if isinstance(data, str) else data
        content = content if raw else re.sub(rb"\r?\n", b"\r\n", content)
        mail = self.mail(sender, *mail_options)
        if not mail.ok:
            return Outcome(mail)
        recipients = [recipients] if isinstance(recipients, str) else recipients
        rcpts = tuple(self.rcpt(recipient, *rcpt_options) for recipient in recipients)
        if not any(reply.ok for reply in rcpts):
            self.rset()
            return Outcome(mail, rcpts)
        if chunks:
            parts = [content[at : at + chunks] for at in range(0, len(content), chunks)] or [b""]
            for part in parts[:-1]:
                middle = self.bdat(part)
                if not middle.ok:
                    return Outcome(mail, rcpts, None, middle)
            return Outcome(mail, rcpts, None, self.bdat(parts[-1], last=True))
        start = self.command("DATA")
        if start.code != 354:
            return Outcome(mail, rcpts, start)
        return Outcome(mail, rcpts, start, self.body(content))


def _decoded(reply: tuple[int, bytes]) -> tuple[int, str]:
    return reply[0], reply[1].decode("utf-8", "surrogateescape")


def _xclient(attributes: Mapping[str, object]) -> str:
    given = {name.upper(): str(value) for name, value in attributes.items()}
    if "ADDR" in given:
        given.setdefault("NAME", "[UNAVAILABLE]")
        if not given["ADDR"].startswith(("[", "IPV6:")) and ip_address(given["ADDR"]).version == 6:
            given["ADDR"] = "IPV6:" + given["ADDR"]
    return " ".join(f"{name}={_xtext(value)}" for name, value in given.items())


def _xtext(value: str) -> str:
    """RFC 3461 section 4."""
    return "".join(chr(c) if 33 <= c <= 126 and c not in b"+=" else f"+{c:02X}" for c in value.encode())

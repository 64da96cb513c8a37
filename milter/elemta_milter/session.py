"""Session: what does one SMTP session look like, step by step, as facts?

A state machine fed with the steps of the milter protocol, in any order, any number of times, with anything missing:
many messages on a connection, HELO again after STARTTLS, RSET at any point.  It tells the engine when a mail begins
(so that early checks run while the mail comes in) and when it was given up, and hands out the whole `Message` at
its end.  Knows nothing of libmilter, answers nothing, judges nothing; past a bound it keeps no more and says so.

Headers come with their leading space and folded with LF or CRLF; they are kept as they were on the wire (RFC 5322
section 2.2.3: CRLF), any octet as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from elemta.addresses import mailbox, returned_to
from elemta.case import Case
from elemta.facts import BytesBody, Client, Envelope, Message, parse_ip
from elemta_milter.body import Spool
from elemta_milter.bounds import BOUNDS, NAMELESS, Bounds
from elemta_milter.mailauth.authres import is_authentication_results
from elemta_milter.port import Port

Macros = Mapping[str, str | None]

_LF = 0x0A  # as a number: to look for octets in octets, Python tries first whether they are one

MAIL_MACROS = (
    "{client_addr}",
    "{client_name}",
    "{client_ptr}",
    "{client_port}",
    "{auth_authen}",
    "{auth_type}",
    "{tls_version}",
    "{cipher}",
    "{cipher_bits}",
    "{cert_subject}",
    "{daemon_name}",
)
"""What `Session.mail` reads of its macros."""

EOM_MACROS = ("i",)
"""What `Session.eom` reads of its macros."""


class Ending(Struct, frozen=True):
    """A complete mail.

    Attributes:
        message: its facts.
        case: what `Port.start` gave at MAIL; None when nothing was started.
        unkept: how many fields of each name, lower case, came after the header was cut; nobody saw what they say. Those
            whose names are not kept either stand under `NAMELESS`.
    """

    message: Message
    case: Case | None = None
    unkept: Mapping[bytes, int] = field(default_factory=dict)


class Session:
    """One SMTP session. Its methods are called one at a time, from any thread."""

    __slots__ = (
        "_address", "_bounds", "_client", "_client_key", "_early", "_helo", "_leading_space", "_mail", "_name", "_port",
        "_spool", "_tcp_port",
    )  # fmt: skip

    def __init__(
        self, port: Port, spool: str, *, early: bool, leading_space: bool = True, bounds: Bounds = BOUNDS
    ) -> None:
        """Begin.

        Args:
            port: the engine.
            spool: the directory where long bodies wait.
            early: some check runs before the message: tell the engine at MAIL.
            leading_space: header values come with their leading space.
            bounds: see there.
        """
        self._port = port
        self._spool = spool
        self._early = early
        self._leading_space = leading_space
        self._bounds = bounds
        self._name = ""
        self._address: str | None = None
        self._tcp_port = 0
        self._helo = ""
        self._client = Client()
        self._client_key: object = None
        self._mail: _Mail | None = None

    def connect(self, name: str, address: str | None, port: int) -> None:
        """Take the client's verified name ("unknown", "[192.0.2.1]" without one), IP address, TCP port."""
        self.abort()
        self._name, self._address, self._tcp_port = name, address, port
        self._helo = ""

    def helo(self, name: str) -> None:
        """Take HELO or EHLO; it ends a mail that was under way (RFC 5321 section 4.1.4)."""
        self.abort()
        self._helo = name

    def mail(self, sender: bytes, arguments: Sequence[bytes], macros: Macros) -> None:
        """Take MAIL FROM, "<a@b.test>" and its ESMTP arguments: a mail begins."""
        self.abort()
        words = [word.upper() for word in arguments]
        envelope = Envelope(
            client=self._client_now(macros),
            sender=returned_to(_address(sender)),
            size=next((_number(word[5:]) for word in words if word.startswith(b"SIZE=")), 0),  # RFC 1870 section 6
            smtputf8=b"SMTPUTF8" in words,  # RFC 6531 section 3.4
        )
        self._mail = _Mail(envelope, self._bounds.header_octets)
        if self._early:
            self._mail.case = self._port.start(envelope)

    def rcpt(self, recipient: bytes) -> None:
        """Take a recipient that Postfix accepted."""
        mail = self._mail
        if mail is None:
            return
        mail.recipient_count += 1
        if mail.recipient_count <= self._bounds.recipients:
            mail.recipients.append(_address(recipient))
        else:
            mail.cut(f"{self._bounds.recipients:,} recipients")

    def header(self, name: str, value: bytes) -> None:
        """Take a header field."""
        mail = self._mail
        if mail is None:
            return
        if _LF in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if not self._leading_space:
            value = b" " + value  # the MTA took one away, if there was one: the best guess
        label = name.encode("utf-8", "surrogateescape")
        total = mail.header_octets = mail.header_octets + len(label) + len(value) + 3  # ":" and CRLF
        # what is left out counts too, so that no smaller field follows it: what is kept has no holes
        if total <= self._bounds.header_octets and len(mail.headers) < self._bounds.header_fields:
            mail.headers.append((label, value))
        else:
            self._leave_out(mail, label)

    def _leave_out(self, mail: _Mail, label: bytes) -> None:
        """Note that a field came of which there is no room for more than its name."""
        fields, room = self._bounds.header_fields, self._bounds.header_octets
        mail.cut(f"{fields:,} header fields" if len(mail.headers) >= fields else f"{room:,} octets of header")
        mail.name_room -= 0 if label.lower() in mail.unkept else len(label)
        named = mail.name_room >= 0 or is_authentication_results(label)
        mail.unkept[label.lower() if named else NAMELESS] += 1

    def body(self, chunk: bytes) -> None:
        """Take the next octets of the body.

        Raises:
            OSError: a long body could not be spooled.
        """
        mail = self._mail
        if mail is None:
            return
        if mail.spool is None:
            mail.spool = Spool(self._spool, self._bounds.body_memory, self._bounds.body_octets)
        if not mail.spool.append(chunk):
            mail.cut(f"{self._bounds.body_octets:,} octets of body")

    def eom(self, macros: Macros) -> Ending | None:
        """Take the end of the message; None when there was no MAIL. The session is ready for another mail."""
        mail, self._mail = self._mail, None
        return None if mail is None else mail.ending(macros.get("i") or "")

    def abort(self) -> None:
        """Give up the mail under way, if there is one (RSET, or the client is gone). The session goes on."""
        mail, self._mail = self._mail, None
        if mail is not None and mail.case is not None:
            self._port.cancel(mail.case)

    def _client_now(self, macros: Macros) -> Client:
        """Give the client as of this MAIL: a login or XCLIENT may have changed it since the last one."""
        values = [macros.get(name) for name in MAIL_MACROS]
        key = (self._name, self._address, self._tcp_port, self._helo, values)
        if key == self._client_key:
            return self._client
        address, name, reverse_name, port, login, method, tls, cipher, bits, certificate, daemon = values
        self._client_key = key
        self._client = Client(
            address=parse_ip(_known(address)) or parse_ip(self._address or ""),
            name=_known(name) or _known(self._name),
            reverse_name=_known(reverse_name),
            port=_number(port or "") or self._tcp_port,
            helo=self._helo,
            login=login or "",
            login_method=method or "",
            tls=tls or "",
            cipher=cipher or "",
            cipher_bits=_number(bits or ""),
            certificate=certificate or "",
            daemon=daemon or "",
        )
        return self._client


class _Mail:
    """A mail as far as it has come."""

    __slots__ = (
        "case", "envelope", "header_octets", "headers", "name_room", "recipient_count", "recipients",
        "spool", "truncated", "unkept",
    )  # fmt: skip

    def __init__(self, envelope: Envelope, name_room: int) -> None:
        self.envelope = envelope
        self.case: Case | None = None
        self.recipients: list[str] = []
        self.recipient_count = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.header_octets = 0
        self.spool: Spool | None = None
        self.truncated = ""
        self.name_room = name_room  # octets of the names in `unkept`
        self.unkept: Counter[bytes] = Counter()

    def cut(self, bound: str) -> None:
        """Note the first bound that was passed."""
        self.truncated = self.truncated or bound

    def ending(self, queue_id: str) -> Ending:
        """Give the mail as it is at its end."""
        body = BytesBody() if self.spool is None else self.spool.finish()
        early, seen = self.envelope, self.header_octets + 2 + body.size
        envelope = Envelope(
            client=early.client,
            sender=early.sender,
            recipients=tuple(self.recipients),
            recipient_count=self.recipient_count,
            size=max(early.size, seen) if self.spool is None else seen,  # there may be a body that was not sent to us
            smtputf8=early.smtputf8,
            queue_id=queue_id,
        )
        return Ending(Message(envelope, tuple(self.headers), body, self.truncated), self.case, self.unkept)


def _known(text: str | None) -> str:
    """Give a host's name or address as the MTA means it: "unknown" and "[192.0.2.1]" say that there is none.

    A login is not asked: somebody's may be just that.
    """
    return "" if not text or text.lower() == "unknown" or text[0] == "[" else text


def _number(text: str | bytes) -> int:
    return int(text) if text.isdigit() and text.isascii() and len(text) <= 18 else 0


def _address(path: bytes) -> str:
    """Give the address of a MAIL or RCPT argument, as the MTA reads it; octets that are no UTF-8 as surrogates."""
    if path[:1] == b"<" and path[-1:] == b">":
        path = path[1:-1]
    return mailbox(path.decode("utf-8", "surrogateescape"))

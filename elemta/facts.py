"""Facts: what does a mail look like at this step of SMTP, as it came?

Client ⊂ Envelope ⊂ Message: each holds the one before, and nobody can change one.  A check's argument
type says how early the check can run.  They hold wire identities: no rewriting, no judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, inet_pton
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from elemta.addresses import Authors, authors, split

T = TypeVar("T")

_BLANKS = bytes(range(0x21)) + b"\x7f"  # white space and controls that some mail programs pass over
_USUAL = 60  # octets of a field's name that is worth remembering: mails have the same ones


class Once(Generic[T]):
    """A property made when it is first asked for; before Python 3.12 `functools.cached_property` takes a lock."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make
        self.name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, of: Any, _type: type) -> T:  # noqa: ANN401 - any class may have one
        if of is None:  # the class is asked, by `help` for one
            return self  # type: ignore[return-value]
        made: T = of.__dict__.setdefault(self.name, self.make(of))  # where the next one who asks finds it
        return made


class Client(Struct, frozen=True, dict=True):
    """Who is connected.

    Attributes:
        address: the client's IP address; None when it is not one (a local submission, a unix socket).
        name: the host name that Postfix verified (forward and back); "" when unknown.
        reverse_name: the PTR name, verified or not; "" when unknown.
        port: the client's TCP port, 0 when unknown.
        helo: the name given in HELO or EHLO; "" when none.
        login: the SASL login name; "" when not authenticated.
        login_method: the SASL mechanism, "PLAIN".
        tls: the TLS protocol, "TLSv1.3"; "" for plain text.
        cipher: the TLS cipher's name.
        cipher_bits: its key size in bits.
        certificate: the verified client certificate's subject; "" for none.
        daemon: Postfix's name of itself towards this client, or the milter macro {daemon_name}.
    """

    address: IPv4Address | IPv6Address | None = None
    name: str = ""
    reverse_name: str = ""
    port: int = 0
    helo: str = ""
    login: str = ""
    login_method: str = ""
    tls: str = ""
    cipher: str = ""
    cipher_bits: int = 0
    certificate: str = ""
    daemon: str = ""

    @Once
    def address_text(self) -> str:
        """The address as people write it; "" for none."""
        return "" if self.address is None else str(self.address)


class Envelope(Struct, frozen=True, dict=True):
    """Who sends what to whom, before any content.

    Attributes:
        client: see `Client`.
        sender: MAIL FROM as the MTA reads it, without angle brackets or a source route; "" is the null sender.
        recipients: RCPT TO addresses known so far: the one asked about (policy service), or all that
            Postfix accepted (milter).
        recipient_count: recipients of the message as far as Postfix told, or those kept so far and the one asked about;
            0 when nothing is known.
        size: the size announced or seen, octets; 0 when unknown.
        smtputf8: MAIL FROM asked for SMTPUTF8 (RFC 6531); the policy service does not hear of it.
        queue_id: Postfix's queue id; "" before there is one.
        instance: the policy protocol's message instance: the same for all requests about one message.
    """

    client: Client = field(default_factory=Client)
    sender: str = ""
    recipients: tuple[str, ...] = ()
    recipient_count: int = 0
    size: int = 0
    smtputf8: bool = False
    queue_id: str = ""
    instance: str = ""

    @Once
    def sender_parts(self) -> tuple[str, str]:
        """Local part and domain of the sender."""
        return split(self.sender)


class Body(Protocol):
    """A message body, in memory or spooled to a file."""

    @property
    def size(self) -> int:
        """Octets."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The octets, in pieces of at most 1 MiB, from the beginning at each call."""
        ...


class BytesBody(Struct, frozen=True):
    """A body held in memory."""

    data: bytes = b""

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        """The octets, in one piece."""
        yield self.data


class Message(Struct, frozen=True, dict=True):
    r"""A whole mail.

    Attributes:
        envelope: see `Envelope`; its recipients are those Postfix accepted.
        headers: (name, value) of every field in order, raw octets; a value holds its leading space and
            its folding ("\r\n" inside), not the final line end.
        body: the octets after the empty line, CRLF line ends as they came.
        truncated: a bound of the milter was passed ("4,000 header fields"): what was seen is not all.
    """

    envelope: Envelope = field(default_factory=Envelope)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: Body = field(default_factory=BytesBody)
    truncated: str = ""

    @property
    def size(self) -> int:
        """Octets: announced, or those of the body if they are more; a client may announce what it likes."""
        return max(self.envelope.size, self.body.size)

    def header(self, name: str) -> tuple[bytes, ...]:
        """The raw values of all fields called `name` (ASCII, any case), in order."""
        return self._by_name.get(name.lower().encode(), ())

    @Once
    def _by_name(self) -> dict[bytes, tuple[bytes, ...]]:
        """Values by lower-case name; `From :` with its obsolete space is From (RFC 5322 section 4.5)."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            key = _usual_key(name) if len(name) <= _USUAL else _key(name)
            if key in found:
                found[key].append(value)
            else:
                found[key] = [value]
        return {name: tuple(values) for name, values in found.items()}

    def once(self, make: Callable[[Message], T]) -> T:
        """What `make` makes of this mail, made once however many ask; such as the tree of its MIME parts.

        Whoever asks while it is made on another thread waits for it.
        """
        made = self._made
        if make not in made:
            with self._making.setdefault(make, Lock()):
                if make not in made:
                    made[make] = make(self)
        return made[make]  # type: ignore[no-any-return]

    @Once
    def _making(self) -> dict[Callable[[Message], Any], Lock]:
        return {}

    @Once
    def _made(self) -> dict[Callable[[Message], Any], Any]:
        return {}

    @Once
    def authors(self) -> Authors:
        """The mailboxes of every From field (RFC 5322 section 3.6.2), read conservatively."""
        found = authors(self.header("from"))
        if self.truncated:  # another From may stand where nobody has looked
            found = replace(found, trouble=found.trouble or f"more than {self.truncated}")
        return found


def _key(name: bytes) -> bytes:
    return name.strip(_BLANKS).lower()


_usual_key = lru_cache(maxsize=1024)(_key)


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` spells ("192.0.2.1", "IPv6:2001:db8::1", "[::1]"), or None.

    An IPv4-mapped IPv6 address is the IPv4 address (RFC 7208 section 5); the interface in "fe80::1%eth0" is left out.
    """
    try:
        return IPv4Address(inet_pton(AF_INET, text))  # a third of the time that ip_address takes
    except (OSError, ValueError):  # no IPv4 address; or NUL, or not encodable
        pass
    text = text.strip("[]")
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address

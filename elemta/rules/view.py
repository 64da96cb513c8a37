"""A view: what are the facts of one mail, by the names that rules use?

A `View` computes each when a rule first asks; afterwards it is the record of all that was asked.  The facts of the
mail itself stand below; those of checks (`spf`, `spf.domain`) come from their findings.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from elemta.addresses import a_label, bare, compared, split
from elemta.check import Stage
from elemta.facts import Envelope, Message
from elemta.findings import Finding, Value
from elemta.rules import header_facts

Kind = Literal["text", "domain", "address", "ip", "number", "bool", "result"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact that rules may use.

    Attributes:
        name: "sender.domain".
        kind: what it holds; `number` in `unit`s.
        source: "client", "envelope", "message", or the name of the check that gives it.
        stage: how early it is known.
        doc: one line.
        many: it may hold several values; a condition holds when it holds for any of them.
        unit: "s" or "octets" for numbers that are durations or sizes.
        words: the words it can be, lower case; () for any.
        at_rcpt: it is found at RCPT TO only, never for the whole message.
        never: what it never begins with; "" for nothing.
    """

    name: str
    kind: Kind
    source: str
    stage: Stage
    doc: str
    many: bool = False
    unit: str = ""
    words: tuple[str, ...] = ()
    at_rcpt: bool = False
    never: str = ""


class View(dict[str, Value]):
    """The facts of one mail by name; a missing one is computed when it is first asked for.

    Attributes:
        envelope: the mail's envelope.
        message: the whole mail, None before it is complete.
        findings: what checks saw so far, by check.
        klass: the mail's class, "" while it is being found.
        look: lets a check run that has not; raises `Wanted` where that cannot be done here and now.
    """

    __slots__ = ("envelope", "findings", "klass", "look", "message")

    def __init__(
        self, envelope: Envelope, message: Message | None = None, findings: Mapping[str, Finding] | None = None
    ) -> None:
        self.envelope = envelope
        self.message = message
        self.findings: dict[str, Finding] = dict(findings) if findings else {}
        self.klass = ""
        self.look: Callable[[str], Finding] = _wanted

    def __missing__(self, name: str) -> Value:
        value = self[name] = _finder(name)(self)
        return value

    def finding(self, check: str) -> Finding:
        """What a check saw; raises `Wanted` where it has not run, and cannot here and now."""
        found = self.findings.get(check)
        if found is None:
            found = self.findings[check] = self.look(check)
        return found


class Wanted(LookupError):  # noqa: N818 - it is a question, not an error
    """A rule asks for a check that has not run.

    Attributes:
        check: its name.
        rest: gives its finding when it is awaited; None where nobody has begun to let it run.
    """

    def __init__(self, check: str, rest: Coroutine[Any, Any, Finding] | None = None) -> None:
        super().__init__(check)
        self.check = check
        self.rest = rest


def _wanted(check: str) -> Finding:
    raise Wanted(check)


class Given(View):
    """Facts as a test in the configuration gives them; all others are neutral."""

    __slots__ = ()

    def __missing__(self, name: str) -> Value:
        return None


# ── the mail's own facts ──────────────────────────────────────────────────────────────────────────────────


_Entry = tuple[Fact, Callable[[View], Value]]


def _client(name: str) -> Callable[[View], Value]:
    return lambda view: getattr(view.envelope.client, name) or None


def _helo(view: View) -> Value:
    """The HELO name as other domains are: without a final dot, A-labels; its case stays, for regular expressions."""
    name = view.envelope.client.helo
    name = name.removesuffix(".") or name
    return name if name.isascii() and name else a_label(name) or name or None


def _domains(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The domains of addresses as A-labels (domains are compared so), each once."""
    found = (split(address)[1] for address in addresses)
    return tuple(dict.fromkeys(a_label(domain) or domain.lower() for domain in found if domain))


def _sender_domain(view: View) -> Value:
    domains = _domains((view.envelope.sender,))
    return domains[0] if domains else None


@lru_cache(maxsize=4096)
def _finder(name: str) -> Callable[[View], Value]:
    """What finds the fact called `name` in a view."""
    if name in _MAIL:
        return _MAIL[name]
    if name.startswith("header."):
        return lambda view: _header(view, name[7:])
    check, _, field = name.partition(".")
    return lambda view: view.finding(check).fields.get(field) if field else str(view.finding(check).result)


def _header(view: View, name: str) -> Value:
    return None if view.message is None else header_facts.field(view.message, name)


def _of_message(get: Callable[[Message], Value]) -> Callable[[View], Value]:
    """A fact of the whole message; absent before there is one."""
    return lambda view: None if view.message is None else get(view.message)


def _size(view: View) -> Value:
    if view.message is not None:
        return view.message.size or None
    return view.envelope.size or None


def _in_header(name: str, kind: Kind, doc: str, get: Callable[[Message], Value], *, many: bool = False) -> _Entry:
    return Fact(name, kind, "message", Stage.MESSAGE, doc, many), _of_message(get)


_OF_HEADER: tuple[_Entry, ...] = (
    _in_header("header_from", "address", "the addresses in From", header_facts.header_from, many=True),
    _in_header(
        "header_from.domain", "domain", "their domains, as A-labels", header_facts.header_from_domain, many=True
    ),
    _in_header("from_name", "text", "the names that From shows, decoded", header_facts.from_name, many=True),
    _in_header("reply_to", "address", "the addresses in Reply-To", header_facts.reply_to, many=True),
    _in_header("reply_to.domain", "domain", "their domains, as A-labels", header_facts.reply_to_domain, many=True),
    _in_header(
        "reply_to.differs", "bool", "answers go to a domain that is not one of From", header_facts.reply_to_differs
    ),
    _in_header(
        "subject.text",
        "text",
        "the Subject as people see it",
        lambda each: header_facts.shown(each, "subject"),
        many=True,
    ),
    _in_header("list_id", "text", "the identifier in List-Id, lower case", header_facts.list_id),
    _in_header("mailer", "text", "X-Mailer or User-Agent: the program that wrote it, it says", header_facts.mailer),
    _in_header("message_id", "text", "Message-ID, with its angle brackets", header_facts.message_id),
)

_FACTS: tuple[_Entry, ...] = (
    (Fact("class", "text", "envelope", Stage.ENVELOPE, "the mail's class"), lambda view: view.klass or None),
    (
        Fact("client.address", "ip", "client", Stage.CLIENT, "the client's IP address"),
        lambda view: view.envelope.client.address,
    ),
    (Fact("client.name", "domain", "client", Stage.CLIENT, "the client's verified host name"), _client("name")),
    (
        Fact("client.reverse_name", "domain", "client", Stage.CLIENT, "the client's PTR name, verified or not"),
        _client("reverse_name"),
    ),
    (Fact("client.port", "number", "client", Stage.CLIENT, "the client's TCP port"), _client("port")),
    (
        Fact("client.certificate", "text", "client", Stage.CLIENT, "subject of the verified client certificate"),
        _client("certificate"),
    ),
    (Fact("helo", "domain", "client", Stage.CLIENT, "the name given in HELO or EHLO, without a final dot"), _helo),
    (Fact("login", "text", "client", Stage.CLIENT, "the SASL login name"), _client("login")),
    (Fact("login.method", "text", "client", Stage.CLIENT, "the SASL mechanism"), _client("login_method")),
    (Fact("tls", "text", "client", Stage.CLIENT, "the TLS protocol, absent for plain text"), _client("tls")),
    (Fact("tls.cipher", "text", "client", Stage.CLIENT, "the TLS cipher"), _client("cipher")),
    (Fact("tls.bits", "number", "client", Stage.CLIENT, "the TLS cipher's key size, bits"), _client("cipher_bits")),
    (
        Fact("sender", "address", "envelope", Stage.ENVELOPE, "MAIL FROM, absent for the null sender"),
        lambda view: compared(view.envelope.sender) or None,
    ),
    (
        Fact("sender.local", "text", "envelope", Stage.ENVELOPE, "the part of MAIL FROM before the @"),
        lambda view: bare(view.envelope.sender_parts[0]) or None,
    ),
    (
        Fact("sender.domain", "domain", "envelope", Stage.ENVELOPE, "the domain of MAIL FROM, as A-labels"),
        _sender_domain,
    ),
    (
        Fact("recipient", "address", "envelope", Stage.ENVELOPE, "RCPT TO: the one, or all of the message", many=True),
        lambda view: tuple(map(compared, view.envelope.recipients)),
    ),
    (
        Fact("recipient.local", "text", "envelope", Stage.ENVELOPE, "RCPT TO before the @", many=True),
        lambda view: tuple(bare(split(address)[0]) for address in view.envelope.recipients),
    ),
    (
        Fact("recipient.domain", "domain", "envelope", Stage.ENVELOPE, "RCPT TO's domain, as A-labels", many=True),
        lambda view: _domains(view.envelope.recipients),
    ),
    (
        Fact("recipient.count", "number", "envelope", Stage.ENVELOPE, "recipients so far, this one included"),
        lambda view: view.envelope.recipient_count or len(view.envelope.recipients),
    ),
    (Fact("size", "number", "envelope", Stage.ENVELOPE, "the size: announced, or seen if more", unit="octets"), _size),
    (
        Fact("smtputf8", "bool", "envelope", Stage.MESSAGE, "MAIL FROM asked for SMTPUTF8, as the milter hears"),
        lambda view: view.envelope.smtputf8,
    ),
    (
        Fact("header_from.trouble", "text", "message", Stage.MESSAGE, "why From can be read in two ways"),
        _of_message(lambda message: message.authors.trouble or None),
    ),
    (
        Fact("subject", "text", "message", Stage.MESSAGE, "the Subject, undecoded", many=True),
        lambda view: _header(view, "subject"),
    ),
    *_OF_HEADER,
    (
        Fact("message.truncated", "text", "message", Stage.MESSAGE, "which bound of the milter was passed"),
        _of_message(lambda message: message.truncated or None),
    ),
)  # fmt: skip

MAIL_FACTS: tuple[Fact, ...] = tuple(fact for fact, _ in _FACTS)
_MAIL: Mapping[str, Callable[[View], Value]] = {fact.name: getter for fact, getter in _FACTS}

"""Rehearsal: what would happen to this mail, if it came now?

Judges a mail file with the same engine, the same checks and the same DNS as live traffic, and changes nothing: checks
see a copy of the state store, nothing is sent, and no observer hears of it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from msgspec.structs import replace

from elemta.case import Case
from elemta.check import Tools
from elemta.config.state_url import state_place
from elemta.decision import Decision, new_id
from elemta.dns import DnsError
from elemta.engine import Engine
from elemta.facts import BytesBody, Client, Envelope, Message
from elemta.policy import Policy
from elemta.sqlite_form import uri
from elemta.store import Store, StoreError
from elemta.store.urls import open_rehearsal, open_store
from elemta.tools import open_tools
from elemta.verdict import REFUSED, Disposition, on_top

Fields = tuple[tuple[bytes, bytes], ...]
"""Name and value of header fields."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would happen.

    Attributes:
        recipients: the decision about each recipient, in order.
        message: the decision about the message, with the recipients that would have been accepted; with all of them
            when none would.
        nobody: there are recipients, and none would be accepted.
    """

    recipients: tuple[Decision, ...]
    message: Decision
    nobody: bool = False


async def rehearse(policy: Policy, client: Client, sender: str, recipients: Sequence[str], mail: bytes) -> Outcome:
    """Judge `mail` as `policy` would.

    Args:
        policy: the policy.
        client: who sends it; where it has an address and no name, the name is looked up as Postfix does.
        sender: MAIL FROM, "" for the null sender.
        recipients: RCPT TO.
        mail: the octets of the file, with any line ends.

    Raises:
        StoreError: the state store cannot be read.
        NoServers: no name server is configured.
    """
    settings = policy.settings
    async with copied(settings.state) as store, open_tools(settings, store) as tools:
        if any(named.dynamic for named in policy.sets.values()):
            await store.sets_version()  # a worker serves on without its sets; here that would be a wrong answer
        client = await _named(client, tools)
        headers, body = read_mail(mail)
        before = Envelope(client, sender, size=_size(headers, body), instance=new_id())  # all are asked of one message
        engine = Engine(policy, tools, isolate=False)  # plugins too see the copied store
        await engine.open()
        try:
            at_rcpt = Case(engine, settings.policyd.budget)
            asked = [await at_rcpt.recipient(_to(before, recipient)) for recipient in recipients]
            refused = {each.envelope.recipients[0] for each in asked if each.verdict.disposition in REFUSED}
            accepted = tuple(each for each in recipients if each not in refused)
            left = accepted or tuple(recipients)
            headers = (*_on_top(asked), *headers)
            utf8 = not "".join((sender, *recipients)).isascii()  # RFC 6531 section 3.4: then the client must ask for it
            envelope = Envelope(client, sender, left, len(left), _size(headers, body), utf8)
            decision = await Case(engine, settings.milter.budget).message(Message(envelope, headers, body))
        finally:
            await engine.close()
    return Outcome(tuple(asked), decision, nobody=bool(asked) and not accepted)


def _on_top(asked: Iterable[Decision]) -> Fields:
    """The field that a rule at RCPT TO puts on top: one a mail."""
    verdicts = (each.verdict for each in asked if each.verdict.disposition is Disposition.ACCEPT)
    field = next(filter(None, (on_top(verdict.actions) for verdict in verdicts)), "")
    name, _, value = field.encode().partition(b":")
    return ((name, value),) if field else ()


def _size(headers: Fields, body: BytesBody) -> int:
    """Octets as they are sent, with CRLF."""
    return sum(len(name) + len(value) + 3 for name, value in headers) + 2 + body.size


def read_mail(mail: bytes) -> tuple[Fields, BytesBody]:
    """Header fields and body of a mail file, as a milter gets them: values with leading space and folding, CRLF.

    A first line "From ..." of a mailbox file is left out.  The first line that is no header field ends the header, as
    Postfix sees it (RFC 5322 section 2.2).
    """
    lines = mail.replace(b"\r\n", b"\n").split(b"\n")
    if lines[0].startswith((b"From ", b">From ")):
        del lines[0]
    fields: list[tuple[bytes, bytes]] = []
    place = 0
    for place, line in enumerate(lines):  # noqa: B007 - it is where the body begins
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\r\n" + line)
        elif colon and name.strip() and not name.strip(b" \t").translate(None, _NAME):
            fields.append((name.strip(), value))
        else:
            break
    else:
        place = len(lines)
    rest = lines[place + 1 :] if place < len(lines) and not lines[place] else lines[place:]
    if rest and rest[-1]:
        rest.append(b"")  # the last line ends, as all do in SMTP
    return tuple(fields), BytesBody(b"\r\n".join(rest))


_NAME = bytes(octet for octet in range(33, 127) if octet != ord(":"))  # RFC 5322 section 3.6.8: ftext


@asynccontextmanager
async def copied(url: str) -> AsyncIterator[Store]:
    """A store with what is in the one that `url` names, which is not changed; an empty one where there is no file yet.

    Raises:
        StoreError: it cannot be read.
    """
    place = state_place(url)
    with tempfile.TemporaryDirectory(prefix="elemta-") as directory:
        if place.scheme == "sqlite":
            copy = f"{directory}/state.db"
            _copy(Path(place.path), copy)
            store = open_store(f"sqlite://{copy}")
        else:
            store = open_rehearsal(place)
        try:
            yield store
        finally:
            await store.close()


def _copy(place: Path, copy: str) -> None:
    if not place.exists():
        return
    try:
        source = sqlite3.connect(uri(str(place), "ro"), uri=True)
        target = sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
    except sqlite3.Error as error:
        hint = "" if os.access(place, os.R_OK) else "; read permission is needed"
        raise StoreError(f"{place}: cannot be read ({error}){hint}") from error


async def _named(client: Client, tools: Tools) -> Client:
    """The client with its name as Postfix finds it: PTR, and the name must lead back to the address."""
    address = client.address
    if address is None or client.name:
        return client
    try:
        answer = await tools.resolver.query(address.reverse_pointer, "PTR")
        names = [name for name in answer.records if isinstance(name, str)]
    except DnsError:
        names = []
    if not names:
        return client
    verified = names[0] if await _leads_back(names[0], address, tools) else ""
    return replace(client, name=verified, reverse_name=names[0])


async def _leads_back(name: str, address: IPv4Address | IPv6Address, tools: Tools) -> bool:
    try:
        answer = await tools.resolver.query(name, "A" if address.version == 4 else "AAAA")
    except DnsError:
        return False
    return address in answer.records


def _to(envelope: Envelope, recipient: str) -> Envelope:
    return replace(envelope, recipients=(recipient,))

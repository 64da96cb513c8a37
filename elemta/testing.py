r"""Testing: how do I try a check, a rule or a whole policy without a network?  For plugin authors too.

resolver = FakeResolver({"example.org": [("TXT", "v=spf1 -all")], "slow.test": [("TXT", "TIMEOUT")]})
finding = run(Spf, envelope("192.0.2.1", "a@example.org"), resolver=resolver)
assert finding.result == "fail"

decision = judge(policy("host: mx.test.example\n…"), message(headers=[("Subject", "hello")]))
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from elemta.case import Case
from elemta.check import Check, Seen, Tools
from elemta.config.load import load
from elemta.decision import Decision
from elemta.dns import Answer, DnsError, Record, Status
from elemta.engine import Engine
from elemta.facts import BytesBody, Client, Envelope, Message, parse_ip
from elemta.findings import Finding
from elemta.policy import Policy
from elemta.store import Store
from elemta.store.urls import open_store

Zone = Mapping[str, Sequence[tuple[str, object]]]
"""Names (any case, no trailing dot) and their records: ("A", "192.0.2.1"), ("TXT", "text" or bytes),
("MX", (10, "mx.test")), ("PTR", "name"); ("TXT", "TIMEOUT") and ("TXT", "SERVFAIL") raise DnsError."""

TTL = 300


class FakeResolver:
    """A `Resolver` over a zone held in memory.

    Attributes:
        zone: see `Zone`; may be changed between questions.
        asked: every question so far, ("example.org", "TXT").
    """

    def __init__(self, zone: Zone | None = None) -> None:
        self.zone: dict[str, list[tuple[str, object]]] = {name.lower(): list(of) for name, of in (zone or {}).items()}
        self.asked: list[tuple[str, str]] = []

    async def query(self, name: str, rdtype: str) -> Answer:
        """See `Resolver.query`."""
        name = name.lower().removesuffix(".")
        self.asked.append((name, rdtype))
        for _ in range(8):
            records = self.zone.get(name, [])
            if not records:
                return Answer(Status.NXDOMAIN, (), TTL)
            alias = [value for kind, value in records if kind == "CNAME"]
            if not alias or rdtype == "CNAME":
                break
            name = str(alias[0]).lower()
        found = [value for kind, value in records if kind == rdtype]
        for value in found:
            if value in ("TIMEOUT", "SERVFAIL"):
                raise DnsError(name, rdtype, str(value))
        typed = tuple(_typed(rdtype, value) for value in found)
        return Answer(Status.OK if typed else Status.NODATA, typed, TTL)


def _typed(rdtype: str, value: Any) -> Record:  # noqa: ANN401 - as the zone writes it
    if rdtype in ("A", "AAAA"):
        return ip_address(str(value))
    if rdtype in ("TXT", "SPF"):
        return value if isinstance(value, bytes) else str(value).encode()
    if rdtype == "MX":
        return (int(value[0]), str(value[1]))
    return str(value)


def client(address: str = "192.0.2.1", **more: Any) -> Client:  # noqa: ANN401 - any field of Client
    """A client; "" for one without an IP address."""
    more.setdefault("helo", "client.test")
    return Client(address=parse_ip(address), **more)


def envelope(
    address: str = "192.0.2.1",
    sender: str = "sender@sender.test",
    recipients: Sequence[str] = ("rcpt@receiver.test",),
    **more: Any,  # noqa: ANN401 - any field of Client or Envelope
) -> Envelope:
    """An envelope; fields of the client may be given too: `helo="mx.test", login="anna"`."""
    own = {name: more.pop(name) for name in list(more) if name in Envelope.__struct_fields__}
    return Envelope(client=client(address, **more), sender=sender, recipients=tuple(recipients), **own)


def message(
    of: Envelope | None = None,
    headers: Sequence[tuple[str, str]] = (("From", "sender@sender.test"), ("Subject", "test")),
    body: bytes = b"hello\r\n",
) -> Message:
    """A message; header values are given without their leading space."""
    fields = tuple((name.encode(), b" " + value.encode()) for name, value in headers)
    return Message(of or envelope(), fields, BytesBody(body))


def tools(
    resolver: Any = None,  # noqa: ANN401 - any Resolver
    store: Store | None = None,
    clock: Callable[[], float] = time.time,
    host: str = "mx.receiver.test",
) -> Tools:
    """Tools for a check; without a store, an SQLite store of their own that goes with them."""
    return Tools(host, resolver or FakeResolver(), store or _passing_store(), clock, ThreadPoolExecutor(2))


def _passing_store() -> Store:
    directory = tempfile.mkdtemp(prefix="elemta-")
    store = open_store(f"sqlite://{directory}/state.db")
    weakref.finalize(store, shutil.rmtree, directory, ignore_errors=True)
    return store


def run(
    check: type[Check[Any]],
    facts: Client | Envelope | Message,
    seen: Seen | None = None,
    *,
    resolver: FakeResolver | None = None,
    store: Store | None = None,
    clock: Callable[[], float] = time.time,
    **options: Any,  # noqa: ANN401 - the check's own
) -> Finding:
    """Let one check look at `facts`; raises what it raises."""

    async def once() -> Finding:
        made = check(check.Options(**options), tools(resolver, store, clock))
        await made.open()
        try:
            return await made.run(facts, seen or {})
        finally:
            await made.close()

    return asyncio.run(once())


def policy(text: str) -> Policy:
    """The policy that this YAML makes.

    Raises:
        ConfigErrors: every mistake in it.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        return Policy.compile(load(path))


def judge(
    of: Policy,
    facts: Envelope | Message,
    *,
    resolver: FakeResolver | None = None,
    store: Store | None = None,
    clock: Callable[[], float] = time.time,
    budget: float = 25.0,
) -> Decision:
    """What the engine decides: an `Envelope` is judged as one recipient at RCPT TO, a `Message` whole."""

    async def once() -> Decision:
        engine = Engine(of, tools(resolver, store, clock, of.settings.host), isolate=False)
        await engine.open()
        try:
            case = Case(engine, budget)
            return await (case.message(facts) if isinstance(facts, Message) else case.recipient(facts))
        finally:
            await engine.close()

    return asyncio.run(once())


__all__ = [
    "FakeResolver",
    "Zone",
    "client",
    "envelope",
    "judge",
    "message",
    "policy",
    "run",
    "tools",
]

"""The wire: how do facts and the findings of other checks reach the process of a plugin?

As JSON in a file of its own in memory, and the body beside it: in a copy, or, where it waits in a file, as that file,
which can only be read.  What comes back is read in `answer.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol, runtime_checkable

from msgspec.structs import asdict

from elemta.check import Seen
from elemta.facts import Body, BytesBody, Client, Envelope, Message
from elemta.findings import AuthResult, Finding, Result, Value

Facts = Client | Envelope | Message
Json = dict[str, Any]

PIECE = 1 << 18  # octets of a body read at once


@runtime_checkable
class _InFile(Protocol):
    """A body that waits in a file (the milter's spool)."""

    @property
    def file(self) -> Any: ...  # noqa: ANN401 - something with a descriptor


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body as a plugin's process has it: in a file that it can only read."""

    descriptor: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The octets in pieces of 256 KiB, from the beginning at each call."""
        for at in range(0, self.size, PIECE):
            yield os.pread(self.descriptor, min(PIECE, self.size - at), at)


def facts_data(facts: Facts) -> Json:
    """Facts without their body, for JSON."""
    match facts:
        case Message():
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in facts.headers]
            envelope = facts_data(facts.envelope)
            return {"envelope": envelope, "headers": headers, "truncated": facts.truncated, "size": facts.body.size}
        case Envelope():
            return {**asdict(facts), "client": facts_data(facts.client)}
        case _:
            return {**asdict(facts), "address": "" if facts.address is None else str(facts.address)}


def read_facts(data: Json, body: int | None) -> Facts:
    """Facts as `facts_data` gave them, with the body in the descriptor `body`."""
    if "headers" in data:
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in data["headers"])
        kept: Body = BytesBody() if body is None else FileBody(body, data["size"])
        return Message(_envelope(data["envelope"]), headers, kept, data["truncated"])
    return _envelope(data) if "client" in data else _client(data)


def seen_data(seen: Seen) -> Json:
    """Findings without `detail`, `header` and `edits`, for JSON."""
    return {
        name: {
            "result": finding.result,
            "reason": finding.reason,
            "fields": {key: _tagged(value) for key, value in finding.fields.items()},
            "authres": [(each.method, each.result, each.reason, each.properties) for each in finding.authres],
            "trouble": finding.trouble,
        }
        for name, finding in seen.items()
    }


def read_seen(data: Json) -> dict[str, Finding]:
    """Findings as `seen_data` gave them."""
    return {
        name: Finding(
            name,
            Result(each["result"]),
            each["reason"],
            {key: _untagged(value) for key, value in each["fields"].items()},
            tuple(_evidence(*of) for of in each["authres"]),
            trouble=each["trouble"],
        )
        for name, each in data.items()
    }


def in_memory(data: bytes | Body) -> int:
    """A descriptor of a file in memory that holds `data`; the caller closes it.

    Raises:
        OSError: there is no memory, or the body cannot be read.
    """
    descriptor = os.memfd_create("elemta", os.MFD_CLOEXEC)
    try:
        for chunk in [data] if isinstance(data, bytes) else data.chunks():
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def body_file(body: Body) -> int:
    """A descriptor from which `body` can be read; the caller closes it.

    Raises:
        OSError: see `in_memory`.
    """
    if isinstance(body, _InFile):  # nobody's copy: the same file, opened for reading only
        return os.open(f"/proc/self/fd/{body.file.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    return in_memory(body)


def _client(data: Json) -> Client:
    return Client(**{**data, "address": ip_address(data["address"]) if data["address"] else None})


def _envelope(data: Json) -> Envelope:
    return Envelope(**{**data, "client": _client(data["client"]), "recipients": tuple(data["recipients"])})


def _evidence(method: str, result: str, reason: str, pairs: list[tuple[str, str]]) -> AuthResult:
    return AuthResult(method, result, reason, tuple((name, value) for name, value in pairs))


def _tagged(value: Value) -> Any:  # noqa: ANN401 - what JSON has
    return {"ip": str(value)} if isinstance(value, (IPv4Address, IPv6Address)) else value


def _untagged(value: Any) -> Value:  # noqa: ANN401 - what JSON has
    if isinstance(value, dict):
        return ip_address(value["ip"])
    return tuple(value) if isinstance(value, list) else value

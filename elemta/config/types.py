"""Types of the configuration: how are durations, sizes and listening addresses written?

Each has a reader that raises ValueError with a text that teaches, and a writer that gives back what the reader
takes: `config show` prints values as people write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import core_schema

from elemta.config.problems import quoted

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|w)")
_LONG_UNIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) *([a-z]*)")
_UNITS = {
    "millisecond": "ms", "msec": "ms", "second": "s", "sec": "s", "minute": "m", "min": "m",
    "hour": "h", "hr": "h", "day": "d", "week": "w",
}  # fmt: skip
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"([0-9]{1,15})(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)
_OCTETS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TCP = re.compile(r"(?:inet6?:)?(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)|localhost):([0-9]{1,5})")
_MAPPED = 96  # bits before the IPv4 address in an IPv4-mapped one
_UNIX_PATH = 107
"""Octets of a unix socket's path: sun_path of unix(7) is 108 with its final NUL."""


def duration(text: object) -> float:
    """Seconds of "250ms", "2s", "5m", "1h", "35d", "2w", or "1h30m".

    Raises:
        ValueError: it is not a duration; the text says how to write one.
    """
    words = str(text).replace(" ", "") if isinstance(text, (str, int)) and not isinstance(text, bool) else ""
    if words == "0":
        return 0.0
    parts = _DURATION.findall(words)
    if not parts or "".join(number + unit for number, unit in parts) != words:
        raise ValueError(f"{quoted(text)} is not a duration; write {_near_duration(str(text))}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _near_duration(text: str) -> str:
    """What somebody meant who wrote `text`, as far as can be told."""
    said = _LONG_UNIT.fullmatch(text.strip().lower())
    if said and (unit := _UNITS.get(said[2].removesuffix("s"))):
        return f"{said[1]}{unit}"
    if said and not said[2]:
        return f"the unit too, such as {said[1]}s or {said[1]}m"
    if clock := _CLOCK.fullmatch(text.strip()):
        more, less = int(clock[1]), int(clock[2])
        return f"{more}m{less}s or {more}h{less}m" if less else f"{more}m or {more}h"
    return "a number and ms, s, m, h, d or w, such as 30s or 1h30m"


def duration_text(seconds: float) -> str:
    """What `duration` reads as `seconds`, exact to the microsecond: "1h30m"."""
    rest = round(seconds * 1000)
    if abs(rest - seconds * 1000) > 1e-6:  # not a whole number of milliseconds
        return f"{seconds:.6f}s"
    text = ""
    for unit in ("d", "h", "m", "s", "ms"):
        number, rest = divmod(rest, round(_SECONDS[unit] * 1000))
        text += f"{number}{unit}" if number else ""
    return text or "0"


def network(text: str) -> IPv4Network | IPv6Network:
    """The IP network that `text` names, an address being the smallest.

    A network of IPv4-mapped addresses (`::ffff:192.0.2.0/120`) is the IPv4 network: clients' addresses are IPv4, too.

    Raises:
        ValueError: it names none; the text says what to write.
    """
    try:
        named = ip_network(text)
    except ValueError:
        named = None
    if named is not None:
        return (named.version == 6 and _unmapped(named.network_address, named.prefixlen)) or named
    try:
        address, meant = ip_interface(text).ip, ip_interface(text).network
    except ValueError:
        raise ValueError(f"{quoted(text)} is no IP address or network; write one such as 192.0.2.0/24") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped and meant.prefixlen < _MAPPED:
        near = _unmapped(address, meant.prefixlen + _MAPPED) if meant.prefixlen <= 32 else "one such as 192.0.2.0/24"
        raise ValueError(f"{quoted(text)} is more than IPv4, which is /{_MAPPED}; write the IPv4 network, {near}")
    raise ValueError(
        f"{quoted(text)} is no network, since it does not begin there; "
        f"write {_unmapped(address, meant.prefixlen) or meant}"
    )


def _unmapped(address: IPv4Address | IPv6Address, length: int) -> IPv4Network | None:
    """The IPv4 network around an IPv4-mapped address (::ffff:192.0.2.1); None for another."""
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) and length >= _MAPPED else None
    return IPv4Network((inner, length - _MAPPED), strict=False) if inner else None


def size(text: object) -> int:
    """Octets of "512K", "25M", "1G" (powers of 1024) or a plain number.

    Raises:
        ValueError: it is not a size; the text says how to write one.
    """
    match = _SIZE.fullmatch(str(text).replace(" ", "")) if isinstance(text, (str, int)) else None
    if match is None or isinstance(text, bool):
        raise ValueError(f"{quoted(text)} is not a size; write octets or a number and K, M or G, such as 25M")
    return int(match[1]) * _OCTETS[(match[2] or "").upper()]


def size_text(octets: int) -> str:
    """What `size` reads as `octets`, in the largest unit that is exact: "25M"."""
    for unit in "TGMK":
        if octets and octets % _OCTETS[unit] == 0:
            return f"{octets // _OCTETS[unit]}{unit}"
    return str(octets)


Duration = Annotated[
    float,
    BeforeValidator(duration),
    PlainSerializer(duration_text, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^(?:[0-9]{1,9}(?:\.[0-9]{1,6})? *(?:ms|[smhdw]) *)+$|^0$|^\$\{",
            "maximum": 0,  # of a number: only 0 needs no unit
            "x-kind": "a duration",
            "examples": ["30s", "1h30m"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    PlainSerializer(size_text, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^[0-9]{1,15} *(?:[KMGTkmgt](?:[Ii]?[Bb])?|[Bb])?$|^\$\{",
            "minimum": 0,
            "x-kind": "a size",
            "examples": ["512K", "25M"],
        }
    ),
]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: a unix socket's path, or an IP address and a port.

    Attributes:
        path: the unix socket, "" for TCP.
        host: the IP address, "" for a unix socket.
        port: the TCP port.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"inet:[{self.host}]:{self.port}" if ":" in self.host else f"inet:{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: object) -> Listen:
        """Read "unix:/path", "inet:127.0.0.1:8891", "inet:[::1]:8891", or "127.0.0.1:8890".

        Raises:
            ValueError: it is none of them.
        """
        if isinstance(text, Listen):
            return text
        words = str(text)
        if words.startswith("unix:/") and not words.endswith("/"):
            if len(words[5:].encode()) > _UNIX_PATH:
                raise ValueError(f"{quoted(words)} is longer than the {_UNIX_PATH} octets of a unix socket; shorten it")
            return cls(path=words[5:])
        match = _TCP.fullmatch(words)
        host = (match[1] or match[2] or "127.0.0.1") if match else ""
        if match is None or int(match[3]) > 65535 or not _is_address(host):
            raise ValueError(
                f"{quoted(words)} is not a listening address; "
                "write unix:/absolute/path, inet:127.0.0.1:8891 or inet:[::1]:8891"
            )
        return cls(host=host, port=int(match[3]))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:  # noqa: ANN401
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401
        return {
            "type": "string",
            "x-kind": "a listening address",
            "examples": ["unix:/run/elemta/milter.sock", "inet:127.0.0.1:8891", "inet:[::1]:8891"],
        }


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _no_number(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


AlwaysTrue = Annotated[Literal[True], BeforeValidator(_no_number)]
"""`true` alone: for Python, and so for a literal, 1 is true as well."""


def readable(read: Callable[[Path], object]) -> AfterValidator:
    """Give a validator of a file's path: `read` must be able to read it, or its error tells what is wrong."""

    def tried(path: str) -> str:
        try:
            read(Path(path))
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        return path

    return AfterValidator(tried)

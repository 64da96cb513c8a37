"""Types of the configuration: how are durations, sizes and listening addresses written?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import core_schema

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"(\d{1,15})(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)
_OCTETS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


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
        raise ValueError(f"{text!r} is not a duration; write a number and ms, s, m, h, d or w, such as 30s or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size(text: object) -> int:
    """Octets of "512K", "25M", "1G" (powers of 1024) or a plain number.

    Raises:
        ValueError: it is not a size; the text says how to write one.
    """
    match = _SIZE.fullmatch(str(text).replace(" ", "")) if isinstance(text, (str, int)) else None
    if match is None or isinstance(text, bool):
        raise ValueError(f"{text!r} is not a size; write octets or a number and K, M or G, such as 25M")
    return int(match[1]) * _OCTETS[(match[2] or "").upper()]


Duration = Annotated[
    float,
    BeforeValidator(duration),
    WithJsonSchema({"type": ["string", "integer"], "description": "a duration such as 250ms, 30s, 5m, 1h30m, 35d"}),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    WithJsonSchema({"type": ["string", "integer"], "description": "octets, or a number and K, M or G"}),
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
        if words.startswith("unix:") and words[5:].startswith("/"):
            return cls(path=words[5:])
        match = re.fullmatch(r"(?:inet6?:)?(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)|localhost):(\d{1,5})", words)
        if match is None or not 0 <= int(match[3]) <= 65535:
            raise ValueError(
                f"{words!r} is not a listening address; write unix:/absolute/path or inet:127.0.0.1:8891 or inet:[::1]:8891"
            )
        return cls(host=match[1] or match[2] or "127.0.0.1", port=int(match[3]))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:  # noqa: ANN401
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"type": "string", "description": "unix:/path, inet:127.0.0.1:8891 or inet:[::1]:8891"}

"""State URL: where does `state:` say that state is kept?

    sqlite:///var/lib/elemta/state.db                                 a file of this machine; the default
    redis://[[user]:password@]host[:port][/database]                  Redis or Valkey
    rediss://[[user]:password@]host[:port][/database][?ca=FILE]       over TLS
    redis+unix://[[user]:password@]/run/redis/redis.sock[?db=1]
    redis+sentinel://[…@]host[:port],host[:port]/service[/database]   the master that these sentinels name
    redis+cluster://[…@]host[:port],host[:port]

Sentinels and clusters take `?tls=true`, and with it `ca=FILE`: the authorities that are believed, in place of the
system's.  A % in a user or a password is written as %25 (RFC 3986 section 2.1), a : in a user as %3A.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, unquote

from elemta.config.problems import quoted, suggest

DEFAULT = "sqlite:///var/lib/elemta/state.db"
PORTS = {"redis": 6379, "rediss": 6379, "redis+sentinel": 26379, "redis+cluster": 6379}
SCHEMES = ("sqlite", "redis", "rediss", "redis+unix", "redis+sentinel", "redis+cluster")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "sqlite": (),
    "redis": (),
    "rediss": ("ca",),
    "redis+unix": ("db",),
    "redis+sentinel": ("tls", "ca"),
    "redis+cluster": ("tls", "ca"),
}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class StatePlace:
    """Where state is kept.

    Attributes:
        scheme: one of SCHEMES.
        path: of the file, or of the socket; "" elsewhere.
        hosts: each with its port: one, or all sentinels or nodes that were named.
        service: what the sentinels call the master.
        database: its number.
        user: "" for none.
        password: "" for none.
        tls: encrypted.
        ca: a file with the certificates of the authorities that are believed; "" for those of the system.
    """

    scheme: str
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False
    ca: str = ""

    def __str__(self) -> str:
        """For people: nothing secret."""
        if self.scheme == "sqlite":
            return self.path
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}{self.path}" + (f"/{self.service}" if self.service else "")


def state_place(url: str) -> StatePlace:
    """Read a state URL.

    Raises:
        ValueError: it names no store; the text says how to write one, and holds no password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"a state store is told by a URL; write {DEFAULT}")
    if scheme not in SCHEMES:
        hint = suggest(scheme, SCHEMES) or f"; write {DEFAULT}"
        raise ValueError(f"{quoted(scheme)} is no kind of state store{hint}")
    if scheme == "sqlite":
        return StatePlace(scheme, path=_file(rest))
    user, password, rest = _credentials(rest)
    rest, _, query = rest.partition("?")
    settings = _settings(scheme, query)
    tls = scheme == "rediss" or settings.get("tls") == "true"
    place = StatePlace(scheme, user=user, password=password, tls=tls, ca=settings.get("ca", ""))
    authority, _, path = rest.partition("/")
    if scheme == "redis+unix":
        if authority or not path or path.endswith("/"):
            raise ValueError("a socket needs its whole path; write three slashes: redis+unix:///run/redis/redis.sock")
        return replace(place, path=f"/{path}", database=_database(settings.get("db", "0")))
    hosts = tuple(_host(each, PORTS[scheme]) for each in authority.split(","))
    if len(hosts) > 1 and scheme in ("redis", "rediss"):
        raise ValueError(f"{scheme}:// is one server; write redis+sentinel:// or redis+cluster:// for several")
    service = ""
    if scheme == "redis+sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("sentinels are asked for a service; write redis+sentinel://host,host/service")
    if scheme == "redis+cluster" and path:
        raise ValueError("a cluster has one database, and no number")
    return replace(place, hosts=hosts, service=service, database=_database(path or "0"))


def without_password(url: str) -> str:
    """A state URL with its password as ***."""
    scheme, _, rest = url.partition("://")
    before, _, behind = rest.rpartition("@")
    user, colon, _ = before.partition(":")
    return f"{scheme}://{user}:***@{behind}" if colon and scheme != "sqlite" else url


def _credentials(rest: str) -> tuple[str, str, str]:
    """User, password, and what stands behind the last @."""
    before, at, behind = rest.rpartition("@")
    user, _, password = before.partition(":")
    if at and not password:
        raise ValueError("there is no password before the @; write :password@host or user:password@host")
    return unquote(user), unquote(password), behind


def _file(rest: str) -> str:
    if not rest.startswith("/") or rest.endswith("/") or "\0" in rest:
        raise ValueError(f"a file needs its whole path; write three slashes: {DEFAULT}")
    return rest


def _settings(scheme: str, query: str) -> dict[str, str]:
    """What stands behind the question mark."""
    known, found = _SETTINGS[scheme], {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            most = f"; {scheme}:// knows {' and '.join(known)}" if known else f"; {scheme}:// knows none"
            raise ValueError(f"{quoted(key)} is no setting of a state URL{suggest(key, known) or most}")
        found[key] = value
    if found.get("tls", "true") not in ("true", "false"):
        raise ValueError("tls is true or false")
    if "ca" in found and not found["ca"].startswith("/"):
        raise ValueError("ca needs the whole path of a file of certificates")
    if "ca" in found and scheme != "rediss" and found.get("tls") != "true":
        raise ValueError("ca means nothing without tls=true")
    return found


def _host(text: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match[3] or port) < 65536:
        raise ValueError("there is no host, or no port, where one should be; write one such as redis.example.org:6379")
    return match[1] or match[2], int(match[3] or port)


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise ValueError("a database is a number such as 0")
    return int(text)

"""geoip: in which country and network is the client, by databases on this machine?

Takes the client's address; reports what files in MaxMind's format say of it: GeoLite2, GeoIP2, DB-IP, IPinfo, others.
Several files may know different things (one the country, one the network); the first that knows a thing is believed.
A file is read again when another was put in its place, as geoipupdate does; one that is damaged is told, and the old
one stays in use.  Nobody is asked over the network, and nothing is judged: rules say what a country means.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import maxminddb
from pydantic import AfterValidator, BaseModel, ConfigDict

from elemta import Check, Client, Field, Finding, Options, Result, Seen, Setting, Trouble, Value

LOOK = 5.0  # seconds between two looks whether a file was exchanged
_LONGEST = 200  # characters of a name


def _database(path: str) -> str:
    """The path of a file that can be read as a database."""
    try:
        maxminddb.open_database(path).close()
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    return path


class Database(BaseModel):
    """One database."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, AfterValidator(_database)] = Setting(
        description="in MaxMind's format (.mmdb); exchange it by renaming a new one, as geoipupdate does"
    )


class GeoIpOptions(Options):
    """Where the databases are."""

    databases: tuple[Database, ...] = Setting(
        min_length=1, description="the files; the first that knows a thing is believed"
    )


@dataclass
class _Open:
    """An open database.

    Attributes:
        stamp: of the file, as it was when it was opened or tried.
        trouble: why the file that is there now cannot be read, "" when it can.
    """

    file: str
    reader: maxminddb.Reader
    stamp: tuple[int, int, int]
    trouble: str = ""


class GeoIp(Check[Client]):
    """In which country and network is the client?"""

    name = "geoip"
    fields: ClassVar = {
        "country": Field(str, "the country's code of ISO 3166-1, DE"),
        "continent": Field(str, "the continent's code, EU"),
        "asn": Field(int, "the number of the autonomous system that the address belongs to"),
        "as_name": Field(str, "who runs that system"),
    }
    results: ClassVar = (Result.NONE, Result.PASS)
    trouble: ClassVar[Trouble] = "accept"
    only_dns: ClassVar[bool] = True  # it waits for nothing at all
    Options = GeoIpOptions

    async def open(self) -> None:
        """Open the databases."""
        self._open = [_opened(each.file) for each in self.options.databases]
        self._looked = time.monotonic()

    async def close(self) -> None:
        """Close them."""
        for each in self._open:
            each.reader.close()

    async def run(self, facts: Client, seen: Seen) -> Finding:
        """Look the address up."""
        if facts.address is None:
            return self.finding(Result.NONE, "the client has no address")
        self._follow()
        known: dict[str, Value] = {}
        for each in self._open:
            try:
                record = each.reader.get(facts.address)
            except ValueError:  # an IPv6 address, and a database of IPv4 addresses
                continue
            except maxminddb.InvalidDatabaseError as error:
                raise OSError(f"{each.file}: {error}") from error
            known = dict(_facts(record)) | known
        warning = "; ".join(each.trouble for each in self._open if each.trouble)
        words = ", ".join(str(known[name]) for name in ("country", "asn", "as_name") if name in known)
        result = Result.PASS if known else Result.NONE
        return Finding(self.name, result, words or "no database knows the address", known, warning=warning)

    def _follow(self) -> None:
        """Open anew what was exchanged."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        for place, each in enumerate(self._open):
            try:
                if (stamp := _stamp(each.file)) == each.stamp:
                    continue
                each.stamp = stamp
                self._open[place] = _opened(each.file)
            except OSError as error:
                each.trouble = f"{error.strerror or error}: the database read before stays in use"
            else:
                each.reader.close()


def _opened(file: str) -> _Open:
    try:
        stamp = _stamp(file)
        return _Open(file, maxminddb.open_database(file), stamp)
    except (ValueError, maxminddb.InvalidDatabaseError) as error:
        raise OSError(f"{file}: {error}") from error


def _stamp(file: str) -> tuple[int, int, int]:
    status = Path(file).stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _facts(record: Any) -> Iterator[tuple[str, Value]]:  # noqa: ANN401 - whatever the database holds
    """What a record says, under the names of several makers."""
    country = _inside(record, "country", "iso_code") or _inside(record, "registered_country", "iso_code")
    country = country or _inside(record, "country_code") or _inside(record, "country")
    continent = (
        _inside(record, "continent", "code") or _inside(record, "continent_code") or _inside(record, "continent")
    )
    number = _inside(record, "autonomous_system_number") or _inside(record, "asn")
    name = _inside(record, "autonomous_system_organization") or _inside(record, "as_name")
    for field, value in (("country", country), ("continent", continent)):
        if isinstance(value, str) and len(value) == 2:
            yield field, value.upper()
    digits = str(number).upper().removeprefix("AS")
    if digits.isascii() and digits.isdigit() and int(digits) < 1 << 32:  # RFC 6793
        yield "asn", int(digits)
    if isinstance(name, str) and name:
        yield "as_name", name[:_LONGEST]


def _inside(record: Any, *keys: str) -> Any:  # noqa: ANN401 - whatever the database holds
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record

"""clamav: does ClamAV find a virus in this mail?

Takes the whole mail as it came and asks one of several clamd.  Reports `pass` when nothing was found; `fail` when a
signature, or a detector of one certain virus, matched; `policy` when ClamAV only warns, by what the name says
(`Heuristics.…`, `PUA.…`): links that disguise where they lead, encrypted archives, macros, its own limits exceeded;
also `policy`, with `skipped`, for a mail larger than `max_size`, which is not scanned.  No clear answer is trouble, and
never `pass`.

A clamd that reaches one of its own limits (MaxScanSize, MaxFileSize…) passes what it has not looked at, and does not
say so unless its AlertExceedsMax is on.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, WithJsonSchema, model_validator
from pydantic import Field as Setting

from elemta.check import UNTIL, Check, Field, Options, Seen
from elemta.config.names import host_name
from elemta.config.problems import quoted
from elemta.config.section import Positive
from elemta.config.types import Listen, Size, size_text
from elemta.facts import Message
from elemta.findings import Finding, Result, Value
from elemta.servers import NoServer, Servers
from elemta_milter.scanners import head
from elemta_milter.scanners.clamd import TOO_LARGE, Mode, Scan, Scanner

Kind = Literal["malware", "phishing", "encrypted", "limits", "heuristic", "pua"]

_WARNINGS: dict[str, Kind] = {"Limits": "limits", "Encrypted": "encrypted", "Phishing": "phishing"}
_CERTAIN = frozenset({"W32", "Worm", "Trojan", "Exploit"})
"""Heuristics that know one certain virus, only not by a signature."""


def clamd_server(text: str) -> str:
    """unix:/path, or inet:HOST:PORT, an IPv6 address in brackets."""
    host, _, port = text.removeprefix("inet:").rpartition(":")
    try:
        if text.startswith("unix:"):
            return str(Listen.parse(text))
        named = host[:1] != "[" and not host.replace(".", "").isdigit()
        place = Listen.parse(f"inet:{'127.0.0.1' if named else host}:{port}")
        return f"inet:{host_name(host)}:{place.port}" if named else str(place)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is no address of clamd; "
            "write unix:/run/clamav/clamd.ctl, inet:clamav:3310 or inet:[::1]:3310"
        ) from None


ClamdServer = Annotated[
    str,
    AfterValidator(clamd_server),
    WithJsonSchema(
        {
            "type": "string",
            "x-kind": "an address of clamd",
            "examples": ["unix:/run/clamav/clamd.ctl", "inet:clamav:3310", "inet:[::1]:3310"],
        }
    ),
]


class ClamavOptions(Options):
    """Options of `clamav`."""

    socket: ClamdServer | tuple[ClamdServer, ...] = Setting(
        "unix:/run/clamav/clamd.ctl", description="clamd's address, or several: the first that answers is asked"
    )
    timeout: Positive | None = Setting(20.0, description="give up after this time, all servers together")
    max_size: Size = Setting(
        25 << 20, description="larger mail is not scanned: result policy, skipped; keep clamd's own limits above it"
    )
    mode: Mode = Setting(
        "auto",
        description="how clamd gets the mail: fildes (a descriptor; unix sockets only), instream (the octets), "
        "or auto: the first that works",
    )

    @property
    def sockets(self) -> tuple[str, ...]:
        """All servers, in order."""
        return (self.socket,) if isinstance(self.socket, str) else self.socket

    @model_validator(mode="after")
    def _lawful(self) -> ClamavOptions:
        if not self.sockets:
            raise ValueError("clamav needs a socket; write unix:/run/clamav/clamd.ctl")
        far = [each for each in self.sockets if not each.startswith("unix:")]
        if self.mode == "fildes" and far:
            raise ValueError(f"mode: fildes needs unix sockets, which {far[0]} is not; write auto or instream")
        return self


class Clamav(Check[Message]):
    """Does ClamAV find a virus in this mail?"""

    name = "clamav"
    fields: ClassVar = {
        "virus": Field(str, "the name of what was found, as ClamAV calls it"),
        "kind": Field(str, "what sort of thing it is", words=get_args(Kind)),
        "heuristic": Field(bool, "found by a heuristic, not by a signature (Heuristics.…)"),
        "phishing": Field(bool, "the name says phishing"),
        "encrypted": Field(bool, "an encrypted archive or document, which nobody can look into"),
        "limits": Field(bool, "not all of it was looked at: a limit of clamd or of the milter was reached"),
        "pua": Field(bool, "possibly unwanted, not malicious (PUA.…)"),
        "skipped": Field(bool, "larger than max_size, not scanned"),
        "server": Field(str, "the clamd that answered"),
    }
    results: ClassVar = (Result.PASS, Result.FAIL, Result.POLICY, Result.TEMPERROR)
    Options = ClamavOptions
    options: ClamavOptions

    async def open(self) -> None:
        """No server has been asked yet."""
        self._scanner = Scanner(self.options.mode)
        self._servers = Servers(self.name, self.options.sockets, self._scanner.ping)

    async def close(self) -> None:
        """Ask no more."""
        self._servers.close()

    def dependencies(self) -> dict[str, str]:
        """Every clamd."""
        return dict(self._servers.states)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Have it scanned."""
        size = len(facts.once(head)) + facts.body.size
        if size > self.options.max_size:
            most = size_text(self.options.max_size)
            return self.finding(
                Result.POLICY, f"not scanned: {size} octets, more than max_size {most}", skipped=True, limits=True
            )
        try:
            scan = await self._servers.ask(lambda server, until: self._scanner.scan(server, facts, until), UNTIL.get())
        except NoServer as error:
            if TOO_LARGE not in str(error):
                raise
            most = size_text(self.options.max_size)
            warning = f"clamd takes no mail of max_size {most}: raise its StreamMaxLength, or lower max_size"
            return Finding(self.name, Result.TEMPERROR, str(error), trouble=True, warning=warning)
        return self._told(scan, facts.truncated)

    def _told(self, scan: Scan, truncated: str) -> Finding:
        fields: dict[str, Value] = {"heuristic": False, "skipped": False, "server": scan.server}
        if not scan.virus:
            fields |= _flags("limits" if truncated else None)
            if truncated:
                return Finding(self.name, Result.POLICY, f"not all of it was seen: more than {truncated}", fields)
            return Finding(self.name, Result.PASS, "nothing found", fields)
        kind, certain = kind_of(scan.virus)
        fields |= _flags(kind)
        fields |= {"virus": scan.virus, "kind": kind, "heuristic": scan.virus.startswith("Heuristics.")}
        return Finding(self.name, Result.FAIL if certain else Result.POLICY, f"{scan.virus} found", fields)


def kind_of(virus: str) -> tuple[Kind, bool]:
    """What ClamAV's name says was found, and whether it is certain to be bad."""
    first, _, rest = virus.partition(".")
    words = rest.split(".")
    if first == "Heuristics":
        return ("malware", True) if words[0] in _CERTAIN else (_WARNINGS.get(words[0], "heuristic"), False)
    if first == "PUA":
        return "pua", False
    return ("phishing" if "Phishing" in virus.split(".") else "malware"), True


def _flags(kind: Kind | None) -> dict[str, bool]:
    return {flag: kind == flag for flag in ("phishing", "encrypted", "limits", "pua")}

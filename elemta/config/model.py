"""Settings: what may stand in the configuration file, with every default.

The field comments are the documentation: the configuration reference and the JSON Schema are made from
them.  Checks bring their own options (`elemta.check.Options`), rules their own conditions; here they are
only carried, with their place in the file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from elemta.config.names import (
    DnsServer,
    HostName,
    MailAddress,
    Name,
    OneLine,
    Selector,
    SignedName,
    SmtpServer,
    StateUrl,
    report_interval,
)
from elemta.config.rule_model import Rules, TestModel
from elemta.config.section import Positive, Section, Words
from elemta.config.state_url import DEFAULT as DEFAULT_STATE
from elemta.config.types import AlwaysTrue, Duration, Listen, Size


class Dns(Section):
    """How to ask the name system."""

    servers: tuple[DnsServer, ...] = Field(
        (), description="ADDRESS:PORT of each resolver; default: those of /etc/resolv.conf"
    )
    timeout: Positive = Field(2.0, description="one query")
    budget: Positive = Field(
        8.0, description="all queries of one mail; begins anew for a check that waits for others, as dmarc does"
    )
    cache: int = Field(
        20000, ge=0, le=10_000_000, description="answers kept per worker; 0 = none (for conformance runs)"
    )


class Journal(Section):
    """Where every decision is kept."""

    path: str = Field("/var/lib/elemta/journal.db", min_length=1, description="the SQLite file")
    keep: Positive = Field(
        30 * 86400.0,
        description="older decisions are thrown away, but those that hold mail not before a week after its time",
    )


class Quarantine(Section):
    """What becomes of mail that a rule put on Postfix's hold queue, see `elemta quarantine`."""

    keep: Positive = Field(30 * 86400.0, description="how long it may stay; `elemta quarantine expire` then deletes it")
    classes: dict[Name, Positive] = Field(default_factory=dict, description="the same for one class: `{inbound: 14d}`")
    postfix: str = Field(
        "/etc/postfix", min_length=1, description="the directory of main.cf of the Postfix that holds it"
    )

    @property
    def longest(self) -> float:
        """Seconds that any mail may stay."""
        return max(self.keep, *self.classes.values(), 0.0)


class Milter(Section):
    """The milter daemon, elemta-milter."""

    listen: Listen = Field(Listen(path="/var/spool/postfix/elemta/milter.sock"), description="where Postfix finds it")
    workers: int = Field(
        2, ge=1, le=64, description="processes; one a processor is a good number, each then stays on its own"
    )
    budget: Positive = Field(25.0, description="one mail; keep it below Postfix's milter_content_timeout")
    group: str = Field("postfix", description="the group that may use a unix socket (mode 0660)")
    trusted: tuple[str, ...] = Field(
        (), description="sets or networks whose Authentication-Results in our name are kept"
    )


class Policyd(Section):
    """The policy daemon, elemta-policyd."""

    listen: Listen = Field(Listen(path="/var/spool/postfix/elemta/policyd.sock"), description="where Postfix finds it")
    workers: int = Field(2, ge=1, le=64, description="processes")
    budget: Positive = Field(10.0, description="one request; keep it below Postfix's smtpd_policy_service_timeout")
    group: str = Field("postfix", description="the group that may use a unix socket (mode 0660)")
    idle: Positive = Field(1000.0, description="a connection that says nothing for this time is closed")
    connections: int = Field(1000, ge=1, le=100_000, description="open connections of one worker; more are closed")


class Metrics(Section):
    """Prometheus metrics and health."""

    listen: Listen = Field(Listen(host="127.0.0.1", port=8890), description="/metrics, /healthz and /readyz over HTTP")
    directory: str = Field("", description="where workers share their counters; default: beside the journal")


class Log(Section):
    """The log on standard error."""

    format: Literal["text", "json"] = Field("text", description="key=value lines, or one JSON object a line")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is written")


class Plugins(Section):
    """Checks that are no part of Elemta; each runs in processes of its own (docs/plugins.md)."""

    folder: str = Field(
        "", description="every NAME.py in it holds a plugin; a path relative to the file that names it; default: none"
    )
    trusted: tuple[Name, ...] = Field(
        (), description="plugins that run in the workers' own process: faster, and a crash costs the worker"
    )
    processes: int = Field(2, ge=1, le=64, description="of each isolated plugin in each worker, at most")
    memory: Annotated[Size, Field(ge=128 << 20, le=1 << 40)] = Field(
        512 << 20, description="address space that one process of a plugin may take"
    )


class FileSet(Section):
    """A set kept in a file: one entry a line, # comments; read again when it changes."""

    file: str = Field(description="path, relative to the file that names it")


class DynamicSet(Section):
    """A set kept in the state store, filled by rules and `elemta sets add`."""

    dynamic: AlwaysTrue = Field(description="always true")


class KeyFile(Section):
    """A private key, and where its public half is published."""

    selector: Selector = Field(description="s=: the public key stands at SELECTOR._domainkey.DOMAIN")
    file: str = Field(
        description="PEM, RSA or Ed25519, unencrypted; relative to the file that names it; only the daemon may read it"
    )


class KeyRing(Section):
    """The keys that `elemta dkim` keeps: those that are active sign, and the file need not change when keys do."""

    directory: str = Field(description="the directory of the domain's keys, relative to the file that names it")


class Sign(Section):
    """Whose mail is signed in the name of one domain (DKIM). Every entry that fits signs, each with all its keys."""

    domain: HostName = Field(description="d=: the domain that takes responsibility")
    keys: Annotated[tuple[KeyFile, ...], Field(min_length=1)] | KeyRing = Field(
        description="every one signs, RSA and Ed25519 side by side; or the directory where `elemta dkim` keeps them"
    )
    classes: tuple[str, ...] = Field(("submission",), description="the classes of mail that it signs")
    from_: Words = Field(
        (),
        alias="from",
        description="authors it signs for: addresses, domains, or patterns with * and ?; default: those of the domain",
    )
    sender: Words = Field((), description="envelope senders it signs for, likewise; default: all")
    logins: Words = Field((), description="login names it signs for, or patterns with * and ?; default: all")
    headers: tuple[SignedName, ...] = Field(
        (), description="header fields to sign; default: those that mail programs show or act on"
    )
    expire: Positive | None = Field(None, description="how long the signature holds (x=); default: for ever")
    identity: str = Field("", description="i=: user@ or @ and the domain or one below it; default: none")
    canonicalization: Literal["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] = Field(
        "relaxed/relaxed", description="c=: which changes on the way the signature outlives, in header and body"
    )


class Seal(Section):
    """In whose name what was seen of passing mail is sealed (ARC). Needs the check arc."""

    domain: HostName = Field(description="d=: the domain that vouches for what it saw")
    key: KeyFile = Field(description="the key")
    classes: tuple[str, ...] | None = Field(
        None, description="the classes of mail that are sealed; default: those that no entry of sign names"
    )


class Reports(Section):
    """Reports to the domains that ask for them in DMARC; none unless this section is there. Needs the check dmarc."""

    from_: MailAddress = Field(alias="from", description="who writes; signed where `sign` has keys of its domain")
    organization: OneLine = Field("", max_length=200, description="who you are, for people; default: `host`")
    contact: OneLine = Field("", max_length=500, description="more about how to reach you, such as a web page")
    return_path: MailAddress | None = Field(
        None, description="bounces come to LOCAL+TOKEN@DOMAIN of this address; default: `from`"
    )
    smtp: SmtpServer = Field("127.0.0.1:25", description="HOST:PORT of the Postfix that takes the reports")
    hour: int = Field(1, ge=0, le=23, description="reports about a whole day leave after it, from this hour on (UTC)")
    shortest: Annotated[Duration, AfterValidator(report_interval)] = Field(
        3600.0, description="domains may ask for reports as often as this (ri); 1d: once a day at most"
    )
    classes: tuple[str, ...] | None = Field(
        None, description="report about these classes of mail; default: all mail without a login"
    )
    mailboxes: tuple[MailAddress, ...] = Field(
        (), description="where you get the reports of others: mail to them is not reported about; besides `from`"
    )
    envelope_to: bool = Field(False, description="also tell to which of your domains the mail went")
    bounces: int = Field(3, ge=1, le=1000, description="an address gets no more after so many reports came back")
    failures: int = Field(
        0, ge=0, le=10_000, description="reports of single failures sent in an hour at most, redacted; 0 = none"
    )
    file: str = Field("", description="the SQLite file of what is counted and sent; default: beside the journal")


DEFAULT_CLASSES: dict[str, dict[str, Any]] = {"submission": {"login": {"exists": True}}, "inbound": {}}


class Settings(Section):
    """The whole file."""

    host: HostName = Field(description="our name: authserv-id of Authentication-Results, name in replies and reports")
    dns: Dns = Field(default_factory=Dns, description="how to ask the name system")
    state: StateUrl = Field(
        DEFAULT_STATE, description="the state store: a file, or Redis or Valkey for several mail servers"
    )
    journal: Journal = Field(default_factory=Journal, description="where every decision is kept")
    quarantine: Quarantine = Field(default_factory=Quarantine, description="mail on Postfix's hold queue")
    milter: Milter = Field(default_factory=Milter, description="the milter daemon")
    policyd: Policyd = Field(default_factory=Policyd, description="the policy daemon")
    metrics: Metrics = Field(default_factory=Metrics, description="metrics and health over HTTP")
    log: Log = Field(default_factory=Log, description="the log on standard error")
    user: str = Field("elemta", min_length=1, description="the user to become when started as root")
    spool: str = Field(
        "/var/lib/elemta/spool", min_length=1, description="where bodies over 1 MiB wait while they are judged"
    )
    sets: dict[Name, tuple[str, ...] | FileSet | DynamicSet] = Field(
        default_factory=dict,
        description="named sets of addresses, networks, words; .a.example is all below a.example",
    )
    classes: dict[Name, dict[str, Any]] = Field(
        default_factory=lambda: dict(DEFAULT_CLASSES),
        description="the first whose conditions hold names the mail's class; one without conditions stands last",
    )
    plugins: Plugins = Field(default_factory=Plugins, description="checks that are no part of Elemta")
    checks: dict[Name, dict[str, Any] | None] = Field(default_factory=dict, description="a check runs if named here")
    sign: tuple[Sign, ...] = Field((), description="DKIM signing")
    seal: Seal | None = Field(None, description="ARC sealing; off unless present")
    reports: Reports | None = Field(None, description="DMARC reports to others; off unless present")
    rules: Rules = Field(default_factory=Rules, description="the policy itself")
    tests: tuple[TestModel, ...] = Field((), description="run by `elemta config check`")

"""Greylisting: has this client network tried to send from this sender to this recipient before, and long enough ago?

Takes the envelope with the one recipient asked about; reports `fail` while the client must wait, `pass` when it may
pass, `none` when there is nobody to ask to wait: no client address, or an authenticated client.  Counts the attempt
in the state store.  Never says what to do about it, and never exempts anybody else: rules do.

RFC 6647 section 2; terms as postgrey's (delay 5 minutes, retry window 2 days, kept 35 days, proven after 5).  The
triplet is kept as a digest: the state file does not tell who writes to whom.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, ClassVar

from pydantic import Field as Bounds
from pydantic import model_validator

from elemta.addresses.domains import a_label
from elemta.check import Check, Field, Options, Seen, Tools
from elemta.config.section import Positive
from elemta.config.types import Duration
from elemta.facts import Envelope
from elemta.findings import Finding, Result
from elemta.store import GreyTerms

_BATV = re.compile(r"prvs=(?:[0-9a-z]{10}=([^=]+)|([^=]+)=[0-9a-z]{10})")  # draft-levine-smtp-batv; some turn it round
_SRS0 = re.compile(r"srs0[=+-][^=]*=[^=]*=(.+)")  # SRS0=hash=day=domain=user
_SRS1 = re.compile(r"srs1[=+-][^=]*=([^=]*)=[=+-][^=]*=[^=]*=(.+)")  # SRS1=hash=forwarder==hash=day=domain=user
_COUNTER = re.compile(r"(?<![a-z0-9])(?:\d+|(?=[a-f]*\d)[0-9a-f]{8,})(?![a-z0-9])")  # 20391; 0102018f3c5d7a9b


class GreylistOptions(Options):
    """How long a stranger waits, and how long it is remembered."""

    delay: Annotated[Duration, "a first retry before this time is too early"] = 300.0
    retry_window: Annotated[Duration, "a stranger who does not come back within this time starts anew"] = 2 * 86400.0
    keep: Annotated[Positive, "who passed is remembered this long after the last mail"] = 35 * 86400.0
    prefix4: Annotated[int, Bounds(ge=8, le=32), "IPv4 clients within this prefix are the same client"] = 24
    prefix6: Annotated[int, Bounds(ge=16, le=128), "IPv6 clients within this prefix are the same client"] = 64
    proven: Annotated[
        int,
        Bounds(ge=0, le=1000),
        "a client network waits no more once so many other pairs of sender and recipient than its first have passed; "
        "those within one `delay` of each other count once; 0 = every stranger waits",
    ] = 5

    @model_validator(mode="after")
    def _in_order(self) -> GreylistOptions:
        if not self.delay < self.retry_window:
            raise ValueError("retry_window must be longer than delay, or nobody can ever pass")
        return self


class Greylist(Check[Envelope]):
    """Has this client tried this sender and recipient before, and long enough ago?"""

    name = "greylist"
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL, Result.TEMPERROR)
    fields: ClassVar = {
        "wait": Field(float, "how long the client must still wait; 0 when it may pass", "s"),
        "attempts": Field(int, "attempts counted so far, this one included"),
        "known": Field(bool, "this client, sender and recipient had passed before"),
        "proven": Field(bool, "the client's network has passed often enough not to wait"),
    }
    per_recipient = True
    Options = GreylistOptions
    options: GreylistOptions

    def __init__(self, options: GreylistOptions, tools: Tools) -> None:
        super().__init__(options, tools)
        self._terms = GreyTerms(options.delay, options.retry_window, options.keep, options.proven)

    async def run(self, facts: Envelope, seen: Seen) -> Finding:
        """Count this attempt."""
        client = facts.client
        if client.login:
            return self.finding(Result.NONE, "the client is authenticated")
        if client.address is None:
            return self.finding(Result.NONE, "there is no client address")
        if not facts.recipients:
            return self.finding(Result.NONE, "there is no recipient")
        network = _network(client.address, self.options)
        triplet = _triplet(network, sender_key(facts), facts.recipients[-1].lower())
        grey = await self.tools.store.greylist(triplet, network, self.tools.clock(), self._terms)
        fields = {"wait": grey.wait, "attempts": grey.attempts, "known": grey.known, "proven": grey.proven}
        if not grey.passed:
            reason = f"attempt {grey.attempts} from {network}, to wait {grey.wait:.0f} s"
            return Finding(self.name, Result.FAIL, reason, fields)
        if grey.known:
            reason = "known: it passed before"
        elif grey.proven:
            reason = f"the network {network} is proven"
        else:
            reason = f"waited long enough, attempt {grey.attempts}"
        return Finding(self.name, Result.PASS, reason, fields)


def sender_key(envelope: Envelope) -> str:
    """The sender as one key for all the mails of one mailbox or list.

    What changes with every mail is taken out: the tag of BATV, the hash and day of SRS, an extension after "+",
    counters and hexadecimal tokens of VERP.
    """
    local, domain = envelope.sender_parts
    local = local.lower()
    if "=" in local:
        if batv := _BATV.fullmatch(local):
            local = batv[1] or batv[2]
        elif srs := _SRS0.fullmatch(local) or _SRS1.fullmatch(local):
            local = "=".join(("srs", *srs.groups()))
    if not local.isalpha():
        local = _COUNTER.sub("#", local.partition("+")[0] or local)
    return f"{local}@{a_label(domain) or domain.lower()}"


def _network(address: IPv4Address | IPv6Address, options: GreylistOptions) -> str:
    """The client's network, "192.0.2.0/24"."""
    number = int(address)
    if address.version == 4:
        host_bits = 32 - options.prefix4
        octets = (number >> host_bits << host_bits).to_bytes(4, "big")
        return f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}/{options.prefix4}"
    host_bits = 128 - options.prefix6
    return f"{IPv6Address(number >> host_bits << host_bits)}/{options.prefix6}"


def _triplet(*parts: str) -> str:
    """A digest of the parts: of one size however long they are, and not to be read back."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

"""SPF evaluation: what does the domain say about this client?

`check_host` walks the terms of the domain's record and of those it includes or redirects to, and reports the result
with the term behind it.  Errors end the walk wherever they happen.  Terms that look up addresses are in `lookups`.

RFC 7208 sections 4 (check_host), 5.2 (include), 6 (modifiers).
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from elemta.addresses.domains import a_label
from elemta.dns import DEADLINE, Resolver, Status
from elemta.spf.lookups import Lookups, Stop
from elemta.spf.macro import Facts, MacroError, explanation, macro_string, matches_nothing, shown
from elemta.spf.record import Record, Term, is_spf, parse
from elemta.spf.result import DEFAULT_LIMITS, FAIL, NEUTRAL, NONE, PASS, PERMERROR, Limits, SpfResult

_SAYS = {"pass": "is authorized by", "fail": "is refused by", "softfail": "is doubted by", "neutral": "is left open by"}


async def check_host(
    resolver: Resolver,
    ip: IPv4Address | IPv6Address,
    domain: str,
    sender: str,
    helo: str,
    *,
    receiver: str = "",
    now: int = 0,
    want_explanation: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> SpfResult:
    """Evaluate SPF (RFC 7208 section 4).  Never raises on what client, sender or DNS said.

    Args:
        resolver: asked for TXT, A, AAAA, MX and PTR; a DnsError it raises becomes temperror.
        ip: the client.
        domain: the domain that grants or denies: of the MAIL FROM address, or the HELO name.
        sender: the MAIL FROM address; for HELO, and for the null sender, "postmaster@" and the HELO name.
        helo: the name in HELO or EHLO.
        receiver: our host name, for %{r}.
        now: seconds since the epoch, for %{t}.
        want_explanation: look up and expand exp= when the result is fail.
        limits: the bounds.
    """
    name = a_label(domain)
    if name is None or name.count(".") + 1 < limits.labels:  # RFC 7208 section 4.3
        return SpfResult(NONE, domain, reason=f'"{shown(domain)}" is no domain name')
    facts = _facts(ip, name, sender, helo, receiver=receiver, now=now, limit=limits.identity)
    lookups = Lookups(resolver, facts, limits)
    try:
        end = await _evaluate(lookups, name, ())
    except Stop as stop:
        return SpfResult(stop.result, name, reason=stop.reason, terms=lookups.terms, voids=lookups.voids)
    told = await _explanation(lookups, end) if want_explanation and end.result == FAIL else ""
    reason = f"{facts.ip} {_reason(end, name)}"
    return SpfResult(end.result, name, end.mechanism, reason, told, lookups.terms, lookups.voids)


def _facts(
    ip: IPv4Address | IPv6Address, domain: str, sender: str, helo: str, *, receiver: str, now: int, limit: int
) -> Facts:
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or IPv6Address(int(ip))  # RFC 7208 section 5; the zone of an address is ours
    local, _, of = sender.rpartition("@")
    if of != domain:
        of = (a_label(of) or of[-limit:]) if of else domain  # RFC 7208 section 4.3: A-labels
    local = local[-limit:] or "postmaster"  # RFC 7208 section 4.3
    helo = helo if helo.isascii() else a_label(helo) or helo
    return Facts(ip, local, of, helo[-limit:], receiver, now)


class _End(NamedTuple):  # a tuple: one is made for each record on the way
    """Where the evaluation of a record ended: with the term that matched, "" for none."""

    result: str
    mechanism: str
    path: str  # that term, and those below it that made it match, for people
    domain: str  # whose record it is
    record: Record


async def _evaluate(lookups: Lookups, domain: str, above: tuple[str, ...]) -> _End:
    """Evaluate the record of `domain` (RFC 7208 sections 4.4 to 4.7).

    Args:
        lookups: asks and counts.
        domain: <domain>.
        above: the domains whose records led here.

    Raises:
        Stop: with none, temperror or permerror.
    """
    record = await _fetch(lookups, domain)
    address = lookups.address
    for term in record.terms4 if lookups.v4 else record.terms6:  # RFC 7208 section 4.6.2: from left to right
        if address & term.mask == term.network:  # RFC 7208 sections 5.1 (all) and 5.6 (ip4, ip6)
            return _End(term.result, term.text, term.text, domain, record)
        if term.asks:
            path = await _ask(lookups, term, domain, above)
            if path:
                return _End(term.result, term.text, path, domain, record)
    if record.redirect is None:
        return _End(NEUTRAL, "", "", domain, record)  # RFC 7208 section 4.7
    return await _redirect(lookups, record, domain, above)


async def _fetch(lookups: Lookups, domain: str) -> Record:
    """Look up, select and parse the record of `domain`; Stop where there is none to go by."""
    answer = await lookups.ask(domain, "TXT")  # RFC 7208 section 4.4; never type SPF (section 3.1)
    found = [octets for octets in answer.records if isinstance(octets, bytes) and is_spf(octets)]
    if not found:  # RFC 7208 sections 4.3 and 4.5
        says = "does not exist" if answer.status is Status.NXDOMAIN else "has no SPF record"
        raise Stop(NONE, f"{shown(domain, 253)} {says}")
    if len(found) > 1:
        raise Stop(PERMERROR, f"{shown(domain, 253)} has {len(found)} SPF records")  # RFC 7208 section 4.5
    if len(found[0]) > lookups.limits.record:
        raise Stop(PERMERROR, f"{shown(domain, 253)}: the record is longer than {lookups.limits.record} octets")
    record = parse(found[0])
    if record.error:
        raise Stop(PERMERROR, f"{shown(domain, 253)}: {record.error}")  # RFC 7208 section 4.6
    return record


async def _ask(lookups: Lookups, term: Term, domain: str, above: tuple[str, ...]) -> str:
    """Give the terms that led to a match of `term`, "" where it does not match."""
    try:
        if term.name != "include":
            return term.text if await lookups.matches(term, domain) else ""
        lookups.count_term()
        if term.spec is not None and matches_nothing(term.spec, lookups.facts):
            return ""
        end = await _below(lookups, await lookups.target(term.spec, domain), (*above, domain))
    except Stop as stop:
        stop.reason = f"{term.text}: {stop.reason}"
        raise
    return f"{term.text} > {end.path}" if end.result == PASS else ""  # RFC 7208 section 5.2


async def _redirect(lookups: Lookups, record: Record, domain: str, above: tuple[str, ...]) -> _End:
    """Give the result of the record that redirect= names (RFC 7208 section 6.1)."""
    try:
        lookups.count_term()
        return await _below(lookups, await lookups.target(record.redirect, domain), (*above, domain))
    except Stop as stop:
        stop.reason = f"redirect: {stop.reason}"
        raise


async def _below(lookups: Lookups, domain: str, above: tuple[str, ...]) -> _End:
    """Evaluate a record that another one needs: it has to exist (RFC 7208 sections 5.2 and 6.1)."""
    domain = domain.lower()
    if not domain:
        raise Stop(PERMERROR, "the target is no domain name")
    if domain in above:  # it would go round until the limit of terms ends it (RFC 7208 section 4.6.4)
        raise Stop(PERMERROR, f"{shown(domain, 253)} leads back to itself")
    try:
        return await _evaluate(lookups, domain, above)
    except Stop as stop:
        if stop.result == NONE:
            stop.result = PERMERROR
        raise


async def _explanation(lookups: Lookups, end: _End) -> str:
    """Give what the record wants told to the sender; "" for nothing, or nothing sound (RFC 7208 section 6.2)."""
    if end.record.exp is None:
        return ""
    # An answer that is slow to come must not use up the time of the mail and make a fail a temperror.
    before = DEADLINE.set(min(DEADLINE.get(), time.monotonic() + lookups.limits.patience))
    try:
        name = await lookups.target(end.record.exp, end.domain, counts=False)
        texts = (await lookups.ask(name, "TXT")).records if name else ()
        if len(texts) != 1 or not isinstance(texts[0], bytes) or len(texts[0]) > lookups.limits.record:
            return ""
        spec = macro_string(texts[0].decode("ascii"), explanation=True)
        validated = await lookups.validated(end.domain) if spec.asks_ptr else ""
    except (Stop, MacroError, UnicodeDecodeError):
        return ""
    finally:
        DEADLINE.reset(before)
    return explanation(spec, lookups.facts, end.domain, validated, lookups.limits.explanation)


def _reason(end: _End, domain: str) -> str:
    """Say why, after the client's address."""
    of = "" if end.domain == domain else f" of {shown(end.domain, 253)}"  # after a redirect
    if not end.mechanism:
        return f"matches no term{of or f' of {domain}'}"
    says = "is not listed by" if _is_all(end) and end.result != PASS else _SAYS[end.result]
    return f"{says} {domain} (matched {end.path}{of})"


def _is_all(end: _End) -> bool:
    return end.mechanism.lstrip("+-~?").lower() == "all"

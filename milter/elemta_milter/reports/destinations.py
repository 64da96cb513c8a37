"""Destinations: to which addresses may this report go?

Takes the record that asked for reports and the DNS; gives each address with a verdict.  An address outside the
domain's organization counts only where its host says in the DNS that it wants these reports: else anybody could have
our reports sent to a victim.

RFC 9990 sections 3.5 (sizes) and 4 (external destinations), RFC 9989 section 4.6 (URIs), RFC 6068 (mailto).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal
from urllib.parse import unquote, urlsplit

from elemta.addresses import a_label, split
from elemta.dns import DnsError, Resolver
from elemta_milter.mailauth.dmarc_discovery import OrgDomain, Walker
from elemta_milter.mailauth.dmarc_record import Record, parse_record, size_limits

ADDRESSES = 10
"""Addresses that one report goes to at most: our limit (RFC 9990 section 3.5)."""
LONGEST = 254  # octets of an address (RFC 5321 section 4.5.3.1.3)
LONGEST_HOST = 253  # RFC 1035 section 2.3.4

_LOCAL = re.compile(r"[A-Za-z0-9#$&'*+/=?^_`{|}~.-]+")
"""One address of ASCII (RFC 5322 section 3.2.3), without quotes, spaces or commas that could make it another, without
routes: where the domain is its own, Postfix sends a%b and b!a on to b."""

Tag = Literal["rua", "ruf"]


@dataclass(frozen=True, slots=True)
class Destination:
    """One address that was asked for.

    Attributes:
        uri: as it stands in the record.
        address: lower case, as it is remembered; "" where it is none.
        limit: octets of a mail that it takes, None for any.
        refusal: why it gets none, for people; "" when it gets the report.
        later: the refusal is for lack of an answer: ask again.
        mailbox: the address as it is written to: its local part as published (RFC 5321 section 2.4).
    """

    uri: str
    address: str = ""
    limit: int | None = None
    refusal: str = ""
    later: bool = False
    mailbox: str = ""


async def destinations(
    resolver: Resolver, policy_domain: str, record: Record, tag: Tag, org_domain: OrgDomain | None = None
) -> list[Destination]:
    """The addresses of `rua` or `ruf`, each with its verdict, in the order of the record; never raises.

    Args:
        resolver: the DNS.
        policy_domain: where the record stands.
        record: the record.
        tag: which kind of report.
        org_domain: gives organizational domains by a suffix list; None for the tree walk.
    """
    walker = Walker(resolver, org_domain)
    limits = size_limits(record.text, tag)
    found: dict[str, Destination] = {}
    uris = record.rua if tag == "rua" else record.ruf
    # side by side: one domain with fifty hosts that keep silent must not hold up the reports of all others
    verified = await asyncio.gather(*(_verified(walker, policy_domain, uri, limits, tag) for uri in uris))
    for each in chain.from_iterable(verified):
        if each.address not in found or found[each.address].refusal:
            found[each.address or each.uri] = each
    usable = [each for each in found.values() if not each.refusal]
    surplus = {each.address for each in usable[ADDRESSES:]}
    return [
        _refused(each, f"only the first {ADDRESSES} addresses are used") if each.address in surplus else each
        for each in found.values()
    ]


def address_of(uri: str) -> str:
    """The address in a mailto URI, lower case; "" where there is none."""
    return _plain(uri, {}).address


async def _verified(
    walker: Walker, policy_domain: str, uri: str, limits: Mapping[str, int], tag: Tag
) -> list[Destination]:
    """The destination behind one URI, or those that its host wants instead."""
    plain = _plain(uri, limits)
    if plain.refusal:
        return [plain]
    host = split(plain.address)[1]
    try:
        if await walker.organizational(host) == await walker.organizational(policy_domain):
            return [plain]
        name = f"{policy_domain}._report._dmarc.{host}"  # RFC 9990 section 4 steps 2 and 3
        if len(name) > LONGEST_HOST:  # step 4
            return [_refused(plain, f"{name[:40]}… is too long to be asked for")]
        answer = await walker.resolver.query(name, "TXT")
    except DnsError as error:
        return [Destination(uri, plain.address, plain.limit, f"not verified: {error}", later=True)]  # step 5
    readings = [parse_record(txt)[0] for txt in answer.records if isinstance(txt, bytes)]
    consents = [record for record in readings if record is not None]  # step 6
    if not consents:  # step 7
        return [_refused(plain, f"external, and there is no v=DMARC1 at {name}")]
    return _overridden(plain, host, consents[0], tag)


def _overridden(plain: Destination, host: str, consent: Record, tag: Tag) -> list[Destination]:
    """RFC 9990 section 4 step 9: the host may name other addresses of its own."""
    uris = consent.rua if tag == "rua" else consent.ruf
    if not uris:
        return [plain]
    limits = size_limits(consent.text, tag)
    others = [_plain(uri, limits) for uri in uris]
    if any(_host(uri) != host for uri in uris):
        return [_refused(plain, f"{host} wants its reports sent to yet another host")]
    return others


def _host(uri: str) -> str:
    """The host that a URI leads to, also one of a scheme or an address that is not for us; "" for none."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "mailto":
        return a_label(split(unquote(rest.partition("?")[0], errors="replace"))[1]) or ""
    try:
        return a_label(urlsplit(uri).hostname or "") or ""
    except ValueError:  # brackets
        return ""


def _plain(uri: str, limits: Mapping[str, int]) -> Destination:
    """What a URI says by itself."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "mailto":
        return Destination(uri, refusal=f"{scheme}: is not supported")  # RFC 9989 section 4.7: ignored
    address = unquote(rest.partition("?")[0], errors="replace")
    local, domain = split(address)
    host = a_label(domain)
    if host is None or not _LOCAL.fullmatch(local):
        return Destination(uri, refusal="is no address that reports can be sent to")
    mailbox = f"{local}@{host}"
    if len(mailbox) > LONGEST:
        return Destination(uri, refusal="is longer than an address may be")
    return Destination(uri, mailbox.lower(), limits.get(uri), mailbox=mailbox)


def _refused(one: Destination, why: str) -> Destination:
    return Destination(one.uri, one.address, one.limit, why)

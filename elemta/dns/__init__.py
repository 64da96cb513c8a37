"""DNS: the port that checks see (`port`), a cache before the wire (`cached`), and the wire (`exchange`, `question`)."""

from elemta.dns.cached import CachedResolver, open_resolver
from elemta.dns.exchange import NoServers
from elemta.dns.port import DEADLINE, Answer, DnsError, Record, Resolver, Status

__all__ = [
    "DEADLINE",
    "Answer",
    "CachedResolver",
    "DnsError",
    "NoServers",
    "Record",
    "Resolver",
    "Status",
    "open_resolver",
]

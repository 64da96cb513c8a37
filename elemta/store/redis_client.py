"""The client of Redis or Valkey: how is the place that `state:` names reached?

Connections are made when they are needed, and again where one has ended; nothing waits longer than `SILENCE` for an
answer.  A command may be given twice, after a connection that broke, or to a node of a cluster that was slow: then an
attempt of greylisting may count twice, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as Disconnected

from elemta.config.state_url import StatePlace

SILENCE = 1.0  # seconds without an answer
ELECTION = 0.2  # seconds between two tries while a cluster or sentinels choose another master
CONNECTIONS = 64  # at most, of one process


Client = Any
"""A Redis or a RedisCluster, which have no common type."""


def connected(place: StatePlace) -> tuple[Client, Sequence[Client]]:
    """A client of this server, cluster or master, and those that it asks for itself; none has asked anything yet."""
    common: dict[str, Any] = {
        "username": place.user or None,
        "password": place.password or None,
        "socket_timeout": SILENCE,
        "socket_connect_timeout": SILENCE,
        "max_connections": CONNECTIONS,
        "protocol": 2,
    }
    if place.tls:
        common |= {"ssl": True, "ssl_ca_certs": place.ca or None}
    once_more = Retry(NoBackoff(), 1, (Disconnected,))  # the server was started anew since we last asked
    if place.scheme == "redis+unix":
        return Redis(unix_socket_path=place.path, db=place.database, retry=once_more, **common), ()
    if place.scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in place.hosts]
        retry = Retry(ConstantBackoff(ELECTION), 5, (Disconnected,))
        return RedisCluster(startup_nodes=nodes, retry=retry, **common), ()
    if place.scheme == "redis+sentinel":
        asked = {key: value for key, value in common.items() if key.startswith(("socket", "ssl"))}
        sentinels = Sentinel(  # type: ignore[no-untyped-call]
            place.hosts, sentinel_kwargs=asked | {"retry": Retry(NoBackoff(), 0)}
        )
        retry = Retry(ConstantBackoff(ELECTION), 5, (Disconnected,))
        master = sentinels.master_for(place.service, db=place.database, retry=retry, **common)
        return master, sentinels.sentinels
    [(host, port)] = place.hosts
    return Redis(host=host, port=port, db=place.database, retry=once_more, **common), ()

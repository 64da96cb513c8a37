"""The client of Redis or Valkey: how is the place that `state:` names reached?

Connections are made when they are needed, and again where one has ended; nothing waits longer than `SILENCE` for an
answer.  A command may be given twice, after a connection that broke, or to a node of a cluster that was slow: then an
attempt of greylisting may count twice, and nothing else.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection
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
        common["ssl"] = True
    client, sentinels = _connected(place, common)
    if place.tls and place.scheme == "redis+cluster":
        nodes = client.nodes_manager.startup_nodes.values()
        kind = client.connection_kwargs["connection_class"] = _trusting(SSLConnection, place.ca)
        for node in nodes:
            node.connection_class = kind
    elif place.tls:
        for each in (client, *sentinels):
            pool = each.connection_pool
            pool.connection_class = _trusting(pool.connection_class, place.ca)
    return client, sentinels


def _trusting(kind: type[SSLConnection], ca: str) -> type[SSLConnection]:
    """Connections of this kind that believe the authorities in the file `ca`, or else those of the system.

    Each reading these for itself would take tens of milliseconds in which nothing else goes on, and would believe those
    of the system in any case.
    """
    trust = cache(partial(ssl.create_default_context, cafile=ca or None))

    class Trusting(kind):  # type: ignore[misc, valid-type]
        def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - they are the library's
            super().__init__(**kwargs)
            self.ssl_context.context = trust()

    return Trusting


def _connected(place: StatePlace, common: dict[str, Any]) -> tuple[Client, Sequence[Client]]:
    once_more = Retry(NoBackoff(), 1, (Disconnected,))  # the server was started anew since we last asked
    until_elected = Retry(ConstantBackoff(ELECTION), 5, (Disconnected,))
    if place.scheme == "redis+unix":
        return Redis(unix_socket_path=place.path, db=place.database, retry=once_more, **common), ()
    if place.scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in place.hosts]
        return RedisCluster(startup_nodes=nodes, retry=until_elected, **common), ()
    if place.scheme == "redis+sentinel":
        asked = {key: value for key, value in common.items() if key.startswith(("socket", "ssl"))}
        sentinels = Sentinel(  # type: ignore[no-untyped-call]
            place.hosts, sentinel_kwargs=asked | {"retry": Retry(NoBackoff(), 0)}
        )
        master = sentinels.master_for(place.service, db=place.database, retry=until_elected, **common)
        return master, sentinels.sentinels
    [(host, port)] = place.hosts
    return Redis(host=host, port=port, db=place.database, retry=once_more, **common), ()

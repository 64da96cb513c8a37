"""Every kind of state store, real ones: the same tests hold for all."""

import pytest

from harness import redis


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.skipif(bool(redis.why_not()), reason=redis.why_not())),
        pytest.param("cluster", marks=pytest.mark.skipif(bool(redis.why_not()), reason=redis.why_not())),
    ]
)
def url(request, tmp_path):
    """What `state:` says of an empty store."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/state.db"
    server = redis.shared(cluster=request.param == "cluster")
    server.plain.flushall()
    return server.url

"""State URLs: what may stand in `state:`, what it means, and what is said of all else, without a password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.config.state_url import StatePlace, state_place


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("sqlite:///var/lib/x.db", StatePlace("sqlite", "/var/lib/x.db"), "/var/lib/x.db"),
        ("sqlite:////var/x.db", StatePlace("sqlite", "//var/x.db"), "//var/x.db"),
        ("redis://h", StatePlace("redis", hosts=(("h", 6379),)), "redis://h:6379"),
        ("redis://h/", StatePlace("redis", hosts=(("h", 6379),)), "redis://h:6379"),
        (
            "redis://u%3A:p%40%2F@10.0.0.5:7000/3",
            StatePlace("redis", hosts=(("10.0.0.5", 7000),), database=3, user="u:", password="p@/"),
            "redis://10.0.0.5:7000",
        ),
        (
            "redis://:a@b@h",
            StatePlace("redis", hosts=(("h", 6379),), password="a@b"),
            "redis://h:6379",
        ),
        ("redis://:a/b?c#d@h", StatePlace("redis", hosts=(("h", 6379),), password="a/b?c#d"), "redis://h:6379"),
        ("redis://[::1]:6380/0", StatePlace("redis", hosts=(("::1", 6380),)), "redis://[::1]:6380"),
        (
            "rediss://:p@r.example.org?ca=/etc/ssl/ca.pem",
            StatePlace("rediss", hosts=(("r.example.org", 6379),), password="p", tls=True, ca="/etc/ssl/ca.pem"),
            "rediss://r.example.org:6379",
        ),
        (
            "redis+unix:///run/redis/redis.sock?db=2",
            StatePlace("redis+unix", "/run/redis/redis.sock", database=2),
            "redis+unix:///run/redis/redis.sock",
        ),
        ("redis+unix://:p@/run/r", StatePlace("redis+unix", "/run/r", password="p"), "redis+unix:///run/r"),
        (
            "redis+sentinel://h1,h2:1/service/0",
            StatePlace("redis+sentinel", hosts=(("h1", 26379), ("h2", 1)), service="service"),
            "redis+sentinel://h1:26379,h2:1/service",
        ),
        (
            "redis+sentinel://:p@h1/mail?tls=true",
            StatePlace("redis+sentinel", hosts=(("h1", 26379),), service="mail", password="p", tls=True),
            "redis+sentinel://h1:26379/mail",
        ),
        (
            "redis+cluster://h1,h2",
            StatePlace("redis+cluster", hosts=(("h1", 6379), ("h2", 6379))),
            "redis+cluster://h1:6379,h2:6379",
        ),
    ],
)
def test_what_is_meant(url, expected, shown):
    assert (state_place(url), str(state_place(url))) == (expected, shown)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "told by a URL; write sqlite:///"),
        ("://x", "is no kind of state store; write sqlite:///"),
        ("/var/lib/x.db", "write sqlite:///"),
        ("mysql://x", "is no kind of state store"),
        ("sqlit:///x", 'did you mean "sqlite"'),
        ("sqlite:x", "write sqlite:///|did you mean"),
        ("redis:/:hunter2@h", "told by a URL; write sqlite:///"),
        ("hunter2", "told by a URL; write sqlite:///"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///x/", "three slashes"),
        ("sqlite:///x\0y", "whole path"),
        ("redis://", "no host, or no port"),
        ("redis://h:0", "no host, or no port"),
        ("redis://h:65536", "no host, or no port"),
        ("redis://h:x", "no host, or no port"),
        ("redis://h1,h2", "is one server; write redis\\+sentinel:// or"),
        ("redis://h,", "no host, or no port"),
        ("redis://h/x", "a database is a number"),
        ("redis://h/1/2", "a database is a number"),
        ("redis://user@h", "no password before the @"),
        ("redis://:hunter2@", "no host"),
        ("redis://:hunter2@h?hunter=2", "no setting of a state URL"),
        ("redis://h?db=1", "redis:// knows none"),
        ("redis://h?ca=/x", "redis:// knows none"),
        ("rediss://h?cert=/x", "rediss:// knows ca"),
        ("rediss://h?ca=x", "whole path"),
        ("redis+cluster://h?ca=/x", "ca means nothing without tls=true"),
        ("redis+cluster://h?tls=yes", "tls is true or false"),
        ("redis+cluster://h?tsl=true", 'did you mean "tls"'),
        ("redis+cluster://h/1", "no number"),
        ("redis+unix://run/x", "three slashes"),
        ("redis+unix:///", "three slashes"),
        ("redis+unix:///x?db=-1", "a database is a number"),
        ("redis+sentinel://h", "are asked for a service"),
        ("redis+sentinel://h//0", "are asked for a service"),
    ],
)
def test_what_is_none(url, told):
    with pytest.raises(ValueError, match=told) as caught:
        state_place(url)
    assert "hunter2" not in str(caught.value)


@given(st.sampled_from(["redis", "rediss", "redis+unix", "redis+sentinel", "redis+cluster"]), st.text(max_size=60))
def test_whatever_stands_there_is_read_or_refused(scheme, rest):
    try:
        place = state_place(f"{scheme}://{rest}")
    except ValueError:
        return
    assert place.path or place.hosts

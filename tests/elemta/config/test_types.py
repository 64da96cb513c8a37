from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.config.names import dns_server, host_name, masked, selector, signed_name, smtp_server
from elemta.config.types import Listen, duration, duration_text, network, size, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("2s", 2),
        ("5m", 300),
        ("1h", 3600),
        ("35d", 35 * 86400),
        ("2w", 14 * 86400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("0", 0),
        (0, 0),
        ("1.5s", 1.5),
        ("0.5ms", 0.0005),
        ("0s", 0),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", 5, "s", "5 sec", "-5s", "5S", "1h30", "5s ago", "1e3s", "\uff15s", None, True, 2.5, [], "1h,5m"]
)
def test_not_durations(text):
    with pytest.raises(ValueError, match="is not a duration; write "):
        duration(text)


@given(st.integers(0, 10**12))
def test_a_duration_reads_back_to_the_millisecond(milliseconds):
    assert math.isclose(duration(duration_text(milliseconds / 1000)), milliseconds / 1000, rel_tol=1e-12)


@given(st.integers(0, 10**9))
def test_a_duration_reads_back_to_the_microsecond(microseconds):
    assert math.isclose(duration(duration_text(microseconds / 1e6)), microseconds / 1e6, abs_tol=1e-9)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0"), (0.25, "250ms"), (5400, "1h30m"), (90061.001, "1d1h1m1s1ms")])
def test_durations_are_written_as_people_do(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("512K", 524288),
        ("25M", 25 << 20),
        ("1g", 1 << 30),
        ("1GiB", 1 << 30),
        ("2T", 2 << 40),
        ("10", 10),
        (10, 10),
        ("5 MB", 5 << 20),
    ],
)
def test_sizes(text, octets):
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "M", "-1", -1, "1.5M", "5X", None, True, 2.5])
def test_not_sizes(text):
    with pytest.raises(ValueError, match="is not a size; write octets or a number and K, M or G"):
        size(text)


@given(st.integers(0, 10**14))
def test_a_size_reads_back(octets):
    assert size(size_text(octets)) == octets


@given(st.one_of(
    st.builds(Listen, path=st.from_regex(r"/[a-z0-9/._-]{0,99}[a-z0-9._-]", fullmatch=True)),
    st.builds(Listen, host=st.ip_addresses().map(str), port=st.integers(0, 65535)),
))  # fmt: skip
def test_a_listening_address_reads_back(listen):
    assert Listen.parse(str(listen)) == listen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8890",
        ":8890",
        "unix:",
        "unix:x",
        "unix:/",
        "unix:/run/elemta/",
        "unix:/" + "x" * 107,
        "inet:1.2.3.4",
        "1.2.3.4:65536",
        "inet:[::1:5",
        "inet:::1:5",
        "1.2.3:5",
    ],
)
def test_not_listening_addresses(text):
    with pytest.raises(ValueError, match=r"listening address|unix socket"):
        Listen.parse(text)


def test_the_path_of_a_socket_may_be_as_long_as_the_system_takes():
    path = "/" + "x" * 106
    assert Listen.parse(f"unix:{path}") == Listen(path=path)


def test_localhost_is_loopback():
    assert Listen.parse("[::1]:65535") == Listen(host="::1", port=65535)
    assert Listen.parse("inet:localhost:25") == Listen(host="127.0.0.1", port=25)


def test_a_dns_server_has_a_port():
    assert [dns_server(text) for text in ("127.0.0.1", "127.0.0.1:5353", "[::1]", "[2001:db8::1]:5353")] == [
        "127.0.0.1:53", "127.0.0.1:5353", "[::1]:53", "[2001:db8::1]:5353",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "::1", "ns.test", "[1.2.3.4]:53", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3:53", "[::1"]
)
def test_not_dns_servers(text):
    with pytest.raises(ValueError, match="is not a DNS server"):
        dns_server(text)


@pytest.mark.parametrize(
    "text", ["mx", "mx.test", "mx1.example.org", "xn--bcher-kva.example", "3com.example", "a" * 63 + ".test"]
)
def test_host_names(text):
    assert host_name(text) == text
    assert host_name(text + ".") == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "-a.test", "a-.test", "a..test", "a_b.test", "a b.test", "1.2.3.4", "büch.test", "a" * 64, "a." * 128],
)
def test_not_host_names(text):
    with pytest.raises(ValueError, match=r"host name"):
        host_name(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("redis://u:s@h", "redis://u:***@h"),
        ("redis://u@h", "redis://u@h"),
        ("sqlite:///x", "sqlite:///x"),
        ("sqlite:///var/a:b@c.db", "sqlite:///var/a:b@c.db"),
        ("redis+sentinel://:p@h1,h2/s/0", "redis+sentinel://:***@h1,h2/s/0"),
        ("http://[", "http://["),
        ("redis://:a@b@h", "redis://:***@h"),
        ("redis://:a@b/c?d#e@h/0", "redis://:***@h/0"),
        ("http://u:p@h/a@b", "http://u:***@h/a@b"),
    ],
)
def test_passwords_are_masked(url, shown):
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_of_mapped_addresses_is_the_ipv4_network(text, meant):
    assert str(network(text)) == meant


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("::ffff:192.0.2.0/24", "write the IPv4 network, 192.0.2.0/24"),
        ("::ffff:192.0.2.7/24", "write the IPv4 network, 192.0.2.0/24"),
        ("::ffff:192.0.2.0/95", "write the IPv4 network, one such as 192.0.2.0/24"),
        ("::ffff:192.0.2.1/120", "does not begin there; write 192.0.2.0/24"),
        ("2001:db8::1/32", "does not begin there; write 2001:db8::/32"),
        ("192.0.2.1/24", "does not begin there; write 192.0.2.0/24"),
    ],
)
def test_a_network_that_is_none_is_told_with_the_one_meant(text, advice):
    with pytest.raises(ValueError, match=re.escape(advice) + "$"):
        network(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("mx.test", "mx.test:25"), ("mx.test.:2525", "mx.test:2525"), ("127.0.0.1", "127.0.0.1:25"),
        ("127.0.0.1:26", "127.0.0.1:26"), ("[::1]", "[::1]:25"), ("[::1]:26", "[::1]:26"),
        ("[10.0.0.1]:25", "10.0.0.1:25"),
    ],
)  # fmt: skip
def test_smtp_servers(text, meant):
    assert smtp_server(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", "::1", "[::1]x", "[::1:25", "::1]:25", "127.0.0.1:0", "mx.test:65536", "mx.test:\u0662\u0665", "mx.test:",
     ":25", "mx.test:x", "mx.test:1234567", "1.2.3:25", " mx.test"],
)  # fmt: skip
def test_not_smtp_servers(text):
    with pytest.raises(ValueError, match="is not an SMTP server; write HOST:PORT"):
        smtp_server(text)


def test_selectors_and_names_of_fields_are_lower_case():
    assert (selector("R2026.b-1"), signed_name("X-A")) == ("r2026.b-1", "x-a")


@pytest.mark.parametrize("text", ["", "a..b", "a_b", "-a", "a" * 64, "x." * 95 + "x"])
def test_not_selectors(text):
    with pytest.raises(ValueError, match="is not a selector"):
        selector(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "is not a header field's name") for text in ("", "x a", "x;y", "From:", "\u00e9")),
        *((text, "is added or removed on a mail's way") for text in ("Received", "ARC-Seal", "DKIM-Signature", "bcc")),
    ],
)
def test_fields_that_no_signature_covers(text, why):
    with pytest.raises(ValueError, match=why):
        signed_name(text)

"""URLs: where a link leads, as a browser takes it."""

import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.links.urls import MAX_URL, read_url, shown_host, urls_in

HOSTS = [
    ("http://example.org/", "example.org"),
    ("HTTPS://Example.ORG:8443?x", "example.org"),
    ("HTTP:\\\\example.org\\x", "example.org"),
    ("https:/example.org", "example.org"),
    ("http:example.org", "example.org"),
    ("http://///example.org", "example.org"),
    (" http://example.org\t/x ", "example.org"),
    ("ht\ntp://exa\rmple.org", "example.org"),
    ("//example.org/x", "example.org"),
    ("\\\\example.org\\x", "example.org"),
    ("www.example.org/x", "www.example.org"),
    ("www.example.org:80/x", "www.example.org"),
    ("http://%65xample%2Eorg/", "example.org"),
    ("http://bank.example@example.org/", "example.org"),
    ("http://a@b@example.org/", "example.org"),
    ("http://münchen.example/", "xn--mnchen-3ya.example"),
    ("http://example。org", "example.org"),
    ("http://exa\u00admple.org", "example.org"),
    ("ftp://example.org./", "example.org"),
]


@pytest.mark.parametrize(("link", "host"), HOSTS)
def test_hosts(link, host):
    found = read_url(link)

    assert (found.host, found.address) == (host, None)
    assert found.odd == ("bank" in link)


@pytest.mark.parametrize(
    ("link", "address", "odd"),
    [
        ("http://192.0.2.1/", "192.0.2.1", False),
        ("http://3221225985/", "192.0.2.1", True),
        ("http://0xC0.0.0x0201/", "192.0.2.1", True),
        ("http://0300.0.2.1:80/", "192.0.2.1", True),
        ("http://192.513/", "192.0.2.1", True),
        ("http://x@192.0.2.1./", "192.0.2.1", True),
        ("http://[2001:DB8::1]:80/", "2001:db8::1", True),
        ("http://[2001:db8::1]/", "2001:db8::1", False),
        ("http://[::ffff:192.0.2.1]/", "192.0.2.1", True),
    ],
)
def test_addresses(link, address, odd):
    found = read_url(link)

    assert (found.host, found.address, found.odd) == ("", ip_address(address), odd)


NOWHERE = [
    *("", "/x", "x.html", "#top", "mailto:a@b.test", "javascript:alert(1)", "data:text/html,x", "cid:1@x", "http://"),
    *("http://a..b/", "http://256.1.1.1/", "http://99999999999/", "http://[x]/", "http://" + "a" * 5000),
]


@pytest.mark.parametrize("link", NOWHERE)
def test_what_leads_to_no_host(link):
    assert read_url(link) is None


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see http://example.org/a_(b).", ["http://example.org/a_(b)"]),
        ("(www.example.org)", ["http://www.example.org"]),
        ('<http://a.test/x>, "https://b.test/y"!', ["http://a.test/x", "https://b.test/y"]),
        ("http://a.test。好 http://b.test」x", ["http://a.test。好", "http://b.test」x"]),
        ("mail me@www.example.org or x.www.y.test", []),
        ("hxxp://a.test xhttp://a.test", []),
        ("http://a.test\nhttp://b.test", ["http://a.test", "http://b.test"]),
        ("**http://a.test**", ["http://a.test"]),
    ],
)
def test_links_in_text(text, links):
    assert [url.text for url in urls_in(text)] == links


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.org", "example.org"),
        ("https://example.org/x", "example.org"),
        ("example.org/login", "example.org"),
        ("www.example.org", "www.example.org"),
        ("Click here", ""),
        ("www.example.org now", ""),
        ("1.5", ""),
        ("anna@example.org", ""),
        ("", ""),
    ],
)
def test_what_a_link_shows(text, host):
    assert shown_host(text) == host


HOSTILE = [
    "http://",
    "http://a.b ",
    "www.",
    "http://a" + ")" * 100 + " ",
    "http://" + "(" * 900 + ")" * 900 + " ",
    "a.",
    "http:",
    "http://a.test/" + ")" * 4_000 + " ",
    "ftp:\\",
]


@pytest.mark.parametrize("piece", HOSTILE, ids=range(len(HOSTILE)))
def test_time_is_linear(piece):
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    list(urls_in(text))
    read_url(text)
    shown_host(text)

    assert time.process_time() - began < 3  # it takes at most a third of a second


@given(st.text("htp:/\\w.@[]%0xX12a-\u00ad\u3002ß :", max_size=80))
def test_any_text(text):
    for found in [read_url(text), *urls_in(text), read_url(f"http://{text}")]:
        assert found is None or ((found.host == "") != (found.address is None) and len(found.text) <= MAX_URL)

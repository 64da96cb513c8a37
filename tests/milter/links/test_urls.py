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
    ("".join(map(chr, range(33))) + "http://example.org" + "".join(map(chr, range(33))), "example.org"),
    ("http://" + "a" * 10_000 + "@example.org/", "example.org"),
    ("http://example.org:" + "0" * 2000 + "80/", "example.org"),
    ("file://example.org/x", "example.org"),
    ("file:///\\\\example.org\\x", "example.org"),
    ("file:////example.org/x", "example.org"),
]


@pytest.mark.parametrize(("link", "host"), HOSTS)
def test_hosts(link, host):
    found = read_url(link)

    assert (found.host, found.address) == (host, None)
    assert found.odd == ("bank" in link)


@pytest.mark.parametrize(
    "label", ["a!b", "a$b", "a~b", "a,b", "a;b", "a&b", "(a)", "a%21b", "a\u00b7b", "-\u00fc", "a" * 64]
)
def test_a_host_below_one_that_has_a_name_is_asked_for_by_browsers(label):
    found = read_url(f"http://{label}.www.example.org/")

    assert (found.host, found.odd) == ("www.example.org", True)


@pytest.mark.parametrize(
    "before", [" www.", "%20www.", ".", "[UNSUBSCRIBE].", "%25NAME%25.", "www:80.", "a..b.", "<b>www."]
)
def test_a_slip_of_the_pen_that_no_browser_follows_is_no_disguise(before):
    found = read_url(f"http://{before}example.org/")

    assert (found.host.endswith("example.org"), found.odd) == (True, False)


def test_links_that_differ_behind_a_long_user_name_have_different_texts():
    one, other = (read_url(f"http://{'a' * 3000}@{host}.test/") for host in ("one", "other"))

    assert one.text != other.text


@pytest.mark.parametrize(
    ("link", "address", "odd"),
    [
        ("http://192.0.2.1/", "192.0.2.1", False),
        ("http://3221225985/", "192.0.2.1", True),
        ("http://0xC0.0.0x0201/", "192.0.2.1", True),
        ("http://0300.0.2.1:80/", "192.0.2.1", True),
        ("http://192.513/", "192.0.2.1", True),
        ("http://0x" + "0" * 100 + "c0.513/", "192.0.2.1", True),
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
    *("file:///x", "file:/x", "file:x", "file://C:/x", "file:///C|/x", "http://a!b/", "http://a!b.1/"),
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
        (
            "http://a.test。好 http://b.test」x",
            ["http://a.test。好", "http://a.test", "http://b.test」x", "http://b.test」x"],
        ),
        ("mail me@www.example.org or x.www.y.test", []),
        ("hxxp://a.test xhttp://a.test", []),
        ("http://a.test\nhttp://b.test", ["http://a.test", "http://b.test"]),
        ("**http://a.test**", ["http://a.test"]),
    ],
)
def test_links_in_text(text, links):
    assert [url.text for url in urls_in(text)] == links


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("点击http://a.test/", ["a.test"]),
        ("点击www.a.test/", ["www.a.test"]),
        ("_http://a.test/_ жhttp://b.test", ["a.test", "b.test"]),
        ("请看http://a.test。谢谢", ["a.test.xn--lg3aa", "a.test"]),
        ("http://a.test请看", ["a.xn--test-o47jt05h", "a.test"]),
        ("http://x!y.a.test/ http://x.test!y.a.test", ["x", "a.test", "x.test", "a.test"]),
        ("http://" + "a" * 10_000 + "@a.test/", ["a.test"]),
        ("file://a.test/x", ["a.test"]),
        ("http://bücher.test/ http://a.test,then", ["xn--bcher-kva.test", "a.test"]),
    ],
)
def test_hosts_of_links_in_text(text, hosts):
    found = list(urls_in(text))

    assert ([url.host for url in found], any(url.odd for url in found)) == (hosts, False)


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
    "http://a!",
    "http://a。b ",
    "http://a!.b@",
    "http://a.b!" + "c." * 400 + " ",
    "http://" + "ä." * 120 + "!b.c.d ",
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

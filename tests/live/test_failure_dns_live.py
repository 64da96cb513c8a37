"""DNS fails in every way there is: every check that asks it is in trouble, and each class gets what `trouble` says.

A real name server answers; between it and the milter stands a proxy for UDP and one for TCP on the same port.
"""

import contextlib

import pytest

from harness.daemon import Daemon, free_port
from harness.dns import REFUSED, SERVFAIL, TRUNCATE, DnsServer, Special
from harness.proxy import Datagrams, How, Proxy
from harness.watching import CLASSES, TROUBLE, WORDS, Watch, by_milter, wait_until

pytestmark = pytest.mark.live

CHECKS = ("iprev", "spf", "dnsbl", "dkim", "dmarc")
WITHIN = 6.0  # seconds for a mail whose budget is 3 s, and whose DNS budget is 1 s
ZONE = {
    **{f"*.{word}.test": [("TXT", "v=spf1 -all")] for word in WORDS},
    "mail.helo.test": [("TXT", "v=spf1 -all")],
}


@pytest.fixture(scope="module")
def dns():
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture(scope="module")
def proxies(dns):
    """TCP and UDP on one port."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            tcp = stack.enter_context(Proxy("127.0.0.1", dns.port))
            try:
                udp = stack.enter_context(Datagrams("127.0.0.1", dns.port, listen=tcp.port, pause=3.0))
            except OSError:
                continue  # the number is free for TCP only
            yield udp, tcp
            return
        raise AssertionError


@pytest.fixture(scope="module")
def watch(proxies):
    policy = f"""
dns: {{servers: ["127.0.0.1:{proxies[0].port}"], timeout: 200ms, budget: 1s, cache: 0}}
{CLASSES}
checks:
  iprev: {{{TROUBLE}}}
  spf: {{{TROUBLE}}}
  dnsbl: {{lists: [{{zone: list.test}}], {TROUBLE}}}
  dkim: {{{TROUBLE}}}
  dmarc: {{{TROUBLE}}}
"""
    with Daemon("milter", policy, workers=1, metrics=free_port(), own="budget: 3s") as daemon:
        yield Watch(daemon, by_milter)


@pytest.fixture(autouse=True)
def well(watch, dns, proxies):
    """Each test begins and ends with name servers that answer, and mail that is judged."""
    assert watch.carry("reject.test").verdict == "accept"
    yield
    dns.replace(ZONE)
    for proxy in proxies:
        proxy.how = How.PASS
    watch.answers_again(*CHECKS)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (How.REFUSE, "Connection refused"),
        (How.SILENT, "no answer within 0.2 s|DNS budget is spent"),
        (How.DRIP, "no answer within 0.2 s|DNS budget is spent"),  # slow for all
        (How.GARBAGE, "what is no answer to the question|DNS budget is spent"),
        (How.CUT, "a broken answer|what is no answer to the question|DNS budget is spent"),  # cut within the question
    ],
    ids=lambda value: value.value if isinstance(value, How) else "",
)
def test_behind_a_proxy(watch, proxies, how, told):
    fails(watch, told, lambda: setattr(proxies[0], "how", how))


@pytest.mark.parametrize(
    ("special", "told"),
    [
        (SERVFAIL, "SERVFAIL"),
        (REFUSED, "REFUSED"),
    ],
    ids=lambda value: value.value if isinstance(value, Special) else "",
)
def test_the_name_server_itself(watch, dns, special, told):
    fails(watch, told, lambda: dns.replace(broken(special)))


def test_an_answer_too_long_for_udp_breaks_off_over_tcp(watch, dns, proxies):
    def break_it():
        dns.replace(broken(TRUNCATE))
        proxies[1].how = How.CUT

    fails(watch, "closed the connection", break_it)


def test_the_name_server_stops_and_starts(watch, dns):
    port = dns.port
    try:
        fails(watch, "no answer within 0.2 s|DNS budget is spent", dns.stop)  # the proxy has nobody to ask
    finally:
        dns.start()
    assert dns.port == port


def broken(special):
    below = ("in-addr.arpa", "helo.test", "list.test", *(f"{word}.test" for word in WORDS))
    return {f"*.{name}": [special] for name in below}


def fails(watch, told, break_it):
    """All five checks are in trouble, and after five mails in a row so is whoever asks."""
    break_it()
    watch.cell(CHECKS, told, WITHIN)
    watch.carry("accept.test")
    wait_until(lambda: all(f"check {check} does not answer" in watch.ready() for check in CHECKS))

"""Another implementation, asked the same questions, must give the same results.

Left out, because pyspf reads RFC 7208 differently there: %{p} (it does not count the question), look-ups under names
that PTR or MX records lead to and that do not exist (it counts each, we count the term), more than ten MX hosts of
which an early one matches, redirect= in records that come near ten terms (it counts it where it stands, evaluated or
not), an unknown modifier that stands twice (it objects), and the exact spelling of broken records beyond those below.
"""

import random
from collections import Counter
from ipaddress import ip_address

import pytest

spf = pytest.importorskip("spf")

WORLDS = 3000  # each made from its number, so that a failure can be repeated
CLIENTS = ["192.0.2.1", "192.0.2.2", "192.0.3.1", "198.51.100.7", "2001:db8::1", "2001:db8:1::1", "::ffff:192.0.2.1"]
HOSTS = ["h0.test", "h1.test", "sub.d1.test", "d0.test", "d1.test"]
DOMAINS = [f"d{number}.test" for number in range(6)]
V4 = ["192.0.2.1", "192.0.2.130", "192.0.3.1", "198.51.100.7", "203.0.113.5"]
V6 = ["2001:db8::1", "2001:db8::2", "2001:db8:1::1", "::1"]
CIDR4 = ["", "", "/0", "/8", "/23", "/24", "/25", "/32"]
CIDR6 = ["", "", "/0", "/32", "/48", "/64", "/128"]
NAMES = [*HOSTS, "missing.test", "%{d}", "h%{d1r}.%{d1}", "%{o}", "%{l}.test", "%{h}", "%{ir}.%{v}.test"]
BROKEN = [
    "a:", "all/8", "-all:x.test", "ip4:1.2.3", "ip4:1.2.3.4/33", "ip6:::1//8", "a/33", "nonsense", "a:museum",
    "a:x.123", "include", "exists", "ptr/8", "foo=%x", "a:%{z}.test", "redirect=", "exp=", "mx:%{d}.", "a:x.-y",
    "include:x.test/8",
]  # fmt: skip


def term(rng, number):
    """Make a mechanism for the record of d<number>: it includes only domains that come later, so there are no loops."""
    one = rng.choice
    makers = [
        lambda: f"ip4:{one(V4)}{one(CIDR4)}",
        lambda: f"ip6:{one(V6)}{one(CIDR6)}",
        lambda: f"a{one(CIDR4)}{one(CIDR6).replace('/', '//')}",
        lambda: f"a:{one(NAMES)}{one(CIDR4)}{one(CIDR6).replace('/', '//')}",
        lambda: f"mx{one(CIDR4)}{one(CIDR6).replace('/', '//')}",
        lambda: f"mx:{one(DOMAINS)}{one(CIDR4)}",
        lambda: f"exists:{one(NAMES)}",
        lambda: "ptr",
        lambda: f"ptr:{one(HOSTS)}",
        *[lambda: f"include:{one([*DOMAINS[number + 1 :] * 4, 'norecord.test'])}"] * 4,
    ]
    return one(["", "+", "-", "~", "?"]) + one(makers)()


def some(rng, choices, least, most):
    return [rng.choice(choices) for _ in range(rng.randint(least, most))]


def world(rng):
    zone = {}
    for number, domain in enumerate(DOMAINS):
        parts = some(rng, ["unknown=%{d2}"], 0, 1) + [term(rng, number) for _ in range(rng.randint(0, 5))]
        if rng.random() < 0.05:
            parts.insert(rng.randint(0, len(parts)), rng.choice(BROKEN))
        last = [] if domain == DOMAINS[-1] else [f"redirect={DOMAINS[-1]}"]
        parts += rng.choice([["-all"], ["~all"], ["?all"], ["all"], [], last])
        zone[domain] = {"TXT": ["v=spf1 " + " ".join(parts)]}
        if rng.random() < 0.8:
            zone[domain]["MX"] = sorted(set(some(rng, HOSTS[:2], 1, 2)))
    for host in HOSTS:
        zone.setdefault(host, {}).update(A=some(rng, V4, 1, 3), AAAA=some(rng, V6, 1, 2))
    if rng.random() < 0.1:
        zone[rng.choice(DOMAINS[1:])] = "SERVFAIL"
    zone["norecord.test"] = {"TXT": ["hello"]}
    for client in CLIENTS[:-1]:
        zone[ip_address(client).reverse_pointer] = {"PTR": rng.sample(HOSTS[:3], rng.randint(1, 3))}
    return zone


def by_pyspf(zone, client, sender, helo):
    def lookup(name, rdtype, _tcp=True, _timeout=30):
        types = zone.get(str(name).lower().rstrip("."), {})
        if types == "SERVFAIL":
            raise spf.TempError("DNS SERVFAIL")
        shape = {"TXT": lambda text: (text.encode(),), "MX": lambda host: (10, host)}.get(rdtype, str)
        return [((name, rdtype), shape(one)) for one in types.get(rdtype, [])]

    query = spf.query(i=client, s=sender, h=helo, strict=True, querytime=0)
    before, spf.DNSLookup = spf.DNSLookup, lookup
    try:
        return query.check()[0]
    finally:
        spf.DNSLookup = before


def test_the_results_agree(run):
    seen = Counter()
    for number in range(WORLDS):
        rng = random.Random(number)
        zone, client = world(rng), rng.choice(CLIENTS)
        sender, helo = "h0@d0.test", "h1.test"
        ours = run(zone, client, sender, helo)
        if "redirect=" in str(zone) and ours.terms >= 7:
            continue
        assert by_pyspf(zone, client, sender, helo) == ours.result, (number, zone, client, ours)
        seen[ours.result] += 1
    assert set(seen) == {"pass", "fail", "softfail", "neutral", "permerror", "temperror"}
    assert min(seen.values()) > WORLDS // 100, seen

"""A name system in memory for SPF, and check_host() run over it."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from elemta.dns import Answer, DnsError, Status
from elemta.spf import DEFAULT_LIMITS, check_host

KINDS = {
    "A": IPv4Address,
    "AAAA": IPv6Address,
    "TXT": lambda text: text if isinstance(text, bytes) else text.encode(),
    "MX": lambda host: host if isinstance(host, tuple) else (10, host),
    "PTR": str,
}


class Zone:
    """Answers from {name: {type: [data]}}; a type or a whole name may be "SERVFAIL" instead. Keeps what was asked."""

    def __init__(self, data):
        self.answers = {}
        self.asked = []
        for name, types in data.items():
            self.answers[name.lower()] = types if types == "SERVFAIL" else self._typed(types)

    @staticmethod
    def _typed(types):
        return {
            kind: data if data == "SERVFAIL" else Answer(Status.OK, tuple(KINDS[kind](one) for one in data), 300)
            for kind, data in types.items()
        }

    async def query(self, name, rdtype):
        self.asked.append((name, rdtype))
        types = self.answers.get(name.lower())
        if types is None:
            return Answer(Status.NXDOMAIN, ttl=300)
        answer = "SERVFAIL" if types == "SERVFAIL" else types.get(rdtype, Answer(Status.NODATA, ttl=300))
        if answer == "SERVFAIL":
            raise DnsError(name, rdtype, "SERVFAIL")
        return answer


def finish(coroutine):
    """Run a coroutine that never has to wait: a resolver that answers at once must not suspend the evaluation."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the evaluation was suspended")


@pytest.fixture(scope="session")
def new_zone():
    return Zone


@pytest.fixture(scope="session")
def run():
    """Return run(zone, ip, sender), which gives the SpfResult; zone is a Zone or its data."""

    def spf(zone, ip="192.0.2.1", sender="user@example.org", helo="mx.example.net", domain=None, limits=DEFAULT_LIMITS):
        zone = Zone(zone) if isinstance(zone, dict) else zone
        domain = sender.rpartition("@")[2] if domain is None else domain
        ip = ip_address(ip)
        told = {"receiver": "mx.receiver.test", "now": 1234567890, "want_explanation": True, "limits": limits}
        return finish(check_host(zone, ip, domain, sender, helo, **told))

    return spf


@pytest.fixture(scope="session")
def record(run):
    """Return record(text, ip), which evaluates a record of example.org within a small world."""

    def evaluate(text, ip="192.0.2.1", extra=None, **kwargs):
        world = {
            "example.org": {"TXT": [text], "A": ["192.0.2.10"], "AAAA": ["2001:db8::10"], "MX": ["mail.example.org"]},
            "mail.example.org": {"A": ["192.0.2.25"], "AAAA": ["2001:db8::25"]},
            "pass.test": {"TXT": ["v=spf1 +all"]},
            "fail.test": {"TXT": ["v=spf1 -all"]},
            "soft.test": {"TXT": ["v=spf1 ~all"]},
            "open.test": {"TXT": ["v=spf1 ?all"]},
            "broken.test": {"TXT": ["v=spf1 nonsense"]},
            "empty.test": {"A": ["192.0.2.99"]},
            "dead.test": "SERVFAIL",
        }
        return run(world | (extra or {}), ip, **kwargs)

    return evaluate

"""iprev: every result word of RFC 8601 section 2.7.3, and its evidence."""

import pytest

from elemta.checks.iprev import Iprev
from elemta.testing import FakeResolver, client, run

ZONE = {
    "1.2.0.192.in-addr.arpa": [("PTR", "good.test")],
    "good.test": [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")],
    "2.2.0.192.in-addr.arpa": [("PTR", "other.test"), ("PTR", "liar.test")],
    "other.test": [("A", "198.51.100.1")],
    "liar.test": [("A", "198.51.100.2")],
    "3.2.0.192.in-addr.arpa": [("PTR", "first.test"), ("PTR", "second.test")],
    "first.test": [("A", "TIMEOUT")],
    "second.test": [("A", "192.0.2.3")],
    "4.2.0.192.in-addr.arpa": [("PTR", "first.test"), ("PTR", "other.test")],
    "5.2.0.192.in-addr.arpa": [("PTR", "SERVFAIL")],
    "6.2.0.192.in-addr.arpa": [("PTR", f"n{number}.test") for number in range(11)],
    "n10.test": [("A", "192.0.2.6")],
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": [("PTR", "good.test")],
}


@pytest.mark.parametrize(
    ("address", "result", "name", "trouble"),
    [
        ("192.0.2.1", "pass", "good.test", False),
        ("2001:db8::1", "pass", "good.test", False),
        ("::ffff:192.0.2.1", "pass", "good.test", False),
        ("192.0.2.2", "fail", None, False),
        ("192.0.2.3", "pass", "second.test", False),  # one name's trouble does not hide another's proof
        ("192.0.2.4", "temperror", None, True),  # the silent name might have led back
        ("192.0.2.5", "temperror", None, True),
        ("192.0.2.6", "fail", None, False),  # the eleventh name is not looked at
        ("192.0.2.9", "permerror", None, False),  # no name
        ("fe80::1%eth0", "permerror", None, False),
        ("", "none", None, False),
    ],
)
def test_result(address, result, name, trouble):
    finding = run(Iprev, client(address), resolver=FakeResolver(ZONE))

    assert finding.result == result
    assert finding.fields.get("name") == name
    assert finding.trouble is trouble


def test_evidence_names_the_address():
    [evidence] = run(Iprev, client("192.0.2.1"), resolver=FakeResolver(ZONE)).authres

    assert (evidence.method, evidence.result, evidence.properties) == (
        "iprev",
        "pass",
        (("policy.iprev", "192.0.2.1"),),
    )

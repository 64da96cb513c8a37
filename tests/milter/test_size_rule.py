"""A rule that asks for the size: the milter then takes the body, whatever the client announces."""

import pytest

from harness.daemon import Daemon
from harness.mta import CONTINUE, REPLY, Mta

POLICY = """
rules:
  message:
    - {id: big, when: {size: {gt: 1000}}, then: reject, reply: "552 5.3.4 {size} octets"}
"""


@pytest.fixture(scope="module")
def daemon():
    with Daemon("milter", POLICY) as process:
        yield process


@pytest.mark.parametrize("options", [(), (b"SIZE=5",)], ids=["none", "a lie"])
@pytest.mark.parametrize(
    ("subject", "body"), [(b" big", b"x" * 1500 + b"\r\n"), (b" " + b"x" * 1505, b"")], ids=["body", "header"]
)
def test_what_the_client_announces_does_not_matter(daemon, options, subject, body):
    mta = Mta(daemon.address)
    try:
        mta.hello()
        mta.envelope(b"<a@b.test>", options=options)
        mta.fields((b"Subject", subject))
        assert not body or mta.step("B", body) == CONTINUE
        [(verdict, told)] = mta.end()
    finally:
        mta.sock.close()

    assert verdict == REPLY
    assert (told["smtpcode"], told["text"]) == ("552", "5.3.4 1518 octets")
    daemon.wait_for(" size=1518 ")

"""A real clamd behind a real Postfix: viruses are refused, clean mail passes, a dead or hanging clamd is trouble."""

import base64
import io
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from elemta.servers import Declined
from elemta.testing import message
from elemta_milter.body import Spool
from elemta_milter.scanners.clamd import TOO_LARGE, Scan, Scanner
from harness import clamd as harness
from harness.clamd import EICAR, VIRUS, Clamd
from harness.daemon import Daemon, free_port, loopback
from harness.postfix import PrivatePostfix, why_not

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not() or harness.why_not()), reason=why_not() or harness.why_not()),
]

TIMEOUT = 2.0  # seconds; the check's
POLICY = """
classes: {{internal: {{client.address: 192.0.2.9}}, inbound: {{}}}}
checks:
  clamav: {{socket: {sockets}, timeout: 2s, max_size: 4M, trouble: {{inbound: defer, internal: accept}}}}
rules:
  message:
    - id: virus
      when: {{clamav: fail}}
      then: reject
      reply: "550 5.7.1 {{clamav.virus}} found. Reference {{id}}"
    - {{id: unseen, when: {{clamav.skipped: true}}, add_header: {{X-Unseen: "yes"}}}}
"""
LINE = b"A line of a mail.\r\n"


@pytest.fixture(scope="module")
def clamd():
    limits = {"StreamMaxLength": "2M", "MaxScanSize": "8M", "AlertExceedsMax": "yes"}
    with Clamd(tcp=loopback(), **limits) as process:
        yield process


@pytest.fixture(scope="module")
def postfix():
    with PrivatePostfix(milter=True) as instance:
        yield instance


@pytest.fixture
def daemon(clamd, postfix):
    """elemta-milter with one worker, so that there is one breaker."""

    @contextmanager
    def started(sockets=clamd.address):
        listen, metrics = f"unix:{postfix.milter_socket}", free_port()
        with Daemon("milter", POLICY.format(sockets=sockets), listen=listen, workers=1, metrics=metrics) as running:
            yield running

    return started


def mail(body=b"hello\r\n", fields=b""):
    return b"From: a@sender.test\r\nSubject: test\r\n" + fields + b"\r\n" + body


def send(postfix, data=None, **options):
    options.setdefault("xclient", {"addr": "192.0.2.7"})
    return postfix.send("a@sender.test", "r@example.org", data or mail(), raw=True, **options).final


def attached(data):
    fields = b"MIME-Version: 1.0\r\nContent-Type: application/zip; name=x.zip\r\nContent-Transfer-Encoding: base64\r\n"
    return mail(base64.encodebytes(data).replace(b"\n", b"\r\n"), fields)


def zipped(data):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.com", data)
    return archive.getvalue()


def ready(daemon):
    """What /readyz says."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics}/readyz", timeout=10) as page:
            return page.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def wait_for(what, seconds=45):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_viruses_are_refused_and_clean_mail_passes(postfix, daemon):
    with daemon():
        before = len(postfix.delivered())
        for data in (
            mail(EICAR),
            attached(EICAR),
            attached(zipped(EICAR)),
            mail(LINE * 80_000, b"X: y\r\n") + EICAR,  # spooled
        ):
            reply = send(postfix, data)
            assert reply.code == 550
            assert reply.text.startswith(f"5.7.1 {VIRUS} found. Reference ")
        for data in (mail(), mail(b""), attached(zipped(b"hello")), mail(LINE * 80_000)):
            assert send(postfix, data).ok
        large = mail(LINE * 250_000)
        assert send(postfix, large).ok
        delivered = postfix.wait_delivered(before + 5)[before:]
        assert [b"X-Unseen: yes" in each for each in delivered] == [len(each) > 4 << 20 for each in delivered]


def test_clamd_dies_and_comes_back(postfix, daemon, clamd):
    with daemon() as running:
        assert send(postfix).ok
        clamd.kill()
        try:
            for _ in range(4):
                assert send(postfix).code // 100 == 4
            assert send(postfix, xclient={"addr": "192.0.2.9"}).ok, "trouble means accept in this class"
            running.wait_for("does not answer and is left alone")
            wait_for(lambda: "clamav" in ready(running))
        finally:
            clamd.start()
        wait_for(lambda: send(postfix).ok)
        assert send(postfix, mail(EICAR)).code == 550
        wait_for(lambda: "clamav" not in ready(running))


def test_clamd_hangs_and_mail_soon_no_longer_waits_for_it(postfix, daemon, clamd):
    with daemon() as running:
        with clamd.paused():
            for _ in range(3):
                began = time.monotonic()
                assert send(postfix).code // 100 == 4
                assert time.monotonic() - began < TIMEOUT * 5
            running.wait_for("does not answer and is left alone")
            began = time.monotonic()
            with postfix.session(xclient={"addr": "192.0.2.7"}) as session:
                for _ in range(20):
                    assert session.send("a@sender.test", "r@example.org", mail()).final.code // 100 == 4
            assert time.monotonic() - began < TIMEOUT * 5, "twenty mails that waited would take twenty time-outs"
        wait_for(lambda: send(postfix).ok)
        assert send(postfix, mail(EICAR)).code == 550


def test_the_second_of_two_takes_over(postfix, daemon, clamd):
    with daemon(f"[unix:{clamd.directory}/nobody, '{clamd.inet}']") as running:
        for _ in range(5):
            assert send(postfix).ok
        assert send(postfix, mail(EICAR)).code == 550
        running.wait_for("nobody does not answer and is left alone")


@pytest.mark.parametrize("mode", ["fildes", "instream", "tcp"])
def test_every_way_to_clamd(clamd, mode):
    address = clamd.inet if mode == "tcp" else clamd.address
    scanner = Scanner("auto" if mode == "tcp" else mode)
    for size in (0, 1, 300_000, 1_500_000):  # from 1 MiB on a body is spooled
        for tail, virus in ((b"", ""), (EICAR, VIRUS)):
            spool = Spool("/tmp")
            spool.append(LINE * (size // len(LINE)))
            spool.append(tail)
            found = scanner.scan(address, replace(message(), body=spool.finish()), time.monotonic() + 60)
            assert found == Scan(virus, server=address)
    scanner.ping(address, time.monotonic() + 20)


@pytest.mark.parametrize("mode", ["instream", "tcp"])
def test_over_clamds_own_limit_is_no_answer_of_a_dead_server(clamd, mode):
    address = clamd.inet if mode == "tcp" else clamd.address
    for _ in range(20):
        with pytest.raises(Declined, match=TOO_LARGE):
            Scanner("instream").scan(address, message(body=LINE * 200_000), time.monotonic() + 60)


def test_clamd_tells_when_it_did_not_look_at_all_of_it(clamd):
    found = Scanner().scan(clamd.address, message(body=LINE * 500_000), time.monotonic() + 60)
    assert found.virus.startswith("Heuristics.Limits.Exceeded")

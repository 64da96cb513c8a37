"""Scanners fail in every way there is: each class of mail gets what `trouble` says, in time, and people can see why.

clamd and Rspamd are real: killed, stopped in their tracks, and behind a proxy that does what they would not do.
"""

import pytest

from harness import clamd, rspamd
from harness.clamd import EICAR, Clamd
from harness.daemon import Daemon, free_port
from harness.proxy import How, Proxy
from harness.watching import CLASSES, TROUBLE, Watch, by_milter

pytestmark = pytest.mark.live

WITHIN = 6.0  # seconds for a mail whose budget is 3 s
POLICY = f"""
{CLASSES}
checks:
  CHECK, timeout: 1s, {TROUBLE}}}
rules:
  message:
    - {{id: bad, when: {{any: [FOUND]}}, then: reject}}
"""


class ClamdScanner:
    """clamd, on its unix socket; the proxy speaks TCP."""

    why_not = staticmethod(clamd.why_not)
    check, found, bad = "clamav", "{clamav: fail}", EICAR
    told = {  # noqa: RUF012
        How.REFUSE: "Connection refused",
        How.SILENT: "timed out",
        How.DRIP: "timed out",
        How.GARBAGE: "no clear reply",
        How.CUT: "no clear reply",
    }

    def __init__(self):
        self.server = Clamd()
        self.server.start()
        self.address = self.server.address
        self.proxy = Proxy(path=self.address.removeprefix("unix:"))
        self.proxied = f"inet:127.0.0.1:{self.proxy.port}"
        self.kill, self.start, self.paused = self.server.kill, self.server.start, self.server.paused

    def configured(self, address):
        return f'clamav: {{socket: "{address}"'

    def close(self):
        self.proxy.close()
        self.server.__exit__()


class RspamdScanner:
    """Rspamd and its workers."""

    why_not = staticmethod(rspamd.why_not)
    check, found, bad = "rspamd", "{rspamd.action: reject}", rspamd.REJECT.encode() + b"\r\n"
    told = {  # noqa: RUF012
        How.REFUSE: "Connection refused",
        How.SILENT: "no answer in time",
        How.DRIP: "no answer in time",
        How.GARBAGE: "garbage",
        How.CUT: "broke off",
    }

    def __init__(self):
        self.server = rspamd.shared()
        self.address, self.start = self.server.url, self.server.start
        self.proxy = Proxy("127.0.0.1", self.server.port)
        self.proxied = f"http://127.0.0.1:{self.proxy.port}"
        self.close, self.paused, self.kill = self.proxy.close, self.server.paused, self.server.kill

    def configured(self, address):
        return f'rspamd: {{url: "{address}"'


@pytest.fixture(scope="module", params=[ClamdScanner, RspamdScanner], ids=["clamd", "rspamd"])
def scanner(request):
    if why := request.param.why_not():
        pytest.skip(why)
    made = request.param()
    yield made
    made.close()


@pytest.fixture(scope="module")
def daemon():
    with Daemon("milter", CLASSES, workers=1, metrics=free_port(), own="budget: 3s") as process:
        yield process


@pytest.fixture
def watch(daemon, scanner):
    """Ask the scanner itself, or through the proxy; no breaker is open."""

    def start(address):
        policy = POLICY.replace("CHECK", scanner.configured(address)).replace("FOUND", scanner.found)
        daemon.reload(policy)
        watch = Watch(daemon, by_milter)
        works(watch, scanner)
        return watch

    return start


def works(watch, scanner):
    assert watch.carry("accept.test").verdict == "accept"
    assert watch.carry("accept.test", scanner.bad).verdict == "reject"


@pytest.mark.parametrize("how", [How.REFUSE, How.DRIP, How.GARBAGE, How.CUT], ids=lambda how: how.value)
def test_behind_a_proxy(watch, scanner, how):
    scanner.proxy.how = How.PASS
    seen = watch(scanner.proxied)
    scanner.proxy.how = how
    seen.cell(scanner.check, f"{scanner.proxied}: .*{scanner.told[how]}", WITHIN)
    seen.left_alone(scanner.check, scanner.proxied)
    scanner.proxy.how = How.PASS
    seen.comes_back(scanner.check, scanner.proxied)
    works(seen, scanner)


def test_stopped_in_its_tracks(watch, scanner):
    seen = watch(scanner.address)
    with scanner.paused():
        seen.cell(scanner.check, f"{scanner.address}: .*{scanner.told[How.SILENT]}", WITHIN)
        seen.left_alone(scanner.check, scanner.address)
    seen.comes_back(scanner.check, scanner.address)
    works(seen, scanner)


def test_killed(watch, scanner):
    seen = watch(scanner.address)
    scanner.kill()
    try:
        seen.cell(scanner.check, f"{scanner.address}: .*{scanner.told[How.REFUSE]}", WITHIN)
        seen.left_alone(scanner.check, scanner.address)
    finally:
        scanner.start()
    seen.comes_back(scanner.check, scanner.address)
    works(seen, scanner)

"""clamd fails in every way there is: each class of mail gets what `trouble` says, in time, and people can see why."""

import pytest

from harness import clamd as harness
from harness.clamd import EICAR, Clamd
from harness.daemon import Daemon, free_port
from harness.proxy import How, Proxy
from harness.watching import CLASSES, TROUBLE, Watch, by_milter, wait_until

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(harness.why_not()), reason=harness.why_not())]

WITHIN = 6.0  # seconds for a mail whose budget is 3 s
POLICY = f"""
{CLASSES}
checks:
  clamav: {{socket: "SOCKET", timeout: 1s, {TROUBLE}}}
rules:
  message:
    - {{id: virus, when: {{clamav: fail}}, then: reject}}
"""


@pytest.fixture(scope="module")
def clamd():
    with Clamd() as process:
        yield process


@pytest.fixture(scope="module")
def proxy(clamd):
    with Proxy(path=clamd.address.removeprefix("unix:")) as made:
        yield made


@pytest.fixture(scope="module")
def daemon():
    with Daemon("milter", CLASSES, workers=1, metrics=free_port(), own="budget: 3s") as process:
        yield process


@pytest.fixture
def watch(daemon):
    """Ask clamd itself, or through the proxy; no breaker is open."""

    def start(socket):
        daemon.reload(POLICY.replace("SOCKET", socket))
        watch = Watch(daemon, by_milter)
        assert watch.carry("accept.test").verdict == "accept"
        assert watch.carry("accept.test", EICAR).verdict == "reject"
        return watch

    return start


def left_alone(watch, name, within=1.0):
    """Its breaker is open: a mail costs next to nothing, and whoever asks is told."""
    wait_until(lambda: "left alone" in watch.daemon.log())
    carried = watch.carry("defer.test")
    assert (carried.verdict, carried.seconds < within) == ("defer", True)
    assert "not asked, it has not answered for" in watch.finding(watch.entry(carried.sender), "clamav").reason
    wait_until(lambda: f"check clamav: {name} does not answer: " in watch.ready())
    assert watch.metric("dependency_up", check="clamav", dependency=name) == 0


def comes_back(watch, name):
    watch.recovers("clamav", mail_first=False)
    assert watch.carry("accept.test", EICAR).verdict == "reject"
    wait_until(lambda: watch.metric("dependency_up", check="clamav", dependency=name) == 1)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (How.REFUSE, "Connection refused"),
        (How.SILENT, "timed out"),
        (How.DRIP, "timed out"),
        (How.GARBAGE, "no clear reply"),
        (How.CUT, "no clear reply"),
    ],
)
def test_behind_a_proxy(watch, proxy, how, told):
    proxy.how = How.PASS
    name = f"inet:127.0.0.1:{proxy.port}"
    seen = watch(name)
    proxy.how = how
    seen.cell("clamav", f"{name}: .*{told}", WITHIN)
    left_alone(seen, name)
    proxy.how = How.PASS
    comes_back(seen, name)


def test_killed(watch, clamd):
    seen = watch(clamd.address)
    clamd.kill()
    try:
        seen.cell("clamav", f"{clamd.address}: .*Connection refused", WITHIN)
        left_alone(seen, clamd.address)
    finally:
        clamd.start()
    comes_back(seen, clamd.address)


def test_stopped_in_its_tracks(watch, clamd):
    seen = watch(clamd.address)
    with clamd.paused():
        seen.cell("clamav", f"{clamd.address}: .*timed out", WITHIN)
        left_alone(seen, clamd.address)
    comes_back(seen, clamd.address)


def test_gone_with_its_socket(watch, clamd):
    """What a service that was stopped in good order leaves: nothing."""
    seen = watch(clamd.address)
    clamd.stop()
    try:
        seen.cell("clamav", f"{clamd.address}: .*No such file", WITHIN)
        left_alone(seen, clamd.address)
    finally:
        clamd.start()
    comes_back(seen, clamd.address)

"""The service within a worker: what if libmilter gives up, and who looks after the keys?"""

import asyncio
import threading
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from elemta.facts import Client
from elemta.testing import policy
from elemta_milter import service as module
from elemta_milter.service import MilterService, trust


class Wire:
    """libmilter, until it is told to end, or as it ends by itself."""

    connections = 0

    def __init__(self, ends):
        self.ends = ends

    def __call__(self, *_, **told):
        self.voucher = told["voucher"]
        return self

    def listen(self, descriptor):
        self.descriptor = descriptor

    def run(self):
        self.ends()


class World:
    """A worker with such a libmilter."""

    def __init__(self, monkeypatch, ends, voucher=None, slot=0):
        self.told = []
        self.watched = []
        self.wire = Wire(ends)
        monkeypatch.setattr(module, "Wire", self.wire)
        monkeypatch.setattr(module, "Voucher", SimpleNamespace(of=lambda *_: voucher))
        monkeypatch.setattr(module, "watch", self.watch)
        door = SimpleNamespace(descriptor=7, shut=lambda: self.told.append("shut"), watch=lambda: asyncio.sleep(60))
        monkeypatch.setattr(module, "Door", lambda _: door)
        milter = SimpleNamespace(budget=1.0, trusted=(), workers=999_983)
        settings = SimpleNamespace(milter=milter, host="mx.test")
        policy = SimpleNamespace(parts={}, settings=settings, sets={})
        wants = SimpleNamespace(early=False, body=False)
        metrics = SimpleNamespace(connections="connections", gauge=lambda *_: None)
        self.worker = SimpleNamespace(
            slot=slot,
            engine=SimpleNamespace(policy=policy, wants=wants, tools=None),
            settings=settings,
            opened=SimpleNamespace(metrics=metrics),
            deadline=0.0,
            ready=lambda: self.told.append("ready"),
            closed=lambda: self.told.append("closed"),
        )

    async def watch(self, _settings, keys, *_):
        self.watched.append(keys)
        await asyncio.sleep(60)

    def serve(self, *, stop=False, after=None):
        async def run():
            self.worker.listener, self.worker.stopping = None, asyncio.Event()
            if stop:
                asyncio.get_running_loop().call_later(0.1, self.worker.stopping.set)
            async with asyncio.timeout(10):
                await MilterService().serve(self.worker)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}  # a look at the door would open it again
            if after is not None:
                after()
                await asyncio.sleep(0.1)  # its thread ends

        asyncio.run(run())


def fails():
    raise SystemExit("cannot listen")


@pytest.mark.parametrize(("ends", "why"), [(fails, "cannot listen"), (lambda: None, "it stopped by itself")])
def test_a_worker_whose_libmilter_gives_up_says_so_and_ends(monkeypatch, ends, why):
    world = World(monkeypatch, ends)
    with pytest.raises(RuntimeError, match="libmilter gave up") as raised:
        world.serve()
    assert str(raised.value.__cause__) == why
    assert world.told == ["ready"]


@pytest.mark.parametrize(
    ("slot", "keys", "watched"), [(0, ("a key",), [("a key",)]), (1, ("a key",), []), (0, None, [])]
)
def test_the_first_worker_looks_after_the_keys_that_there_are(monkeypatch, slot, keys, watched):
    ended = threading.Event()
    voucher = keys and SimpleNamespace(keys=keys)
    world = World(monkeypatch, ended.wait, voucher, slot)
    world.serve(stop=True, after=ended.set)
    assert world.wire.descriptor == 7
    assert (world.watched, world.told, world.wire.voucher) == (watched, ["ready", "shut", "closed"], voucher)


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("192.0.2.7", True),
        ("192.0.3.7", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("2001:db8::1", True),
        ("203.0.113.7", False),  # in a set that is not named there
        (None, False),
    ],
)
def test_who_may_bring_results_in_our_name(address, trusted):
    made = policy("""
host: mx.test
milter: {trusted: [192.0.2.0/24, relays, six]}
sets: {relays: [198.51.100.7], six: ["2001:db8::/32"], others: [203.0.113.0/24]}
""")
    client = Client(address=address and ip_address(address))
    assert trust(SimpleNamespace(policy=made))(client) is trusted


# ── processors ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("processors", "workers", "places"),
    [
        ({0, 1}, 2, [{0}, {1}]),
        ({6, 3}, 4, [{3}, {6}, {3}, {6}]),
        ({0, 1}, 3, []),  # one would have twice the work of the other
        ({0, 1, 2, 3}, 2, []),  # which are busy is for the kernel to see
        ({5}, 1, [{5}]),
    ],
)
def test_workers_stay_each_on_its_processor_where_all_have_as_many(processors, workers, places, monkeypatch):
    stayed = []
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: processors)
    monkeypatch.setattr(module.os, "sched_setaffinity", lambda _, where: stayed.append(where))
    for slot in range(workers):
        module._stay(slot, workers)

    assert stayed == places


@pytest.mark.parametrize("call", ["sched_getaffinity", "sched_setaffinity"])
def test_a_worker_serves_where_it_may_not_choose_its_processor(call, monkeypatch):
    def refused(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(module.os, call, refused)

    module._stay(0, 1)

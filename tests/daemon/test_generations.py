"""Generations: when is a slot filled again, and who must go soon?  On a supervisor that forks nothing."""

import os
import selectors
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from elemta.config.types import Listen
from elemta.daemon import supervisor as module
from elemta.daemon.generation import BACK_OFF, KEEPER, Generation, Process
from elemta.daemon.supervisor import MOST_LEAVING, SETTLED, START_LIMIT, Supervisor
from elemta.daemon.worker import ALIVE, CLOSED, READY


class Watch:
    """What an administrator is told."""

    def __init__(self):
        self.told, self.shown = [], []

    def status(self, **told):
        self.shown.append(told)

    def ended(self, status):
        pass

    def died(self, slot, how, lived, pause):
        self.told.append((slot, how, pause))

    def reloaded(self, *, ok, **more):
        self.told.append(("reloaded", ok, *more.values()))


@pytest.fixture
def supervisor(monkeypatch):
    now, made = [time.monotonic()], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watching = Supervisor(SimpleNamespace(name="policyd"), None, Watch())

    def pass_by(seconds):
        now[0] += seconds

    def generation(workers=1):
        inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        policy = SimpleNamespace(fingerprint="f", settings=None)
        made.append(Generation(policy, workers, Listen(), None, inbox))
        return made[-1]

    watching.pass_by, watching.made = pass_by, generation
    yield watching
    watching._selector.close()
    for each in made:
        each.close()


def process(slot=0, pid=0):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    return Process(pid, slot, ours, time.monotonic())


def dies(supervisor, generation, lived, status=signal.SIGKILL):
    one = process()
    supervisor.pass_by(lived)
    supervisor._died(generation, one, status)


def test_one_that_dies_again_and_again_is_started_ever_later(supervisor):
    generation = supervisor.made()
    for lived in (*[1.0] * (len(BACK_OFF) + 1), SETTLED + 1.0):
        dies(supervisor, generation, lived)
    pauses = [pause for _, _, pause in supervisor.watch.told]
    assert pauses == [*BACK_OFF, BACK_OFF[-1], BACK_OFF[0]]
    assert supervisor.restarts == len(pauses)


def test_what_ended_is_told_by_its_status(supervisor):
    generation = supervisor.made()
    dies(supervisor, generation, 1.0, status=70 << 8)
    assert supervisor.watch.told == [(0, "exit status 70", BACK_OFF[0])]


def test_it_is_not_started_before_its_time(supervisor, monkeypatch):
    started = []
    monkeypatch.setattr(supervisor, "_fork", lambda _, slot: started.append(slot))
    supervisor.current = generation = supervisor.made()
    dies(supervisor, generation, 1.0)
    supervisor.pass_by(BACK_OFF[0] / 2)
    supervisor._restart()
    assert started == []
    supervisor.pass_by(BACK_OFF[0])
    for _ in range(2):
        supervisor._restart()
    assert started == [0]


def test_nobody_is_started_while_the_daemon_ends(supervisor, monkeypatch):
    started = []
    monkeypatch.setattr(supervisor, "_fork", lambda _, slot: started.append(slot))
    supervisor.current = generation = supervisor.made()
    dies(supervisor, generation, 1.0)
    supervisor.pass_by(60.0)
    supervisor.stopping = True
    supervisor._restart()
    assert started == []


def test_one_that_was_told_to_go_is_not_missed(supervisor):
    generation = supervisor.made()
    one = process()
    one.goes(35.0)
    supervisor._died(generation, one, 0)
    assert (supervisor.watch.told, generation.restart_at) == ([], {})


def test_of_many_generations_that_finish_long_mails_the_oldest_must_go(supervisor, monkeypatch):
    told = []
    monkeypatch.setattr(module, "send_away", lambda process, inbox: told.append((process.pid, inbox is not None)))
    for pid in range(MOST_LEAVING + 1):
        old, new = supervisor.made(), supervisor.made()
        old.processes[pid] = process(pid=pid)
        old.processes[pid].ready = True
        supervisor._retire(old, new)
    assert told == [*((pid, True) for pid in range(MOST_LEAVING + 1)), (0, False)]
    for each in supervisor.leaving:
        for one in each.processes.values():
            one.control.close()


def test_a_reload_whose_workers_do_not_come_up_in_time_is_refused(supervisor, monkeypatch):
    notified = []
    monkeypatch.setattr(module.sdnotify, "notify", lambda *lines: notified.append(lines))
    supervisor.current, supervisor.candidate = supervisor.made(), supervisor.made()
    supervisor.pass_by(START_LIMIT - 1.0)
    supervisor._promote()
    assert supervisor.watch.told == []
    supervisor.pass_by(2.0)
    supervisor._promote()
    assert supervisor.candidate is None
    assert supervisor.watch.told == [
        ("reloaded", False, "the new workers did not come up; the old policy stays in force")
    ]
    assert notified == [("READY=1", "STATUS=reload refused, see the log")]  # else systemctl reload would wait


def test_new_workers_that_come_up_while_the_daemon_ends_go_and_take_nobodys_place(supervisor, monkeypatch):
    told, notified = [], []
    monkeypatch.setattr(module, "send_away", lambda process, inbox: told.append((process.pid, inbox)))
    monkeypatch.setattr(module.sdnotify, "notify", lambda *lines: notified.append(lines))
    old, new = supervisor.made(), supervisor.made()
    for pid, slot, generation in ((1, KEEPER, old), (2, 0, old), (3, KEEPER, new), (4, 0, new)):
        generation.processes[pid] = process(slot, pid)
        generation.processes[pid].ready = True
    supervisor.current, supervisor.candidate, supervisor.stopping = old, new, True
    supervisor._promote()
    assert (supervisor.current, supervisor.candidate) == (old, None)
    assert told == [(3, None), (4, None)]
    assert (supervisor.watch.told, notified) == ([], [])  # neither done nor refused
    for each in (*old.processes.values(), *new.processes.values()):
        each.control.close()


@pytest.mark.parametrize("unheard", [False, True], ids=["in peace", "before it heard what it was told"])
def test_one_that_has_gone_is_not_listened_to_any_more(supervisor, unheard):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        if unheard:
            ours.send(b"retire")  # then the end is an error
        theirs.close()
        gone = Process(1, 0, ours, time.monotonic())
        supervisor._heard(supervisor._selector.register(ours, selectors.EVENT_READ, gone))
        assert ours.fileno() not in supervisor._selector.get_map()


@pytest.mark.parametrize(
    ("word", "ready", "closed"), [(READY, True, False), (ALIVE, False, False), (CLOSED, False, True)]
)
def test_whatever_one_says_is_a_sign_of_life(supervisor, word, ready, closed):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        one = Process(1, 0, ours, time.monotonic())
        supervisor.pass_by(50.0)
        theirs.send(word)
        supervisor._heard(supervisor._selector.register(ours, selectors.EVENT_READ, one))
        assert (one.heard, one.ready, one.closed) == (time.monotonic(), ready, closed)


def test_no_policy_is_read_while_the_daemon_ends(supervisor, monkeypatch):
    loaded = []
    monkeypatch.setattr(supervisor, "load", lambda: loaded.append(1))
    supervisor.current, supervisor.stopping = supervisor.made(), True
    supervisor._reload()
    assert (loaded, supervisor.watch.told) == ([], [])


@pytest.mark.parametrize("under_way", ["candidate", "replaced"])
def test_one_policy_is_read_at_a_time(supervisor, monkeypatch, under_way):
    loaded = []
    monkeypatch.setattr(supervisor, "load", lambda: loaded.append(1))
    supervisor.current = supervisor.made()
    setattr(supervisor, under_way, supervisor.made())
    supervisor._reload()
    assert (loaded, supervisor.watch.told) == ([], [])


def test_new_workers_of_which_one_fails_hand_over_to_the_old_ones(supervisor, monkeypatch):
    told = []
    monkeypatch.setattr(module, "send_away", lambda process, inbox: told.append((process.pid, inbox)))
    monkeypatch.setattr(module.sdnotify, "notify", lambda *_: None)
    supervisor.current, supervisor.candidate = old, new = supervisor.made(), supervisor.made(2)
    for pid, ready in ((1, True), (2, False)):
        new.processes[pid] = process(pid, pid)
        new.processes[pid].ready = ready
        new.processes[pid].control.close()
    new.again_later(0)
    supervisor._promote()
    assert told == [(1, old.inbox[1]), (2, None)]  # one that is not up reads nothing


def test_who_waits_is_turned_away_once_no_worker_takes_him(supervisor, monkeypatch):
    shut = []
    monkeypatch.setattr(module.sockets, "shut", shut.append)
    supervisor.current, earlier = supervisor.made(), supervisor.made()
    supervisor.leaving.append(earlier)
    workers = [process(pid=pid) for pid in (1, 2)]
    for generation, worker in zip((supervisor.current, earlier), workers, strict=True):
        generation.processes[worker.pid] = worker
        worker.control.close()
        supervisor._turn_away()
        supervisor.stopping = True
        supervisor._turn_away()  # libmilter ends, and its mails with it, where the listener is shut before it knows
        assert shut == []
        worker.closed = True
    supervisor._turn_away()
    assert shut == [supervisor.current.listener]


def test_a_generation_for_which_there_was_no_room_leaves_nothing_open(supervisor):
    none = supervisor.made()
    supervisor._retire(none, None)
    assert (supervisor.leaving, [end.fileno() for end in none.inbox]) == ([], [-1, -1])


def test_readyz_is_told_of_workers_that_answer_and_of_the_newest_listener(supervisor, monkeypatch):
    monkeypatch.setattr(module.sockets, "unreachable", lambda listener, _: f"{listener} is gone")
    first, second = supervisor.made(2), supervisor.made(3)
    first.listener, second.listener = "first", "second"
    for pid, slot in enumerate((KEEPER, 0, 1)):
        first.processes[pid] = process(slot, pid)
        first.processes[pid].ready = slot != 1
        first.processes[pid].control.close()
    supervisor.candidate = first  # as at the start
    supervisor._report()
    supervisor.current, supervisor.candidate, supervisor.restarts = first, second, 1
    supervisor._report()
    supervisor.stopping = True
    supervisor._report()
    told = {"workers": 2, "ready": 1, "policy": "f"}
    assert supervisor.watch.shown == [
        told | {"restarts": 0, "unreachable": "first is gone"},
        told | {"restarts": 1, "unreachable": "second is gone"},
        told | {"restarts": 1, "unreachable": ""},  # it was shut, or another daemon has the place
    ]


def test_a_signal_wakes_once(supervisor):
    os.write(supervisor._wake_w, b"\x01\x02")
    supervisor._heard(supervisor._selector.register(supervisor._wake_r, selectors.EVENT_READ))
    assert supervisor._selector.select(0) == []

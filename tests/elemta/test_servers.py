"""Servers: failover, the breaker, the ping in the background, and time that runs out."""

import asyncio
import threading
import time

import pytest

from elemta.servers import FAILURES, Declined, NoServer, ServerError, Servers


class World:
    """Servers that answer, refuse or hang as told; what was asked of whom."""

    def __init__(self):
        self.down: set[str] = set()
        self.deaf: set[str] = set()  # ping answers, questions fail
        self.asked: list[str] = []
        self.pinged = threading.Event()
        self.lawful = ServerError("refused")

    def ping(self, name, until):
        assert until > time.monotonic()
        try:
            if name in self.down:
                raise ServerError("no pong")
        finally:
            self.pinged.set()

    def question(self, name, until):
        self.asked.append(name)
        if name in self.down or name in self.deaf:
            raise self.lawful
        return f"{name} answers"


@pytest.fixture
def world():
    return World()


@pytest.fixture
def opened():
    made = []

    def make(*arguments, **options):
        made.append(Servers("scan", *arguments, **options))
        return made[-1]

    yield make
    for servers in made:
        servers.close()


def ask(servers, question, seconds=5.0):
    return asyncio.run(servers.ask(question, time.monotonic() + seconds))


def wait_for(what, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_the_first_server_is_asked_while_it_answers(world, opened):
    servers = opened(["a", "b"], world.ping)
    assert [ask(servers, world.question) for _ in range(3)] == ["a answers"] * 3
    assert servers.states == {"a": "", "b": ""}


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_balancing_asks_all_in_turn(world, opened, names):
    servers = opened(list(names), world.ping, balance=True)
    for _ in range(4 * len(names)):
        ask(servers, world.question)
    assert {name: world.asked.count(name) for name in names} == dict.fromkeys(names, 4)


@pytest.mark.parametrize(("deaf", "well"), ["ab", "ba"])
def test_balancing_leaves_none_out_when_the_first_fails(world, opened, deaf, well):
    servers = opened(["a", "b"], world.ping, balance=True)
    world.deaf = {deaf}
    assert [ask(servers, world.question) for _ in range(4)] == [f"{well} answers"] * 4


def test_balancing_shares_the_part_of_one_that_is_left_alone_among_all_others(world, opened):
    servers = opened(["a", "b", "c"], world.ping, balance=True)
    world.down = {"b"}
    while not servers.states["b"]:
        ask(servers, world.question)
    world.asked.clear()
    for _ in range(10):
        ask(servers, world.question)
    assert (world.asked.count("a"), world.asked.count("c")) == (5, 5)


def test_the_next_one_is_asked_when_one_fails_and_the_failing_one_is_left_alone_after_a_while(world, opened):
    servers = opened(["a", "b"], world.ping)
    world.down = {"a"}
    assert [ask(servers, world.question) for _ in range(FAILURES + 2)] == ["b answers"] * (FAILURES + 2)
    assert world.asked.count("a") == FAILURES
    assert servers.states["a"] in ("refused", "no pong")
    assert servers.states["b"] == ""


def test_an_answer_between_failures_begins_the_count_anew(world, opened):
    servers = opened(["a"], world.ping)
    for _ in range(3):
        world.down = {"a"}
        for _ in range(FAILURES - 1):
            with pytest.raises(NoServer):
                ask(servers, world.question)
        world.down = set()
        ask(servers, world.question)
    assert servers.states == {"a": ""}


def test_with_all_breakers_open_nothing_is_asked_and_the_reason_is_told(world, opened):
    servers = opened(["a"], world.ping)
    servers._servers[0].pause = 60.0
    world.down = {"a"}
    for _ in range(FAILURES):
        with pytest.raises(NoServer, match="a: refused"):
            ask(servers, world.question)
    assert servers._servers[0].again > time.monotonic() + 30.0  # nor is it pinged until then
    asked = len(world.asked)
    with pytest.raises(NoServer, match="not asked, it has not answered for"):
        ask(servers, world.question)
    assert len(world.asked) == asked


def test_a_ping_in_the_background_and_one_trial_close_the_breaker(world, opened, monkeypatch):
    monkeypatch.setattr("elemta.servers.PAUSE", 0.01)
    servers = opened(["a"], world.ping)
    servers._servers[0].pause = 0.01
    world.down = {"a"}
    for _ in range(FAILURES):
        with pytest.raises(NoServer):
            ask(servers, world.question)
    world.down = set()

    def answers():
        try:
            return ask(servers, world.question) == "a answers"
        except NoServer:
            return False

    wait_for(answers)
    assert servers.states == {"a": ""}


def test_a_server_that_answers_pings_only_opens_its_breaker_again_at_the_first_question(world, opened):
    servers = opened(["a"], world.ping)
    servers._servers[0].pause = 0.01
    world.deaf = {"a"}
    for _ in range(FAILURES):
        with pytest.raises(NoServer):
            ask(servers, world.question)
    pause = servers._servers[0].pause
    wait_for(lambda: bool(servers.states) and servers._servers[0].trial)
    asked = len(world.asked)
    with pytest.raises(NoServer, match="refused"):
        ask(servers, world.question)
    assert len(world.asked) == asked + 1
    assert servers._servers[0].pause > pause
    assert not servers._servers[0].trial


def test_only_one_question_at_a_time_tries_a_server_that_came_back(world, opened):
    servers = opened(["a"], world.ping)
    server = servers._servers[0]
    server.open = server.trial = True
    server.why = "was away"
    entered, leave = threading.Event(), threading.Event()

    def slow(name, until):
        entered.set()
        leave.wait(5)
        return name

    async def both():
        until = time.monotonic() + 5
        first = asyncio.create_task(servers.ask(slow, until))
        await asyncio.to_thread(entered.wait, 5)
        with pytest.raises(NoServer, match="was away"):
            await servers.ask(slow, until)
        leave.set()
        return await first

    assert asyncio.run(both()) == "a"
    assert servers.states == {"a": ""}


def test_each_server_gets_its_share_of_the_time_and_none_is_asked_after_it(world, opened):
    servers = opened(["a", "b"], world.ping)
    shares = []

    def question(name, until):
        shares.append(until - time.monotonic())
        raise ServerError("slow")

    with pytest.raises(NoServer, match="a: slow; b: slow"):
        ask(servers, question, seconds=10.0)
    assert shares[0] <= 5.0 < shares[1] <= 10.0
    with pytest.raises(NoServer, match="no time is left"):
        ask(servers, question, seconds=-1.0)


def test_a_mistake_of_the_question_is_no_failure_of_the_server(world, opened):
    servers = opened(["a"], world.ping)

    def wrong(name, until):
        raise ZeroDivisionError

    for _ in range(FAILURES + 1):
        with pytest.raises(ZeroDivisionError):
            ask(servers, wrong)
    assert servers.states == {"a": ""}


def test_a_question_that_a_healthy_server_declines_goes_to_the_next_and_counts_for_nothing(world, opened):
    def question(name, until):
        world.asked.append(name)
        if name == "a":
            raise Declined("not this mail")
        return name

    servers = opened(["a", "b"], world.ping)
    assert [ask(servers, question) for _ in range(FAILURES + 2)] == ["b"] * (FAILURES + 2)
    assert world.asked == ["a", "b"] * (FAILURES + 2)
    assert servers.states == {"a": "", "b": ""}
    alone = opened(["a"], world.ping)
    for _ in range(FAILURES + 2):
        with pytest.raises(NoServer, match=r"^a: not this mail$"):
            ask(alone, question)
    assert alone.states == {"a": ""}


def test_what_is_declined_between_failures_neither_counts_nor_forgives(world, opened):
    servers = opened(["a"], world.ping)
    said = [ServerError("dead"), Declined("not this mail")] * (FAILURES - 1) + [ServerError("dead")]

    def question(name, until):
        raise said.pop(0)

    while len(said) > 1:
        with pytest.raises(NoServer):
            ask(servers, question)
    assert servers.states == {"a": ""}
    with pytest.raises(NoServer):
        ask(servers, question)
    assert servers.states == {"a": "dead"}


@pytest.mark.parametrize(
    ("error", "told"), [(Declined("not this mail"), NoServer), (ZeroDivisionError(), ZeroDivisionError)]
)
def test_a_trial_that_decided_nothing_leaves_the_trial_to_the_next_question(world, opened, error, told):
    servers = opened(["a"], world.ping)
    server = servers._servers[0]
    server.open = server.trial = True

    def undecided(name, until):
        raise error

    with pytest.raises(told):
        ask(servers, undecided)
    assert (server.open, server.trial, server.trying) == (True, True, False)
    assert ask(servers, world.question) == "a answers"
    assert not server.open


def test_pings_without_an_answer_come_ever_later_up_to_a_bound(world, opened):
    servers = opened(["a"], world.ping)
    server = servers._servers[0]
    server.open, world.down, pauses = True, {"a"}, []
    for _ in range(7):
        server.again = 0.0  # the pause is over
        assert list(servers.states) == ["a"]
        wait_for(lambda: not server.pinging)
        pauses.append(server.pause)
        assert server.again > time.monotonic()
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert servers.states == {"a": "no pong"}


def test_a_ping_that_crashes_without_a_word_is_no_answer(opened):
    def ping(name, until):
        raise AssertionError

    servers = opened(["a"], ping)
    server = servers._servers[0]
    server.open, server.why = True, "was away"
    assert servers.states == {"a": "was away"}
    wait_for(lambda: not server.pinging)
    assert servers.states == {"a": "AssertionError()"}


def test_whoever_closes_them_does_not_wait_for_what_hangs(world, opened):
    servers = opened(["a"], world.ping)
    entered, leave = threading.Event(), threading.Event()

    def hangs(name, until):
        entered.set()
        return leave.wait(20)

    async def closed():
        hanging = asyncio.create_task(servers.ask(hangs, time.monotonic() + 30))
        await asyncio.to_thread(entered.wait, 10)
        servers.close()
        leave.set()
        return await hanging

    assert asyncio.run(closed())  # else it was closed only when the wait was over


def test_a_server_is_ready_again_when_its_ping_was_answered(world, opened):
    """No mail need come first: a host that is not ready may get none."""
    servers = opened(["a"], world.ping)
    servers._servers[0].pause = 0.01
    world.down = {"a"}
    for _ in range(FAILURES):
        with pytest.raises(NoServer):
            ask(servers, world.question)
    assert servers.states["a"]
    world.down = set()
    wait_for(lambda: servers.states == {"a": ""})
    assert world.asked == ["a"] * FAILURES


def test_what_the_system_says_is_told_without_its_number(world, opened):
    servers = opened(["a"], world.ping)

    def question(name, until):
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(NoServer, match=r"^a: Connection refused$"):
        ask(servers, question)


def test_a_question_ends_before_nobody_waits_for_it(world, opened):
    servers = opened(["a"], world.ping)
    now = time.monotonic()
    for seconds, least in ((10.0, 9.8), (0.5, 0.4)):
        until = now + seconds
        ended = asyncio.run(servers.ask(lambda _, until: until, until))
        assert now + least < ended < until


def test_one_kind_that_hangs_takes_no_threads_from_another(world, opened):
    hanging, other = opened(["a"], world.ping), opened(["b"], world.ping)
    leave = threading.Event()

    async def both():
        until = time.monotonic() + 10
        stuck = [asyncio.create_task(hanging.ask(lambda *_: leave.wait(10), until)) for _ in range(40)]
        answer = await other.ask(world.question, until)
        leave.set()
        await asyncio.gather(*stuck)
        return answer

    assert asyncio.run(both()) == "b answers"


@pytest.mark.parametrize(("takes", "answered", "well"), [(0.4, 16, True), (60.0, 0, False)])
def test_a_burst_of_more_than_a_server_can_answer_is_no_failure_of_it(world, opened, takes, answered, well):
    """The last questions get a thread when hardly any time is left; a server that hangs fails the first ones, too."""
    servers = opened(["a"], world.ping)

    def question(name, until):
        left = until - time.monotonic()
        time.sleep(min(takes, max(0.0, left)))
        if left < takes:
            raise TimeoutError("timed out")
        return "well"

    async def burst():
        until = time.monotonic() + 1.0
        return await asyncio.gather(*(servers.ask(question, until) for _ in range(24)), return_exceptions=True)

    found = asyncio.run(burst())
    assert found.count("well") == answered
    assert all(isinstance(each, NoServer) for each in found if each != "well")
    assert (servers.states["a"] == "") == well

"""Redis: what other servers do not do: refuse, hang, start anew, lie, and want a password, TLS or a sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import time

import pytest

from elemta.config.state_url import state_place
from elemta.store import GreyTerms, Quota, StoreError, Use, redis, redis_client
from elemta.store.redis import RedisStore
from elemta.store.urls import open_rehearsal
from harness.redis import PrivateRedis, shared, why_not
from harness.state import use

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

TERMS = GreyTerms(delay=300, window=172800, keep=3024000, proven=5)


@pytest.fixture
def server():
    shared().plain.flushall()
    return shared()


async def fails(work, told):
    """Seconds that it took to fail with these words."""
    began = time.monotonic()
    with pytest.raises(StoreError, match=told):
        await work
    return time.monotonic() - began


# ── ways to it ───────────────────────────────────────────────────────────────────────────────────────────────


async def every_kind(store):
    """One call of each kind: reads, scripts, sets."""
    assert (await store.greylist("t", "n", 1000.0, TERMS)).attempts == 1
    assert await store.reserve("m", [Quota("k", "", 1, 60.0, 5)], 1000.0) == [Use(0)]
    assert await store.consume("m", "q", {}, 1000.0) == 1
    await store.remember_contacts(["a", "b"], 1000.0, 2000.0)
    assert set(await store.contacts(["a", "b", "c"], 1500.0)) == {"a", "b"}
    await store.add_to_set("s", "e", 2000.0)
    assert (await store.set_entries("s", 1500.0), await store.set_size("s", 1500.0)) == ({"e": 2000.0}, 1)
    assert await store.expire(3000.0) == 1
    assert await store.set_entries("s", 0.0) == {}
    return await store.sets_version()


def test_a_socket_a_password_and_a_database(tmp_path):
    with PrivateRedis(requirepass="s#e c/r@t%", unixsocketperm="700") as redis_:
        password = "s#e c/r@t%25"
        for url in (
            f"redis+unix://:{password}@{redis_.socket}?db=3",
            f"redis://default:{password}@127.0.0.1:{redis_.port}/4",
        ):
            assert use(url, every_kind) == 1
        databases = set(redis_.plain.info("keyspace"))
        assert databases == {"db3", "db4"}
        for wrong in (f"redis+unix://:guess@{redis_.socket}", f"redis://127.0.0.1:{redis_.port}"):
            use(wrong, lambda store: fails(store.sets_version(), "password|Authentication required"))


@pytest.fixture
def authority(tmp_path):
    """Makes an authority, which is a server's certificate as well: how a server is told of it."""

    def made(name):
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=redis.test"
        paths = ["-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"]
        subprocess.run(
            [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", *paths], check=True, capture_output=True
        )
        files = {"tls_cert_file": f"{tmp_path}/{name}.pem", "tls_key_file": f"{tmp_path}/{name}.key"}
        return {"tls_auth_clients": "no", "tls_ca_cert_file": f"{tmp_path}/{name}.pem", **files}

    return made


def test_tls(tmp_path, authority, monkeypatch):
    with PrivateRedis(**authority("ca")) as redis_:
        redis_.plain.config_set("tls-port", port := redis_.another_port())
        assert use(f"rediss://127.0.0.1:{port}?ca={tmp_path}/ca.pem", every_kind) == 1
        use(f"rediss://127.0.0.1:{port}", lambda store: fails(store.sets_version(), "(?i)certificate verify failed"))
        use(f"redis://127.0.0.1:{port}", lambda store: fails(store.sets_version(), "."))
        missing = f"rediss://127.0.0.1:{port}?ca={tmp_path}/missing.pem"
        use(missing, lambda store: fails(store.sets_version(), "No such file"))
        authority("other")
        monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/ca.pem")  # the system's authorities
        assert use(f"rediss://127.0.0.1:{port}", lambda store: store.sets_version()) == 1
        others = f"rediss://127.0.0.1:{port}?ca={tmp_path}/other.pem"
        use(others, lambda store: fails(store.sets_version(), "(?i)certificate verify failed"))


def test_tls_costs_no_more_when_many_mails_come_at_once(tmp_path, authority):
    with PrivateRedis(**authority("ca")) as redis_:
        redis_.plain.config_set("tls-port", port := redis_.another_port())

        async def work(store):
            began = time.monotonic()
            await asyncio.gather(*(store.greylist(f"t{number}", "n", 1000.0, TERMS) for number in range(60)))
            return time.monotonic() - began

        assert use(f"rediss://127.0.0.1:{port}?ca={tmp_path}/ca.pem", work) < redis.PATIENCE / 2


def test_tls_to_a_cluster(tmp_path, authority):
    files = authority("ca")
    port = PrivateRedis.another_port()
    with PrivateRedis(cluster=True, tls_port=str(port), tls_cluster="yes", **files):
        assert use(f"redis+cluster://127.0.0.1:{port}?tls=true&ca={tmp_path}/ca.pem", every_kind) == 1
        unknown = f"redis+cluster://127.0.0.1:{port}?tls=true"
        use(unknown, lambda store: fails(store.sets_version(), "(?i)certificate verify failed"))


def test_tls_to_sentinels_and_to_the_master_believes_one_authority(tmp_path, authority):
    authority("ca")
    place = state_place(f"redis+sentinel://127.0.0.1:1/mail?tls=true&ca={tmp_path}/ca.pem")
    for client in (store := RedisStore(place))._client, *store._sentinels:
        [of] = client.connection_pool.make_connection().ssl_context.get().get_ca_certs()
        assert of["subject"] == ((("commonName", "redis.test"),),)


def test_a_sentinel_names_the_master_also_after_it_was_killed():
    with PrivateRedis(sentinel=True) as redis_:

        async def work(store):
            assert await every_kind(store) == 1
            redis_.stop()
            assert await fails(store.sets_version(), "redis\\+sentinel://127.0.0.1:\\d+/mail: ") < redis.PATIENCE
            redis_.start()
            return await until(store.sets_version)

        assert use(redis_.url, work) == 0  # it kept nothing


async def until(asked, seconds=10.0):
    """The first answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await asked()
        except StoreError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


# ── a server that fails ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_one_that_is_not_there_is_told_at_once(scheme):
    url = f"{scheme}://:hunter2@127.0.0.1:1"

    async def work(store):
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1: ") as caught:
            await store.greylist("t", "n", 0.0, TERMS)
        assert "hunter2" not in str(caught.value)
        assert time.monotonic() - began < redis.PATIENCE

    use(url, work)


def test_sentinels_that_are_not_there_are_told_in_a_line():
    url = "redis+sentinel://:hunter2@127.0.0.1:1,127.0.0.1:2/mail"
    told = r"^redis\+sentinel://127\.0\.0\.1:1,127\.0\.0\.1:2/mail: No master found for 'mail'$"
    assert use(url, lambda store: fails(store.sets_version(), told)) < redis.PATIENCE


def test_one_that_hangs_costs_little_and_answers_again_when_it_goes_on(server, monkeypatch):
    monkeypatch.setattr(redis_client, "SILENCE", 0.3)
    monkeypatch.setattr(redis, "ALONE", 0.5)

    async def work(store):
        await store.greylist("t", "n", 1000.0, TERMS)
        server.signal(signal.SIGSTOP)
        try:
            for _ in range(redis.LATE):
                assert 0.2 < await fails(store.sets_version(), "no answer in time") < 3
            await fails(store.sets_version(), "no answer in time")  # it is tried now and then
            assert await fails(store.sets_version(), r"not asked, it did not answer \d times in a row") < 0.1
        finally:
            server.signal(signal.SIGCONT)
        await until(store.sets_version)
        assert (await store.greylist("t", "n", 1001.0, TERMS)).attempts == 2
        assert await store.sets_version() == 0

    use(server.url, work)


def test_one_that_hangs_is_left_alone_also_by_checks_that_do_not_wait_so_long(server):
    async def work(store):
        async def waits(seconds):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await store.sets_version()

        await store.sets_version()
        server.signal(signal.SIGSTOP)
        try:
            for _ in range(10):
                await waits(0.01)  # somebody went away
            for _ in range(redis.LATE + 1):  # it is tried now and then
                await waits(0.3)
            await fails(store.sets_version(), r"not asked, it did not answer \d times in a row")
        finally:
            server.signal(signal.SIGCONT)
        await until(store.sets_version)

    use(server.url, work)


def test_one_that_was_started_anew_is_asked_again_without_trouble():
    with PrivateRedis() as redis_:

        async def work(store):
            await every_kind(store)
            redis_.stop()
            redis_.start()
            return await every_kind(store)

        assert use(redis_.url, work) == 1


def test_scripts_that_the_server_forgot_are_told_again(server):
    async def work(store):
        await every_kind(store)
        server.plain.flushall()
        server.plain.script_flush()
        return await every_kind(store)

    assert use(server.url, work) == 1


def test_what_nobody_can_read_begins_anew_and_what_is_something_else_is_trouble(server):
    for number, garbage in enumerate([b"", b"\xff\xfe", b"{}", b"[1]", b"[" * 5000, b'{"first": "x"}', b"NaN"]):
        server.plain.set(f"elemta:grey:g{number}", garbage)
        server.plain.set(f"elemta:net:g{number}", garbage)
        server.plain.set(f"elemta:pair:g{number}", garbage)
    server.plain.rpush("elemta:grey:list", "x")
    server.plain.set("elemta:{sets}:entries:s", "x")
    server.plain.set("elemta:{sets}:version", "many")

    async def work(store):
        for number in range(7):
            key = f"g{number}"
            assert (await store.greylist(key, key, 1000.0, TERMS)).attempts == 1
            assert (await store.greylist(key, key, 1001.0, TERMS)).attempts == 2
            await store.remember_contacts([key], 1000.0, 2000.0)
            assert await store.contacts([key], 1500.0) == {key: 1000.0}
        await fails(store.set_entries("s", 0.0), "WRONGTYPE")
        await fails(store.add_to_set("s", "e", 0.0), "WRONGTYPE")
        await fails(store.sets_version(), "no number")
        await fails(store.greylist("list", "n", 0.0, TERMS), "WRONGTYPE|others were faster")

    use(server.url, work)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*2\r\n$", b"$99999999999\r\nx", b"+OK\r\n" * 50, b"\0" * 100,
     b"*-7\r\n", b"*" * 100_000, b":1\r\n:1\r\n:1\r\n:1\r\n"],
)  # fmt: skip
def test_one_that_lies_is_trouble_and_nothing_else(answer, monkeypatch):
    monkeypatch.setattr(redis_client, "SILENCE", 0.3)

    async def work():
        async def lie(reader, writer):
            with contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    writer.write(answer)
                    if not answer:
                        break
            writer.close()

        liar = await asyncio.start_server(lie, "127.0.0.1", 0)
        port = liar.sockets[0].getsockname()[1]
        store = RedisStore(state_place(f"redis://127.0.0.1:{port}"))
        began = time.monotonic()
        for asking in (
            store.greylist("t", "n", 0.0, TERMS),
            store.reserve("m", [Quota("k", "", 1, 60.0, 5)], 0.0),
            store.set_entries("s", 0.0),
            store.contacts(["a"], 0.0),
            store.expire(0.0),
        ):
            with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1"):
                await asking
        assert time.monotonic() - began < 5 * redis.PATIENCE
        await store.close()
        liar.close()

    asyncio.run(work())


def test_whoever_stops_waiting_leaves_no_answer_for_others(server):
    async def work(store):
        for number in range(40):
            await store.add_to_set(f"s{number}", f"e{number}", 0.0)
        chance = random.Random(7)

        async def ask(number):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0, 0.02)):
                    assert await store.set_entries(f"s{number}", 1.0) == {f"e{number}": 0.0}

        for _ in range(10):
            await asyncio.gather(*(ask(number) for number in range(40)))
        for number in range(40):
            assert await store.set_entries(f"s{number}", 1.0) == {f"e{number}": 0.0}

    use(server.url, work)


# ── what stands in it ────────────────────────────────────────────────────────────────────────────────────────


def test_hundreds_at_once_wait_their_turn(server):
    async def work(store):
        seen = await asyncio.gather(*(store.greylist(f"t{number}", "n", 1000.0, TERMS) for number in range(500)))
        assert all(grey.attempts == 1 for grey in seen)
        assert server.plain.info("clients")["connected_clients"] <= redis.CONNECTIONS + 2

    use(server.url, work)


def test_a_mail_to_hundreds_of_recipients_does_not_wait_for_each(server):
    async def far_away(reader, writer):
        """A line on which every answer takes 20 ms."""
        there, back = await asyncio.open_connection("127.0.0.1", server.port)

        async def carry(source, target):
            with contextlib.suppress(ConnectionError):
                while octets := await source.read(65536):
                    await asyncio.sleep(0.01)
                    target.write(octets)
            target.close()

        await asyncio.gather(carry(reader, back), carry(there, writer))

    async def work():
        line = await asyncio.start_server(far_away, "127.0.0.1", 0)
        store = RedisStore(state_place(f"redis://127.0.0.1:{line.sockets[0].getsockname()[1]}"))
        pairs = [str(number) for number in range(400)]
        await store.remember_contacts(pairs, 1000.0, 5000.0)
        assert await store.contacts(pairs, 2000.0) == dict.fromkeys(pairs, 1000.0)
        await store.close()
        line.close()

    asyncio.run(work())


def test_who_wrote_to_whom_is_not_told_in_trouble(server):
    async def work(store):
        server.plain.config_set("maxmemory", "1")
        try:
            await fails(
                store.remember_contacts(["a", "b"], 1000.0, 2000.0), r"127\.0\.0\.1:\d+: command not allowed when"
            )
        finally:
            server.plain.config_set("maxmemory", "0")

    use(server.url, work)


def test_whatever_is_remembered_has_an_end(server):
    use(server.url, every_kind)
    lasting = {key for key in server.plain.scan_iter() if server.plain.pttl(key) < 0}
    assert lasting == {b"elemta:{sets}:version", b"elemta:{sets}:names"}
    assert 0 < server.plain.pttl("elemta:grey:t") <= TERMS.window * 1000
    assert 0 < server.plain.pttl("elemta:pair:a") <= 1_000_000


def test_a_clock_that_is_far_behind_makes_nothing_stay_for_decades(server):
    async def work(store):
        for now in (1.8e9, 100.0):
            await store.greylist("t", "n", now, TERMS)
            await store.remember_contacts(["p"], now, now + 5000)
            await store.reserve("m", [Quota("k", "", 1, 3600.0, 5)], now)
            await store.consume("m", "q", {}, now)
        assert await store.contacts(["p"], 1.8e9 + 1) == {"p": 100.0}

    use(server.url, work)
    assert max(server.plain.pttl(key) for key in server.plain.scan_iter()) <= TERMS.window * 1000


def test_uses_and_reservations_of_long_ago_do_not_pile_up(server, monkeypatch):
    async def work(store):
        for number in range(1500):
            now = 1000.0 + number * 10
            await store.reserve(f"m{number}", [Quota("k", "", 1, 60.0, 10_000)], now)
            if number % 2:
                await store.consume(f"m{number}", "", {}, now)

    use(server.url, work)
    sizes = [server.plain.hlen(key) for key in server.plain.scan_iter("elemta:{limits}:used:*")]
    sizes += [server.plain.zcard(key) for key in server.plain.scan_iter("elemta:{limits}:held:*")]
    assert max(sizes) <= 1000


# ── rehearsed ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rehearsal_sees_what_is_there_and_changes_nothing(server):
    async def before(store):
        await store.greylist("known", "n", 0.0, TERMS)
        await store.greylist("known", "n", 300.0, TERMS)
        await store.reserve("other", [Quota("k", "", 3, 3600.0, 5)], 1000.0)
        await store.consume("other", "", {}, 1000.0)
        await store.add_to_set("s", "e", 0.0)

    use(server.url, before)
    dump = {key: server.plain.dump(key) for key in server.plain.scan_iter()}

    async def rehearse():
        store = open_rehearsal(state_place(server.url))
        assert (await store.greylist("known", "n", 400.0, TERMS)).known
        assert not (await store.greylist("new", "n", 400.0, TERMS)).passed
        uses = [await store.reserve("mine", [Quota("k", part, 1, 3600.0, 5)], 1000.0) for part in ("r1", "r2", "r2")]
        assert uses == [[Use(3)], [Use(4)], [Use(4)]]
        [full] = await store.reserve("mine", [Quota("k", "r3", 1, 3600.0, 5)], 1000.0)
        assert (full.used, full.wait > 0) == (5, True)
        assert await store.release("mine", "r2") == 1
        assert await store.reserve("mine", [Quota("k", "", 2, 3600.0, 5)], 1000.0) == [Use(3)]
        assert await store.reserve("mine", [Quota("k", "", 2, 3600.0, 5)], 1000.0) == [Use(3)]
        assert await store.consume("mine", "q", {}, 1000.0) == 0
        await store.add_to_set("s", "f", 0.0)
        await store.remember_contacts(["a"], 0.0, 10.0)
        assert await store.set_entries("s", 0.0) == {"e": 0.0}
        await store.close()

    asyncio.run(rehearse())
    assert {key: server.plain.dump(key) for key in server.plain.scan_iter()} == dump

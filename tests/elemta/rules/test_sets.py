"""Named sets: membership by word, domain, address and network; files that change."""

import asyncio
import os
import time
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from elemta.rules import refresh
from elemta.rules.sets import NamedSet, literal, members, read_file
from elemta.store import StoreError
from elemta.store.sqlite import SqliteStore
from elemta.testing import policy


@pytest.mark.parametrize(
    ("entries", "value", "holds"),
    [
        (["Example.ORG"], "example.org", True),
        (["example.org"], "EXAMPLE.org", True),
        (["example.org"], "sub.example.org", False),
        ([".example.org"], "sub.example.org", True),
        ([".example.org"], "a.b.example.org", True),
        ([".example.org"], "example.org", False),
        ([".example.org"], "notexample.org", False),
        ([".example.org"], "user@sub.example.org", True),
        (["example.org."], "example.org", True),
        (["anna@example.org."], "anna@example.org", True),
        (['"anna"@example.org'], "anna@example.org", True),
        (['"an na"@example.org'], '"an na"@example.org', True),
        (["Hello."], "hello", False),
        (["10.0.0.0/8"], ip_address("10.255.0.1"), True),
        (["10.0.0.0/8", "10.0.0.0/24"], ip_address("11.0.0.1"), False),
        (["0.0.0.0/0"], ip_address("11.0.0.1"), True),
        (["10.0.0.0/255.0.0.0"], ip_address("10.255.0.1"), True),
        (["10.0.0.0/255.0.0.0"], ip_address("11.0.0.1"), False),
        (["192.0.2.1"], ip_address("192.0.2.1"), True),
        (["192.0.2.1"], "192.0.2.1", True),
        (["2001:db8::/32"], "2001:db8::5", True),
        (["10.0.0.0/8"], "10.1", False),  # begins as an address, is a word
        (["2001:db8::/32"], ip_address("2001:db8::5"), True),
        (["2001:db8::/32"], ip_address("192.0.2.1"), False),
        (["::ffff:192.0.2.0/120"], ip_address("192.0.2.9"), True),
        (["::ffff:192.0.2.0/120"], ip_address("192.0.3.9"), False),
        (["::FFFF:c000:0201"], ip_address("192.0.2.1"), True),
        (["::ffff:0:0/96"], ip_address("192.0.2.1"), True),
        (["::ffff:192.0.2.1"], "::ffff:192.0.2.1", True),
        (["192.0.2.0/24"], ip_address("::ffff:192.0.2.1"), True),
        (["::/0"], ip_address("192.0.2.1"), False),
        (["a:b"], "a:b", True),  # looks like an address, is a word
        (["1.2.3"], "1.2.3", True),
        (["bücher.example"], "xn--bcher-kva.example", True),
        (["Jürgen"], "jürgen", True),  # a login
        (["Jürgen@bücher.example"], "jürgen@bücher.example", True),
        (["Jürgen@bücher.example"], "jürgen@xn--bcher-kva.example", True),
        (["42"], 42, True),
        ([], "x", False),
    ],
)
def test_membership(entries, value, holds):
    assert (value in members(entries)) is holds


def test_a_network_with_host_bits_is_an_error():
    with pytest.raises(ValueError, match=r'"10.0.0.1/8" is no network'):
        members(["10.0.0.1/8"])
    with pytest.raises(ValueError, match=r'"10.0.0.1/255.0.0.0" is no network, .*; write 10.0.0.0/8'):
        members(["10.0.0.1/255.0.0.0"])


def test_a_file_has_comments_and_its_errors_have_lines(tmp_path):
    path = tmp_path / "set.txt"
    path.write_text("# all\n\n 10.0.0.0/8 # inside\npartner.example\n")
    assert len(read_file(path)) == 2

    path.write_bytes(b"\xef\xbb\xbfpartner.example\r\n10.0.0.0/8\r\n")  # as editors of Windows write it
    assert "partner.example" in read_file(path)

    path.write_text("ok.example\n10.0.0.9/8\n")
    with pytest.raises(ValueError, match=r"set.txt:2: .*10.0.0.9/8"):
        read_file(path)


def test_a_file_is_read_again_when_it_changes_and_kept_when_it_breaks(tmp_path):
    path = tmp_path / "set.txt"
    path.write_text("one.example\n")
    named = NamedSet("n", path=path)
    named.reread()
    assert not named.changed()

    path.write_text("one.example\ntwo.example\n")
    assert named.changed()
    named.reread()
    assert "two.example" in named.members

    path.write_text("10.0.0.9/8\n")
    with pytest.raises(ValueError, match="no network"):
        named.reread()
    assert "two.example" in named.members
    assert not named.changed()

    path.unlink()
    assert named.changed()  # which is told once
    with pytest.raises(FileNotFoundError):
        named.reread()
    assert "two.example" in named.members
    assert not named.changed()

    path.write_text("three.example\n")
    assert named.changed()
    named.reread()
    assert "three.example" in named.members


def test_a_file_is_read_before_the_first_mail(tmp_path):
    path = tmp_path / "set.txt"
    path.write_text("one.example\n")
    of = policy(f"host: mx.test\nsets: {{bad: {{file: {path}}}}}\n")
    assert "one.example" in of.sets["bad"].members


def test_every_name_below_a_domain_may_be_written_with_a_star():
    below = members(["*.Example.org", "*.b\u00fccher.example", "*."])
    for name in ("a.example.org", "x@a.b.example.org", "a.xn--bcher-kva.example", "*."):
        assert name in below
    for name in ("example.org", "aexample.org", "org"):
        assert name not in below


def test_a_million_entries_are_asked_by_hashing():
    """Work is counted, not time: one look-up for each prefix length that occurs."""
    many = members([f"10.{a}.{b}.0/24" for a in range(16) for b in range(256)] + ["192.0.2.0/28"])

    assert len(many.networks4) == 2
    began = time.perf_counter()
    for _ in range(1000):
        assert ip_address("10.3.4.5") in many
    assert time.perf_counter() - began < 5


def test_a_file_in_utf_16_is_refused_rather_than_never_matched(tmp_path):
    path = tmp_path / "set.txt"
    for octets, line in (("bad.example\n".encode("utf-16"), 1), (b"bad.example\nworse.example\n\0\0\0", 3)):
        path.write_bytes(octets)
        with pytest.raises(ValueError, match=rf"set\.txt:{line}: a NUL character .*UTF-8"):
            read_file(path)


def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="is not a file; name a file"):
        read_file(pipe)
    with pytest.raises(ValueError, match="is not a file"):
        read_file(tmp_path)


@pytest.fixture
def dynamic(tmp_path):
    """A dynamic set with these entries in the store; what `refresh` makes of it at some time."""

    def at(entries, *times):
        async def look():
            store, clock = SqliteStore(str(tmp_path / "state.db")), [0.0]
            named, version = NamedSet(path=None, name="x", dynamic=True), -1
            for entry, until in entries:
                await store.add_to_set("x", entry, until)
            for clock[0] in times:
                version = await refresh._snapshot(
                    [named], SimpleNamespace(store=store, clock=lambda: clock[0]), version
                )
            await store.close()
            return named.members

        return asyncio.run(look())

    return at


def test_sets_are_looked_at_also_after_a_look_that_failed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(refresh, "INTERVAL", 0.01)
    (tmp_path / "set.txt").write_text("a.test\n")

    async def in_thread(function, *arguments):
        looks.append(function)
        if len(looks) == 1:
            raise RuntimeError("can't start new thread")  # as a system without room for one has it
        return function(*arguments)

    async def wait_for(holds):
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - what is waited for must not know of the test
                await asyncio.sleep(0.01)

    async def run():
        file = NamedSet(path=tmp_path / "set.txt", name="file")
        live = NamedSet(path=None, name="live", dynamic=True)
        store = SqliteStore(str(tmp_path / "state.db"))
        store._db.execute("DELETE FROM sets_version")  # nobody does
        tools = SimpleNamespace(store=store, clock=lambda: 0.0, in_thread=in_thread)
        looking = asyncio.create_task(refresh.refresh_sets({"file": file, "live": live}, tools, -1))
        await wait_for(lambda: "a.test" in file.members)
        store._db.execute("INSERT INTO sets_version VALUES (0)")
        await store.add_to_set("live", "b.test", 0)
        await wait_for(lambda: "b.test" in live.members)
        looking.cancel()
        await store.close()

    looks = []
    asyncio.run(run())
    assert "set file stays as it was" in caplog.text
    assert "dynamic sets stay as they were" in caplog.text


def test_a_store_that_does_not_answer_is_told_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(refresh, "INTERVAL", 0.0)
    caplog.set_level("INFO")
    looks = iter([*[StoreError("gone")] * 9, 0, 0, *[StoreError("gone again")] * 9, asyncio.CancelledError()])

    async def sets_version():
        look = next(looks)
        if look:
            raise look
        return 0

    async def run():
        live = {"live": NamedSet(path=None, name="live", dynamic=True)}
        store = SqliteStore(str(tmp_path / "state.db"))
        monkeypatch.setattr(store, "sets_version", sets_version)
        tools = SimpleNamespace(store=store, clock=lambda: 0.0)
        await refresh.refresh_sets(live, tools, await refresh.first_snapshot(live, tools))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    stay = "dynamic sets stay as they were: "
    at_the_start, *then = [record.message for record in caplog.records]
    assert at_the_start == stay + "gone"
    assert then == [stay + "gone", "dynamic sets are current again", stay + "gone again"]


def test_a_look_reads_the_entries_only_when_some_came_or_went(dynamic, monkeypatch):
    read, entries = [], SqliteStore.set_entries
    monkeypatch.setattr(SqliteStore, "set_entries", lambda store, *of: read.append(of[1]) or entries(store, *of))
    dynamic([("bob@a.test", 0), ("eve@a.test", 100)], 50, 51, 52, 150, 151)
    assert read == [50, 150]


def test_an_entry_ends_though_others_are_the_same_but_for_case(dynamic):
    entries = [("Bob@a.test", 0), ("bob@a.test", 0), ("eve@a.test", 100)]
    assert "eve@a.test" in dynamic(entries, 50)
    assert "eve@a.test" not in dynamic(entries, 50, 150)


def test_a_network_that_a_rule_made_of_an_address_is_the_one_around_it(dynamic):
    found = dynamic([("192.0.2.7/24", 0), ("2001:db8:1:2::5/64", 0)], 1)  # {client.address}/24
    assert all(ip_address(each) in found for each in ("192.0.2.9", "2001:db8:1:2:3::"))
    assert ip_address("192.0.3.7") not in found


def test_what_a_rule_took_from_a_mail_and_is_no_network_is_a_word(dynamic):
    found = dynamic([("1.2.3.4/99", 0), ("new@a.test", 0)], 1)
    assert "1.2.3.4/99" in found
    assert "new@a.test" in found


@pytest.mark.parametrize(
    ("fact", "entry"),
    [
        (".com", "com"),
        ("*.*..com", "com"),
        ("0.0.0.0/0", "0.0.0.0"),
        ("::/0", "::"),
        ("bob@a.test", "bob@a.test"),
        ("*x@a.test", "*x@a.test"),
        ("mail/7", "mail/7"),
        ("cafe/7up", "cafe/7up"),
        ("", ""),
    ],
)
def test_a_fact_is_no_pattern(fact, entry):
    assert literal(fact) == entry

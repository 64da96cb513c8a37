"""`elemta sets`: what an administrator types, and what the daemons then see."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import datetime

import pytest

from elemta.cli import main
from elemta.store.urls import open_store

POLICY = """
host: mx.here.test
state: sqlite://{directory}/state.db
sets:
  frozen: {{dynamic: true}}
  ours: [here.test]
  other: {{dynamic: true}}
"""


@pytest.fixture
def sets(tmp_path, capsys):
    """Run the command; (status, standard output, standard error)."""
    path = tmp_path / "elemta.yaml"
    path.write_text(POLICY.format(directory=tmp_path))

    def run(action, *args):
        try:
            status = main(["sets", action, "--config", str(path), *args])
        except SystemExit as ended:
            status = ended.code
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def entries(tmp_path, name, now=0.0):
    async def read():
        store = open_store(f"sqlite://{tmp_path}/state.db")
        try:
            return dict(await store.set_entries(name, now))
        finally:
            await store.close()

    return asyncio.run(read())


def test_add_list_remove(sets, tmp_path):
    assert sets("add", "frozen", "bob") == (0, "", "")
    assert sets("add", "frozen", "Alice", "--ttl", "1h") == (0, "", "")
    assert sets("add", "other", "10.0.0.0/8") == (0, "", "")
    found = entries(tmp_path, "frozen")
    assert found["bob"] == 0.0
    assert 3590 < found["Alice"] - time.time() <= 3600
    status, out, _ = sets("list", "frozen")
    assert status == 0
    assert out.splitlines()[0].startswith("Alice\tuntil 2")
    assert out.splitlines()[1] == "bob"
    assert sets("list") == (0, "frozen\t2\nother\t1\n", "")
    assert sets("remove", "frozen", "ALICE") == (0, "", "")
    assert sets("list", "frozen") == (0, "bob\n", "")


def test_what_has_expired_is_not_listed(sets):
    sets("add", "frozen", "bob", "--ttl", "1ms")
    time.sleep(0.01)
    assert sets("list", "frozen") == (0, "", "")


def test_lists_for_programs(sets):
    sets("add", "frozen", "bob")
    sets("add", "frozen", "alice", "--ttl", "1h")
    sets("add", "frozen", "carol", "--ttl", "999999999w")
    status, out, err = sets("list", "frozen", "--json")
    assert (status, err) == (0, "")
    found = {each["entry"]: each["until"] for each in map(json.loads, out.splitlines())}
    assert found["bob"] is None
    assert 3500 < datetime.fromisoformat(found["alice"]).timestamp() - time.time() <= 3600
    assert found["carol"].startswith("9999-12-28")
    listed = [json.loads(line) for line in sets("list", "--json")[1].splitlines()]
    assert listed == [{"set": "frozen", "entries": 3}, {"set": "other", "entries": 0}]


def test_what_is_wrong_elsewhere_holds_nobody_up(sets, tmp_path):
    path = tmp_path / "elemta.yaml"
    path.write_text(path.read_text() + "  gone: {file: gone.txt}\nmilter: {workers: none}\n")
    for words, out in (
        (("add", "frozen", "bob"), ""),
        (("list", "frozen"), "bob\n"),
        (("list",), "frozen\t1\nother\t0\n"),
        (("remove", "frozen", "bob"), ""),
    ):
        status, told, err = sets(*words)
        assert (status, told) == (0, out)
        assert err == f"warning: {path} has mistakes, `elemta config check {path}` tells them\n"


@pytest.mark.parametrize("wrong", ["sets: {frozen: {dynamic: 7}}", "state: nothing", "stata: x"])
def test_what_is_wrong_with_the_set_or_the_store_is_told(tmp_path, capsys, wrong):
    path = tmp_path / "elemta.yaml"
    sets = "" if wrong.startswith("sets") else "sets: {frozen: {dynamic: true}}\n"
    path.write_text(f"host: mx.here.test\n{sets}{wrong}\n")
    assert main(["sets", "list", "--config", str(path), "frozen"]) == os.EX_CONFIG
    assert f"{path}:{2 + bool(sets)}:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("remove", "frozen", "nobody"), 1, "nobody is not in frozen"),
        (("add", "ours", "a.test"), os.EX_DATAERR, "ours is not dynamic"),
        (("list", "missing"), os.EX_DATAERR, "has no set missing; its dynamic sets: frozen, other"),
        (("add", "frozen", "10.0.0.1/8"), os.EX_DATAERR, "10.0.0.1/8"),
        (("add", "frozen", "10/8"), os.EX_DATAERR, '"10/8" is no IP address or network'),
        (("add", "frozen", " bob"), os.EX_DATAERR, "has blanks around it"),
        (("add", "frozen", "bob", "--ttl", "soon"), os.EX_USAGE, "not a duration"),
        (("add", "frozen"), os.EX_USAGE, "ENTRY"),
    ],
)
def test_what_cannot_be_done(sets, words, status, told):
    found, out, err = sets(*words)
    assert found == status
    assert told in err
    assert out == ""


def test_a_state_store_that_does_not_open(sets, tmp_path):
    (tmp_path / "state.db").write_bytes(b"no database" * 100)
    status, _, err = sets("list")
    assert status == os.EX_UNAVAILABLE
    assert "state.db: damaged (file is not a database); move it" in err


@pytest.mark.parametrize("entry", ["", "  ", "a\nb", "\x1b[31m"])
def test_an_entry_is_one_word(sets, tmp_path, entry):
    assert sets("add", "frozen", entry) == (os.EX_DATAERR, "", "elemta sets: an entry is one word on one line\n")
    assert entries(tmp_path, "frozen") == {}


def test_a_time_beyond_the_calendar(sets):
    assert sets("add", "frozen", "bob", "--ttl", "999999999w") == (0, "", "")
    status, out, _ = sets("list", "frozen")
    assert status == 0
    assert out.startswith("bob\tuntil 9999-12-28")

"""`elemta sets`: what an administrator types, and what the daemons then see."""

from __future__ import annotations

import asyncio
import os
import time

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


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("remove", "frozen", "nobody"), 1, "nobody is not in frozen"),
        (("add", "ours", "a.test"), os.EX_DATAERR, "ours is not dynamic"),
        (("list", "missing"), os.EX_DATAERR, "has no set missing; its dynamic sets: frozen, other"),
        (("add", "frozen", "10.0.0.1/8"), os.EX_DATAERR, "10.0.0.1/8"),
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
    assert "state.db: file is not a database" in err


@pytest.mark.parametrize("entry", ["", "  ", "a\nb", "\x1b[31m"])
def test_an_entry_is_one_word(sets, tmp_path, entry):
    assert sets("add", "frozen", entry) == (os.EX_DATAERR, "", "elemta sets: an entry is one word on one line\n")
    assert entries(tmp_path, "frozen") == {}


def test_a_time_beyond_the_calendar(sets):
    assert sets("add", "frozen", "bob", "--ttl", "999999999w") == (0, "", "")
    status, out, _ = sets("list", "frozen")
    assert status == 0
    assert out.startswith("bob\tuntil 9999-12-28")

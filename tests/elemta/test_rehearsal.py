"""Rehearsals read a mail file as a milter gets it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.config.load import loaded_and
from elemta.explain.rehearsal import copied, read_mail, rehearse
from elemta.facts import Client
from elemta.policy import Policy
from elemta.store import StoreError
from elemta.store.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("mail", "fields", "body"),
    [
        (b"A: b\n\nbody\n", [(b"A", b" b")], b"body\r\n"),
        (b"A: b\r\n\r\nbody\r\n", [(b"A", b" b")], b"body\r\n"),
        (b"A: b\n\tc\n d\nE:f\n\n", [(b"A", b" b\r\n\tc\r\n d"), (b"E", b"f")], b""),
        (b"From alice@x.test Mon Nov 23\nA: b\n\nbody", [(b"A", b" b")], b"body\r\n"),
        (b"A: b\nno field\nbody\n", [(b"A", b" b")], b"no field\r\nbody\r\n"),
        (b"A: b", [(b"A", b" b")], b""),
        (b"A: b\n", [(b"A", b" b")], b""),
        (b"\nbody", [], b"body\r\n"),
        (b" folded\nA: b\n\n", [], b" folded\r\nA: b\r\n\r\n"),
        (b"", [], b""),
        (b"Spaced : x\n\n", [(b"Spaced", b" x")], b""),
        (b"8bit\xff: x\n\n", [], b"8bit\xff: x\r\n\r\n"),
        (b"A: \xff\x00\n\n\x00\n", [(b"A", b" \xff\x00")], b"\x00\r\n"),
        (b"A: b\n \n\nbody", [(b"A", b" b\r\n ")], b"body\r\n"),
    ],
)
def test_header_and_body_are_parted_where_postfix_parts_them(mail, fields, body):
    found, rest = read_mail(mail)
    assert (list(found), rest.data) == (fields, body)


@given(st.binary(max_size=400) | st.text(alphabet="A: \n\r\tx", max_size=60).map(str.encode))
def test_no_octets_break_it(mail):
    fields, body = read_mail(mail)
    assert all(name and b"\n" not in name for name, _ in fields)
    assert b"\n" not in body.data.replace(b"\r\n", b"")


def test_a_store_that_cannot_be_read_says_so(tmp_path):
    (tmp_path / "state.db").write_bytes(b"no database at all, and longer than a header" * 50)

    async def use():
        async with copied(f"sqlite://{tmp_path}/state.db"):
            pass

    with pytest.raises(StoreError, match="cannot be read"):
        asyncio.run(use())


def test_dynamic_sets_that_cannot_be_read_are_not_taken_for_empty(tmp_path):
    (tmp_path / "elemta.yaml").write_text(
        "{host: mx.test, state: 'redis://127.0.0.1:1', dns: {servers: [127.0.0.1]}, sets: {bad: {dynamic: true}},"
        " rules: {recipient: [{id: bad, when: {sender: {in: bad}}, then: reject}]}}"
    )
    policy = loaded_and(Policy.compile, tmp_path / "elemta.yaml")
    with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:1"):
        asyncio.run(rehearse(policy, Client(), "a@b.test", ["c@d.test"], b"Subject: x\n\n"))


def test_a_path_may_begin_with_two_slashes(tmp_path):
    url = f"sqlite:///{tmp_path}/state.db"  # as other programs' URLs have it: sqlite:////var/…
    assert url.startswith("sqlite:////")

    async def use():
        store = SqliteStore(f"{tmp_path}/state.db")
        await store.add_to_set("frozen", "anna", 0.0)
        await store.close()
        async with copied(url) as copy:
            return dict(await copy.set_entries("frozen", 1.0))

    assert asyncio.run(use()) == {"anna": 0.0}

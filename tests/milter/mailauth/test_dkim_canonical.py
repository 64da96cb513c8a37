"""Canonical forms: RFC 6376 section 3.4, whatever the pieces and however nasty the white space."""

from __future__ import annotations

import re
import tracemalloc
from base64 import b64decode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon, header_field


def canonical_body(canon, *pieces):
    """The canonical octets themselves: hash every beginning, then read it off is too slow, so catch what is hashed."""
    hasher = BodyHasher()
    hasher.want(BodySpec(canon))
    stream = hasher._streams[canon]
    caught = []
    stream._hash = type("Catch", (), {"update": staticmethod(caught.append), "digest": staticmethod(lambda: b"")})()
    for piece in pieces:
        hasher.feed(piece)
    hasher.finish()
    out = b"".join(bytes(piece) for piece in caught)
    assert hasher.size(canon) == len(out)
    return out


def by_the_book(canon, body):
    """RFC 6376 sections 3.4.3 and 3.4.4, line by line."""
    lines = body.split(b"\r\n")
    if lines[-1] == b"":
        lines.pop()
    if canon is Canon.RELAXED:
        lines = [re.sub(rb"[ \t]+", b" ", line) for line in lines]
        lines = [line.removesuffix(b" ") for line in lines]
    while lines and lines[-1] == b"":
        lines.pop()
    out = b"".join(line + b"\r\n" for line in lines)
    return out or (b"\r\n" if canon is Canon.SIMPLE else b"")


def test_the_example_of_rfc_6376_section_3_4_5():
    body = b" C \r\nD \t E\r\n\r\n\r\n"
    assert header_field(Canon.RELAXED, b"A", b" X") == b"a:X"
    assert header_field(Canon.RELAXED, b"B ", b" Y\t\r\n\tZ  ") == b"b:Y Z"
    assert canonical_body(Canon.RELAXED, body) == b" C\r\nD E\r\n"
    assert header_field(Canon.SIMPLE, b"B ", b" Y\t\r\n\tZ  ") == b"B : Y\t\r\n\tZ  "
    assert canonical_body(Canon.SIMPLE, body) == b" C \r\nD \t E\r\n"


@pytest.mark.parametrize(
    ("canon", "digest"),
    [  # RFC 6376 sections 3.4.3 and 3.4.4 give the hash of an empty body
        (Canon.SIMPLE, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
        (Canon.RELAXED, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ],
)
@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_a_body_without_content_has_the_hash_of_the_rfc(canon, digest, body):
    hasher = BodyHasher()
    hasher.want(BodySpec(canon))
    hasher.feed(body)
    hasher.finish()
    assert hasher.digest(BodySpec(canon)) == b64decode(digest)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", b"x:"),
        (b" ", b"x:"),
        (b"\t a \t b\t", b"x:a b"),
        (b" a\r\n b", b"x:a b"),
        (b" a\r\n\t\r\n b", b"x:a b"),
        (b" a\rb\nc", b"x:a\rb\nc"),
        (b" \xfc\xc3\xbc", b"x:\xfc\xc3\xbc"),
        (b" " * 100_000 + b"a" + b"\t " * 100_000, b"x:a"),
    ],
)
def test_relaxed_header_fields(value, expected):
    assert header_field(Canon.RELAXED, b"X", value) == expected


@pytest.mark.parametrize("canon", list(Canon))
@pytest.mark.parametrize(
    "body",
    [
        b"a",
        b"a\r\n",
        b"a \t\r\n",
        b"a \t",
        b" \t",
        b" \r\n \r\n",
        b"a\r\n \r\n\t\r\n",
        b"\r\n\r\na\r\n\r\n",
        b"a\r",
        b"a\n",
        b"a\r\r\n",
        b"a\n\r\n",
        b"a\n\n\r\n\r\n",
        b"a\r\n\r\n\n\r\n",
        b"a \rb \nc\r\n",
        b"a\r\n\r",
        b"\n\r\n",
        b"\r\r\n",
        b"a" + b" " * 1000 + b"b" + b"\t" * 333 + b"\r\n",
    ],
)
def test_bodies_by_the_book_and_octet_by_octet(canon, body):
    expected = by_the_book(canon, body)
    assert canonical_body(canon, body) == expected
    assert canonical_body(canon, *(body[at : at + 1] for at in range(len(body)))) == expected


text = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b"  \t", b"a", b"\x00\xff", b" \r\n"])).map(
    b"".join
)


@given(pieces=st.lists(text), canon=st.sampled_from(list(Canon)))
def test_pieces_make_no_difference(pieces, canon):
    assert canonical_body(canon, *pieces) == by_the_book(canon, b"".join(pieces))


@given(pieces=st.lists(text), canon=st.sampled_from(list(Canon)), lengths=st.lists(st.integers(0, 30)))
def test_hashes_of_beginnings(pieces, canon, lengths):
    whole = by_the_book(canon, b"".join(pieces))
    hasher = BodyHasher()
    for length in [None, *lengths]:
        hasher.want(BodySpec(canon, length))
    for piece in pieces:
        hasher.feed(piece)
    hasher.finish()
    hasher.finish()
    assert hasher.size(canon) == len(whole)
    assert hasher.digest(BodySpec(canon)) == sha256(whole).digest()
    for length in lengths:
        expected = sha256(whole[:length]).digest() if length <= len(whole) else None
        assert hasher.digest(BodySpec(canon, length)) == expected


def test_many_lengths_cost_one_hash():
    hasher = BodyHasher()
    for length in range(50):
        hasher.want(BodySpec(Canon.SIMPLE, length * 1000))
    assert list(hasher._streams) == [Canon.SIMPLE]
    hasher.feed(b"x" * 100_000)
    hasher.finish()
    assert hasher.digest(BodySpec(Canon.SIMPLE, 49_000)) == sha256(b"x" * 49_000).digest()


@pytest.mark.parametrize("canon", Canon)
@pytest.mark.parametrize("last", [b"x", b"\r"])
def test_line_ends_that_are_the_end_after_all_take_no_memory(canon, last):
    body = BodyHasher()
    body.want(BodySpec(canon))
    tracemalloc.start()
    for _ in range(100):
        body.feed(b"\r\n" * (1 << 17))
    body.feed(last)
    body.finish()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 2 << 20  # it was twice the body
    assert body.digest(BodySpec(canon)) == sha256(b"\r\n" * (100 << 17) + last + b"\r\n").digest()


def test_nobody_asked():
    hasher = BodyHasher()
    assert not hasher.needs_body
    hasher.feed(b"x")
    hasher.finish()


@pytest.mark.parametrize("filler", [b" ", b"\t ", b"\r\n", b" \r\n", b"\r", b"\n\r\n", b"\r\n\n"])
def test_what_is_held_back_stays_small(filler):
    """Nothing that a sender repeats makes the hasher keep the body."""
    hasher = BodyHasher()
    for canon in Canon:
        hasher.want(BodySpec(canon))
    for _ in range(50):
        hasher.feed(filler * 10_000)
        for stream in hasher._streams.values():
            held = (stream._spaces._held if stream._spaces else b"") + stream._line_ends._cr
            assert len(held) <= 3

"""Where do the octets of a message wait until it is judged?"""

import contextlib
import gc
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.facts import BytesBody
from elemta_milter.body import PIECE, Spool, SpooledBody, SpooledFile


def open_in(directory):
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(str(link.readlink()))
    return [target for target in found if target.startswith(str(directory))]


def test_a_short_body_stays_in_memory(tmp_path):
    spool = Spool(str(tmp_path), memory=10)
    assert spool.append(b"12345")
    assert spool.append(b"67890")
    body = spool.finish()
    assert isinstance(body, BytesBody)
    assert b"".join(body.chunks()) == b"1234567890"
    assert body.size == 10


def test_one_octet_more_goes_to_a_file_without_a_name(tmp_path):
    spool = Spool(str(tmp_path), memory=10)
    spool.append(b"1234567890")
    spool.append(b"x")
    body = spool.finish()
    assert isinstance(body, SpooledBody)
    assert body.size == 11
    assert b"".join(body.chunks()) == b"1234567890x"
    assert b"".join(body.chunks()) == b"1234567890x", "from the beginning at each call"
    assert list(tmp_path.iterdir()) == [], "nothing is left even when the worker is killed now"


def test_the_file_is_closed_with_its_last_reader(tmp_path):
    spool = Spool(str(tmp_path), memory=1)
    spool.append(b"long enough")
    reading = spool.finish().chunks()
    del spool
    gc.collect()
    assert len(open_in(tmp_path)) == 1
    assert next(reading) == b"long enough"
    del reading
    gc.collect()
    assert open_in(tmp_path) == []


def test_a_long_body_is_read_in_pieces(tmp_path):
    spool = Spool(str(tmp_path), memory=1 << 20)
    chunk = bytes(range(256)) * 256
    for _ in range(40):
        spool.append(chunk)
    body = spool.finish()
    pieces = list(body.chunks())
    assert max(map(len, pieces)) <= PIECE <= 1 << 20
    assert b"".join(pieces) == chunk * 40


def test_what_goes_over_the_bound_is_dropped_and_so_is_all_that_follows(tmp_path):
    spool = Spool(str(tmp_path), memory=4, keep=8)
    assert spool.append(b"12345")
    assert not spool.append(b"6789")
    assert not spool.append(b"6")
    assert b"".join(spool.finish().chunks()) == b"12345"


def test_a_missing_directory_is_an_os_error(tmp_path):
    spool = Spool(str(tmp_path / "none"), memory=1)
    with pytest.raises(FileNotFoundError):
        spool.append(b"long enough")


def test_a_file_system_without_unnamed_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # gives EISDIR, as old kernels do
    file = SpooledFile(str(tmp_path))
    file.write(b"abc")
    assert os.pread(file.descriptor, 9, 0) == b"abc"
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 100))
def test_what_goes_in_comes_out(tmp_path_factory, chunks, memory):
    spool = Spool("/tmp", memory=memory)
    for chunk in chunks:
        assert spool.append(chunk)
    body = spool.finish()
    assert b"".join(body.chunks()) == b"".join(chunks)
    assert body.size == sum(map(len, chunks))

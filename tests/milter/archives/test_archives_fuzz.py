"""Archives that a fuzzer has had in its hands: nothing raises, nothing lasts."""

from __future__ import annotations

import gzip
import lzma
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elemta_milter.archives import Bounds, Budget, Walk
from harness.archives import (
    LZMA2,
    PROGRAM,
    ole,
    onenote,
    packaged,
    rar4,
    rar5,
    rtf,
    sevenzipped,
    tarred,
    tnef,
    vba_project,
    zipped,
)

FILES = (("evil.exe", PROGRAM), ("note.txt", b"hello " * 50))
SEEDS = {
    "zip": zipped(*FILES),
    "nested": zipped(("a.tgz", tarred(*FILES, mode="w:gz")), ("b.7z", sevenzipped(*FILES))),
    "tar": tarred(*FILES, ("long/" * 40, b"x")),
    "gz": gzip.compress(tarred(*FILES)),
    "xz": lzma.compress(PROGRAM),
    "7z": sevenzipped(*FILES),
    "7z-packed": sevenzipped(*FILES, header_coder=LZMA2),
    "rar4": rar4((b"a.exe", PROGRAM, 0, 0x30), (b"b\0\4\x41\x42", b"x", 0x200, 0x30)),
    "rar5": rar5((b"a.exe", PROGRAM, True, 0), (b"b.exe", b"x", False, 0)),
    "ole": ole({"\1Ole10Native": packaged(b"a.exe", PROGRAM), "Big": bytes(5000)}),
    "two": gzip.compress(b"x") + zipped(*FILES),
    "tnef": tnef((b"A~1.EXE", "a.exe", PROGRAM), embedded=tnef((b"b", "b", b"x"))),
    "rtf": rtf(b"Package", packaged(b"a.exe", PROGRAM)[4:]),
    "onenote": onenote((".exe", PROGRAM), (".hta", b"x")),
    "vba": vba_project(b"Sub AutoOpen()\r\nEnd Sub\r\n"),
}
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "copy", "drop", "big"]), st.integers(0, 1 << 16), st.integers(0, 255)),
    max_size=8,
)


def changed(data, changes):
    made = bytearray(data)
    for how, place, value in changes:
        at = place % (len(made) or 1)
        if how == "set" and made:
            made[at] = value
        elif how == "cut":
            del made[at:]
        elif how == "copy":
            made[at:at] = made[at : at + value]
        elif how == "drop":
            del made[at : at + value]
        elif how == "big":
            made[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(made)


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=CHANGES)
def test_a_changed_archive_never_raises_and_never_lasts(seed, changes):
    began = time.thread_time()
    walk = Walk(Budget(Bounds(seconds=1.0, programs=0)))
    entries = list(walk.over(changed(SEEDS[seed], changes), "x"))
    assert entries[0].name == "x"
    assert time.thread_time() - began < 4


@settings(max_examples=300, deadline=None)
@given(start=st.sampled_from([data[:32] for data in SEEDS.values()]), rest=st.binary(max_size=600))
def test_neither_does_anything_that_begins_like_one(start, rest):
    for _ in Walk(Budget(Bounds(seconds=1.0, programs=0))).over(start + rest, "x"):
        pass

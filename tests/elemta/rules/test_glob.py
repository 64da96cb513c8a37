"""Glob patterns mean what the standard library's fnmatch means, in linear time."""

import fnmatch
import time

from hypothesis import given
from hypothesis import strategies as st

from elemta.rules.patterns import glob as _glob

TEXT = st.text(alphabet="ab.*?-", max_size=12)
PATTERN = st.text(alphabet="ab.*?", max_size=8)


@given(PATTERN, TEXT)
def test_a_glob_is_fnmatch(pattern, text):
    assert _glob(pattern)(text) == fnmatch.fnmatchcase(text, pattern)


@given(st.lists(st.sampled_from(["a", "*", "ab", "b."]), max_size=6).map("".join), TEXT)
def test_stars_only(pattern, text):
    assert _glob(pattern)(text) == fnmatch.fnmatchcase(text, pattern)


def test_many_stars_are_no_trap():
    began = time.process_time()

    assert not _glob("*a" * 200 + "*c")("a" * 20000)
    assert time.process_time() - began < 2

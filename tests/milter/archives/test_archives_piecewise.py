"""A pattern is found in pieces as it is in the whole."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.archives import piecewise

PATTERN = re.compile(rb"a[ab]{0,9}c(?!d)")


@given(octets=st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=60).map(b"".join), piece=st.integers(1, 20))
def test_all_matches_are_found_once(octets, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "PIECE", piece)
        found = [(match.start(), match[0]) for match in piecewise.matches(PATTERN, memoryview(octets), 12)]
    assert found == [(match.start(), match[0]) for match in PATTERN.finditer(octets)]


def test_it_ends_when_it_may_not_go_on():
    asked = iter([True, True, False])
    found = piecewise.matches(re.compile(b"x"), b"x" * (4 * piecewise.PIECE), 1, lambda: next(asked))
    assert sum(1 for _ in found) == 2 * piecewise.PIECE

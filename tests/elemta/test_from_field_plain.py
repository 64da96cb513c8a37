"""A plain From takes a short way through the reader; it must say the same as the long one."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elemta.addresses import from_field
from elemta.addresses.from_field import authors

MUTATIONS = st.sampled_from(
    [b"", b"<", b">", b'"', b",", b" ", b"\t", b"(x)", b"@", b"\\", b"\xff", b"\0", b".", b":;", b"=?utf-8?q?x?="]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.from_regex(from_field._PLAIN, fullmatch=True), MUTATIONS, st.integers(0, 60))
def test_the_short_way_says_what_the_long_way_says(value, extra, place):
    changed = value[:place] + extra + value[place:]

    assert authors([changed]) == from_field._weighed_authors([changed])


@pytest.mark.parametrize("value", [b" a@b.test", b" Anna Bee <a.b+c@x-y.test>", b' "Bee, A." <a@b.test>'])
def test_the_short_way_is_taken(value):
    assert from_field._plain_author(value) is not None

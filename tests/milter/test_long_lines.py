"""Lines that Postfix would break are broken before they are signed, and nothing else changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.facts import BytesBody
from elemta_milter import long_lines
from elemta_milter.edits import AddHeader, ReplaceBody
from elemta_milter.long_lines import has_long_line, without_long_lines

NAMES = {b"from", b"subject", b"to"}
SHORT = [(b"From", b" a@b.test"), (b"Subject", b" hi")]


def body_of(octets, changes=()):
    *_, last = without_long_lines(SHORT, BytesBody(octets), changes, NAMES)
    return last.data


@pytest.mark.parametrize(
    ("octets", "broken"),
    [
        (b"x" * 999, b"x" * 998 + b"\r\n x"),
        (b"x" * 999 + b"\r\n", b"x" * 998 + b"\r\n x\r\n"),
        (b"a\r\n" + b"x" * 1995 + b"\r\nb", b"a\r\n" + b"x" * 998 + b"\r\n " + b"x" * 997 + b"\r\nb"),
        (b"x" * 1996 + b"\r\n", b"x" * 998 + b"\r\n " + b"x" * 997 + b"\r\n x\r\n"),
        (b"\r\n\r\n" + b"." * 999, b"\r\n\r\n" + b"." * 998 + b"\r\n ."),
    ],
)
def test_a_body_is_broken_as_postfix_would(octets, broken):
    assert body_of(octets) == broken


@given(st.lists(st.tuples(st.integers(0, 3100), st.integers(0, 3)), max_size=8), st.booleans())
def test_any_body_keeps_its_octets(lines, ended):
    octets = b"\r\n".join(b"x" * length + b"\r\n" * empty for length, empty in lines) + b"\r\n" * ended
    body = BytesBody(octets)
    changes = without_long_lines(SHORT, body, (), NAMES)
    assert bool(changes) == has_long_line(body) == any(length > 998 for length, _ in lines)
    for change in changes:
        assert max(map(len, change.data.split(b"\r\n"))) == 998
        assert change.data.replace(b"\r\n ", b"") == octets


def test_another_body_of_ours_is_not_sent_twice():
    """Milters' bodies are added to each other."""
    octets = b"y" * 1500
    before = (AddHeader("X-A", "1"), ReplaceBody(octets))
    changes = without_long_lines(SHORT, BytesBody(octets), before, NAMES)
    assert [type(change) for change in changes] == [AddHeader, ReplaceBody]
    assert changes[-1].data.startswith(b"y" * 998 + b"\r\n y")


def test_nothing_is_done_where_nothing_is_long_or_it_is_too_much(monkeypatch):
    before = (AddHeader("X-A", "1"),)
    assert without_long_lines(SHORT, BytesBody(b"x" * 998 + b"\r\n"), before, NAMES) is before
    monkeypatch.setattr(long_lines, "MOST", 1000)
    assert without_long_lines(SHORT, BytesBody(b"x" * 1001), before, NAMES) is before


def folded(name, value, *others):
    changes = without_long_lines([*others, (name, value)], BytesBody(), (), NAMES)
    return changes[0] if changes else None


def unfolded(value):
    return re.sub(r"\n(?=[ \t])", "", value)


def test_a_header_field_is_folded_at_white_space():
    value = " " + ", ".join(f"user{number}@b.test" for number in range(200))
    change = folded(b"To", value.encode(), (b"to", b" first@b.test"))
    assert (change.name, change.nth) == ("To", 2)
    assert unfolded(change.value) == value[1:]
    assert max(map(len, f"To: {change.value}".split("\n"))) <= 998


@pytest.mark.parametrize(
    "value",
    [
        " " + "x" * 3000,
        " é" * 20 + "é" * 2000,
        " a\r\n\tb " + "é" * 700 + " c" * 300,
        " " + "x" * 900 + " " * 200,
        " " + "x" * 1100 + "\t" * 900,
        *(" " + "x" * before + "\U0001f600" * 600 for before in range(4)),  # four octets each
    ],
)
def test_without_white_space_it_is_broken_between_characters(value):
    change = folded(b"Subject", value.encode())
    lines = f"Subject: {change.value}".split("\n")
    assert max(len(line.encode()) for line in lines) <= 998
    assert all(line.strip() for line in lines), "some take a line of blanks for the end of the header"
    assert unfolded(change.value).replace(" ", "") == value.replace("\r\n", "").replace(" ", "").rstrip()


@pytest.mark.parametrize("value", ["x" * 999, "\t" + "x" * 3000, "a\r\n " + "x" * 999, "x" * 990 + "\r\n " + "x" * 998])
def test_the_space_that_a_changed_field_begins_with_counts(value):
    change = folded(b"Subject", value.encode())
    assert max(map(len, f"Subject: {change.value}".split("\n"))) <= 998
    assert unfolded(change.value).replace(" ", "") == value.replace("\r\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"X-Unsigned", b" " + b"x" * 2000),
        (b"Subject", b" short\r\n" * 300),
        (b"Subject", b" " + b"\xff" * 2000),  # cannot be written through a milter of Python
    ],
)
def test_fields_that_stay(name, value):
    assert folded(name, value) is None


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ("x" * 990, None),  # 998 octets without a space, and Postfix adds none
        (" " + "x" * 989, None),
        (" " + "x" * 989 + " y", "x" * 989 + "\n y"),
        (" " + "x" * 989 + "\ty", "x" * 989 + "\n\ty"),
        (" short  \r\n " + "x" * 998, "short  \n " + "x" * 997 + "\n x"),
        (" " + "x" * 988 + "\U0001f600", "x" * 988 + "\n \U0001f600"),
        (" " + "x" * 985 + "\U0001f600" + "y", "x" * 985 + "\U0001f600\n y"),
    ],
)
def test_a_line_of_998_octets_is_not_too_long(value, change):
    edit = folded(b"Subject", value.encode())
    assert (edit and edit.value) == change


@pytest.mark.parametrize("stays", [b" " + b"\xff" * 2000, b" short\r\n" * 300])
def test_a_field_that_stays_does_not_keep_others_long(stays):
    change = folded(b"To", b" " + b"x" * 2000, (b"Subject", stays))
    assert (change.name, change.nth) == ("To", 1)

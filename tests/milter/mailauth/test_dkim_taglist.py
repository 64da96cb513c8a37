"""Tag lists: RFC 6376 section 3.2, no more and no less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mailauth import taglist
from elemta_milter.mailauth.fields import without_b
from elemta_milter.mailauth.taglist import TagListError


def read(octets, **bounds):
    return taglist.parse(octets, **{"most_octets": 1000, "most_tags": 10, **bounds})


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", {}),
        (b" \r\n ", {}),
        (b"a=1", {"a": "1"}),
        (b"a=1;", {"a": "1"}),
        (b"a=1; \r\n\t", {"a": "1"}),
        (b" a = 1 ;\r\n\tb\t=\r\n 2 3 ;", {"a": "1", "b": "2 3"}),
        (b"a=;b==;", {"a": "", "b": "="}),
        (b"a=x=y", {"a": "x=y"}),
        (b"A=1;a=2;a_9=3", {"A": "1", "a": "2", "a_9": "3"}),
        (b"d=b\xc3\xbccher.example", {"d": "bücher.example"}),
    ],
)
def test_good_lists(octets, expected):
    assert read(octets) == expected


@pytest.mark.parametrize(
    "octets",
    [
        b"a",
        b"a=1;b",
        b"a=1;;b=2",
        b";a=1",
        b"a=1;;",
        b"=1",
        b"_=1",
        b"9a=1",
        b"a-b=1",
        b"a b=1",
        b"a=1;a=1",
        b"a=1; A=1; a=2",
        b"a=\x00",
        b"a=\x7f",
        b"a=\x0b",
        b"a=\xff",
        b"\xc3\xbc=1",
    ],
)
def test_bad_lists(octets):
    with pytest.raises(TagListError):
        read(octets)


def test_bounds():
    assert len(read(b";".join(b"a%d=" % n for n in range(10)) + b"; ")) == 10
    for octets in (b";".join(b"a%d=" % n for n in range(11)), b"a=" + b"x" * 999, b";" * 999):
        with pytest.raises(TagListError):
            read(octets)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("QQ==", b"A"), ("Q Q\r\n =\t=", b"A"), ("QQ", b"A"), ("QQ=", b"A"), ("QUJD", b"ABC"), ("+/+/", b"\xfb\xff\xbf")],
)
def test_base64(value, expected):
    assert taglist.base64string(value) == expected


@pytest.mark.parametrize("value", ["", " ", "=", "Q", "QUJDR", "Q=Q=", "QQ===", "Q-Q_", "QQ==x", "QÜQ", "Q\xa0Q"])
def test_not_base64(value):
    with pytest.raises(TagListError):
        taglist.base64string(value)


def test_quoted_printable():
    assert taglist.quoted_printable("=41nna=40 b\r\n c") == "Anna@bc"
    assert taglist.quoted_printable("=3D=3B=C3=BC") == "=;ü"
    assert taglist.quoted_printable("=FF") == "\ufffd"
    for bad in ("=", "=4", "=4g", "=aF", "a=", "=4=41"):
        with pytest.raises(TagListError):
            taglist.quoted_printable(bad)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" a=1; b=xyz", b" a=1; b="),
        (b" a=1;\r\n b = x\r\n y \r\n; bh=b=", b" a=1;\r\n b =; bh=b="),
        (b"bh=1; B=2; b=3", b"bh=1; B=2; b="),
        (b"b=1;b=2", b"b=;b=2"),
        (b"nothing", b"nothing"),
    ],
)
def test_b_is_taken_out_with_the_white_space_around_its_value(value, expected):
    assert without_b(value) == expected


@given(st.binary() | st.text(alphabet="ab=; \t\r\n_9").map(str.encode))
def test_any_octets_give_tags_or_a_tag_list_error(octets):
    try:
        tags = read(octets)
    except TagListError:
        return
    for name, value in tags.items():
        assert name.encode() in octets
        assert ";" not in value
        assert value == value.strip(" \t\r\n")

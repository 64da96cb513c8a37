import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.addresses.domains import a_label, is_near, is_within


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("com", "com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("-odd-.example", "-odd-.example"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("_dmarc.bücher.example", "_dmarc.xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),  # UTS 46, not transitional
        ("食狮。公司。cn", "xn--85x722f.xn--55qx5d.cn"),
        ("\uff45\uff58ample.com", "example.com"),
        ("exa\u00admple.com", "example.com"),  # a soft hyphen is mapped away
        ("i❤.example", "xn--i-7iq.example"),  # a symbol: in the DNS all the same
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("", None),
        (".", None),
        ("a..b", None),
        (".a", None),
        ("a.b..", None),
        ("a" * 64 + ".example", None),
        ("a." * 126 + "b", "a." * 126 + "b"),  # 253 octets
        ("a." * 126 + "b.", "a." * 126 + "b"),
        ("a." * 126 + "bc", None),
        ("[192.0.2.1]", None),
        ("a b.example", None),
        ("a@b.example", None),
        ("ex\uff20mple.com", None),
        ("a\u200db.example", None),  # a joiner out of place (CONTEXTJ)
        ("a\x00.example", None),
        ("\udcfc.example", None),
    ],
)
def test_a_label(domain, expected):
    assert a_label(domain) == expected


@given(st.text(max_size=300))
def test_any_text_gives_a_name_or_none(text):
    name = a_label(text)
    assert name is None or (name.isascii() and name == name.lower() and len(name) <= 253 and a_label(name) == name)


def test_a_huge_name_costs_nothing():
    start = time.process_time()
    assert a_label("ü." * 1_000_000) is None
    assert a_label("\u0300" * 512) is None
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("one", "other", "within", "near"),
    [
        ("example.org", "example.org", True, True),
        ("a.b.example.org", "example.org", True, True),
        ("example.org", "a.example.org", False, True),
        ("badexample.org", "example.org", False, False),
        ("a.example.org", "b.example.org", False, False),
        ("", "example.org", False, False),
    ],
)
def test_a_domain_and_those_below_it(one, other, within, near):
    assert (is_within(one, other), is_near(one, other), is_near(other, one)) == (within, near, near)

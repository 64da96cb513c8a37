"""How does an SMTP reply of the policy reach the client?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.reply import split


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        (
            "550 5.7.1 Mail from example.org must authenticate",
            ("550", "5.7.1", "Mail from example.org must authenticate"),
        ),
        ("450 4.7.1 Come again in 5m", ("450", "4.7.1", "Come again in 5m")),
        ("554 no enhanced code", ("554", None, "no enhanced code")),
        ("550 5.7.1", ("550", "5.7.1", "")),
        ("550", ("550", None, "")),
        ("550 4.7.1 wrong class", ("550", None, "wrong class")),
        ("550 5.7.1 100% sure", ("550", "5.7.1", "100%% sure")),
        ("550 5.7.1 " + "x" * 890 + "%" * 20, ("550", "5.7.1", "x" * 890)),  # there is room for 900, and "%" is two
        ("550 5.7.1 a\r\n250 injected", ("550", "5.7.1", "a??250 injected")),
        ("550 5.7.1 für <ä@ö.test>", ("550", "5.7.1", "f?r <?@?.test>")),
        ("550 5.7.1 nul\0 surrogate\udcff", ("550", "5.7.1", "nul? surrogate?")),
        ("250 2.0.0 not a refusal", None),
        ("hello", None),
        ("", None),
        ("\N{ARABIC-INDIC DIGIT FIVE}50 digits", None),
    ],
)
def test_table(reply, parts):
    assert split(reply) == parts


@given(st.text(max_size=3000))
def test_never_more_than_libmilter_takes(text):
    parts = split("451 4.3.0 " + text)
    assert parts is not None
    code, enhanced, words = parts
    assert code == "451"
    assert enhanced == "4.3.0"
    assert len(words) <= 980
    assert words.isascii()
    assert words.isprintable()
    assert "%" not in words.replace("%%", "")

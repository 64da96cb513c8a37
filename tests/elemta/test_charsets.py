import codecs

import pytest

from elemta import charsets


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("UTF-8", "utf_8"),
        ("iso-8859-1", "cp1252"),
        ("ISO_8859-1:1987", "cp1252"),
        ("Windows-1251", "cp1251"),
        ("ks_c_5601-1987", "cp949"),
        ("utf-7", None),
        ("hex", None),
        ("rot13", None),
        ("unicode_escape", None),
        ("x" * 10_000, None),
        ("", None),
    ],
)
def test_codec_of(name, codec):
    assert charsets.codec_of(name) == codec


def test_only_codecs_of_text_are_known():
    for codec in set(charsets._CODECS.values()):
        assert codecs.lookup(codec)._is_text_encoding


@pytest.mark.parametrize(
    ("charset", "does"),
    [
        ("us-ascii", True),
        ("utf-8", True),
        ("windows-1252", True),
        ("gb18030", True),
        ("shift_jis", True),
        ("euc-kr", True),
        ("big5", True),
        ("no-such", True),
        ("utf-16", False),
        ("utf-32be", False),
        ("cp500", False),
        ("hz-gb-2312", False),
        ("iso-2022-jp", False),
    ],
)
def test_charsets_in_which_ascii_is_ascii(charset, does):
    assert charsets.keeps_ascii(charset) is does

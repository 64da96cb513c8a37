import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.addresses.encoded_words import decode_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?Q?J=C3=B6rg?=", "Jörg"),
        ("=?UTF-8?b?SsO2cmc=?=", "Jörg"),
        ("=?utf-8?q?a_b?=", "a b"),
        ("=?us-ascii*en?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= c =?utf-8?q?b?=", "a c b"),
        ("=?no-such-charset?q?a?=", "=?no-such-charset?q?a?="),
        ("=?hex?q?a?=", "=?hex?q?a?="),
        ("=?utf-8?b?*?=", ""),
        ("=?utf-8?b?a?=", "=?utf-8?b?a?="),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?=FF?=", "\ufffd"),
        ("=?utf-8?b?YQ?=", "a"),
        ("=?utf-8?b?Y Q?=", "a"),
        ("=?no-such-charset?q?\udc80?=", "=?no-such-charset?q?\udc80?="),
        ("=?utf-8?q?=C3?= =?UTF-8?b?tg==?= =?latin1?q?=F6?=", "öö"),
        ("=?utf-8?q?Jane Doe?= =?utf-8?q? of\r\n Examp?=\r\n =?utf-8?q?le?=", "Jane Doe of Example"),
        ("=? utf-8 ?b?SsO2 cm\r\n c?=", "Jörg"),
        ("=?utf-8?q?Really=3F Who??=", "Really? Who?"),
        ("=?utf-8?q?a?b?= =?utf-8?b?Yj?8?=", "a?bb?"),
        ("=?utf-8?b?Qm9.zcw?= =?utf-8?b?Qm9zcw==??=", "BossBoss"),
        ("=?utf-8?b?*YQ?=", "a"),
        ("=?utf-8?q?a? =?utf-8?q?b?=", "=?utf-8?q?a? b"),  # a word begins there
        ("=?utf-7?q?+AGg-?=", "=?utf-7?q?+AGg-?="),
    ],
)
def test_decode_words(text, expected):
    assert decode_words(text) == expected


def test_a_word_of_question_marks_without_an_end_is_tried_once():
    start = time.process_time()
    decode_words(f"=?utf-8?b?{'?' * 22} " * 100)
    assert time.process_time() - start < 1  # it took six seconds


@given(st.text(st.sampled_from("=?utf-8qb_aZ 09*é\udc80"), max_size=80))
def test_any_text(text):
    assert isinstance(decode_words(text), str)

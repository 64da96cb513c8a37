"""The policy protocol: octets to attributes in any pieces, within bounds, or a ProtocolError."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_policyd.protocol import (
    MAX_ATTRIBUTES,
    MAX_LINE,
    MAX_REQUEST,
    ProtocolError,
    Requests,
    answer,
)

PLAIN = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@sender.test\nrecipient=b@receiver.test\n\n"
ATTRIBUTES = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "sender": "a@sender.test",
    "recipient": "b@receiver.test",
}


def request(*lines: bytes) -> bytes:
    return b"\n".join((b"request=smtpd_access_policy", *lines)) + b"\n\n"


def read(*pieces: bytes):
    """Every request that the pieces hold."""
    requests, found = Requests(), []
    for piece in pieces:
        requests.feed(piece)
        while (attributes := requests.next()) is not None:
            found.append(attributes)
    return found


@pytest.mark.parametrize(
    ("octets", "attributes"),
    [
        (request(b"sender="), {"sender": ""}),
        (request(b"sender=a=b@c"), {"sender": "a=b@c"}),
        (request(b"=nameless"), {"": "nameless"}),
        (request(b"sender=j\xf6rg@a.test"), {"sender": "j\udcf6rg@a.test"}),
        (request("sender=jörg@a.test".encode()), {"sender": "jörg@a.test"}),
        (request(b"sender=first", b"sender=second"), {"sender": "first"}),
        (request(b"sender=\r"), {"sender": "\r"}),
        (b"a=1\nrequest=smtpd_access_policy\n\n", {"a": "1"}),
        (request(*(b"a%d=" % number for number in range(MAX_ATTRIBUTES - 1))), None),
        (request(b"a=" + b"x" * (MAX_LINE - 2)), None),
        (request(*(b"a%d=" % number + b"x" * 8000 for number in range(8))), None),
    ],
)
def test_requests(octets, attributes):
    [found] = read(octets)
    assert found["request"] == "smtpd_access_policy"
    if attributes is not None:
        assert {name: found[name] for name in attributes} == attributes


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (b"\n", "without attributes"),
        (b"\n\n", "without attributes"),
        (PLAIN + b"\n", "without attributes"),
        (b"garbage\n\n", "without ="),
        (request(b"garbage"), "without ="),
        (b"request=junk\n\n", "not smtpd_access_policy"),
        (b"sender=a@b\n\n", "not smtpd_access_policy"),
        (b"request=smtpd_access_policy\r\nsender=\r\n\n", "not smtpd_access_policy"),
        (b"request=smtpd_access_policy\nrequest=junk\n\n", None),  # the first counts
        (b"request=junk\nrequest=smtpd_access_policy\n\n", "not smtpd_access_policy"),
        (request(b"sender=a\0b"), "NUL"),
        (request(*(b"a%d=" % number for number in range(MAX_ATTRIBUTES))), "more than 128 attributes"),
        (request(b"a=" + b"x" * (MAX_LINE - 1)), "more than 16384 octets"),
        (b"x" * MAX_REQUEST, "more than 65536 octets"),
        (b"a=b\n" * MAX_REQUEST, "more than 65536 octets"),
        (b"a=b\n" * (MAX_REQUEST // 4 - 1) + b"\n", "more than 128 attributes"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),  # no empty line as we know it: the server's time-out ends it
        (b"HELO a\n\n", "without ="),
    ],
)
def test_what_is_no_request(octets, told):
    if told is None:
        read(octets)
    else:
        with pytest.raises(ProtocolError, match=told):
            read(octets)


def test_requests_before_junk_are_read():
    requests = Requests()
    requests.feed(PLAIN + PLAIN + b"junk\n\n" + PLAIN)
    assert requests.next() == requests.next() == ATTRIBUTES
    with pytest.raises(ProtocolError):
        requests.next()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 90, 91, 92, 93, 1000])
def test_any_pieces_give_the_same_requests(size):
    stream = PLAIN * 5
    pieces = [stream[place : place + size] for place in range(0, len(stream), size)]
    assert read(*pieces) == [ATTRIBUTES] * 5


def test_pending_counts_what_is_not_taken():
    requests = Requests()
    requests.feed(PLAIN + b"req")
    assert requests.pending == len(PLAIN) + 3
    requests.next()
    assert requests.pending == 3
    assert requests.next() is None
    requests.feed(PLAIN[3:])
    assert requests.next() == ATTRIBUTES
    assert requests.pending == 0


def test_time_is_linear_in_the_octets():
    def seconds(*pieces):
        begin = time.process_time()
        requests = Requests()
        for piece in pieces:
            requests.feed(piece)
            requests.next()
        return time.process_time() - begin

    one = [b"a", b"=", *[b"x"] * 59_998]  # a request that never ends, octet by octet
    assert seconds(*one) < 3 * seconds(*one[:30_000]) + 0.1  # four times as much if it were quadratic
    many = PLAIN * 20_000  # 1.8 MB at once, taken one by one
    begin = time.process_time()
    assert len(read(many)) == 20_000
    assert time.process_time() - begin < 6


@pytest.mark.parametrize(
    ("action", "octets"),
    [
        ("DUNNO", b"action=DUNNO\n\n"),
        ("450 4.7.1 wait", b"action=450 4.7.1 wait\n\n"),
        ("450 a\nb\r\0\x7f", b"action=450 a?b????"[:-1] + b"\n\n"),
        ("450 jörg j\udcf6rg \u2028", b"action=450 j?rg j?rg ?\n\n"),
    ],
)
def test_answers(action, octets):
    assert answer(action) == octets


def cut(octets, places):
    edges = sorted({0, len(octets), *(place % (len(octets) + 1) for place in places)})
    return [octets[begin:end] for begin, end in itertools.pairwise(edges)]


LINES = st.lists(
    st.one_of(
        st.just(b"request=smtpd_access_policy"),
        st.just(b""),
        st.binary(max_size=20),
        st.builds(lambda name, value: name + b"=" + value, st.binary(max_size=5), st.binary(max_size=9)),
    ),
    max_size=12,
).map(b"\n".join)


@given(st.one_of(st.binary(max_size=300), LINES, LINES.map(lambda lines: PLAIN + lines)), st.lists(st.integers(0, 400)))
def test_anything_in_any_pieces_is_attributes_or_a_protocol_error(octets, places):
    def outcome(pieces):
        found = []
        requests = Requests()
        try:
            for piece in pieces:
                requests.feed(piece)
                while (attributes := requests.next()) is not None:
                    found.append(attributes)
        except ProtocolError as error:
            return found, str(error)
        assert requests.pending <= len(octets)
        return found, ""

    whole = outcome([octets])
    assert outcome(cut(octets, places)) == whole
    for attributes in whole[0]:
        assert attributes["request"] == "smtpd_access_policy"
        assert all(isinstance(text, str) and "\n" not in text and "\0" not in text for text in attributes.values())


VALUES = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=30)


@given(st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=8), VALUES, max_size=20))
def test_what_is_written_is_what_is_read(attributes):
    attributes = {"request": "smtpd_access_policy", **attributes}
    octets = "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"
    assert read(octets) == [attributes]


@given(st.text(max_size=600))
def test_an_answer_is_one_line_of_printable_ascii(action):
    octets = answer(action)
    assert octets.startswith(b"action=")
    assert octets.endswith(b"\n\n")
    assert all(32 <= octet < 127 for octet in octets[:-2])

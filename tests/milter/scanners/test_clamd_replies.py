"""What clamd says: one clear answer, or none; nothing but OK is clean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.servers import Declined, ServerError
from elemta_milter.scanners.clamd import LONGEST_REPLY, TOO_LARGE, NoFildes, Scan, read_reply


@pytest.mark.parametrize(
    ("raw", "scan"),
    [
        (b"stream: OK\0", Scan()),
        (b"fd[12]: OK\0", Scan()),
        (b"stream: Eicar-Test-Signature FOUND\0", Scan("Eicar-Test-Signature")),
        (b"fd[7]: Win.Test.EICAR_HDB-1 FOUND\0", Scan("Win.Test.EICAR_HDB-1")),
        (b"stream: Eicar(44d88612fea8a8f36de82e1278abb02f:68) FOUND\0", Scan("Eicar")),  # ExtendedDetectionInfo
        (b"stream: Name(of a virus) FOUND\0", Scan("Name(of a virus)")),
        (b"stream: OK FOUND\0", Scan("OK")),
        (b"stream: Gr\xc3\xbcn.\xff FOUND\0", Scan("Grün.\ufffd")),
    ],
)
def test_clear_answers(raw, scan):
    assert read_reply(raw) == scan


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"stream: Can't parse data ERROR\0", "Can't parse data"),
        (b"fd[9]: Can't allocate memory ERROR\0", "Can't allocate memory"),
        (b"INSTREAM size limit exceeded. ERROR\0", TOO_LARGE),
    ],
)
def test_what_it_cannot_scan_it_declines(raw, why):
    with pytest.raises(Declined, match=why):
        read_reply(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"stream: OK",  # half a reply: it ends with a NUL
        b"stream: OK\n",
        b"stream: OK\0stream: OK\0",
        b"stream: OK\nstream: Eicar FOUND\0",
        b"stream: Eicar FOUND\nstream: OK\0",
        b"stream:OK\0",
        b"stream: ok\0",
        b"stream: \0",
        b"stream:  FOUND\0",
        b"stream: FOUND\0",
        b"fd[]: OK\0",
        b"/etc/passwd: OK\0",
        b"1: stream: OK\0",
        b"PONG\0",
        b"OK\0",
        b"COMMAND READ TIMED OUT ERROR\0",
        b"stream: read timeout ERROR\0\0",
        b"stream: Can't create temporary file ERROR\0",  # its disk is full: another server may do
        b"fd[9]: Can't write to file ERROR\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\0",
    ],
)
def test_what_is_no_clear_answer_is_trouble(raw):
    with pytest.raises(ServerError):
        read_reply(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"No file descriptor received. ERROR\0",
        b"UNKNOWN COMMAND ERROR\0",
        b"fd[11]: Can't access file ERROR\0",
        b"fd[11]: Not a regular file. ERROR\0",
    ],
)
def test_a_server_that_takes_no_descriptor_says_so(raw):
    with pytest.raises(NoFildes):
        read_reply(raw)


WORDS = st.sampled_from(
    [b"stream", b"fd[1]", b": ", b"OK", b" FOUND", b" ERROR", b"Eicar", b"\0", b"\n", b" ", b"(", b")"]
)


@given(st.one_of(st.binary(max_size=LONGEST_REPLY + 1), st.lists(WORDS, max_size=12).map(b"".join)))
def test_any_octets_are_an_answer_or_trouble_and_only_ok_is_clean(raw):
    try:
        scan = read_reply(raw)
    except ServerError:
        return
    if scan == Scan():
        assert raw in (b"stream: OK\0", b"fd[1]: OK\0") or raw.startswith(b"fd[")
    else:
        assert raw.endswith(b" FOUND\0")
        assert scan.virus.isprintable() or "\ufffd" in scan.virus or not scan.virus.isascii()

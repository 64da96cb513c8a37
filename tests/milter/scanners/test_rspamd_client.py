"""The client of Rspamd: what goes over the wire, and every way in which an answer can fail to come."""

import gzip
import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elemta.facts import BytesBody, Message
from elemta.servers import ServerError
from elemta.testing import envelope, message
from elemta_milter.scanners.rspamd import LONGEST_HEADER, Question, Rspamd
from harness.web import OK, send, server

ANSWER = json.dumps({"action": "no action", "score": 0.5}).encode()
GOOD = OK % (len(ANSWER), ANSWER)


@pytest.fixture
def client():
    made = Rspamd()
    yield made
    made.close()


def soon(seconds=5.0):
    return time.monotonic() + seconds


def ask(client, url, mail=None, until=None, **question):
    return client.ask(url, Question(mail or message(), "mx1.example.org", **question), until or soon())


def test_a_mail_goes_out_as_it_came_with_all_that_is_known(client):
    around = envelope(
        "192.0.2.7", "anna@grün.example", ["r@example.org", '"a,b"@example.org'], name="mail.example.com",
        helo="h.test", login="grün", tls="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", queue_id="4ABC",
    )  # fmt: skip
    mail = Message(around, ((b"From", b" a@b.test"), (b"Subject", b" a\r\n\tb")), BytesBody(b"one\r\n\r\ntwo\r\n"))
    with server(send(GOOD)) as there:
        assert ask(client, there.url, mail, tag="inbound", settings_id="out").score == 0.5
    [(first, fields, body)] = there.requests
    assert first == "POST /checkv2 HTTP/1.1"
    assert body == b"From: a@b.test\r\nSubject: a\r\n\tb\r\n\r\none\r\n\r\ntwo\r\n"
    found = dict(fields)
    assert len(found) == len(fields)
    assert found.pop("Host") == there.url.removeprefix("http://")
    assert found.pop("Content-Length") == str(len(body))
    assert found.pop("Accept-Encoding", "identity") == "identity"
    found.pop("User-Agent", None)
    assert found == {
        "Connection": "close", "IP": "192.0.2.7", "Helo": "h.test", "Hostname": "mail.example.com",
        "From": "<anna@xn--grn-ioa.example>", "Rcpt": '<r@example.org>,<"a,b"@example.org>', "User": "grün",
        "Queue-Id": "4ABC", "TLS-Version": "TLSv1.3", "TLS-Cipher": "TLS_AES_256_GCM_SHA384",
        "MTA-Name": "mx1.example.org", "MTA-Tag": "inbound", "Settings-ID": "out", "Flags": "milter,groups",
    }  # fmt: skip


def test_what_is_not_known_is_not_told_and_one_recipient_is_who_gets_it(client):
    with server(send(GOOD)) as there:
        ask(client, there.url, message(envelope("", "", ["r@example.org"], helo="")))
    found = dict(there.requests[0][1])
    assert (found["From"], found["Rcpt"], found["Deliver-To"]) == ("<>", "<r@example.org>", "r@example.org")
    assert not {"IP", "Helo", "Hostname", "User", "Queue-Id", "TLS-Version", "Password", "Settings"} & set(found)


def test_the_password_is_told_and_never_printed():
    client = Rspamd("s3cret")
    with server(send(GOOD)) as there:
        ask(client, there.url)
    assert dict(there.requests[0][1])["Password"] == "s3cret"
    assert "s3cret" not in repr(client)


@settings(deadline=None)
@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=4))
def test_nothing_that_a_stranger_wrote_ends_a_field(text, recipients):
    client = {"helo": text, "name": text, "login": text}
    question = Question(message(envelope("192.0.2.1", text, recipients, **client)), "mx1.example.org", text, text)
    for name, value in question.fields().items():
        assert name.replace("-", "").isalpha()
        assert not set(value) & (set(range(32)) | {127})
        assert value == value.strip()


def test_more_recipients_than_a_header_holds_are_told_in_part():
    everybody = [f"user{number:05d}@example.org" for number in range(10_000)]
    fields = Question(message(envelope(recipients=everybody)), "mx1.example.org").fields()
    told = fields["Rcpt"].decode().split(",")
    assert told == [f"<{each}>" for each in everybody[: len(told)]]
    assert 50_000 < sum(map(len, fields.values())) <= LONGEST_HEADER


class Chunks:
    def __init__(self, count):
        self.count = count
        self.size = count * 100_000

    def chunks(self):
        for number in range(self.count):
            yield b"%d" % (number % 10) * 100_000


def test_a_long_body_is_sent_as_it_is_read(client):
    mail = Message(envelope(), ((b"From", b" a@b.test"),), Chunks(80))
    with server(send(GOOD)) as there:
        ask(client, there.url, mail)
    _, fields, body = there.requests[0]
    assert body == b"From: a@b.test\r\n\r\n" + b"".join(Chunks(80).chunks())
    assert "Transfer-Encoding" not in dict(fields)


def test_the_environment_sends_no_mail_elsewhere(client, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with server(send(GOOD)) as there:
        assert ask(client, there.url).action == "no action"


def each_octet(data, seconds=0.05):
    return send(*(data[at : at + 1] for at in range(len(data))), pause=seconds)


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (send(b""), "closed connection without response|reset"),
        (send(b"\0\1\2"), r"garbage instead of an answer: .\\x00"),
        (send(b"SMTP 220 hello\r\n\r\n"), "SMTP 220"),
        (send(b"HTTP/1.1 200 OK\r\n"), "garbage|closed|Incomplete|reset"),
        (send(OK % (len(ANSWER) + 1, ANSWER)), "broke off"),
        (send(OK % (len(ANSWER) - 1, ANSWER)), "garbage"),
        (send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"), "IncompleteRead"),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "a chunk has no length"),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"), "broke off: a chunk has no length"),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), "IncompleteRead|chunk|garbage"),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{"), "garbage instead of an answer"),
        (send(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n"), "garbage instead of an answer"),
        (send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"), "more than 100 headers"),
        (send(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), "65536"),
        (send(b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad"), "HTTP status 500: 'bad'"),
        (send(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "HTTP status 302"),
        (send(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (5 << 20)), "longer than 4 MiB"),
        (send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(ANSWER)), "garbage"),
    ],
)  # fmt: skip
def test_no_clear_answer(client, talk, why):
    with server(talk) as there, pytest.raises(ServerError, match=why):
        ask(client, there.url)


@pytest.mark.parametrize(
    "talk",
    [
        None,  # takes the connection and nothing else
        send(b"", close=False),
        send(b"HTTP/1.1 200 OK\r\nContent-Le", close=False),
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{", close=False),
        each_octet(GOOD),
        each_octet(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90),
        send(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 400, pause=0.05),
        send(b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 1000] * 400, pause=0.05),
    ],
)
def test_whoever_is_slow_gets_no_more_time_than_whoever_is_silent(client, talk):
    with server(talk) as there:
        began = time.monotonic()
        with pytest.raises(ServerError, match="in time"):
            ask(client, there.url, until=soon(0.6))
        assert time.monotonic() - began < 5  # each_octet alone takes eight


def test_a_server_that_takes_a_long_mail_slowly(client):
    with server(None) as there, pytest.raises(ServerError, match="in time"):
        ask(client, there.url, Message(envelope(), (), Chunks(300)), until=soon(0.6))


def test_no_time_is_no_question(client):
    with server(send(GOOD)) as there, pytest.raises(ServerError, match="in time"):
        ask(client, there.url, until=time.monotonic() - 1)
    assert there.requests == []


def test_nobody_there(client):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(ServerError, match="Connection refused"):
        ask(client, f"http://127.0.0.1:{port}")


def test_an_answer_octet_by_octet_is_an_answer_when_there_is_time(client):
    with server(each_octet(GOOD, 0.001)) as there:
        assert ask(client, there.url).action == "no action"


def test_a_sign_of_life(client):
    with server(send(OK % (6, b"pong\r\n"))) as there:
        client.ping(there.url, soon())
    assert there.requests[0][0] == "GET /ping HTTP/1.1"
    for talk in (send(OK % (4, b"ping")), send(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\npong"), send(b"")):
        with server(talk) as there, pytest.raises(ServerError):
            client.ping(there.url, soon())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=rspamd.test", "-addext", "subjectAltName=IP:127.0.0.1"]
    path.write_bytes(subprocess.run([*command, "-keyout", "-", "-out", "-"], check=True, capture_output=True).stdout)
    return path


def test_tls_only_with_a_certificate_that_is_believed(certificate, client):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with server(send(GOOD), context) as there:
        believing = Rspamd(ca=str(certificate))
        assert ask(believing, there.url).action == "no action"
        with pytest.raises(ServerError, match=r"(?i)certificate"):
            ask(client, there.url)
        with pytest.raises(ServerError, match=r"(?i)certificate"):
            ask(believing, there.url.replace("127.0.0.1", "localhost"))
    with server(each_octet(GOOD), context) as there, pytest.raises(ServerError, match="in time"):
        ask(believing, there.url, until=soon(0.6))


def test_threads_share_a_client(client):
    said = []

    def one(number):
        body = json.dumps({"action": f"a{number}", "score": number}).encode()
        with server(send(OK % (len(body), body))) as there:
            said.append([(number, ask(client, there.url).action) for _ in range(5)])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(action for each in said for action in each) == sorted(
        (n, f"a{n}") for n in range(8) for _ in range(5)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), start=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", GOOD[:70], GOOD]))
def test_any_octets_are_an_answer_or_an_error(client, data, start):
    with server(send(start + data)) as there, suppress(ServerError):
        assert ask(client, there.url).action == "no action"

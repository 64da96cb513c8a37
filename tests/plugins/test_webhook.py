"""webhook: what is sent, which answers are lawful, and that nothing else harms."""

import base64
import hashlib
import hmac
import http.client
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elemta import Finding, Result, ServerError
from elemta.config.problems import ConfigErrors
from elemta.plugins import find_checks
from elemta.testing import envelope, judge, message, policy, run
from elemta_plugins.webhook import Webhook


class Service:
    """A web service on loopback; `answer` is what it says next."""

    def __init__(self):
        service = self
        self.answer, self.status, self.seen = b"{}", 200, []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                octets = self.rfile.read(int(self.headers["Content-Length"]))
                service.seen.append((dict(self.headers), octets))
                self.send_response(service.status)
                if service.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(service.answer)))
                self.end_headers()
                self.wfile.write(service.answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/mail"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ask(self, facts=None, seen=None, answer=None, **options):
        if answer is not None:
            self.answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return run(Webhook, facts or message(), seen, url=self.url, **options)


@pytest.fixture(scope="module")
def service():
    made = Service()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def calm(service):
    service.answer, service.status = b'{"result": "pass"}', 200
    service.seen.clear()


def test_what_is_sent(service):
    of = envelope("192.0.2.7", "b\udcfc@b.test", ["c@d.test"], login="anna", queue_id="4abc")
    mail = message(of, [("From", "a@b.test"), ("Subject", "grüße")], b"body\r\n" * 100)
    seen = {"spf": Finding("spf", Result.PASS, "well", {"ip": IPv4Address("192.0.2.7"), "all": ("a", "b")})}
    service.ask(mail, seen, body=10)
    [(headers, octets)] = service.seen
    told = json.loads(octets)
    assert headers["Content-Type"] == "application/json"
    assert "Elemta-Signature" not in headers
    assert (told["version"], told["host"]) == (1, "mx.receiver.test")
    assert told["client"]["address"] == "192.0.2.7"
    assert told["client"]["login"] == "anna"
    assert (told["sender"], told["recipients"], told["queue_id"]) == ("b\\udcfc@b.test", ["c@d.test"], "4abc")
    assert told["headers"] == [["From", "a@b.test"], ["Subject", "grüße"]]
    assert (base64.b64decode(told["body"]), told["body_size"]) == (b"body\r\nbody", 600)
    fields = {"ip": "192.0.2.7", "all": ["a", "b"]}
    assert told["findings"] == {"spf": {"result": "pass", "reason": "well", "fields": fields}}


def test_it_is_told_what_every_check_found_but_those_that_count():
    assert {*Webhook.after, "webhook", "greylist", "limits"} == set(find_checks())


def test_what_content_found_is_sent(service):
    rules = f'{{host: mx.receiver.test, checks: {{content: null, webhook: {{url: "{service.url}"}}}}}}'
    judge(policy(rules), message(body=b"http://a.test/"))
    [(_, octets)] = service.seen
    assert json.loads(octets)["findings"]["content"]["fields"]["url_hosts"] == ["a.test"]


def test_the_body_stays_here_by_default_and_the_request_is_signed(service):
    service.ask(secret="between us")
    [(headers, octets)] = service.seen
    assert json.loads(octets)["body"] == ""
    signed = hmac.new(b"between us", headers["Elemta-Timestamp"].encode() + b"." + octets, hashlib.sha256).hexdigest()
    assert headers["Elemta-Signature"] == f"sha256={signed}"


def test_what_may_be_answered(service):
    found = service.ask(answer={"result": "fail", "reason": "bad", "score": 7, "labels": ["a", "b"]})
    assert (found.result, found.reason) == ("fail", "bad")
    assert found.fields == {"score": 7.0, "labels": ("a", "b")}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "its answer is not lawful: Invalid JSON"),
        (b"[" * 60_000, "its answer is not lawful: "),
        ({}, "its answer is not lawful: result: Field required"),
        ({"result": "good"}, "its answer is not lawful: result: "),
        ({"result": "temperror"}, "it answered the result temperror, which is not its own to give"),
        ({"result": "pass", "score": "7"}, "its answer is not lawful: score: "),
        (b'{"result": "pass", "score": NaN}', "its answer is not lawful: "),
        ({"result": "pass", "reason": "x" * 501}, "its answer is not lawful: reason: "),
        ({"result": "pass", "labels": ["x"] * 21}, "its answer is not lawful: labels: "),
        ({"result": "pass", "labels": [""]}, "its answer is not lawful: labels.0: "),
        ({"result": "pass", "edits": []}, "its answer is not lawful: edits: "),
        (b" " * 100_000, "its answer is longer than 64 KiB"),
    ],
)
def test_any_other_answer_is_trouble(service, answer, reason):
    with pytest.raises(ServerError, match=re.escape(reason)):
        service.ask(answer=answer)


@pytest.mark.parametrize("status", [204, 302, 404, 500])
def test_other_statuses_are_trouble_and_nobody_is_sent_elsewhere(service, status):
    service.status = status
    with pytest.raises(ServerError, match=f"it answered with status {status}"):
        service.ask()
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    ],
    ids=["chunk", "location"],
)
def test_what_the_library_for_http_stumbles_over_is_trouble_and_no_crash(answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as request:
                request.readline()  # all of it, which may come in pieces: what is left unread resets the connection
                request.read(int(http.client.parse_headers(request)["Content-Length"]))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ServerError, match="its answer is not lawful"):
            run(Webhook, message(), url=f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()


def test_nobody_there():
    with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:1/: Connection refused$"):
        run(Webhook, message(), url="http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "Remote end closed connection without response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "its answer broke off"),
        (b"hello\r\n", r"garbage instead of an answer: 'hello\r\n'"),
        (None, "no answer in time"),
    ],
    ids=["nothing", "half", "chunk", "garbage", "hangs"],
)
def test_why_there_was_no_answer_is_told_in_few_words(answer, reason, monkeypatch):
    monkeypatch.setattr("elemta_plugins.webhook.PATIENCE", 0.5 if answer is None else 10.0)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as request:
                request.readline()  # all of it, which may come in pieces: what is left unread resets the connection
                request.read(int(http.client.parse_headers(request)["Content-Length"]))
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(ServerError) as told:
            run(Webhook, message(), url=url)
        done.set()
        thread.join()
    assert str(told.value) == f"{url}: {reason}"


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_it_answers_is_an_answer_or_trouble(service, octets):
    try:
        found = service.ask(answer=octets)
    except OSError:
        return
    assert found.result in Webhook.results


@pytest.mark.parametrize("url", ["ftp://a.test/", "http://", "http://a:b@c.test/", "http://a.test:99999/", "x"])
def test_what_is_no_address_is_a_mistake(url):
    with pytest.raises(ConfigErrors):
        policy(f'host: mx.test\nchecks: {{webhook: {{url: "{url}"}}}}')

"""Isolated plugins at every stage: the client, the envelope, one recipient; and those that Elemta ships."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from elemta.case import Case
from elemta.engine import Engine
from elemta.testing import envelope, message, policy, tools

EARLY = '''
import elemta

class Early(elemta.Check[elemta.Client]):
    """What is its name?"""
    name = "early"
    fields = {"helo": elemta.Field(str, "HELO")}

    async def run(self, facts, seen):
        return self.finding(elemta.Result.PASS, helo=facts.helo)
'''
ONE = '''
import elemta

class One(elemta.Check[elemta.Envelope]):
    """Is this recipient somebody?"""
    name = "one"
    per_recipient = True
    after = ("early",)

    async def run(self, facts, seen):
        known = facts.recipients == ("somebody@receiver.test",)
        return self.finding(elemta.Result.PASS if known else elemta.Result.FAIL, seen["early"].fields["helo"])
'''


def of(folder, more):
    return policy(f"host: mx.receiver.test\nstate: sqlite://{folder}/state.db\nplugins: {{folder: {folder}}}\n{more}")


def test_a_plugin_at_rcpt_to_sees_one_recipient_and_the_client(tmp_path):
    (tmp_path / "early.py").write_text(EARLY)
    (tmp_path / "one.py").write_text(ONE)
    rule = "rules: {recipient: [{id: nobody, when: {one: fail, early: pass}, then: reject}]}"

    async def scene():
        engine = Engine(of(tmp_path, f"checks: {{early: , one: }}\n{rule}"), tools())
        await engine.open()
        await engine.ahead("recipient")
        try:
            case = Case(engine, 40.0)
            return [
                await case.recipient(envelope(recipients=[f"{name}@receiver.test"])) for name in ("somebody", "nobody")
            ]
        finally:
            await engine.close()

    accepted, refused = asyncio.run(scene())
    assert (accepted.verdict.rule, refused.verdict.rule) == ("", "nobody")
    assert {finding.check: finding.reason for finding in refused.findings}["one"] == "client.test"


def test_the_shipped_webhook_answers_from_a_process_of_its_own(tmp_path):
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = b'{"result": "fail", "score": 9, "labels": ["invoice"]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    more = f"""
checks: {{webhook: {{url: "http://127.0.0.1:{server.server_port}/", body: 5}}}}
rules: {{message: [{{id: hook, when: {{webhook.score: {{ge: 8}}, webhook.labels: invoice}}, then: quarantine}}]}}
"""

    async def scene():
        engine = Engine(of(tmp_path, more), tools())
        await engine.open()
        try:
            decision = await Case(engine, 40.0).message(message())
            return decision, engine.dependencies("message")
        finally:
            await engine.close()

    try:
        decision, dependencies = asyncio.run(scene())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert decision.verdict.rule == "hook"
    assert (told[0]["class"], told[0]["body"]) == ("inbound", "aGVsbG8=")
    assert set(dependencies.values()) == {""}
    assert len(dependencies) == 2, "its process, and the service that it told of"

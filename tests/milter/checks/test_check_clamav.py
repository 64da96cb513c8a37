"""The clamav check: what rules are told of clamd's answer, and what is trouble."""

import asyncio
import socket
import threading
import time
from dataclasses import replace

import pytest
from msgspec import structs

from elemta.config.problems import ConfigErrors
from elemta.findings import Result
from elemta.servers import Declined, NoServer, ServerError
from elemta.testing import judge, message, policy, run, tools
from elemta_milter.checks.clamav import Clamav, ClamavOptions
from elemta_milter.scanners import head
from elemta_milter.scanners.clamd import TOO_LARGE, Scan, Scanner

FLAGS = ("heuristic", "phishing", "encrypted", "limits", "pua", "skipped")


@pytest.fixture
def answers(monkeypatch):
    """What each server answers: a virus's name, "" for clean, a Scan, an exception; by address, or "" for all."""
    given = {"": ""}
    asked = []

    def scan(self, address, mail, until):
        asked.append((address, until))
        answer = given.get(address, given[""])
        if isinstance(answer, Exception):
            raise answer
        return Scan(answer, server=address) if isinstance(answer, str) else replace(answer, server=address)

    monkeypatch.setattr(Scanner, "scan", scan)
    given["asked"] = asked
    return given


def flags(found):
    return {flag for flag in FLAGS if found.fields.get(flag)}


@pytest.mark.parametrize(
    ("virus", "result", "kind", "raised"),
    [
        ("Eicar-Test-Signature", "fail", "malware", set()),
        ("Win.Trojan.Agent-123.UNOFFICIAL", "fail", "malware", set()),
        ("Email.Phishing.Bank-1", "fail", "phishing", {"phishing"}),
        ("Sanesecurity.Phishing.Fake.30.UNOFFICIAL", "fail", "phishing", {"phishing"}),
        ("Heuristics.Worm.Mydoom.M.log", "fail", "malware", {"heuristic"}),
        ("Heuristics.W32.Parite.B", "fail", "malware", {"heuristic"}),
        ("Heuristics.Exploit.W32.MS04-028", "fail", "malware", {"heuristic"}),
        ("Heuristics.Trojan.Swizzor.Gen", "fail", "malware", {"heuristic"}),
        ("Heuristics.Phishing.Email.SpoofedDomain", "policy", "phishing", {"heuristic", "phishing"}),
        ("Heuristics.Encrypted.Zip", "policy", "encrypted", {"heuristic", "encrypted"}),
        ("Heuristics.Limits.Exceeded.MaxScanSize", "policy", "limits", {"heuristic", "limits"}),
        ("Heuristics.OLE2.ContainsMacros.VBA", "policy", "heuristic", {"heuristic"}),
        ("PUA.Win.Packer.Upx-1", "policy", "pua", {"pua"}),
        ("Heuristicsx.Encrypted", "fail", "malware", set()),
    ],
)
def test_a_name_tells_what_it_is(answers, virus, result, kind, raised):
    answers[""] = virus
    found = run(Clamav, message())
    assert (found.result, found.fields["virus"], found.fields["kind"]) == (result, virus, kind)
    assert flags(found) == raised
    assert found.fields["server"] == "unix:/run/clamav/clamd.ctl"
    assert not found.trouble


def test_clean(answers):
    found = run(Clamav, message())
    assert found.result is Result.PASS
    assert flags(found) == set()
    assert "virus" not in found.fields


def test_a_mail_over_max_size_is_not_scanned_and_no_pass(answers):
    mail = message(body=b"x" * 1000)
    size = len(head(mail)) + 1000
    assert run(Clamav, mail, max_size=size).result is Result.PASS
    before = len(answers["asked"])
    found = run(Clamav, mail, max_size=size - 1)
    assert found.result is Result.POLICY
    assert flags(found) == {"skipped", "limits"}
    assert len(answers["asked"]) == before
    assert "max_size" in found.reason


def test_a_mail_that_the_milter_had_to_cut_is_no_pass(answers):
    found = run(Clamav, structs.replace(message(), truncated="4,000 header fields"))
    assert (found.result, flags(found)) == ("policy", {"limits"})
    answers[""] = "Eicar"
    assert run(Clamav, structs.replace(message(), truncated="4,000 header fields")).result is Result.FAIL


def test_a_mail_that_clamd_cannot_scan_is_trouble_and_leaves_the_server_in_use(answers):
    answers[""] = Declined("Can't parse data")

    async def ten():
        check = Clamav(ClamavOptions(), tools())
        await check.open()
        for _ in range(10):
            with pytest.raises(NoServer, match="Can't parse data"):
                await check.run(message(), {})
        states = check.dependencies()
        await check.close()
        return states

    assert asyncio.run(ten()) == {"unix:/run/clamav/clamd.ctl": ""}


def test_a_mail_that_one_clamd_cannot_scan_goes_to_the_next(answers):
    first, second = "unix:/run/one", "unix:/run/two"
    answers[first] = Declined("Can't parse data")
    answers[second] = "Eicar"
    found = run(Clamav, message(), socket=[first, second])
    assert (found.result, found.fields["server"]) == ("fail", second)


def test_a_mail_over_clamds_own_limit_warns_the_administrator(answers):
    answers[""] = Declined(TOO_LARGE)
    found = run(Clamav, message())
    assert found.trouble
    assert "StreamMaxLength" in found.warning
    assert "25M" in found.warning


def test_the_next_server_is_asked(answers):
    first, second = "unix:/run/one", "inet:[::1]:3310"
    answers[first] = ServerError("garbage")
    found = run(Clamav, message(), socket=[first, second])
    assert (found.result, found.fields["server"]) == ("pass", second)
    answers[second] = ConnectionRefusedError("refused")
    with pytest.raises(NoServer, match=r"/run/one: garbage; inet:\[::1\]:3310: refused"):
        run(Clamav, message(), socket=[first, second])


def test_a_server_that_does_not_answer_is_left_alone_and_told_of(tmp_path):
    async def four():
        check = Clamav(ClamavOptions(socket=f"unix:{tmp_path}/nobody"), tools())
        await check.open()
        for _ in range(4):
            with pytest.raises(NoServer):
                await check.run(message(), {})
        states = check.dependencies()
        await check.close()
        return states

    assert "No such file" in asyncio.run(four())[f"unix:{tmp_path}/nobody"]


POLICY = """
host: mx1.example.org
classes: {submission: {login: {exists: true}}, inbound: {}}
checks: {clamav: {socket: "unix:SOCKET", timeout: TIME, trouble: TROUBLE}}
rules:
  message:
    - id: virus
      when: {clamav: fail}
      then: reject
      reply: "550 5.7.1 {clamav.virus} found. Reference {id}"
"""


def decide(path, seconds="5s", trouble="defer"):
    text = POLICY.replace("SOCKET", str(path)).replace("TIME", seconds).replace("TROUBLE", trouble)
    return judge(policy(text), message())


def test_the_rule_and_its_reply(answers, tmp_path):
    answers[""] = "Eicar-Test-Signature"
    decision = decide(tmp_path / "s")
    assert decision.verdict.disposition == "reject"
    assert decision.verdict.reply == f"550 5.7.1 Eicar-Test-Signature found. Reference {decision.id}"
    answers[""] = ""
    assert decide(tmp_path / "s").verdict.disposition == "accept"


@pytest.mark.parametrize(
    ("trouble", "verdict"),
    [("defer", "defer"), ("accept", "accept"), ("reject", "reject"), ("{inbound: quarantine}", "quarantine")],
)
def test_trouble_is_what_the_policy_says(tmp_path, trouble, verdict):
    decision = decide(tmp_path / "nobody", trouble=trouble)
    assert decision.verdict.disposition == verdict
    [found] = decision.findings
    assert (found.result, found.trouble) == ("temperror", True)
    assert f"{tmp_path}/nobody" in found.reason


def test_a_clamd_that_hangs_is_given_the_time_out_and_no_more(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        began = time.monotonic()
        decision = decide(tmp_path / "s", "200ms")
    assert decision.verdict.disposition == "defer"
    assert time.monotonic() - began < 10
    assert decision.findings[0].trouble


def test_the_client_is_told_until_when(answers, tmp_path):
    before = time.monotonic()
    decide(tmp_path / "s", "5s")
    [(_, until)] = answers["asked"]
    assert before + 4 < until < time.monotonic() + 5


@pytest.mark.parametrize(
    ("written", "sockets"),
    [
        ("", ("unix:/run/clamav/clamd.ctl",)),
        ("socket: unix:/run/x", ("unix:/run/x",)),
        ("socket: 'inet:127.0.0.1:3310'", ("inet:127.0.0.1:3310",)),
        ("socket: 'inet:clamav:3310'", ("inet:clamav:3310",)),
        ("socket: clamav.example.org:3310", ("inet:clamav.example.org:3310",)),
        ("socket: 'inet:localhost:3310'", ("inet:localhost:3310",)),
        ("socket: ['inet:[::1]:3310', unix:/run/x]", ("inet:[::1]:3310", "unix:/run/x")),
    ],
)
def test_addresses(written, sockets):
    made = policy(f"host: mx.test\nchecks: {{clamav: {{{written}}}}}\n")
    [plan] = made.checks
    assert plan.options.sockets == sockets


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("socket: /run/x", "write unix:/run/clamav/clamd.ctl"),
        ("socket: clamav", "write unix:/run/clamav/clamd.ctl"),
        ("socket: 'inet:clamav:0x10'", "is no address of clamd"),
        ("socket: 'inet:clamav:99999'", "is no address of clamd"),
        ("socket: 'inet:300.1.1.1:3310'", "is no address of clamd"),
        ("socket: 'inet:[::g]:3310'", "is no address of clamd"),
        ("socket: 'inet:a b:3310'", "is no address of clamd"),
        ("socket: []", "needs a socket"),
        ("socket: 'unix:/" + "x" * 120 + "'", "is no address of clamd"),
        ("mode: fildes, socket: 'inet:clamav:3310'", "needs unix sockets"),
        ("mode: fdpass", "fildes"),
        ("max_size: huge", "is not a size"),
    ],
)
def test_mistakes_are_told(written, told):
    with pytest.raises(ConfigErrors, match=told):
        policy(f"host: mx.test\nchecks: {{clamav: {{{written}}}}}\n")


def test_a_name_that_the_system_looks_up_for_ever_holds_up_its_thread_and_not_the_mail(monkeypatch):
    """getaddrinfo knows no deadline."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20))
    try:
        began = time.monotonic()
        text = POLICY.replace("unix:SOCKET", "inet:clamav.test:3310").replace("TIME", "300ms")
        decision = judge(policy(text.replace("TROUBLE", "defer")), message())
        assert time.monotonic() - began < 10
        assert decision.verdict.rule == "trouble:clamav"
        assert decision.findings[0].reason == "no answer within 0.3 s"
    finally:
        over.set()

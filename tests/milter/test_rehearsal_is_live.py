"""A rehearsal and the daemons' own steps decide alike: random policies and mails, the same facts, findings and edits.

The live side goes without processes: the policy service's translation, the milter's session and port, one state store.
"""

from __future__ import annotations

import asyncio
import json
import random
import re

import pytest
from msgspec.structs import replace

from elemta.case import Case
from elemta.config.load import load
from elemta.config.problems import ConfigErrors
from elemta.engine import Engine
from elemta.explain.rehearsal import rehearse
from elemta.facts import Client, parse_ip
from elemta.journal.entry import of_decision
from elemta.policy import Policy
from elemta.tools import open_tools
from elemta.verdict import Disposition
from elemta_milter.planning import plan
from elemta_milter.port import Port
from elemta_milter.session import Session
from elemta_policyd.translate import action, envelope
from harness.dns import SERVFAIL, DnsServer, reverse

ZONE = {
    "sender.test": [("TXT", "v=spf1 ip4:192.0.2.0/28 -all")],
    "_dmarc.sender.test": [("TXT", "v=DMARC1; p=reject")],
    "broken.test": [("TXT", SERVFAIL)],
    reverse("192.0.2.7"): [("PTR", "mx.sender.test")],
    "mx.sender.test": [("A", "192.0.2.7")],
}
CLIENTS = (("192.0.2.7", "mx.sender.test"), ("2001:db8::5", "six.test"), ("10.1.2.3", "inside.here.test"))
SENDERS = ("a@sender.test", "anna@here.test", "x@broken.test", "", '"odd one"@sender.test', "a.b@xn--bcher-kva.test")
RECIPIENTS = ("bob@here.test", "Bob@here.test", "carol@there.test", "no@here.test", '"b ob"@here.test')
POLICY = """
host: mx.here.test
dns: {{servers: ["{dns}"], timeout: 1s}}
state: sqlite://{directory}/state.db
journal: {{path: {directory}/journal.db}}
sets: {{nets: [10.0.0.0/8], ours: [here.test, .sender.test, bücher.test], dyn: {{dynamic: true}}}}
classes: {{submission: {{login: {{exists: true}}}}, inbound: {{}}}}
checks:
  spf: {{trouble: {trouble}, received_spf: true}}
  iprev:
  dkim:
  arc:
  dmarc:
  content:
  attachments:
  first_contact:
  greylist: {{delay: 1h}}
  limits: {{a: {{key: client.address, windows: {{1h: 2}}, count: messages}}, b: {{key: sender, count: recipients,
    windows: {{1h: 3}}}}, c: {{key: sender.domain, count: octets, windows: {{1d: 2K}}}}}}
rules:
  recipient:
{recipient}
  message:
{message}
"""
EARLY = (
    "client.address: {in: nets}", "client.address: {cidr: ['2001:db8::/32', 192.0.2.7]}", "client.name: {glob: '*.T*'}",
    "helo: {fact: client.name}", "login: anna", "login: {exists: false}", "sender: {exists: false}",
    "sender: {in: dyn}", "sender: {in: [a@sender.test, '\"odd one\"@sender.test']}", "sender.domain: {in: ours}",
    "sender.domain: bücher.test",
    "sender.local: {regex: '^.[.]'}", "recipient: {regex: '^[b-c]'}", "recipient.domain: {not: there.test}",
    "class: inbound", "spf: pass", "spf: {not: pass}", "spf: temperror", "iprev: [pass, none]", "size: {gt: 400}",
)  # fmt: skip
AT_RCPT = (
    *EARLY, "greylist: fail", "greylist.attempts: {ge: 2}", "limits: fail", "limits.used: {ge: 1}",
    "recipient.count: 0",
)  # fmt: skip
LATE = (
    *EARLY, "recipient.count: {gt: 1}", "subject.text: {regex: 'ü'}", "subject: {exists: false}", "dmarc: {not: pass}",
    "header_from.domain: {fact: sender.domain}", "header.x-test: {in: [one, two]}", "header.x-test: {not: two}",
    "dmarc.policy: reject", "dkim: none", "arc: none", "attachments.extension: exe", "content.has_html: true",
    "content.url_domains: evil.test", "from_name: {glob: 'Jürgen*'}", "first_contact: pass", "reply_to.differs: true",
    "message_id: {exists: true}", "header_from.trouble: {exists: true}",
)  # fmt: skip
ANYWHERE = (
    'add_header: {X-Test: "{sender} {class} {rule}"}', 'label: "{spf} {recipient}"',
    'add_header: {Subject: "für {helo}"}', 'add_to_set: {set: dyn, value: "{sender}", ttl: 1h}',
)  # fmt: skip
AT_THE_END = (
    *ANYWHERE, 'set_header: {Subject: "{subject.text} {id}"}', "remove_header: [X-Test, Subject]", 'tag_subject: "[x]"',
    "add_recipient: arch@here.test", "remove_recipient: BOB@here.test", 'change_sender: "{sender}"',
    "replace_body: new", 'banner: {text: "from {sender}"}', "replace_attachments: {extension: exe}",
)  # fmt: skip
BODIES = (
    ("", "text\n"), ("", ""), ("", "no end"), ("", "x" * 1200 + "\n"),
    ("MIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n", '<p>ü <a href="http://evil.test/">x</a></p>\n'),
    ("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n",
     '--b\n\nhi\n--b\nContent-Disposition: attachment; filename="a.exe"\n\nMZ\n--b--\n'),
)  # fmt: skip


def conditions(pick, known):
    chosen = {each.partition(":")[0]: each for each in pick.sample(known, pick.choice((0, 1, 1, 2)))}
    inner = ", ".join(chosen.values())
    return f"{{not: {{{inner}}}}}" if inner and pick.random() < 0.2 else f"{{{inner}}}"


def rule(pick, name, known, actions):
    parts = [f"id: {name}", f"when: {conditions(pick, known)}"]
    if pick.random() < 0.2:
        parts.append(f"unless: {{{pick.choice(known)}}}")
    if pick.random() < 0.2:
        parts.append("mode: shadow")
    if pick.random() < 0.2:
        parts.append("percent: 50")
    then = pick.choice(("", "", "accept", "accept", "quarantine", "defer", "reject"))
    if then:
        parts.append(f"then: {then}")
    if then == "reject":
        parts.append('reply: "550 5.7.1 {sender} {id}"')
    if not then or pick.random() < 0.3:
        parts.append(pick.choice(actions))
    return f"    - {{{', '.join(parts)}}}"


def made(pick, directory, dns):
    """A policy without mistakes, such as rules that are never reached."""
    while True:
        recipient = "\n".join(rule(pick, f"r{number}", AT_RCPT, ANYWHERE) for number in range(pick.choice((1, 3))))
        message = "\n".join(rule(pick, f"m{number}", LATE, AT_THE_END) for number in range(pick.choice((2, 5))))
        trouble = pick.choice(("accept", "defer", "{inbound: quarantine}"))
        path = directory / "policy.yaml"
        path.write_text(
            POLICY.format(dns=dns.endpoint, directory=directory, trouble=trouble, recipient=recipient, message=message)
        )
        try:
            return Policy.compile(load(path))
        except ConfigErrors:
            continue


def mail(pick, number):
    """Header fields and a body, with LF line ends."""
    fields = ["To: bob@here.test", "Date: Mon, 1 Jan 2024 00:00:00 +0000"]
    fields.append(
        "From: " + pick.choice(("a@sender.test", "=?utf-8?q?J=C3=BCrgen?= <anna@here.test>", "a@x.test, b@x.test"))
    )
    fields += pick.sample(
        ("X-Test: one", "X-Test: two", "x-test:\tfolded\n  ö", "Reply-To: x@evil.test"), pick.randrange(3)
    )
    fields += pick.sample(
        (
            "Subject: =?utf-8?q?=C3=BC?=",
            f"Message-ID: <{number}@x.test>",
            "Authentication-Results: mx.here.test; spf=pass",
        ),
        pick.randrange(4),
    )
    pick.shuffle(fields)
    more, body = pick.choice(BODIES)
    return "\n".join(fields) + "\n" + more, body


async def live(policy, directory, client, sender, recipients, header, body):
    """The decisions that the daemons' steps come to, in order."""
    body += "\n" * (body[-1:] not in ("", "\n"))  # the last line ends in SMTP
    settings, octets = policy.settings, len(f"{header}\n{body}".replace("\n", "\r\n").encode())
    attributes = {
        "client_address": str(client.address), "client_name": client.name, "reverse_client_name": client.name,
        "helo_name": client.helo, "sasl_username": client.login, "instance": "1.2", "size": str(octets),
        "sender": _internal(sender),
    }  # fmt: skip
    async with open_tools(settings) as tools:
        engine = Engine(policy, tools)
        await engine.open()
        case, prepended, kept, decisions = Case(engine, 10.0), "", [], []
        for recipient in recipients:
            decision = await case.recipient(envelope(attributes | {"recipient": _internal(recipient)}))
            answer = action(decision, may_prepend=not prepended)
            prepended = prepended or answer.removeprefix("PREPEND ") * answer.startswith("PREPEND")
            kept += [] if decision.verdict.disposition in (Disposition.DEFER, Disposition.REJECT) else [recipient]
            decisions.append(decision)
        port = Port(lambda: Case(engine, 10.0), asyncio.get_running_loop(), 10.0, pytest.fail)

        def carry():
            session = Session(port, str(directory), early=engine.wants.early)
            session.connect(client.name, str(client.address), 25)
            session.helo(client.helo)
            session.mail(f"<{sender}>".encode(), [b"SIZE=%d" % octets], {"{auth_authen}": client.login})
            for recipient in kept or recipients:
                session.rcpt(f"<{recipient}>".encode())
            for field in re.findall(r".+\n(?:[ \t].*\n)*", (f"{prepended}\n" if prepended else "") + header):
                name, _, value = field.removesuffix("\n").partition(":")
                session.header(name, value.encode())
            session.body(body.replace("\n", "\r\n").encode())
            ending = session.eom({"i": "4F3A"})
            return port.decide(ending.case, ending.message, lambda: None)

        decisions.append(await asyncio.to_thread(carry))
        await engine.close()
    return decisions


def _internal(address):
    """As Postfix tells it a policy service."""
    return address.replace('"', "")


def told(decision, policy):
    """What both must agree on."""
    entry = of_decision(replace(decision, id="REF", at=0.0), policy.describe())
    shown = {
        "class": entry.klass, "disposition": entry.disposition, "rule": entry.rule, "reply": entry.reply,
        "trace": entry.trace, "shadow": entry.shadow, "sender": entry.sender, "recipients": entry.recipients,
        "size": entry.size, "values": dict(entry.values), "actions": [str(each) for each in entry.actions],
        "findings": {each.check: str(each) for each in entry.findings},
    }  # fmt: skip
    if entry.stage == "message":
        shown["edits"] = edits(decision, policy.settings.host)
    words = json.dumps(shown, default=str, ensure_ascii=False).replace(decision.id, "REF")
    return json.loads(re.sub(r"to wait \d+ s|wait['\"]: \d+\.\d+", "", words))


def edits(decision, host):
    try:
        planned = [repr(each) for each in plan(decision, decision.facts, host)]
    except ValueError as unlawful:
        return [str(unlawful)]
    return ["".join(sorted(each)) if "uthentication-Results" in each else each for each in planned]  # in any order


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_rehearsal_says_what_happens(seed, tmp_path):
    pick = random.Random(seed)  # the same policies and mails every time
    with DnsServer(ZONE) as dns:
        for number in range(4):
            if number % 2 == 0:
                policy = made(pick, tmp_path, dns)
            address, name = pick.choice(CLIENTS)
            login = pick.choice(("", "", "anna"))
            client = Client(
                parse_ip(address), name, name, helo=pick.choice(("six.test", "mx.sender.test")), login=login
            )
            sender, recipients = pick.choice(SENDERS), pick.sample(RECIPIENTS, pick.choice((1, 2, 3)))
            header, body = mail(pick, number)
            rehearsed = asyncio.run(rehearse(policy, client, sender, recipients, f"{header}\n{body}".encode()))
            happened = asyncio.run(live(policy, tmp_path, client, sender, recipients, header, body))
            for ours, theirs in zip((*rehearsed.recipients, rehearsed.message), happened, strict=True):
                assert told(ours, policy) == told(theirs, policy), (tmp_path / "policy.yaml").read_text()

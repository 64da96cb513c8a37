"""Rules that change the content: what the engine decides, what the finding says, and what is delivered."""

from __future__ import annotations

import io
import zipfile
from base64 import encodebytes

import pytest
from msgspec.structs import replace

from elemta.facts import BytesBody, Message
from elemta.findings import Finding, Result
from elemta.testing import FakeResolver, envelope, judge, policy
from elemta.verdict import Action, ActionKind, Verdict
from elemta_milter import edits
from elemta_milter.planning import plan
from elemta_milter.rewrite import Rewriting, part
from elemta_milter.vouching import delivered
from harness.signatures import BODY, HEADERS, NOW, rsa_key, signed

HOST = "mx.test"
BANNER = "{id: outside, banner: {text: 'From outside {host} by {rule}: {sender}'}}"
NO_EXE = "{id: programs, replace_attachments: {extension: [exe, JS], type: application/x-msdownload, name: 'inv*.zip'}}"
PLAIN = ((b"From", b" a@b.test"),)
MIXED = (*PLAIN, (b"Content-Type", b" multipart/mixed; boundary=b"))


def of(*rules, checks="{dkim: , arc: , attachments: }"):
    return policy(
        f"host: {HOST}\nchecks: {checks}\nrules:\n  message:\n" + "".join(f"    - {rule}\n" for rule in rules)
    )


def zone():
    key = rsa_key()
    return FakeResolver({key.record_name: [("TXT", key.record)]})


def carried(made, message):
    """The finding, and the header and body as they are delivered."""
    decision = judge(made, message, resolver=zone(), clock=lambda: NOW)
    found = {finding.check: finding for finding in decision.findings}["rewrite"]
    header, body = delivered(message, plan(decision, message, HOST))
    return found, header, b"".join(body.chunks())


def mail(headers=PLAIN, body=b"hello\r\n", truncated="", sender="anna@sender.test"):
    return Message(envelope(sender=sender), tuple(headers), BytesBody(body), truncated)


def attached(name, data=b"MZ", kind="application/octet-stream"):
    octets = encodebytes(data).replace(b"\n", b"\r\n")
    fields = f'Content-Type: {kind}; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'.encode()
    return b"--b\r\n\r\nhello\r\n--b\r\n" + fields + octets + b"--b--\r\n"


def zipped(name):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, "MZ")
    return made.getvalue()


EML = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n"
EML += b"Content-Type: application/x; name=a.exe\r\n\r\nMZ\r\n--c--\r\n"


# ── banners ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_banner_with_its_facts():
    found, _, body = carried(of(BANNER), mail())
    assert body == b"From outside mx.test by outside: anna@sender.test\r\n\r\nhello\r\n"
    assert (found.result, found.reason) == (Result.PASS, "banner in part 1")
    assert found.fields == {"banner": ("1",), "removed": ()}


def test_a_banner_at_the_bottom():
    _, _, body = carried(of("{id: a, banner: {text: the end, position: bottom}}"), mail())
    assert body.startswith(b"hello\r\n")
    assert body.endswith(b"the end\r\n")


def test_a_mail_of_attachments_only_gets_a_text():
    found, _, body = carried(of(BANNER), mail(MIXED, b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n"))
    assert found.reason == "banner in a new first part"
    assert body.index(b"From outside") < body.index(b"image/png")


def test_in_html_facts_are_no_markup():
    rule = "{id: a, banner: {text: no, html: '<i>{sender}</i> {{x}}'}}"
    fields = (*PLAIN, (b"Content-Type", b" text/html"))
    _, _, body = carried(of(rule), mail(fields, sender='"<b>&"@x.test'))
    assert body == b"\r\n<i>&quot;&lt;b&gt;&amp;&quot;@x.test</i> {x}\r\nhello\r\n"
    _, _, body = carried(of("{id: a, banner: {text: '{sender} <'}}"), mail(fields, sender='"<b>&"@x.test'))
    assert b"<p>&quot;&lt;b&gt;&amp;&quot;@x.test &lt;</p>" in body


def test_a_mail_for_which_no_rule_asks_stays():
    made = of(BANNER.replace("id: outside", "id: outside, when: {login: nobody}"))
    found, _, body = carried(made, mail())
    assert (found.result, found.reason, body) == (Result.NONE, "no rule asks for it", b"hello\r\n")


@pytest.mark.parametrize("rule", ["{id: a, label: x}", BANNER.replace("id: outside", "id: outside, mode: shadow")])
def test_where_no_rule_could_ask_there_is_no_such_part(rule):
    assert "rewrite" not in of(rule).parts


def test_a_body_that_a_rule_replaces_gets_no_banner():
    found, _, body = carried(of(BANNER, "{id: new, replace_body: gone}"), mail())
    assert (found.reason, body) == ("a rule replaces the whole body", b"gone\r\n")


def test_a_mail_that_is_not_kept_is_not_rewritten():
    decision = judge(of(BANNER, "{id: no, then: reject}"), mail())
    assert "rewrite" not in {finding.check for finding in decision.findings}
    assert plan(decision, mail(), HOST) == ()


def test_a_mail_that_is_not_known_whole_stays():
    found, _, body = carried(of(BANNER), mail(truncated="4,000 header fields"))
    assert (found.result, body) == (Result.POLICY, b"hello\r\n")
    assert found.reason == "no banner: the mail is not known whole: more than 4,000 header fields"


# ── signatures ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_signature_that_holds_is_not_broken():
    found, header, body = carried(of(BANNER), mail(signed(), BODY))
    assert (found.result, found.reason) == (Result.POLICY, "no banner: the signature of sender.example holds")
    assert (tuple(header[1:]), body) == (tuple(signed()), BODY)  # Authentication-Results on top


def test_a_signature_that_is_broken_already_does_not_count():
    found, _, body = carried(of(BANNER), mail(signed(), b"changed\r\n"))
    assert found.result is Result.PASS
    assert body.endswith(b"\r\n\r\nchanged\r\n")


@pytest.mark.parametrize("checks", ["{arc: }", "{dkim: {classes: [submission]}}"])
def test_a_signature_that_nobody_looked_at_may_hold(checks):
    found, _, body = carried(of(BANNER, checks=checks), mail(signed(), b"changed\r\n"))
    assert found.reason == "no banner: it bears a signature (DKIM), and no check dkim tells whether that holds"
    assert body == b"changed\r\n"


SEEN_ARC = ((*PLAIN, (b"ARC-Message-Signature", b" i=1")), "arc")
SEEN_DKIM = ((*PLAIN, (b"DKIM-Signature", b" v=1")), "dkim")


@pytest.mark.parametrize(
    ("headers", "finding", "why"),
    [
        (SEEN_ARC, {"result": Result.PASS, "fields": {"length": 1}}, "chain (ARC) holds"),
        (SEEN_ARC, {"result": Result.TEMPERROR, "fields": {"trusted": False}}, "chain may hold"),
        (SEEN_ARC, {"result": Result.TEMPERROR}, "no check arc tells"),
        (SEEN_ARC, {"result": Result.NONE}, "no check arc tells"),
        (SEEN_ARC, {"result": Result.FAIL, "fields": {"length": 1}}, ""),
        (SEEN_ARC, {"result": Result.PERMERROR}, ""),
        (SEEN_ARC, None, "no check arc tells"),
        (SEEN_DKIM, {"result": Result.TEMPERROR, "fields": {"results": ("fail", "temperror")}}, "may hold"),
        (SEEN_DKIM, {"result": Result.FAIL, "fields": {"results": ("fail", "policy")}}, "may hold"),
        (SEEN_DKIM, {"result": Result.FAIL, "fields": {"results": ("fail", "permerror")}}, ""),
        (SEEN_DKIM, {"result": Result.FAIL}, "may hold"),
        (SEEN_DKIM, {"result": Result.PASS, "fields": {"results": ("pass",), "domains": ("a.test", "b.test")}},
         "the signature of a.test, b.test holds"),
    ],
)  # fmt: skip
def test_what_is_known_of_a_signature(headers, finding, why):
    headers, check = headers
    seen = {} if finding is None else {check: Finding(check, **finding)}
    verdict = Verdict(actions=(Action(ActionKind.BANNER, "top", "words"),))
    found = Rewriting().see("inbound", mail(headers), seen, verdict)
    assert found.result is (Result.POLICY if why else Result.PASS)
    assert why in found.reason


# ── attachments ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "data", "kind", "out"),
    [
        ("a.exe", b"x", "application/octet-stream", True),
        ("a.Js ", b"x", "application/octet-stream", True),
        ("a.txt", b"x", "application/X-msdownload", True),
        ("Invoice 7.ZIP", b"x", "application/octet-stream", True),
        ("a.zip", zipped("deep/a.exe"), "application/zip", True),
        ("a.zip", zipped("deep/a.txt"), "application/zip", False),
        ("a.eml", EML, "application/octet-stream", True),
        ("a.pdf", b"%PDF", "application/pdf", False),
        ("exe", b"x", "application/octet-stream", False),
    ],
)
def test_which_attachments_are_taken_out(name, data, kind, out):
    message = mail(MIXED, attached(name, data, kind))
    found, _, body = carried(of(NO_EXE), message)
    assert (b"taken out by the rule programs" in body) == out
    assert encodebytes(data).strip() not in body if out else body == b"".join(message.body.chunks())
    assert found.reason == (f"taken out: {name.strip()}" if out else "no attachment to take out")
    assert found.result is (Result.PASS if out else Result.NONE)
    assert found.fields["removed"] == ((name.strip(),) if out else ())


def test_one_of_several_names_is_enough():
    message = mail(MIXED, attached("a.pdf", kind='application/x; name="inv 7.zip"'))
    found, _, _ = carried(of("{id: a, replace_attachments: {name: 'inv*.zip'}}"), message)
    assert len(found.fields["removed"]) == 1


def test_a_type_is_told_by_content_too():
    program = (
        b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00\xb8" + bytes(43) + b"\x80\x00\x00\x00" + bytes(64)
    )
    program += b"PE\x00\x00L\x01" + bytes(240)
    rule = "{id: a, replace_attachments: {type: ['application/*dos*', 'application/*executable']}}"
    found, _, _ = carried(of(rule), mail(MIXED, attached("a.pdf", program, "application/pdf")))
    assert found.fields["removed"] == ("a.pdf",)


def test_the_notice_and_its_facts_whatever_the_attachment_is_called():
    rule = "{id: a, replace_attachments: {extension: exe, notice: '{{x}} {name} {sender} {rule} {host}'}}"
    message = mail(MIXED, attached("{id} {name}.exe"), sender="{name}@x.test")
    _, _, body = carried(of(rule), message)
    assert b"{x} {id} {name}.exe {name}@x.test a mx.test\r\n--b--" in body


def test_it_breaks_a_signature_and_says_so_and_then_a_banner_breaks_nothing():
    signed_mail = mail(signed(MIXED[:1] + HEADERS[2:] + MIXED[1:], attached("a.exe")), attached("a.exe"))
    found, _, body = carried(of(NO_EXE, BANNER), signed_mail)
    assert found.reason == (
        "taken out: a.exe; this breaks a signature: the signature of sender.example holds; banner in part 1"
    )
    assert body.count(b"From outside mx.test") == body.count(b"taken out by") == 1


def test_a_banner_over_the_notice_for_a_mail_that_was_one_attachment():
    header = ((b"Content-Type", b" application/octet-stream; name=a.exe"), (b"Content-Transfer-Encoding", b" base64"))
    _, delivered_header, body = carried(of(NO_EXE, BANNER), mail((*PLAIN, *header), b"TVo=\r\n"))
    assert dict(delivered_header)[b"Content-Type"] == b" text/plain; charset=us-ascii"
    assert dict(delivered_header)[b"Content-Transfer-Encoding"] == b" 7bit"
    assert body.startswith(b"From outside mx.test")
    assert b'"a.exe" was taken out' in body


def test_attachments_go_where_no_banner_can():
    header = (*PLAIN, (b"Content-Type", b" multipart/signed; boundary=b"))
    found, _, body = carried(of(NO_EXE, BANNER), mail(header, attached("a.exe")))
    assert (found.result, found.fields["removed"], found.fields["banner"]) == (Result.PASS, ("a.exe",), ())
    assert found.reason == "taken out: a.exe; no banner: it is signed (multipart/signed)"
    assert b"From outside" not in body


@pytest.mark.parametrize(("count", "said"), [(5, "a4.exe"), (6, "a4.exe and 1 more")])
def test_of_many_attachments_some_are_named(count, said):
    body = b"".join(attached(f"a{each}.exe").removesuffix(b"--b--\r\n") for each in range(count)) + b"--b--\r\n"
    found, _, _ = carried(of(NO_EXE), mail(MIXED, body))
    assert found.reason == f"taken out: a0.exe, a1.exe, a2.exe, a3.exe, {said}"
    assert len(found.fields["removed"]) == count


def test_the_first_rule_that_asks_speaks():
    rules = [f"{{id: {name}, replace_attachments: {{extension: exe, notice: 'by {name}'}}}}" for name in ("one", "two")]
    _, _, body = carried(of(*rules), mail(MIXED, attached("a.exe")))
    assert b"by one" in body
    assert b"by two" not in body


def test_where_it_cannot_be_done_the_mail_does_not_go_on():
    message = mail(truncated="10 octets of body")
    decision = judge(of(BANNER, NO_EXE), message)
    found = {finding.check: finding for finding in decision.findings}["rewrite"]
    assert found.result is Result.PERMERROR
    with pytest.raises(edits.Unlawful, match="attachments cannot be taken out: the mail is not known whole"):
        plan(decision, message, HOST)


def test_where_nobody_has_looked_the_mail_does_not_go_on():
    decision = judge(of(NO_EXE), mail())
    decision = replace(decision, findings=())
    with pytest.raises(edits.Unlawful, match="not looked through"):
        plan(decision, mail(), HOST)
    decision = replace(decision, verdict=Verdict(actions=(Action(ActionKind.BANNER, "top", "words"),)))
    assert plan(decision, mail(), HOST) == ()


def test_a_body_that_cannot_be_read_is_no_crash():
    class Gone:
        size = 10

        def chunks(self):
            raise OSError("gone")

    message = Message(envelope(), PLAIN, Gone())
    for kind, result in ((ActionKind.BANNER, Result.POLICY), (ActionKind.REPLACE_ATTACHMENTS, Result.PERMERROR)):
        verdict = Verdict(actions=(Action(kind, value="x"),))
        assert Rewriting().see("inbound", message, {}, verdict).result is result


def test_a_check_may_ask_for_it_where_it_may_make_edits():
    made, problems = part(of("{id: a, label: x}", checks="{spf: , dkim: {edits: true}}").settings)
    assert made is not None
    assert not problems
    seen = {"attachments": Finding("attachments", Result.TEMPERROR)}
    for notice in ("a { brace", "{nobody}"):
        asked = (Action(ActionKind.REPLACE_ATTACHMENTS, value=notice, options=(("name", "*.exe"),)),)
        found = made.see("inbound", mail(MIXED, attached("a.exe")), seen, Verdict(actions=asked))
        assert notice.encode() in found.detail.change.octets()

"""Who signs which mail, with which keys, and what is signed: exactly what is delivered."""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess

import pytest
from msgspec.structs import replace

from elemta.config.problems import ConfigErrors
from elemta.facts import BytesBody, Message
from elemta.findings import Finding, Result
from elemta.testing import FakeResolver, client, envelope, judge, policy, run
from elemta.verdict import Verdict
from elemta_milter import edits, keyfiles
from elemta_milter.checks.arc import Arc
from elemta_milter.long_lines import has_long_line
from elemta_milter.mailauth.arc import ChainValidator
from elemta_milter.mailauth.canonical import BodyHasher
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.signing import SigningKey
from elemta_milter.planning import plan
from elemta_milter.vouching import Voucher, delivered
from harness import signatures
from harness.signatures import BODY, NOW, ed25519_private, pem, rsa_private, zone

HOST = "mx.test.example"
KEY = SigningKey("sender.example", "r", rsa_private())
HEADERS = (
    (b"From", b" Anna <anna@sender.example>"),
    (b"Subject", b" hello\r\n\tthere"),
    (b"Authentication-Results", b" mx.test.example; dmarc=pass"),
    (b"X-Secret", b" 1"),
)
KEYS = "[{selector: r, file: KEYS/r.pem}, {selector: e, file: KEYS/e.pem}]"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    for name, private in (("r", rsa_private()), ("e", ed25519_private())):
        (directory / f"{name}.pem").write_bytes(pem(private))
        (directory / f"{name}.pem").chmod(0o600)
    subprocess.run(["openssl", "genrsa", "-out", directory / "short.pem", "512"], check=True, capture_output=True)
    (directory / "broken.pem").write_bytes(b"no key")
    (directory / "broken.pem").chmod(0o600)
    return directory


def make(keys, sign="", more=""):
    text = f"host: {HOST}\nuser: {pwd.getpwuid(os.geteuid()).pw_name}\n"
    if sign is not None:
        text += f"sign:\n  - domain: sender.example\n    keys: {KEYS}\n{sign}\n"
    return policy((text + more).replace("KEYS", str(keys)))


def mail(headers=HEADERS, body=BODY, sender="anna@sender.example", login="anna", truncated=""):
    of = envelope("192.0.2.7", sender, login=login)
    return Message(of, tuple(headers), BytesBody(body), truncated)


def decide(of, message):
    decision = judge(of, message, resolver=FakeResolver({}), clock=lambda: NOW)
    return decision, {finding.check: finding for finding in decision.findings}


def vouched(of, message):
    """The header and body as they are delivered, and the edits."""
    decision, _ = decide(of, message)
    changes = plan(decision, message, HOST)
    voucher = Voucher.of(of.parts, HOST)
    changes = voucher.vouch(decision, message, changes) if voucher else changes
    return *delivered(message, changes), changes


def verify(header, body):
    public = zone(
        SigningKey("sender.example", "r", rsa_private()), SigningKey("sender.example", "e", ed25519_private())
    )
    return signatures.verify(header, pieces=body.chunks(), resolver=public)


# ── what is signed ────────────────────────────────────────────────────────────────────────────────────────


def test_every_key_signs_what_is_delivered(keys):
    rules = """
rules:
  message:
    - {id: mark, add_header: {X-Marked: "grüße"}, set_header: {Subject: "[list] hello"}, remove_header: X-Secret}
checks: {spf: }
"""
    header, body, changes = vouched(make(keys, "    expire: 7d\n", rules), mail())
    assert [name for name, _ in header[:3]] == [b"DKIM-Signature", b"DKIM-Signature", b"Authentication-Results"]
    assert [change.index for change in changes if isinstance(change, edits.InsertHeader)] == [0, 0, 0]
    found = verify(header, body)
    assert [each.result for each in found] == ["pass", "pass"], found
    assert [each.algorithm for each in found] == ["rsa-sha256", "ed25519-sha256"]
    assert {each.expires_at - each.signed_at for each in found} == {7 * 86400}
    assert all("authentication-results" not in each.signed_names for each in found)
    assert found[0].signed_names.count("from") == found[0].signed_names.count("subject") == 2  # nobody adds another
    assert (b"Subject", b" [list] hello") in header


def test_a_replaced_body_is_the_one_that_is_signed(keys):
    rules = 'rules: {message: [{id: new, replace_body: "another\\n"}]}'
    header, body, _ = vouched(make(keys, "    canonicalization: simple/simple\n", rules), mail())
    assert b"".join(body.chunks()) == b"another\r\n"
    assert [each.result for each in verify(header, body)] == ["pass", "pass"]
    assert [each.canon for each in verify(header, body)] == ["simple/simple", "simple/simple"]


def test_long_lines_are_broken_before_they_are_signed(keys):
    headers = (*HEADERS, (b"To", b" " + b", ".join([b"bert@receiver.example"] * 100)), (b"X-Long", b" " + b"x" * 2000))
    banner = 'rules: {message: [{id: mark, add_header: {X-Marked: "1"}}]}'
    header, body, changes = vouched(
        make(keys, "    canonicalization: simple/simple\n", banner), mail(headers, b"x" * 1500)
    )
    octets = b"".join(body.chunks())
    assert octets == b"x" * 998 + b"\r\n " + b"x" * 502
    assert max(map(len, dict(header)[b"To"].split(b"\r\n"))) <= 998
    assert dict(header)[b"X-Long"] == b" " + b"x" * 2000  # it is not signed
    assert [each.result for each in verify(header, body)] == ["pass", "pass"]
    assert sum(isinstance(change, edits.ReplaceBody) for change in changes) == 1


def test_header_fields_and_identity_as_configured(keys):
    header, body, _ = vouched(
        make(keys, '    headers: [From, Subject, X-Own]\n    identity: "@eu.sender.example"\n'), mail()
    )
    found = verify(header, body)
    assert [each.result for each in found] == ["pass", "pass"]
    assert set(found[0].signed_names) == {"from", "subject"}
    assert found[0].identity == "@eu.sender.example"


def test_nothing_is_signed_that_does_not_go_on(keys):
    of = make(keys, more="rules: {message: [{id: no, then: reject}]}")
    decision, seen = decide(of, mail())
    assert "sign" not in seen
    assert Voucher.of(of.parts, HOST).vouch(decision, mail(), ()) == ()


def test_what_is_quarantined_is_signed_since_it_may_be_released(keys):
    header, body, _ = vouched(make(keys, more="rules: {message: [{id: hold, then: quarantine}]}"), mail())
    assert [each.result for each in verify(header, body)] == ["pass", "pass"]


# ── who signs ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("entry", "changed", "signed"),
    [
        ("", {}, True),
        ("", {"login": ""}, False),  # inbound: nobody may have our name by writing it
        ("    classes: [inbound]", {"login": ""}, True),
        ("", {"headers": [(b"From", b" a@other.example")]}, False),
        ("", {"headers": [(b"From", b" a@sub.sender.example")]}, False),
        ("", {"headers": [(b"From", b" a@SENDER.example")]}, True),
        ('    from: [sender.example, "*.sender.example"]', {"headers": [(b"From", b" a@sub.sender.example")]}, True),
        ('    from: "*"', {"headers": [(b"From", b" a@other.example")]}, True),
        ("    from: anna@sender.example", {}, True),
        ("    from: bert@sender.example", {}, False),
        ("    from: Anna@Sender.Example", {}, True),
        ('    from: "*@b\u00fccher.example"', {"headers": [(b"From", b" a@xn--bcher-kva.example")]}, True),
        ("    from: b\u00fccher.example", {"headers": [(b"From", b" a@xn--bcher-kva.example")]}, True),
        ("    sender: bounce.example", {}, False),
        ("    sender: bounce.example", {"sender": "x@bounce.example"}, True),
        ('    sender: ["<>"]', {"sender": ""}, True),
        ("    logins: [bert]", {}, False),
        ('    logins: ["an?a"]', {}, True),
        ('    from: "@sender.example"', {}, True),
        ('    from: "@other.example"', {}, False),
        ('    from: "@*.example"\n    sender: "@Sender.example"', {}, True),
        ("    from: Jörg@Bücher.example", {"headers": [(b"From", " jörg@bücher.example".encode())]}, True),
        ("    sender: bücher.example", {"sender": "a@xn--bcher-kva.example"}, True),
        ("    logins: anna\n    classes: [inbound]", {"login": ""}, False),
        ("", {"headers": [(b"From", b" a@sender.example, b@other.example")]}, False),
        ("", {"headers": [(b"From", b" a@sender.example, b@sender.example")]}, True),
        ("", {"headers": [(b"From", b" a@sender.example"), (b"From", b" b@sender.example")]}, False),
        ("", {"headers": [(b"From", b" a@sender.example (")]}, False),
        ("", {"headers": [(b"Subject", b" nobody wrote it")]}, False),
        ("", {"truncated": "4,000 header fields"}, False),
    ],
)
def test_which_mail_an_entry_fits(keys, entry, changed, signed):
    of, message = make(keys, entry), mail(**changed)
    _, seen = decide(of, message)
    assert seen["sign"].result == ("pass" if signed else "none"), seen["sign"]
    assert seen["sign"].reason
    header, _, _ = vouched(of, message)
    assert sum(name == b"DKIM-Signature" for name, _ in header) == (2 if signed else 0)


def test_every_entry_that_fits_signs(keys):
    second = f'  - domain: provider.example\n    keys: [{{selector: p, file: {keys}/r.pem}}]\n    from: "*"\n'
    of = make(keys, more=second)
    _, seen = decide(of, mail())
    assert seen["sign"].fields["domains"] == ("sender.example", "provider.example")
    assert seen["sign"].fields["selectors"] == ("r", "e", "p")
    of = make(keys, more=f"{second}    classes: [inbound]\n")
    for login, domain in (("anna", "sender.example"), ("", "provider.example")):
        _, seen = decide(of, mail(login=login))
        assert seen["sign"].fields["domains"] == (domain,)


def test_a_login_that_may_not_use_the_address_gets_no_signature(keys):
    of, message = make(keys), mail()
    table = of.parts["sign"]
    fail = {"sender_login": Finding("sender_login", Result.FAIL, "anna may not send as anna@sender.example")}
    assert table.see("submission", message, fail, Verdict()).result is Result.NONE
    assert (
        table.see("submission", message, {"sender_login": Finding("sender_login", Result.PASS)}, Verdict()).result
        is Result.PASS
    )


@pytest.mark.parametrize(
    ("body", "long"),
    [
        (b"", False),
        (b"x" * 998, False),
        (b"x" * 998 + b"\r\n", False),
        (b"x" * 999 + b"\r\n", True),
        (b"x" * 999, True),
        (b"a\r\n" * 5000 + b"x" * 998 + b"\r\n" + b"a\r\n" * 5000, False),
        (b"a\r\n" * 5000 + b"x" * 999 + b"\r\n" + b"a\r\n" * 5000, True),
        (b"a\r\n" * 5000 + b"x" * 3000, True),
    ],
)
def test_lines_that_postfix_would_break_are_told(keys, body, long):
    assert has_long_line(BytesBody(body)) is long

    class Pieces:
        size = len(body)

        def chunks(self):
            return (body[at : at + 700] for at in range(0, len(body), 700))

    assert has_long_line(Pieces()) is long
    _, seen = decide(make(keys), mail(body=body))
    assert seen["sign"].fields["long_line"] is long
    assert ("broken" in seen["sign"].reason) is long


# ── seals ─────────────────────────────────────────────────────────────────────────────────────────────────

SEAL = "checks: {arc: }\nseal: {domain: sender.example, key: {selector: r, file: KEYS/r.pem}}\n"


def chain_of(header, body):
    hasher = BodyHasher()
    validator = ChainValidator(HeaderFields(header), body=hasher, now=NOW)
    for piece in body.chunks():
        hasher.feed(piece)
    return asyncio.run(validator.finish(zone(SigningKey("sender.example", "r", rsa_private()))))


def test_what_passes_through_is_sealed_with_what_we_saw(keys):
    of = make(keys, more=SEAL)
    header, body, _ = vouched(of, mail(login=""))
    assert [name for name, _ in header[:4]] == [
        b"ARC-Seal",
        b"ARC-Message-Signature",
        b"ARC-Authentication-Results",
        b"Authentication-Results",
    ]
    chain = chain_of(header, body)
    assert (chain.result, len(chain.sealers)) == ("pass", 1)
    assert "arc=none" in chain.sealers[0].results
    _, seen = decide(of, mail(login=""))
    assert (seen["seal"].result, seen["seal"].fields["instance"]) == ("pass", 1)
    assert seen["sign"].result == "none"


def test_a_seal_also_holds_what_a_trusted_host_of_our_name_found(keys):
    told = [
        (
            b"Authentication-Results",
            b" MX.test.example; spf=pass smtp.mailfrom=a@b.test;\r\n\tdkim=fail (x)",
        ),
        (b"Authentication-Results", b" other.test; spf=fail smtp.mailfrom=a@b.test"),
    ]
    of, message = make(keys, more=SEAL), mail([*told, *HEADERS], login="")
    decision, _ = decide(of, message)
    for trusted, found in ((True, ["spf=pass", "dkim=fail", "dmarc=pass", "arc=none"]), (False, ["arc=none"])):
        changes = plan(decision, message, HOST, trusted=trusted)
        header, body = delivered(message, Voucher.of(of.parts, HOST).vouch(decision, message, changes))
        assert dict(header)[b"ARC-Authentication-Results"].split(b";")[1].strip() == HOST.encode()
        said = dict(header)[b"ARC-Authentication-Results"].decode().split(";")[2:]
        assert [each.split()[0] for each in said] == found
        assert chain_of(header, body).result == "pass"


@pytest.mark.parametrize(
    "disguised",
    [
        '"evil mx.test.example"; dmarc=pass',
        '"=?utf-8?q?mx.test.example?="; dmarc=pass',
        "mx.test.example 2; dmarc=pass",
    ],
)
def test_a_seal_does_not_hold_what_only_looks_like_ours(keys, disguised):
    """A host of our name that is another program takes out what bears that name plainly, and no more."""
    of = make(keys, more=SEAL)
    told = [(b"Authentication-Results", b" " + each.encode()) for each in ("mx.test.example; dmarc=fail", disguised)]
    told.append((b"X-Authentication-Results", b" mx.test.example; dmarc=pass"))
    message = mail([*told, *HEADERS[:2]], login="")
    decision, _ = decide(of, message)
    changes = plan(decision, message, HOST, trusted=True)
    header, _ = delivered(message, Voucher.of(of.parts, HOST).vouch(decision, message, changes))
    assert dict(header)[b"ARC-Authentication-Results"].count(b"dmarc=") == 1


def test_a_seal_holds_what_the_first_of_us_saw_of_the_client_and_not_what_a_later_one_did(keys):
    """Our MX is a client that may send for our domain: forged mail would be sealed as if SPF had passed."""
    of = make(keys, more=SEAL.replace("arc: ", "arc: , spf: , iprev: , dmarc: , dkim: "))
    told = b" mx.test.example; spf=fail smtp.mailfrom=a@b.test; iprev=fail; dmarc=fail; dkim=fail"
    message = mail([(b"Authentication-Results", told), *HEADERS[:2]], login="")
    decision, _ = decide(of, message)
    changes = plan(decision, message, HOST, trusted=True)
    header, _ = delivered(message, Voucher.of(of.parts, HOST).vouch(decision, message, changes))
    said = [each.split()[0] for each in dict(header)[b"ARC-Authentication-Results"].decode().split(";")[2:]]
    assert said == ["spf=fail", "iprev=fail", "dmarc=fail", "dkim=fail", "dkim=none", "arc=none"]


def test_a_list_behind_our_mx_does_not_end_the_chain(keys):
    """What the MX found of the chain is told and counts, not what the list made of the mail."""
    of = make(keys, more=SEAL)
    header, _, _ = vouched(of, mail(login=""))
    arrived = [field for field in header if field[0] != b"Authentication-Results"]
    told = (b"Authentication-Results", f" {HOST}; arc=pass".encode())
    message = mail([told, *arrived], b"[list] " + BODY, login="")
    arc = run(Arc, message, resolver=FakeResolver({KEY.record_name: [("TXT", KEY.record)]}), clock=lambda: NOW)
    assert arc.result == "fail"
    decision, _ = decide(of, message)
    decision = replace(decision, findings=tuple(arc if each.check == "arc" else each for each in decision.findings))
    for trusted, found in ((True, "pass"), (False, "fail")):
        changes = plan(decision, message, HOST, trusted=trusted)
        header, body = delivered(message, Voucher.of(of.parts, HOST).vouch(decision, message, changes))
        assert f"cv={found}".encode() in header[0][1]
        assert header[2][1].count(f"arc={found}".encode()) == header[2][1].count(b"arc=") == 1
        assert chain_of(header, body).result == found


def test_what_is_signed_is_not_sealed_unless_named(keys):
    _, seen = decide(make(keys, more=SEAL), mail())
    assert (seen["sign"].result, seen["seal"].result) == ("pass", "none")
    named = SEAL.replace("seal: {", "seal: {classes: [submission], ")
    header, body, _ = vouched(make(keys, more=named), mail())
    assert [name for name, _ in header[:5]].count(b"DKIM-Signature") == 2
    assert chain_of(header, body).result == "pass"
    assert b"dkim-signature" in dict(header)[b"ARC-Message-Signature"].lower()  # the seal covers the signatures


def test_long_fields_that_only_the_seal_covers_are_broken_too(keys):
    named = SEAL.replace("seal: {", "seal: {classes: [submission], ")
    long = (b"References", b" " + b"<1@sender.example> " * 100 + b"<2@sender.example>")
    header, body, _ = vouched(make(keys, "    headers: [from]\n", named), mail([*HEADERS, long]))
    assert max(map(len, dict(header)[b"References"].split(b"\r\n"))) <= 998
    assert chain_of(header, body).result == "pass"


def test_a_chain_that_failed_is_not_built_upon(keys):
    _, seen = decide(make(keys, more=SEAL), mail(headers=((b"ARC-Seal", b" i=1; cv=fail"), *HEADERS), login=""))
    assert seen["seal"].result == "none"
    assert "chain" in seen["seal"].reason


def test_a_mail_that_was_cut_is_not_sealed(keys):
    _, seen = decide(make(keys, more=SEAL), mail(login="", truncated="4,000 header fields"))
    assert (seen["seal"].result, seen["seal"].reason) == (
        "none",
        "the mail is not known whole: more than 4,000 header fields",
    )


@pytest.mark.parametrize(
    ("edit", "sealed"),
    [
        ("remove_header: [ARC-Seal, ARC-Message-Signature, ARC-Authentication-Results]", False),
        ("remove_header: arc-authentication-results", False),
        ('set_header: {ARC-Seal: "i=1; cv=none"}', False),
        ('add_header: {ARC-Message-Signature: "i=2"}', False),
        ("remove_header: X-Secret", True),
    ],
)
def test_no_seal_goes_over_a_chain_that_a_rule_changes(keys, edit, sealed):
    of = make(keys, more=SEAL)
    header, body, _ = vouched(of, mail(login=""))
    message = mail(
        [field for field in header if field[0] != b"Authentication-Results"], b"".join(body.chunks()), login=""
    )
    of = make(keys, more=f"{SEAL}rules: {{message: [{{id: edit, {edit}}}]}}")
    decision = judge(of, message, resolver=FakeResolver({KEY.record_name: [("TXT", KEY.record)]}), clock=lambda: NOW)
    changes = Voucher.of(of.parts, HOST).vouch(decision, message, plan(decision, message, HOST))
    header, body = delivered(message, changes)
    told = next(finding for finding in decision.findings if finding.check == "seal")
    assert (told.result == "pass") is sealed, told
    assert sealed or "edit changes " in told.reason
    assert any(b" i=2" in value and b"cv=" in value for name, value in header if name == b"ARC-Seal") is sealed
    if sealed:
        assert len(chain_of(header, body).sealers) == 2


def test_a_chain_may_begin_where_a_rule_would_have_removed_another(keys):
    of = make(keys, more=f"{SEAL}rules: {{message: [{{id: edit, remove_header: ARC-Seal}}]}}")
    header, body, _ = vouched(of, mail(login=""))
    assert chain_of(header, body).result == "pass"


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────


def problems(keys, **options):
    with pytest.raises(ConfigErrors) as error:
        make(keys, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("missing.pem", "cannot read the key"),
        ("broken.pem", "not an unencrypted PEM private key"),
        ("short.pem", "RSA key has 512 bits, not at least 1024"),
        (".", "is no file"),
    ],
)
def test_keys_that_cannot_be_used(keys, file, text):
    said = problems(keys, sign="", more=f"  - domain: b.example\n    keys: [{{selector: x, file: {keys}/{file}}}]\n")
    assert text in said
    assert "policy.yaml:8:" in said
    assert "sign[1].keys[0].file" in said


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666, 0o601])
def test_a_key_for_everybody_is_refused(keys, tmp_path, mode):
    (tmp_path / "k.pem").write_bytes(pem(rsa_private()))
    (tmp_path / "k.pem").chmod(mode)
    said = problems(keys, more=f"seal: {{domain: sender.example, key: {{selector: x, file: {tmp_path}/k.pem}}}}\n")
    assert "everybody may use the key" in said
    assert "seal.key.file" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="changing a file's group needs root")
def test_a_key_for_a_group_is_refused_unless_the_group_is_the_daemons(tmp_path):
    path = tmp_path / "k.pem"
    path.write_bytes(pem(rsa_private()))
    nobody = pwd.getpwnam("nobody")
    os.chown(path, nobody.pw_uid, 0)
    path.chmod(0o640)
    with pytest.raises(keyfiles.KeyFileError, match="a group that is not the daemon's"):
        keyfiles.load(str(path), "nobody")
    path.chmod(0o600)
    assert keyfiles.load(str(path), "nobody")  # whose group it has does not matter then
    path.chmod(0o640)
    os.chown(path, 0, nobody.pw_gid)
    assert keyfiles.load(str(path), "nobody")
    path.chmod(0o600)
    with pytest.raises(keyfiles.KeyFileError, match="again at a reload"):
        keyfiles.load(str(path), "nobody")


@pytest.mark.parametrize(
    ("sign", "more", "text"),
    [
        ("    classes: [submision]", "", 'there is no class "submision"; did you mean "submission"?'),
        ("    identity: a@other.example", "", "is not within sender.example"),
        ("    headers: [Received]", "", '"Received" is added or removed on a mail\'s way'),
        ("", "seal: {domain: sender.example, key: {selector: r, file: KEYS/r.pem}}", "sealing needs the check arc"),
        ("", SEAL.replace("seal: {", "seal: {classes: [inbond], "), 'no class "inbond"; did you mean "inbound"?'),
        ("    canonicalization: relaxed", "", "did you mean"),
        ("    expire: 0", "", "is too small"),
        ("    expire: 500ms", "", "expires within a second"),
    ],
)
def test_mistakes_are_told_when_the_configuration_is_loaded(keys, sign, more, text):
    assert text in problems(keys, sign=sign, more=more)


def test_keys_that_sign_and_seal_are_known_for_the_watch_over_them(keys):
    both, seal_only = make(keys, more=SEAL), make(keys, sign=None, more=SEAL)
    assert [key.record_name for key in Voucher.of(both.parts, HOST).keys][-1:] == [
        key.record_name for key in Voucher.of(seal_only.parts, HOST).keys
    ]
    assert len(Voucher.of(both.parts, HOST).keys) > 1


def test_without_sign_and_seal_there_is_nobody_to_vouch(keys):
    of = make(keys, sign=None)
    assert of.parts == {}
    assert Voucher.of(of.parts, HOST) is None
    assert client().login == ""

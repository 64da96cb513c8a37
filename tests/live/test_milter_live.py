"""A real Postfix with our milter: is every mail seen as it came, and does every edit arrive in the delivered mail?"""

import hashlib
import json
import re
import time

import pytest

from elemta.addresses import compared
from harness.echo import EchoMilter
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

TO = "r@example.org"


@pytest.fixture(scope="module")
def milter():
    with EchoMilter() as process:
        yield process


@pytest.fixture(scope="module")
def postfix(milter):
    main = {"milter_content_timeout": "60s", "line_length_limit": "2048", "message_size_limit": "100000000"}
    with PrivatePostfix(milter=milter.address, tls=True, main=main) as instance:
        yield instance
        assert "milter claimed not to reply" not in instance.log()


@pytest.fixture
def carry(postfix, milter):
    """Send one mail; give the outcome, what the milter saw and the mail as delivered, to `copies` recipients."""

    def send(*fields, do=None, body=b"hello\r\n", sender="a@b.test", to=TO, copies=1, raw=False, **options):
        before, boxes = len(milter.seen(0)), len(postfix.delivered())
        order = [b"X-Do: " + json.dumps(do).encode()] if do else []
        head = b"\r\n".join([b"From: a@b.test", *fields, *order])
        outcome = postfix.send(sender, to, head + b"\r\n\r\n" + body, raw=raw, **options)
        [seen] = [each for each in milter.seen(before + 1)[before:] if "sender" in each]
        mails = postfix.wait_delivered(boxes + copies)[boxes:]
        assert len(mails) == copies
        return outcome, seen, mails[0] if copies == 1 else mails

    return send


def header(mail, name):
    """Values of a delivered mail's fields called `name`, folding kept, without the leading space."""
    head = mail.partition(b"\n\n")[0]
    return [
        value.decode("utf-8", "surrogateescape")
        for value in re.findall(rb"(?im)^%s: ?(.*(?:\n[ \t].*)*)" % name.encode(), head)
    ]


def content(mail):
    return mail.partition(b"\n\n")[2]


def test_a_mail_is_seen_with_its_client(carry):
    client = {"addr": "192.0.2.7", "name": "mail.example.com", "port": 40000, "helo": "helo.example.com"}
    outcome, seen, mail = carry(b"Subject: a\r\n\tb", xclient=client, helo="helo.example.com")
    assert outcome.accepted
    assert seen["client"]["address"] == "192.0.2.7"
    assert seen["client"]["name"] == "mail.example.com"
    assert seen["client"]["helo"] == "helo.example.com"
    assert seen["recipients"] == [TO]
    assert seen["started"] == ["a@b.test"]
    assert seen["queue_id"]
    assert seen["headers"][:2] == [["From", " a@b.test"], ["Subject", " a\r\n\tb"]]
    assert seen["body"] == hashlib.sha256(b"hello\r\n").hexdigest()
    assert content(mail) == b"hello\n"


def test_an_unknown_client_has_no_name_and_tls_is_seen(carry):
    _, seen, _ = carry(xclient={"addr": "2001:db8::7", "name": "[UNAVAILABLE]"}, starttls=True)
    assert seen["client"]["address"] == "2001:db8::7"
    assert seen["client"]["name"] == ""
    assert seen["client"]["tls"].startswith("TLSv1")
    assert seen["client"]["cipher"]
    assert seen["client"]["cipher_bits"] >= 128


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ([["add_header", "X-New", "grün"]], {"X-New": ["grün"]}),
        ([["add_header", "X-Long", "word " * 600]], {}),
        ([["set_header", "X-Old", "new"]], {"X-Old": ["new"]}),
        ([["set_header", "X-Absent", "new"]], {"X-Absent": ["new"]}),
        ([["remove_header", "", "X-Old"]], {"X-Old": []}),
        ([["remove_header", "", "x-OLD"], ["add_header", "X-Old", "last"]], {"X-Old": ["last"]}),
        ([["remove_header", "", "Subject"]], {"Subject": []}),
        ([["remove_header", "", "Received"]], {}),
    ],
)
def test_header_edits(carry, order, found):
    outcome, _, mail = carry(b"X-Old: 1", b"Subject: s", b"X-Old: 2", b"X-Old: 3", do={"actions": order})
    assert outcome.accepted
    for name, values in ({"X-Old": ["1", "2", "3"], "Subject": ["s"]} | found).items():
        assert header(mail, name) == values
    for kind, name, value in order:
        if name == "X-Long":
            assert " ".join(header(mail, "X-Long")[0].split()) == value.strip()
            assert max(map(len, header(mail, "X-Long")[0].split("\n"))) <= 998
        if value == "Received":
            assert len(header(mail, "Received")) == 1, f"{kind}: Postfix keeps its own"


def test_recipients_and_sender_are_changed(carry):
    actions = [["add_recipient", "", "new@example.net"], ["change_sender", "", "other@c.test"]]
    _, _, mails = carry(do={"actions": actions}, copies=2)
    assert sorted(header(mail, "Delivered-To")[0] for mail in mails) == ["new@example.net", TO]
    assert [header(mail, "Return-Path")[0] for mail in mails] == ["<other@c.test>"] * 2


def test_a_recipient_is_removed(carry, postfix):
    to = ["Gone@example.org", "keep@example.org"]
    _, seen, mail = carry(to=to, do={"actions": [["remove_recipient", "", "gone@EXAMPLE.org"]]})
    assert seen["recipients"] == to
    assert header(mail, "Delivered-To") == ["keep@example.org"]
    assert postfix.queue() == []


@pytest.mark.parametrize("form", [
    "gone@example.org", ";gone@example.org", "@relay.test:gone@example.org", " gone@example.org ",
    "gone(c)@example.org", "gone@example.org(c)", "Foo <gone@example.org>", '"gone"@example.org',
    r"go\ne@example.org", "GONE@example.org.", '"gone@example.org"', r'"gone\@example.org"', 'gone@"example.org"',
])  # fmt: skip
def test_an_address_is_what_postfix_reads(carry, postfix, form):
    do = {"actions": [["remove_recipient", "", "gone@example.org"]]}
    sender = form.replace("example.org", "b.test")
    _, seen, mail = carry(sender=sender, to=[form, "keep@example.org"], do=do)
    assert header(mail, "Delivered-To") == ["keep@example.org"]
    assert compared(seen["sender"]).lower() == "gone@b.test"
    assert header(mail, "Return-Path")[0].lower() == "<gone@b.test>"
    assert postfix.queue() == []


def test_the_null_sender(carry):
    _, seen, mail = carry(sender="", do={"actions": [["add_header", "X-New", "1"]]})
    assert seen["sender"] == ""
    assert header(mail, "Return-Path") == ["<>"]
    _, _, mail = carry(do={"actions": [["change_sender", "", ""]]})
    assert header(mail, "Return-Path") == ["<>"]


def test_the_body_is_replaced(carry):
    fields = (b"MIME-Version: 1.0", b"Content-Type: multipart/mixed; boundary=x")
    _, _, mail = carry(
        *fields, do={"actions": [["replace_body", "", "Gone.\nÄnd."]]}, body=b"--x\r\n\r\nbad\r\n--x--\r\n"
    )
    assert header(mail, "Content-Type") == ["text/plain; charset=utf-8"]
    assert header(mail, "Content-Transfer-Encoding") == ["quoted-printable"]
    assert content(mail) == b"Gone.\n=C3=84nd.\n"


def test_quarantine_is_the_hold_queue(carry, postfix):
    outcome, _, _ = carry(do={"then": "quarantine", "actions": [["add_header", "X-New", "1"]]}, copies=0)
    assert outcome.accepted
    [queue_id] = postfix.held()
    assert b"X-New: 1" in postfix.postcat(queue_id)
    before = len(postfix.delivered())
    postfix.release(queue_id)
    assert len(postfix.wait_delivered(before + 1)) == before + 1


def test_discard_is_accepted_and_gone(carry, postfix):
    before = len(postfix.delivered())
    outcome, _, _ = carry(do={"then": "discard"}, copies=0)
    assert outcome.accepted
    time.sleep(0.3)
    assert len(postfix.delivered()) == before
    assert postfix.queue() == []


@pytest.mark.parametrize(
    ("order", "reply"),
    [
        (
            {"then": "reject", "reply": "550 5.7.1 No: 100% spam. Reference 0123"},
            (550, "5.7.1 No: 100% spam. Reference 0123"),
        ),
        ({"then": "defer", "reply": "450 4.7.1 Later"}, (450, "4.7.1 Later")),
        ({"raise": "RuntimeError"}, (451, "4.7.1 Service unavailable - try again later")),
    ],
)
def test_refusals(carry, order, reply):
    outcome, _, _ = carry(do=order, copies=0)
    assert (outcome.end.code, outcome.end.text) == reply


def test_forged_results_go_and_ours_come_on_top(carry):
    _, _, mail = carry(
        b"Authentication-Results: mx1.example.org; spf=pass",
        b"Authentication-Results: other.example; spf=pass",
        b"Authentication-Results : mx1.example.org; dkim=pass",
        b"authentication-RESULTS:\tmx1.example.org 1; dmarc=pass",
        do={"authres": "fail"},
    )
    assert header(mail, "Authentication-Results") == [
        "mx1.example.org;\n\tspf=fail smtp.mailfrom=a@b.test",
        "other.example; spf=pass",
    ]
    assert b"dkim=pass" not in mail
    first = mail.partition(b"\nAuthentication-Results")[0]
    assert b"Received:" not in first, "ours stands above Postfix's own Received"


def test_pipelining_rset_and_many_mails_on_one_connection(postfix, milter):
    before, boxes = len(milter.seen(0)), len(postfix.delivered())
    with postfix.session(xclient={"addr": "192.0.2.7"}) as session:
        for number in range(10):
            assert session.mail("gone@b.test").ok
            assert session.rcpt(TO).ok
            assert session.rset().ok
            replies = session.pipeline(
                [f"MAIL FROM:<kept{number}@b.test>", f"RCPT TO:<{TO}>", "RCPT TO:<x@nowhere.test>", "DATA"]
            )
            assert [reply.code // 100 for reply in replies] == [2, 2, 5, 3]
            assert session.body(b"Subject: %d\r\n\r\nhello\r\n" % number).ok
            if number == 5:
                assert session.ehlo().ok
    mails = postfix.wait_delivered(boxes + 10)[boxes:]
    assert sorted(header(mail, "Subject")[0] for mail in mails) == [str(number) for number in range(10)]
    seen = milter.seen(before + 20)[before:]
    assert [each["sender"] for each in seen if "sender" in each] == [f"kept{number}@b.test" for number in range(10)]
    assert all(each["recipients"] == [TO] for each in seen if "sender" in each), "the refused recipient is not seen"
    assert sum("cancelled" in each for each in seen) == 10


def test_chunking(carry):
    body = b"line\r\n" * 1000
    _, seen, mail = carry(b"Subject: bdat", body=body, chunks=777)
    assert seen["body"] == hashlib.sha256(body).hexdigest()
    assert content(mail) == body.replace(b"\r\n", b"\n")


def test_smtputf8(carry):
    _, seen, mails = carry(
        "Subject: grün".encode(), sender="ü@ö.test", to="bücher@example.org", mail_options=["SMTPUTF8"],
        do={"actions": [["add_header", "X-New", "ß"], ["add_recipient", "", "zwölf@example.org"]]},
        copies=2,
    )  # fmt: skip
    assert (seen["sender"], seen["recipients"], seen["smtputf8"]) == ("ü@ö.test", ["bücher@example.org"], True)
    assert [header(mail, "X-New") for mail in mails] == [["ß"], ["ß"]]
    assert sorted(header(mail, "Delivered-To")[0] for mail in mails) == ["bücher@example.org", "zwölf@example.org"]


def test_octets_that_are_no_text(carry):
    body = b"\0\x80\xff" + bytes(range(1, 10)) + b"\r\n.\r\n..two\r\n"
    _, seen, mail = carry(
        b"Subject: \xff\xfe \x01", b"X-Bare:none", b"X-Tab:\t1", b"X-Empty:", body=body.replace(b"\r\n.", b"\r\n:")
    )
    fields = dict(map(tuple, seen["headers"]))
    assert fields["Subject"] == " \xff\xfe \x01"
    assert (fields["X-Bare"], fields["X-Tab"], fields["X-Empty"].strip()) == ("none", "\t1", "")
    assert b"\x80\xff" in mail


def test_a_line_of_200_000_octets(carry):
    body = b"x" * 200_000 + b"\r\n"
    outcome, seen, _ = carry(body=body)
    assert outcome.accepted
    assert seen["body"] == hashlib.sha256(body).hexdigest()


def test_the_longest_header_field_that_postfix_takes(carry):
    outcome, seen, mail = carry(b"X-Long: " + b"\r\n ".join(b"%060d" % number for number in range(2000)))
    assert outcome.accepted
    value = dict(map(tuple, seen["headers"]))["X-Long"]
    assert len(value) > 60_000, "Postfix cuts it there, for itself and for us"
    assert header(mail, "X-Long") == [value.strip().replace("\r\n", "\n")]


def test_thousands_of_fields_and_a_forged_one_at_the_end(carry):
    forged = b"Authentication-Results: mx1.example.org; spf=pass"
    _, seen, mail = carry(*(b"X-%d: v" % number for number in range(5000)), forged)
    assert seen["truncated"] == "4,000 header fields"
    assert header(mail, "X-4999") == ["v"]
    assert header(mail, "Authentication-Results") == []


@pytest.mark.slow
def test_50_mb(carry, milter):
    body = b"0123456789abcdef" * 4 + b"\r\n"
    body *= 50_000_000 // len(body)
    outcome, seen, mail = carry(body=body, do={"actions": [["add_header", "X-New", "1"]]}, timeout=120)
    assert outcome.accepted
    assert seen["body"] == hashlib.sha256(body).hexdigest()
    assert header(mail, "X-New") == ["1"]
    assert len(content(mail)) == len(body.replace(b"\r\n", b"\n"))
    assert milter.memory() < 150_000_000

"""Does the milter speak the protocol? Sessions by an independent client against a real process."""

import hashlib
import re
import signal
import socket
import sqlite3
import struct
import time
from contextlib import closing
from unittest.mock import Mock

import Milter
import pytest
from miltertest import codec

from elemta_milter.negotiation import Act, Step
from elemta_milter.session import MAIL_MACROS
from elemta_milter.wire import Wire
from harness.echo import HOST, EchoMilter
from harness.mta import ACCEPT, CONTINUE, DISCARD, REJECT, REPLY, TEMPFAIL, Mta


@pytest.fixture(scope="module")
def echo():
    with EchoMilter() as milter:
        yield milter


@pytest.fixture
def connect():
    """Make connections that are closed at the end."""
    made = []

    def connection(milter, **offer):
        made.append(Mta(milter.address, **offer))
        return made[-1]

    yield connection
    for each in made:
        each.sock.close()


@pytest.fixture
def mta(echo, connect):
    connection = connect(echo)
    connection.hello()
    return connection


def last(echo, sender):
    """What was seen of the mail from `sender`, which must be new."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [seen for seen in echo.seen(0) if seen.get("sender") == sender]
        if found:
            [seen] = found
            return seen
        time.sleep(0.01)
    raise AssertionError(f"nothing from {sender}\n{echo.log()}")


def test_everything_of_a_mail_is_seen(echo, connect):
    mta = connect(echo)
    asked = re.findall(rb"\0\0\0(.)([^\0]*)\0", mta.symbols, re.DOTALL)
    assert asked == [
        (bytes([Milter.M_ENVFROM]), " ".join(MAIL_MACROS).encode()),
        (bytes([Milter.M_ENVRCPT]), b"{none}"),
        (bytes([Milter.M_EOM]), b"i"),
    ]
    mta.hello()
    macros = {"auth_authen": "alice", "auth_type": "PLAIN", "client_ptr": "ptr.test", "cipher_bits": "256"}
    macros |= {"tls_version": "TLSv1.3", "daemon_name": "submission"}
    mta.macros("M", **{f"{{{name}}}": value for name, value in macros.items()})
    mta.envelope(b"<all@b.test>", b"<one@example.org>", b"<two@example.org>", options=(b"SIZE=99", b"SMTPUTF8"))
    headers = [
        (b"From", b" all@b.test"),
        (b"Subject", b" a\n\tb"),
        (b"X-8bit", b" \xff\xfe"),
        (b"X-Bare", b"no space"),
        (b"X-Empty", b""),
    ]
    mta.fields(*headers)
    mta.step("B", b"line\r")
    mta.step("B", b"\nnul\0\xff\r\n")
    mta.macros("E", i="4QUEUEID")
    assert [answer for answer, _ in mta.end()] == [ACCEPT]
    seen = last(echo, "all@b.test")
    assert seen["started"] == ["all@b.test"]
    assert seen["recipients"] == ["one@example.org", "two@example.org"]
    assert seen["recipient_count"] == 2
    assert seen["smtputf8"]
    assert seen["queue_id"] == "4QUEUEID"
    assert seen["client"] == {
        "address": "192.0.2.7", "name": "mail.example.com", "reverse_name": "ptr.test", "port": 40000,
        "helo": "helo.example.com", "login": "alice", "login_method": "PLAIN", "tls": "TLSv1.3", "cipher": "",
        "cipher_bits": 256, "certificate": "", "daemon": "submission",
    }  # fmt: skip
    assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in seen["headers"]] == [
        (name, value.replace(b"\n", b"\r\n")) for name, value in headers
    ]
    assert seen["body"] == hashlib.sha256(b"line\r\nnul\0\xff\r\n").hexdigest()


@pytest.mark.parametrize(
    ("packet", "client"),
    [
        (b"localhost\0L\0\0/run/socket\0", ("localhost", "", 0)),
        (b"localhost\0U", ("localhost", "", 0)),
        (b"a.test\x006" + struct.pack("!H", 25) + b"IPv6:2001:db8::1\0", ("a.test", "2001:db8::1", 25)),
    ],
    ids=["unix", "unknown", "IPv6"],
)
def test_where_a_client_comes_from(echo, connect, request, packet, client):
    mta = connect(echo)
    assert mta.step("C", packet) == CONTINUE
    sender = f"{request.node.callspec.id}@b.test"
    assert mta.carry(sender=f"<{sender}>".encode()) == [(ACCEPT, {})]
    found = last(echo, sender)["client"]
    assert (found["name"], found["address"], found["port"]) == client


@pytest.mark.parametrize(
    ("order", "answers"),
    [
        ({"then": "accept"}, [(ACCEPT, {})]),
        ({"then": "discard"}, [(DISCARD, {})]),
        ({"then": "reject", "reply": "550 5.7.1 No: 100% spam"},
         [(REPLY, {"smtpcode": "550", "space": " ", "text": "5.7.1 No: 100%% spam"})]),
        ({"then": "defer", "reply": "450 4.7.1 Later"},
         [(REPLY, {"smtpcode": "450", "space": " ", "text": "4.7.1 Later"})]),
        ({"then": "reject"}, [(REJECT, {})]),
        ({"then": "defer"}, [(TEMPFAIL, {})]),
        ({"then": "defer", "reply": "550 5.7.1 contradicts"}, [(TEMPFAIL, {})]),
        ({"then": "reject", "reply": "550 5.7.1 " + "x" * 5000},
         [(REPLY, {"smtpcode": "550", "space": " ", "text": "5.7.1 " + "x" * 900})]),
        ({"then": "reject", "reply": "550 5.7.1 a\r\n250 2.0.0 b"},
         [(REPLY, {"smtpcode": "550", "space": " ", "text": "5.7.1 a??250 2.0.0 b"})]),
        ({"actions": [["add_header", "X-New", "1"]]}, [("h", {"name": "X-New", "value": " 1"}), (ACCEPT, {})]),
        ({"actions": [["set_header", "From", "x@y.test"]]},
         [("m", {"index": 1, "name": "From", "value": " x@y.test"}), (ACCEPT, {})]),
        ({"actions": [["remove_header", "", "From"]]},
         [("m", {"index": 1, "name": "From", "value": ""}), (ACCEPT, {})]),
        ({"actions": [["add_recipient", "", "new@x.test"]]}, [("+", {"rcpt": "<new@x.test>"}), (ACCEPT, {})]),
        ({"actions": [["remove_recipient", "", "R@example.org"]]}, [("-", {"rcpt": "<r@example.org>"}), (ACCEPT, {})]),
        ({"actions": [["change_sender", "", "new@x.test"]]},
         [("e", {"from": "<new@x.test>", "args": []}), (ACCEPT, {})]),
        ({"then": "quarantine"}, "quarantine"),
        ({"actions": [["replace_body", "", "Gone"]]}, "body"),
        ({"authres": "pass"}, "authres"),
        ({"then": "reject", "authres": "fail", "actions": [["add_header", "X", "1"]]}, [(REJECT, {})]),
    ],
)  # fmt: skip
def test_verdicts_and_edits(mta, order, answers, monkeypatch):
    # miltertest cannot read CHGFROM without arguments, nor quarantine
    monkeypatch.setitem(codec.codec, "e", (("from", "str"), ("args", "rest")))
    monkeypatch.setitem(codec.codec, "q", (("reason", "str"),))
    monkeypatch.setitem(
        codec.codectypes, "rest", (None, lambda data: ([part.decode() for part in data.split(b"\0")[:-1]], b""))
    )
    got = mta.carry(do=order)
    match answers:
        case "quarantine":
            assert [answer for answer, _ in got] == ["q", ACCEPT]
            assert got[0][1]["reason"].startswith("echo ")
        case "body":
            assert [answer for answer, _ in got] == ["h", "h", "h", "b", ACCEPT]
            assert got[3][1] == {"buf": "Gone\r\n"}
        case "authres":
            [(command, field), (verdict, _)] = got
            assert (command, verdict) == ("i", ACCEPT)
            assert (field["index"], field["name"]) == (0, "Authentication-Results")
            assert field["value"] == f" {HOST};\n\tspf=pass smtp.mailfrom=a@b.test"
        case _:
            assert got == answers


def test_forged_results_go(mta):
    name = b"Authentication-Results"
    got = mta.carry(
        (name, b" mx1.example.org; spf=pass"),
        (name, b" other.example; spf=pass"),
        (name, b"\tMX1.Example.ORG;dkim=pass"),
    )
    assert got == [("m", {"index": nth, "name": name.decode(), "value": ""}) for nth in (3, 1)] + [(ACCEPT, {})]


def test_a_trusted_network_keeps_them(connect):
    with EchoMilter(trusted=("192.0.2.0/24",)) as milter:
        for address, kept in ((b"192.0.2.7", True), (b"198.51.100.7", False)):
            mta = connect(milter)
            mta.hello(address=address)
            got = mta.carry((b"Authentication-Results", b" mx1.example.org; spf=pass"))
            assert (len(got) == 1) == kept


@pytest.mark.parametrize(
    ("version", "actions", "protocol"),
    [(2, 0x3F, 0x7F), (3, 0x3F, 0x17F), (4, 0x3F, 0x3FF), (6, 0x1FF, 0x1FFFFF), (6, 0, 0)],
)
def test_every_version_of_the_protocol(echo, version, actions, protocol, connect):
    mta = connect(echo, version=version, actions=actions or 0x0F, protocol=protocol)
    mta.hello()
    sender = f"v{version}-{protocol}@b.test"
    order = {"actions": [["add_header", "X-New", "1"]]} if actions else {}
    value = " 1" if mta.protocol & 0x100000 else "1"
    got = mta.carry((b"X", b"v"), do=order, sender=f"<{sender}>".encode(), body=b"hello\r\n")
    assert got == ([("h", {"name": "X-New", "value": value})] if actions else []) + [(ACCEPT, {})]
    seen = last(echo, sender)
    assert ["X", "v" if mta.protocol & 0x100000 else " v"] in seen["headers"]
    assert seen["body"] == hashlib.sha256(b"hello\r\n").hexdigest()


@pytest.mark.parametrize("protocol", [0x7F, 0x1FFFFF])
def test_a_field_that_is_made_empty_stays(echo, protocol, connect):
    mta = connect(echo, protocol=protocol)
    mta.hello()
    got = mta.carry((b"X", b" 1"), do={"actions": [["set_header", "X", ""]]})
    assert got == [("m", {"index": 1, "name": "X", "value": " "}), (ACCEPT, {})]


def test_an_edit_that_the_mta_does_not_allow_defers_the_mail(echo, connect):
    mta = connect(echo, actions=0x11)
    mta.hello()
    for action in (["change_sender", "", "x@y.test"], ["add_recipient", "", "x@y.test"], ["replace_body", "", "x"]):
        assert mta.carry(do={"actions": [action]})[-1][0] == TEMPFAIL
    assert mta.carry(do={"then": "quarantine"})[-1][0] == TEMPFAIL
    assert mta.carry() == [(ACCEPT, {})]


def test_where_the_mta_lets_no_header_be_changed_a_forged_result_does_not_defer_the_mail(echo, connect):
    mta = connect(echo, actions=0x2E)
    mta.hello()
    assert mta.carry((b"Authentication-Results", b" mx1.example.org; spf=pass")) == [(ACCEPT, {})]
    assert "the MTA lets us change no header fields" in echo.log()


@pytest.mark.parametrize("trouble", [{"raise": "RuntimeError"}, {"raise": "OSError"}, {"exit": True}])
def test_trouble_in_the_engine_defers_the_mail_and_nothing_else(mta, trouble):
    assert mta.carry(do=trouble)[-1][0] == TEMPFAIL
    assert mta.carry() == [(ACCEPT, {})]


def test_an_unlawful_edit_defers_the_mail_before_any_edit(mta):
    order = {"actions": [["add_header", "X-First", "1"], ["add_header", "no name", "1"]]}
    assert mta.carry(do=order) == [(TEMPFAIL, {})]


def test_what_was_decided_and_not_carried_out_is_told(echo, mta):
    told = r"decision (\w{10}) was not carried out"
    before = re.findall(told, echo.log())
    assert mta.carry(do={"actions": [["add_header", "no name", "1"]]}) == [(TEMPFAIL, {})]
    [reference] = [each for each in re.findall(told, echo.log()) if each not in before]
    deadline = time.monotonic() + 5
    while not (acts := undone(echo.directory / "journal.db", reference)):
        assert time.monotonic() < deadline, echo.log()
        time.sleep(0.02)
    assert acts == [("undone", "elemta-milter")]
    assert mta.carry(do={"then": "reject", "reply": "550 No"})[-1][0] == REPLY
    assert len(re.findall(told, echo.log())) == len(before) + 1


def test_what_was_decided_when_the_mta_had_gone_is_told_too(connect):
    with EchoMilter(patience=0.1) as milter:
        mta = connect(milter)
        mta.hello()
        mta.envelope()
        mta.fields((b"X-Do", b' {"sleep": 0.5}'))
        mta.packet("E")
        milter.seen(1)  # at work
        mta.sock.close()
        deadline = time.monotonic() + 10
        while not re.search(r"decision (\w{10}) was not carried out", milter.log()):
            assert time.monotonic() < deadline, milter.log()
            time.sleep(0.02)


def undone(path, reference):
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as journal:
        try:
            return journal.execute("SELECT deed, who FROM acts WHERE id = ?", (reference,)).fetchall()
        except sqlite3.OperationalError:  # it is being made
            return []


def test_many_mails_with_aborts_between(mta, echo):
    before = len(echo.seen(0))
    for number in range(50):
        mta.envelope(b"<gone@b.test>")
        mta.fields((b"From", b" x"))
        mta.packet("A")
        assert mta.carry(sender=b"<kept%d@b.test>" % number) == [(ACCEPT, {})]
    seen = echo.seen(before + 100)[before:]
    assert sum("cancelled" in each for each in seen) == 50
    assert [each["sender"] for each in seen if "sender" in each] == [f"kept{number}@b.test" for number in range(50)]


def test_a_client_that_hangs_up_is_forgotten(echo, connect):
    mta = connect(echo)
    mta.hello()
    mta.envelope(b"<hangs-up@b.test>")
    assert mta.step("B", b"x") == CONTINUE, "answered, so all before it was taken"
    before = len(echo.seen(0))
    mta.sock.close()
    assert echo.seen(before + 1)[-1] == {"started": ["hangs-up@b.test"], "cancelled": True}


def test_a_body_in_the_last_packet(mta, echo):
    mta.envelope(b"<last-packet@b.test>")
    mta.fields((b"From", b" x"))
    mta.step("B", b"one\r\n")
    mta.packet("E", b"two\r\n")
    assert mta.recv()[0] == ACCEPT
    assert last(echo, "last-packet@b.test")["body"] == hashlib.sha256(b"one\r\ntwo\r\n").hexdigest()


def test_a_header_longer_than_libmilters_own_limit(mta, echo):
    assert mta.carry((b"To", b" " + b"x" * 150_000), sender=b"<long@b.test>") == [(ACCEPT, {})]
    assert len(dict(last(echo, "long@b.test")["headers"])["To"]) == 150_001


def test_thousands_of_fields(mta, echo):
    got = mta.carry(
        *((b"X-%d" % number, b" v") for number in range(5000)),
        (b"Authentication-Results", b" anything"),
        sender=b"<5000@b.test>",
    )
    assert got == [("m", {"index": 1, "name": "Authentication-Results", "value": ""}), (ACCEPT, {})]
    seen = last(echo, "5000@b.test")
    assert seen["truncated"] == "4,000 header fields"
    assert len(seen["headers"]) == 4000


def test_a_new_session_on_the_same_connection(mta, echo):
    assert mta.carry() == [(ACCEPT, {})]
    mta.packet("K")  # QUIT_NC
    mta.hello(name=b"second.test", address=b"198.51.100.9")
    assert mta.carry(sender=b"<second@b.test>", do={"actions": [["add_header", "X-New", "1"]]}) == [
        ("h", {"name": "X-New", "value": " 1"}),
        (ACCEPT, {}),
    ]
    assert last(echo, "second@b.test")["client"]["address"] == "198.51.100.9"


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\0\0",
        b"\0\0\0\x0dO\0\0\0\x01\0\0\0\x0f\0\0\0\0",
        b"\xff" * 64,
        b"\0\0\0\x05ZZZZZ",
        b"\0\0\0\x02C\0",
        b"\0\0\0\x64Babc",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_garbage_harms_nobody(echo, raw, connect):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(echo.address.removeprefix("unix:"))
        link.sendall(raw)
        time.sleep(0.05)
    mta = connect(echo)
    mta.hello()
    mta.packet("H", b"\xff\xfe.test\0")  # converted to text in C: as if it had not come
    assert mta.recv()[0] == CONTINUE
    mta.macros("M", i="4ABC")
    mta.packet("D", b"M{auth_authen}\0\xff\xfe\0{client_ptr}\0ptr.test\0")
    sender = f"after-{raw.hex()[:20]}@b.test"
    assert mta.carry(sender=f"<{sender}>".encode()) == [(ACCEPT, {})]
    assert last(echo, sender)["client"]["reverse_name"] == "ptr.test"


def test_over_the_bound_of_connections_comes_a_tempfail(connect):
    with EchoMilter(connections=2) as milter:
        first, second = connect(milter), connect(milter)
        for mta in (first, second):
            mta.hello()
        assert milter.log() == ""
        third = connect(milter, actions=0x2E)
        assert third.step("C", b"x\0004" + struct.pack("!H", 25) + b"192.0.2.1\0") == TEMPFAIL
        assert milter.log() == "2 connections are open, one more is told to come again\n"
        first.packet("Q")
        assert first.sock.recv(1) == b""
        time.sleep(0.1)
        fourth = connect(milter)
        fourth.hello()
        assert fourth.carry() == [(ACCEPT, {})]
        assert second.carry() == [(ACCEPT, {})]


def test_without_checks_of_the_body_none_comes(connect):
    with EchoMilter(body=False, early=False) as milter:
        mta = connect(milter)
        assert mta.protocol & 0x10
        mta.hello()
        assert mta.carry() == [(ACCEPT, {})]
        [seen] = milter.seen(1)
        assert seen["started"] == []
        plain = connect(milter, protocol=0x40)  # an MTA that cannot leave it out
        plain.hello()
        assert plain.carry(body=b"hello\r\n") == [(ACCEPT, {})]
        assert milter.seen(2)[1]["body_size"] == 0


def test_a_decision_that_takes_too_long_is_a_tempfail_and_progress_is_told(connect):
    with EchoMilter(budget=1, margin=0.2, progress=0.3) as milter:
        mta = connect(milter)
        mta.hello()
        mta.envelope()
        mta.fields((b"X-Do", b' {"sleep": 30}'))
        mta.packet("E")
        answers = []
        while not answers or answers[-1] != TEMPFAIL:
            answers.append(mta._recv()[0])
        assert set(answers[:-1]) == {"p"}
        assert len(answers) in {4, 5}
        assert mta.carry() == [(ACCEPT, {})]


def test_a_spool_that_cannot_be_written_defers_the_mail(connect):
    with EchoMilter(body_memory=1000) as milter:
        mta = connect(milter)
        mta.hello()
        milter.spool.rmdir()
        mta.envelope()
        assert mta.step("B", b"x" * 2000) == TEMPFAIL
        milter.spool.mkdir()
        mta = connect(milter)
        mta.hello()
        assert mta.carry(body=b"x" * 2000) == [(ACCEPT, {})]


@pytest.mark.parametrize("quiet", [True, False])
def test_a_step_that_failed_defers_its_mail_at_the_end_if_nobody_was_told_before(quiet):
    decided = []
    port = Mock(decide=lambda _case, message, _progress: decided.append(message))
    wire = Wire(port, Mock(host=HOST), early=False, body=True, trusts=Mock(), undone=Mock())
    ctx = Mock(getsymval=lambda _: None)
    ctx.setpriv = lambda link: setattr(ctx.getpriv, "return_value", link)
    steps = sum(Step) if quiet else Step.LEADING_SPACE
    wire._negotiate(ctx, [sum(Act), steps, 0, 0])
    wire._mail(ctx, b"<a@b.test>")
    assert wire._header(ctx, "From", None) == (Milter.NOREPLY if quiet else Milter.TEMPFAIL)
    wire._header(ctx, "Subject", b" x")
    wire._chunk(ctx, b"x")
    assert (wire._eom(ctx), decided) == (Milter.TEMPFAIL, [])
    wire._mail(ctx, b"<a@b.test>")
    wire._header(ctx, "From", b" x")
    wire._eom(ctx)
    assert [message.headers for message in decided] == [((b"From", b" x"),)]


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("step", ["connect", "mail", "rcpt"])
def test_a_step_that_nobody_waits_for_is_not_answered_also_when_it_failed(step, quiet):
    """libmilter would ignore the rest of the mail, and the MTA would wait in vain."""
    wire = Wire(Mock(), Mock(host=HOST), early=False, body=True, trusts=Mock(), undone=Mock())
    ctx = Mock(getsymval=lambda _: None)
    ctx.setpriv = lambda link: setattr(ctx.getpriv, "return_value", link)
    wire._negotiate(ctx, [sum(Act), sum(Step) if quiet else Step.LEADING_SPACE, 0, 0])
    good = {"connect": ("a.test", 4, ("192.0.2.1", 25)), "mail": (b"<a@b.test>",), "rcpt": (b"<a@b.test>",)}
    bad = {"connect": (None, 4, 1), "mail": (None,), "rcpt": (None,)}
    wire._mail(ctx, b"<a@b.test>")
    answers = [getattr(wire, f"_{step}")(ctx, *arguments[step]) for arguments in (good, bad)]
    if quiet:
        assert answers == [Milter.NOREPLY] * 2
    else:
        assert answers == [Milter.CONTINUE, Milter.CONTINUE if step == "connect" else Milter.TEMPFAIL]


def test_a_mail_that_is_given_up_is_cancelled_at_once(mta, echo):
    mta.envelope(b"<given-up@b.test>")
    assert mta.step("B", b"x") == CONTINUE
    before = len(echo.seen(0))
    mta.packet("A")
    assert echo.seen(before + 1)[-1] == {"started": ["given-up@b.test"], "cancelled": True}


@pytest.mark.slow
def test_ten_bodies_of_50_mb_at_once_stay_out_of_memory(connect):
    size, chunk = 50_000_000, b"0123456789abcde\n" * 4096
    with EchoMilter() as milter:
        idle = milter.memory()
        mtas = [connect(milter) for _ in range(10)]
        for number, mta in enumerate(mtas):
            mta.hello()
            mta.envelope(b"<big%d@b.test>" % number)
            mta.fields((b"From", b" x"))
        for at in range(0, size, 65535):
            for mta in mtas:
                assert mta.step("B", chunk[: min(65535, size - at)]) == CONTINUE
        for mta in mtas:
            mta.packet("E")
        for mta in mtas:
            assert mta.recv()[0] == ACCEPT
        seen = milter.seen(10)
        assert [each["body_size"] for each in seen] == [size] * 10
        assert milter.memory() < 150_000_000
        assert milter.memory() - idle < 60_000_000
        assert list(milter.spool.iterdir()) == []


def test_draining_lets_open_sessions_finish(connect):
    with EchoMilter() as milter:
        mta = connect(milter)
        mta.hello()
        mta.envelope()
        milter.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert milter.process.poll() is None
        mta.fields((b"From", b" x"))
        assert mta.end() == [(ACCEPT, {})]
        mta.packet("Q")
        assert milter.process.wait(5) == 0

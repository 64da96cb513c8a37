"""What does one SMTP session look like, step by step, as facts?"""

from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from elemta.facts import Client, Envelope
from elemta_milter.body import SpooledBody
from elemta_milter.bounds import NAMELESS, Bounds
from elemta_milter.session import Session


class Engine:
    """Notes what a session tells it."""

    def __init__(self):
        self.started = []
        self.cancelled = []

    def start(self, envelope):
        self.started.append(envelope)
        return len(self.started)

    def cancel(self, case):
        self.cancelled.append(case)


MACROS = {
    "{client_addr}": "192.0.2.7",
    "{client_name}": "mail.example.com",
    "{client_ptr}": "ptr.example.com",
    "{client_port}": "40001",
    "{auth_authen}": "alice",
    "{auth_type}": "PLAIN",
    "{tls_version}": "TLSv1.3",
    "{cipher}": "TLS_AES_256_GCM_SHA384",
    "{cipher_bits}": "256",
    "{cert_subject}": "client.example.com",
    "{daemon_name}": "smtpd",
}


@pytest.fixture
def engine():
    return Engine()


def make(engine, tmp_path, **options):
    session = Session(engine, str(tmp_path), **({"early": True} | options))
    session.connect("mail.example.com", "192.0.2.7", 40000)
    session.helo("helo.example.com")
    return session


@pytest.fixture
def session(engine, tmp_path):
    return make(engine, tmp_path)


def test_a_mail_from_connect_to_end(session, engine):
    session.mail(b"<a@b.test>", [b"SIZE=12", b"BODY=8BITMIME"], MACROS)
    session.rcpt(b"<one@example.org>")
    session.rcpt(b"<two@example.org>")
    session.header("From", b" a@b.test")
    session.header("Subject", b" one\n\ttwo")
    session.body(b"hello\r\n")
    ending = session.eom({"i": "4ABCDEF"})
    message, envelope = ending.message, ending.message.envelope
    assert envelope == Envelope(
        client=Client(
            address=ip_address("192.0.2.7"),
            name="mail.example.com",
            reverse_name="ptr.example.com",
            port=40001,
            helo="helo.example.com",
            login="alice",
            login_method="PLAIN",
            tls="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            cipher_bits=256,
            certificate="client.example.com",
            daemon="smtpd",
        ),
        sender="a@b.test",
        recipients=("one@example.org", "two@example.org"),
        recipient_count=2,
        size=len("From: a@b.test\r\nSubject: one\r\n\ttwo\r\n\r\nhello\r\n"),
        queue_id="4ABCDEF",
    )
    assert message.headers == ((b"From", b" a@b.test"), (b"Subject", b" one\r\n\ttwo"))
    assert b"".join(message.body.chunks()) == b"hello\r\n"
    assert message.truncated == ""
    assert ending.case == 1
    assert engine.started == [Envelope(client=envelope.client, sender="a@b.test", size=12)]
    assert engine.cancelled == []


@pytest.mark.parametrize(
    ("path", "sender"),
    [
        (b"<>", ""),
        (b"", ""),
        (b"a@b.test", "a@b.test"),
        (b"<@relay.test:a@b.test>", "a@b.test"),
        (b"< a@b.test >", "a@b.test"),
        (b"<a@b.test(comment)>", "a@b.test"),
        ("<ü@ö.test>".encode(), "ü@ö.test"),
        (b"<\xff@b.test>", "\udcff@b.test"),
        (b'<"a b"@c.test>', '"a b"@c.test'),
        (b"<a@b.test\r\nX-Injected:1>", "a@b.test\r\nX-Injected:1"),
    ],
)
def test_sender(session, path, sender):
    session.mail(path, [], {})
    assert session.eom({}).message.envelope.sender == sender


@pytest.mark.parametrize(
    ("arguments", "size", "smtputf8"),
    [
        ([], 2, False),  # the empty line that ends the header
        ([b"SIZE=1000", b"SMTPUTF8"], 1000, True),
        ([b"size=7", b"smtputf8"], 7, True),
        ([b"BODY=8BITMIME", b"SIZE=7"], 7, False),
        ([b"SIZE=" + b"9" * 18], 10**18 - 1, False),
        ([b"SIZE=-1"], 2, False),
        ([b"SIZE="], 2, False),
        ([b"SIZE=" + b"9" * 19], 2, False),
        ([b"SMTPUTF8=YES", b"=", b"\xff\0"], 2, False),
    ],
)
def test_esmtp_arguments(session, arguments, size, smtputf8):
    session.mail(b"<>", arguments, {})
    envelope = session.eom({}).message.envelope
    assert (envelope.size, envelope.smtputf8) == (size, smtputf8)


@pytest.mark.parametrize(
    ("name", "address", "macros", "expected"),
    [
        ("unknown", "192.0.2.1", {}, ("", "192.0.2.1")),
        ("Unknown", "192.0.2.1", {}, ("", "192.0.2.1")),
        ("[192.0.2.1]", "192.0.2.1", {}, ("", "192.0.2.1")),
        ("a.test", "2001:db8::1", {}, ("a.test", "2001:db8::1")),
        ("a.test", "::ffff:192.0.2.1", {}, ("a.test", "192.0.2.1")),
        ("localhost", None, {}, ("localhost", None)),
        ("a.test", "inet6:unknown", {}, ("a.test", None)),
        (
            "a.test",
            "192.0.2.1",
            {"{client_addr}": "IPv6:2001:db8::2", "{client_name}": "b.test"},
            ("b.test", "2001:db8::2"),
        ),
        ("a.test", "192.0.2.1", {"{client_addr}": "no address", "{client_name}": "unknown"}, ("a.test", "192.0.2.1")),
        ("a.test", "192.0.2.1", {"{client_addr}": None, "{client_name}": ""}, ("a.test", "192.0.2.1")),
    ],
)
def test_client(engine, tmp_path, name, address, macros, expected):
    session = Session(engine, str(tmp_path), early=False)
    session.connect(name, address, 25)
    session.mail(b"<>", [], macros)
    client = session.eom({}).message.envelope.client
    assert client == Client(name=expected[0], address=expected[1] and ip_address(expected[1]), port=25)


@pytest.mark.parametrize("login", ["unknown", "[root]", "UNKNOWN"])
def test_a_login_may_be_called_as_a_host_without_a_name_is(session, login):
    session.mail(b"<>", [], MACROS | {"{auth_authen}": login})
    assert session.eom({}).message.envelope.client.login == login


def test_odd_macros_are_no_harm(session):
    session.mail(b"<>", [], dict.fromkeys(MACROS, "x") | {"{cipher_bits}": "١٢", "{client_port}": "-1"})
    envelope = session.eom({"i": None}).message.envelope
    assert (envelope.client.cipher_bits, envelope.client.port, envelope.queue_id) == (0, 40000, "")


def test_a_login_between_two_mails_is_seen(session):
    session.mail(b"<>", [], {})
    assert session.eom({}).message.envelope.client.login == ""
    session.mail(b"<>", [], {"{auth_authen}": "bob"})
    assert session.eom({}).message.envelope.client.login == "bob"
    session.mail(b"<>", [], {})
    assert session.eom({}).message.envelope.client.login == ""


def test_many_mails_share_nothing_but_the_client(session, engine):
    for number in range(3):
        session.mail(b"<%d@b.test>" % number, [], MACROS)
        session.rcpt(b"<r%d@example.org>" % number)
        session.header("X-Number", b" %d" % number)
        session.body(b"%d" % number)
        ending = session.eom({})
        assert ending.case == number + 1
        assert ending.message.envelope.sender == f"{number}@b.test"
        assert ending.message.envelope.recipients == (f"r{number}@example.org",)
        assert ending.message.headers == ((b"X-Number", b" %d" % number),)
        assert b"".join(ending.message.body.chunks()) == b"%d" % number
    assert engine.cancelled == []


@pytest.mark.parametrize("way", ["abort", "helo", "connect"])
def test_a_mail_given_up_is_no_mail(session, engine, way):
    session.mail(b"<old@b.test>", [], {})
    {
        "abort": session.abort,
        "helo": lambda: session.helo("again.test"),
        "connect": lambda: session.connect("other.test", None, 0),
    }[way]()
    assert engine.cancelled == [1]
    assert session.eom({}) is None


@pytest.mark.parametrize("way", ["abort", "helo", "connect", "mail"])
def test_a_mail_given_up_is_cancelled_and_forgotten(session, engine, way):
    session.mail(b"<old@b.test>", [b"SIZE=9"], {})
    session.rcpt(b"<old@example.org>")
    session.header("X-Old", b" 1")
    session.body(b"old")
    match way:
        case "abort":
            session.abort()
        case "helo":
            session.helo("again.test")
        case "connect":
            session.connect("other.test", "192.0.2.9", 1)
        case "mail":
            pass
    session.mail(b"<new@b.test>", [], {})
    message = session.eom({}).message
    assert engine.cancelled == [1]
    assert message.envelope.sender == "new@b.test"
    assert (message.envelope.recipients, message.headers, message.body.size) == ((), (), 0)
    assert message.envelope.client.helo == {"helo": "again.test", "connect": ""}.get(way, "helo.example.com")


def test_steps_without_mail_are_no_mail(session, engine):
    session.rcpt(b"<a@b.test>")
    session.header("A", b"b")
    session.body(b"x")
    assert session.eom({}) is None
    session.abort()
    assert (engine.started, engine.cancelled) == ([], [])


def test_without_early_checks_the_engine_hears_nothing_before_the_end(engine, tmp_path):
    session = make(engine, tmp_path, early=False)
    session.mail(b"<>", [], {})
    session.abort()
    session.mail(b"<>", [], {})
    assert session.eom({}).case is None
    assert (engine.started, engine.cancelled) == ([], [])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b" a\n b", b" a\r\n b"),
        (b" a\r\n b", b" a\r\n b"),
        (b" a\r\n b\n\tc", b" a\r\n b\r\n\tc"),
        (b"a\rb", b"a\rb"),
        (b"", b""),
        (b" \x00\xff\x80", b" \x00\xff\x80"),
        (b"\ta", b"\ta"),
    ],
)
def test_header_values_stay_as_on_the_wire(session, value, kept):
    session.mail(b"<>", [], {})
    session.header("X", value)
    assert session.eom({}).message.headers == ((b"X", kept),)


def test_an_mta_that_strips_the_leading_space(engine, tmp_path):
    session = make(engine, tmp_path, leading_space=False)
    session.mail(b"<>", [], {})
    session.header("X", b"a")
    assert session.eom({}).message.headers == ((b"X", b" a"),)


def test_too_many_header_fields(engine, tmp_path):
    session = make(engine, tmp_path, bounds=Bounds(header_fields=2))
    session.mail(b"<>", [], {})
    for name in ("A", "B", "Authentication-Results", "C", "authentication-results"):
        session.header(name, b" 1")
    ending = session.eom({})
    assert [name for name, _ in ending.message.headers] == [b"A", b"B"]
    assert ending.message.truncated == "2 header fields"
    assert ending.unkept == {b"authentication-results": 2, b"c": 1}
    session.mail(b"<>", [], {})
    again = session.eom({})
    assert (again.message.truncated, again.unkept) == ("", {})


def test_names_of_fields_that_are_not_kept_are_bounded_too(engine, tmp_path):
    session = make(engine, tmp_path, bounds=Bounds(header_octets=100))
    session.mail(b"<>", [], {})
    session.header("A", b"1" * 200)
    for name in ["B" * 50, "b" * 50, "C" * 50, "D" * 50, "Authentication-Results"]:
        session.header(name, b" 1")
    assert session.eom({}).unkept == {b"a": 1, b"b" * 50: 2, b"authentication-results": 1, NAMELESS: 2}
    session.mail(b"<>", [], {})
    session.header("A", b"1" * 200)
    for name in ["B" * 49, "b" * 49, "C" * 50, "D"]:
        session.header(name, b" 1")
    assert session.eom({}).unkept == {b"a": 1, b"b" * 49: 2, b"c" * 50: 1, NAMELESS: 1}


def test_too_large_a_header_has_no_holes(engine, tmp_path):
    session = make(engine, tmp_path, bounds=Bounds(header_octets=1000))
    session.mail(b"<>", [], {})
    session.header("A", b" 1")
    session.header("B", b"x" * 1000)
    session.header("C", b" 1")
    message = session.eom({}).message
    assert [name for name, _ in message.headers] == [b"A"]
    assert message.truncated == "1,000 octets of header"
    session.mail(b"<>", [], {})
    session.header("A", b"x" * 996)
    assert session.eom({}).message.truncated == ""
    session.mail(b"<>", [], {})
    session.header("A", b"x" * 997)
    assert session.eom({}).message.headers == ()


def test_the_first_bound_that_was_passed_is_told(engine, tmp_path):
    session = make(engine, tmp_path, bounds=Bounds(recipients=0, header_fields=0))
    session.mail(b"<>", [], {})
    session.rcpt(b"<a@b.test>")
    session.header("A", b" 1")
    assert session.eom({}).message.truncated == "0 recipients"


def test_too_many_recipients_are_counted(engine, tmp_path):
    session = make(engine, tmp_path, bounds=Bounds(recipients=2))
    session.mail(b"<>", [], {})
    for _ in range(5):
        session.rcpt(b"<a@b.test>")
    message = session.eom({}).message
    assert (len(message.envelope.recipients), message.envelope.recipient_count) == (2, 5)
    assert message.truncated == "2 recipients"


def test_long_bodies_are_spooled_and_longer_ones_cut(engine, tmp_path):
    session = make(engine, tmp_path, bounds=Bounds(body_memory=4, body_octets=8))
    session.mail(b"<>", [], {})
    session.body(b"12345")
    session.body(b"67890")
    message = session.eom({}).message
    assert isinstance(message.body, SpooledBody)
    assert b"".join(message.body.chunks()) == b"12345"
    assert message.truncated == "8 octets of body"


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order: no exception, and every mail that was started ends or is cancelled once."""

    def __init__(self):
        super().__init__()
        self.engine = Engine()
        self.session = Session(self.engine, "/tmp", early=True, bounds=Bounds(10, 99, 5, 200, 3, 16, 64))
        self.ended = []

    @rule(
        name=st.text(max_size=9),
        address=st.none() | st.text(max_size=9) | st.ip_addresses().map(str),
        port=st.integers(),
    )
    def connect(self, name, address, port):
        self.session.connect(name, address, port)

    @rule(name=st.text(max_size=9))
    def helo(self, name):
        self.session.helo(name)

    @rule(
        sender=st.binary(max_size=9),
        arguments=st.lists(st.binary(max_size=9) | st.just(b"SIZE=1")),
        macros=st.dictionaries(st.sampled_from(list(MACROS)), st.none() | st.text(max_size=9)),
    )
    def mail(self, sender, arguments, macros):
        self.session.mail(sender, arguments, macros)

    @rule(recipient=st.binary(max_size=9))
    def rcpt(self, recipient):
        self.session.rcpt(recipient)

    @rule(name=st.text(max_size=9) | st.just("Authentication-Results"), value=st.binary(max_size=90))
    def header(self, name, value):
        self.session.header(name, value)

    @rule(chunk=st.binary(max_size=30))
    def body(self, chunk):
        self.session.body(chunk)

    @rule(macros=st.dictionaries(st.just("i"), st.none() | st.text(max_size=9)))
    def eom(self, macros):
        ending = self.session.eom(macros)
        if ending is not None:
            self.ended.append(ending.case)
            message = ending.message
            assert len(message.headers) <= 5
            assert sum(len(name) + len(value) for name, value in message.headers) <= 200
            assert len(message.envelope.recipients) <= 3
            assert len(b"".join(message.body.chunks())) == message.body.size <= 64

    @rule()
    def abort(self):
        self.session.abort()

    @invariant()
    def every_case_ends_once(self):
        done = self.ended + self.engine.cancelled
        assert len(done) == len(set(done))
        assert len(self.engine.started) - len(done) in {0, 1}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

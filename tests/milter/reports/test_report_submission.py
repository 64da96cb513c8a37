"""What the local Postfix says to a report, and what it means when it says nothing."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from elemta_milter.reports.submission import Submission

MAIL = b"Subject: x\r\n\r\n.dot\r\n"
GREETING = [b"220 hello", b"250 hi"]


@contextmanager
def server(*connections):
    """An SMTP server that answers each line of each connection with what is written here; None hangs up."""
    heard = []

    def serve():
        for answers in connections:
            with listening.accept()[0] as client, client.makefile("rwb") as lines:
                in_data = False
                for number, answer in enumerate(answers):
                    if number:  # the greeting comes unasked
                        line = lines.readline()
                        while in_data and line.strip() != b"." and line:
                            line = lines.readline()
                        heard.append(line.strip())
                    if answer is None:
                        break
                    in_data = answer.startswith(b"354")
                    lines.write(answer + b"\r\n")
                    lines.flush()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", heard


TAKEN = [b"250 ok", b"250 ok", b"354 go on", b"250 2.0.0 queued"]


@pytest.mark.parametrize(
    ("answers", "state", "words"),
    [
        (TAKEN, "sent", "250 2.0.0 queued"),
        ([b"550 5.7.1 not you", b"250 reset"], "rejected", "550 5.7.1 not you"),
        ([b"250 ok", b"550 5.1.1 no such user", b"250 reset"], "refused", "550 5.1.1 no such user"),
        ([b"250 ok", b"550 no", b"250 reset"], "refused", "550 no"),
        ([b"250 ok", b"554 5.7.1 Relay access denied", b"250 reset"], "rejected", "554 5.7.1 Relay access denied"),
        ([b"250 ok", b"550 5.1.0 <a>: Sender address rejected: User unknown", b"250 reset"], "rejected", "550 5.1.0"),
        ([b"250 ok", b"550 5.1.8 <a>: Sender address rejected: Domain not found", b"250 reset"], "rejected", "550"),
        ([b"250 ok", b"504 5.5.2 <mx>: Helo command rejected", b"250 reset"], "rejected", "504 5.5.2"),
        ([b"250 ok", b"550 5.1.10 null MX", b"250 reset"], "refused", "550 5.1.10"),
        ([b"250 ok", b"451 4.3.0 later", b"250 reset"], "postponed", "451 4.3.0 later"),
        ([b"250 ok", b"250 ok", b"554 no data", b"250 reset"], "rejected", "554 no data"),
        ([b"250 ok", b"250 ok", b"452 full", b"250 reset"], "postponed", "452 full"),
        ([b"250 ok", b"250 ok", b"354 go on", b"554 5.7.1 spam"], "rejected", "554 5.7.1 spam"),
        ([b"250 ok", b"250 ok", b"354 go on", b"451 4.3.0 milter"], "postponed", "451 4.3.0 milter"),
        ([b"250 ok", b"250 ok", b"354 go on", None], "claimed", "the connection broke"),  # taken or not: nobody knows
        ([b"250 ok", None], "postponed", "the connection broke"),
        ([b"hello?"], "postponed", "the connection broke"),
    ],
)
def test_answers(answers, state, words):
    with server([*GREETING, *answers]) as (address, _), Submission(address, "mx.test") as submission:
        found = submission.send("a+r1@b.test", "c@d.test", MAIL)
    assert found[0] == state
    assert found[1].startswith(words)


def test_delays_are_not_to_be_told():
    """A report is only late then; the notification would count as a bounce of its address."""
    answers = [b"220 hello", b"250-hi\r\n250 DSN", *TAKEN]
    with server(answers) as (address, heard), Submission(address, "mx.test") as submission:
        assert submission.send("a+r1@b.test", "c@d.test", MAIL)[0] == "sent"
    assert b"rcpt TO:<c@d.test> NOTIFY=FAILURE" in heard


def test_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Submission(f"127.0.0.1:{port}", "mx.test") as submission:
        state, words = submission.send("a@b.test", "c@d.test", MAIL)
    assert state == "postponed"
    assert words.startswith(f"127.0.0.1:{port} does not answer")


def test_a_server_that_keeps_silent_is_waited_for_once_a_run(monkeypatch):
    monkeypatch.setattr("elemta_milter.reports.submission.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with Submission(f"127.0.0.1:{listening.getsockname()[1]}", "mx.test") as submission:
            found = {submission.send("a@b.test", f"{n}@d.test", MAIL) for n in range(3)}
        assert [state for state, _ in found] == ["postponed"]
        listening.accept()[0].close()
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_server_that_has_hung_up_meanwhile_is_called_again():
    twice = [*GREETING, *TAKEN]
    with server(twice, twice) as (address, heard), Submission(address, "mx.test") as submission:
        assert submission.send("a@b.test", "c@d.test", MAIL)[0] == "sent"
        assert submission.send("a@b.test", "c@d.test", MAIL)[0] == "sent"
    assert [line.lower() for line in heard if line.startswith((b"ehlo", b"mail"))] == [
        b"ehlo mx.test", b"mail from:<a@b.test>", b"ehlo mx.test", b"mail from:<a@b.test>",
    ]  # fmt: skip


@pytest.mark.parametrize("reset", [b"250 reset", None])
def test_after_data_was_refused_the_next_mail_begins_anew(reset):
    """Without RSET the next MAIL is nested, and the next address would count as one that does not exist."""
    refused = [*GREETING, b"250 ok", b"250 ok", b"451 4.3.0 no milter", reset]
    connections = [[*refused, *TAKEN]] if reset else [refused, [*GREETING, *TAKEN]]
    with server(*connections) as (address, heard), Submission(address, "mx.test") as submission:
        assert submission.send("a@b.test", "c@d.test", MAIL) == ("postponed", "451 4.3.0 no milter")
        assert submission.send("a@b.test", "e@f.test", MAIL)[0] == "sent"
    assert [line.upper() for line in heard].count(b"RSET") == 1

"""`elemta quarantine` on Postfix's programs as scripts that say what those say: what is asked, told and noted?"""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.cli import main
from elemta.journal import Reader
from elemta.quarantine import HoldQueue, QueueError, queue
from elemta.quarantine.telling import subject_of
from elemta.verdict import Disposition
from harness.decisions import decision
from harness.journal import JournalWriter

NOW = int(time.time())
POLICY = """
host: mx.here.test
journal: {{path: {place}/journal.db}}
quarantine: {{keep: 30d, classes: {{inbound: 14d}}, postfix: {place}}}
"""
# Each program appends its arguments and its input to the file `asked`.
PROGRAMS = {
    "postqueue": '[ "$3" = -i ] || cat "$2/queue"',
    "postconf": "printf '5d\\n5\\n'",
    "postsuper": 'while read -r id; do echo "postsuper: $id: $(cat "$2/word")" >&2; done',
    "postcat": 'cat "$2/cat"',
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, body in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"$2/asked"\n{body}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(queue, "_WHERE", "")
    monkeypatch.delenv("SUDO_USER", raising=False)
    (tmp_path / "policy.yaml").write_text(POLICY.format(place=tmp_path))
    for name, text in (("queue", ""), ("word", "removed"), ("cat", "")):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def elemta(place, capsys):
    def run(*args):
        try:
            status = main(["quarantine", *map(str, args), "--config", str(place / "policy.yaml")])
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def on_hold(place, *mails):
    """Put (queue id, reference, age) into the queue and, where there is a reference, its decision into the journal."""
    writer = JournalWriter(str(place / "journal.db"), print)
    writer.open()
    lines = []
    for queue_id, reference, age in mails:
        at = NOW - age
        line = {
            "queue_name": "hold", "queue_id": queue_id, "arrival_time": at, "message_size": 5700,
            "forced_expire": False, "sender": "alice@sender.test", "recipients": [{"address": "bob@here.test"}],
        }  # fmt: skip
        lines += [line, {**line, "queue_name": "deferred", "queue_id": "elsewhere"}]
        if reference:
            verdict = {"disposition": Disposition.QUARANTINE, "rule": "hold", "reply": ""}
            writer.decided(decision(id=reference, at=at, queue_id=queue_id, **verdict))
    assert writer.close() == 0
    (place / "queue").write_text("".join(json.dumps(line) + "\n" for line in lines))


def asked(place, program):
    lines = (place / "asked").read_text().splitlines()
    return [line.removeprefix(f"{program} -c {place} ") for line in lines if line.startswith(program)]


def acts(place, reference):
    reader = Reader(str(place / "journal.db"))
    [entry] = reader.find(reference)
    reader.close()
    return [(act.deed, act.who) for act in entry.acts]


DAY = 86400


def test_a_list_tells_all_there_is_to_know(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", 2 * DAY), ("BzB", "", 60))
    status, out, err = elemta("list")
    assert (status, err) == (0, "(1 more was put on hold by somebody else; --all shows them)\n")
    assert "AzA" in out
    assert "(2d ago)  5,700 octets  class inbound  11d left\n" in out
    assert "    rule hold, reference AAAAAAAAAA: spf: -all matched\n" in out
    assert "    from alice@sender.test to bob@here.test\n    hi\n" in out, "the journal knew the subject"
    assert asked(place, "postcat") == []
    assert "held by somebody else" in elemta("list", "--all")[1]
    criteria, others = elemta("list", "--rule", "another")[2].splitlines()
    assert (criteria, others) == (
        "nothing on hold meets these criteria",
        "(1 was put on hold by somebody else; --all shows them)",
    )
    [line] = elemta("list", "--json")[1].splitlines()
    told = json.loads(line)
    assert (told["queue_id"], told["id"], told["rule"], told["class"]) == ("AzA", "AAAAAAAAAA", "hold", "inbound")
    assert (told["subject"], told["recipients"], told["size"]) == ("hi", ["bob@here.test"], 5700)
    assert told["expires"] > told["arrived"]


def test_the_subject_comes_from_the_mail_where_the_journal_has_none(place, elemta):
    on_hold(place, ("AzA", "", 2), ("BzB", "", 1), ("CzC", "CCCCCCCCCC", 0))
    (place / "cat").write_text(
        "*** ENVELOPE RECORDS hold/AzA ***\nsender: Subject: no\n*** MESSAGE CONTENTS hold/AzA ***\n"
        "From: a\nSUBJECT: =?utf-8?q?f=C3=B6l?=\n ded \x1b[2J\nSubject: second\n"
        "*** ENVELOPE RECORDS hold/BzB ***\nsubject: no\n*** MESSAGE CONTENTS hold/BzB ***\nFrom: b\n"
    )
    _, out, _ = elemta("list", "--all")
    assert out.count("\n    föl ded \\x1b[2J\n") == 1, "and it is not that of the next mail"
    assert "no" not in out.split()
    assert asked(place, "postcat") == ["-qeh AzA BzB"]


def test_a_young_mail_goes_on_and_an_old_one_is_taken_in_again(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY), ("BzB", "BBBBBBBBBB", 3 * DAY), ("CzC", "", 60))
    (place / "word").write_text("released from hold")
    assert elemta("release", "aaaaaaaaaa")[:2] == (0, "AzA  released  from alice@sender.test to bob@here.test\n")
    (place / "word").write_text("requeued")
    assert elemta("release", "BzB")[1].startswith("BzB  released as a new message")
    assert asked(place, "postsuper") == ["-H - hold", "-r - hold"]
    assert asked(place, "postqueue")[1] == "-i AzA"
    user = "root" if os.geteuid() == 0 else acts(place, "AAAAAAAAAA")[0][1]
    assert acts(place, "AAAAAAAAAA") == [("released", user)]
    assert acts(place, "BBBBBBBBBB") == [("requeued", user)]


def test_what_was_named_but_is_not_ours_or_not_there_is_said(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY), ("CzC", "", 60))
    status, out, err = elemta("delete", "CzC", "nowhere", "AzA")
    assert (status, out.split()[0]) == (1, "AzA")
    assert "CzC was put on hold by somebody else; if you mean it: postsuper -d CzC\n" in err
    assert "nowhere is not on hold; `elemta explain nowhere` may tell" in err
    assert asked(place, "postsuper") == ["-d - hold"]


@pytest.mark.parametrize(
    "name", ["", " ", "\n", "-", "ALL", "%", "*", "../AzA", "AzA\nBzB", "AzA BzB", "\0", "hold/AzA"]
)
def test_a_name_that_is_none_means_no_mail(place, elemta, name):
    """Decisions at RCPT TO have no queue id, and an empty variable of a shell is none either."""
    on_hold(place, ("AzA", "", 0), ("BzB", "BBBBBBBBBB", DAY))
    writer = JournalWriter(str(place / "journal.db"), print)
    writer.open()
    writer.decided(
        decision(
            id="AAAAAAAAAA", at=NOW, stage="recipient", queue_id="", disposition=Disposition.QUARANTINE, rule="hold"
        )
    )
    assert writer.close() == 0
    assert "AAAAAAAAAA" in elemta("list")[1]
    for action in ("delete", "release"):
        assert elemta(action, name)[:2] == (1, "")
    assert elemta("show", name)[0] == 1
    assert asked(place, "postsuper") == []


def test_nothing_is_done_to_many_without_yes(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY), ("BzB", "BBBBBBBBBB", 3 * DAY), ("CzC", "", 5 * DAY))
    assert elemta("delete")[0] == os.EX_USAGE
    assert elemta("delete", "--yes")[0] == os.EX_USAGE
    assert elemta("delete", "AzA", "--rule", "hold")[0] == os.EX_USAGE
    status, out, err = elemta("delete", "--older", "2d")
    assert (status, "BzB" in out, "AzA" in out, "say so with --yes" in err) == (os.EX_USAGE, True, False, True)
    assert asked(place, "postsuper") == []
    assert elemta("delete", "--older", "2d", "--yes")[1].split()[:2] == ["BzB", "deleted"]


@pytest.mark.parametrize("words", [("delete", "--older", "9d"), ("release", "--rule", "other", "--yes")])
def test_criteria_that_nothing_meets_are_told(place, elemta, words):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY))
    assert elemta(*words) == (0, "", "nothing on hold meets these criteria\n")
    assert asked(place, "postsuper") == []


@pytest.mark.parametrize(("criterion", "found"), [("<alice@sender.test>", True), ("<*@other.test>", False)])
def test_addresses_may_be_told_as_they_are_shown(place, elemta, criterion, found):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY))
    assert ("AzA" in elemta("list", "--sender", criterion)[1]) == found
    assert "AzA" in elemta("list", "--recipient", "<bob@here.test>")[1]


def test_the_null_sender_is_found_as_it_is_shown(place, elemta):
    on_hold(place, ("AzA", "", DAY), ("BzB", "BBBBBBBBBB", DAY))
    mails = (place / "queue").read_text()
    (place / "queue").write_text(mails.replace("alice@sender.test", "MAILER-DAEMON", 1))
    out = elemta("list", "--all", "--sender", "<>")[1]
    assert ("from <> to" in out, "AzA" in out, "BzB" in out) == (True, True, False)


def test_only_what_was_kept_long_enough_expires(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", 15 * DAY), ("BzB", "BBBBBBBBBB", 13 * DAY), ("CzC", "", 99 * DAY))
    assert "its time is over" in elemta("expire", "--dry-run")[1]
    assert asked(place, "postsuper") == []
    assert elemta("expire")[:2] == (0, "AzA  deleted  from alice@sender.test to bob@here.test\n")
    assert [deed for deed, _ in acts(place, "AAAAAAAAAA")] == ["expired"]
    assert acts(place, "BBBBBBBBBB") == []


def test_what_was_done_is_noted_though_nobody_reads_what_is_told(place, elemta, monkeypatch):
    """`elemta quarantine delete … --yes | head -1`"""
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY))

    def gone(_):
        raise SystemExit

    monkeypatch.setattr("elemta.cli._terminal.out", gone)
    elemta("delete", "AzA")
    assert [deed for deed, _ in acts(place, "AAAAAAAAAA")] == ["deleted"]


def test_times_of_postfix_are_read_as_it_means_them(place, elemta):
    """One may be said by the other: bounce_queue_lifetime = $maximal_queue_lifetime."""
    on_hold(place, ("AzA", "AAAAAAAAAA", 4 * DAY), ("BzB", "BBBBBBBBBB", DAY))
    (place / "word").write_text("released from hold")
    program = place / "bin" / "postconf"
    program.write_text('#!/bin/sh\ncase "$3" in -*x*) echo 2w; echo 2w;; *) echo 2w; echo "\\$maximal";; esac\n')
    assert elemta("release", "AzA")[:2] == (0, "AzA  released  from alice@sender.test to bob@here.test\n")
    program.write_text("#!/bin/sh\necho 5D; echo 5\n")
    status, out, err = elemta("release", "BzB")
    assert (status, out) == (os.EX_CONFIG, "")
    assert 'maximal_queue_lifetime, bounce_queue_lifetime: "5D" is not a duration' in err


def test_what_postsuper_did_not_do_is_neither_told_nor_noted(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY))
    (place / "word").write_text("warning: something else")
    status, out, err = elemta("delete", "AzA")
    assert (status, out, err) == (1, "", "AzA: somebody else was faster, it is not on hold any more\n")
    assert acts(place, "AAAAAAAAAA") == []
    (place / "bin" / "postsuper").write_text("#!/bin/sh\necho 'postsuper: AzA: removed' >&2; exit 1\n")
    assert elemta("delete", "AzA")[:2] == (0, "AzA  deleted  from alice@sender.test to bob@here.test\n")
    assert [deed for deed, _ in acts(place, "AAAAAAAAAA")] == ["deleted"], "though it failed at another"


def test_the_oldest_come_first(place):
    on_hold(place, ("BzB", "", 1), ("CzC", "", 2), ("AzA", "", 2))
    assert [mail.queue_id for mail in HoldQueue(str(place)).mails()] == ["AzA", "CzC", "BzB"]


def test_show_gives_the_story_and_the_header_or_the_mail_alone(place, capsysbinary):
    def show(*args):
        assert main(["quarantine", "show", *args, "--config", str(place / "policy.yaml")]) == 0
        return capsysbinary.readouterr().out

    on_hold(place, ("AzA", "AAAAAAAAAA", DAY))
    (place / "cat").write_bytes(b"From: a\nSubject: x\x1b[2J\n")
    text = show("AzA").decode()
    assert "AAAAAAAAAA  quarantined by rule hold" in text
    assert text.endswith("Header\n  From: a\n  Subject: x\\x1b[2J\n")
    (place / "cat").write_bytes(b"From: a\n\nb\xffody\n")
    assert show("AzA", "--body") == b"From: a\n\nb\xffody\n"
    assert asked(place, "postcat") == ["-qh AzA", "-qbh AzA"]


@pytest.mark.parametrize(
    ("program", "body", "status", "words"),
    [
        ("postqueue", None, os.EX_UNAVAILABLE, "there is no postqueue here"),
        ("postqueue", "echo '{}'", os.EX_PROTOCOL, "not understood"),
        ("postqueue", "echo 'postqueue: fatal: open x/main.cf: No such file or directory' >&2; exit 69",
         os.EX_CONFIG, "quarantine.postfix"),
        ("postqueue", "echo 'postqueue: fatal: Queue report unavailable - mail system is down' >&2; exit 69",
         os.EX_UNAVAILABLE, "is Postfix running?"),
        ("postsuper", "printf 'postsuper: warning: x\\npostsuper: fatal: reserved for the superuser\\n' >&2; exit 1",
         os.EX_NOPERM, "postsuper: reserved for the superuser; run this as root"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(place, elemta, program, body, status, words):
    on_hold(place, ("AzA", "AAAAAAAAAA", DAY))
    path = place / "bin" / program
    path.unlink() if body is None else path.write_text(f"#!/bin/sh\n{body}\n")
    got, out, err = elemta("delete", "AzA")
    assert (got, out) == (status, "")
    assert words in err


def test_without_a_journal_nothing_is_touched(place, elemta):
    on_hold(place, ("AzA", "AAAAAAAAAA", 99 * DAY))
    for each in place.glob("journal.db*"):
        each.unlink()
    status, _, err = elemta("expire")
    assert (status, "no journal here" in err) == (os.EX_NOINPUT, True)
    assert not (place / "journal.db").exists()


def test_a_mail_that_goes_while_headers_are_read_costs_no_other(place):
    script = """for id in $4 $5 $6 $7; do
      [ $id != gone ] || { echo "postcat: fatal: open queue file gone: No such file or directory" >&2; exit 1; }
      printf '*** ENVELOPE RECORDS hold/%s ***\\n*** MESSAGE CONTENTS hold/%s ***\\nSubject: %s\\n' $id $id $id
    done"""
    (place / "bin" / "postcat").write_text(f"#!/bin/sh\n{script}\n")
    assert list(HoldQueue(str(place)).headers(["a", "gone", "b", "c"])) == ["a", "b", "c"]
    (place / "bin" / "postcat").write_text("#!/bin/sh\necho 'postcat: fatal: open x: Permission denied' >&2; exit 1\n")
    with pytest.raises(QueueError, match="as root") as raised:
        HoldQueue(str(place)).headers(["a"])
    assert raised.value.status == os.EX_NOPERM


def test_a_mail_that_is_all_header_does_not_fill_the_memory(place):
    line = "X: " + "y" * 100_000
    (place / "cat").write_text(f"*** MESSAGE CONTENTS hold/a ***\n{(line + chr(10)) * 100}Subject: late\n")
    [header] = HoldQueue(str(place)).headers(["a"]).values()
    assert len(header) < queue.LONGEST_HEADER + queue.LONGEST_LINE


def test_the_end_of_a_long_line_is_no_mark(place):
    begin = "*** MESSAGE CONTENTS hold/"
    (place / "cat").write_text(f"{begin}a ***\nX: {'y' * (queue.LONGEST_LINE - 3)}{begin}b ***\nSubject: forged\n")
    assert list(HoldQueue(str(place)).headers(["a"])) == ["a"]


def test_a_class_that_is_not_there_is_a_mistake(place, elemta):
    text = (place / "policy.yaml").read_text().replace("inbound", "imbound")
    (place / "policy.yaml").write_text(text)
    status, _, err = elemta("list")
    assert status == os.EX_CONFIG
    assert "policy.yaml:4:" in err
    assert 'quarantine.classes: there is no class "imbound"; did you mean "inbound"?' in err


@given(
    st.binary(max_size=3000)
    | st.lists(st.sampled_from([b"Subject:", b" ", b"\n", b"=?utf-8?b?", b"?=", b"\0", b"x"])).map(b"".join)
)
def test_no_header_is_too_strange(header):
    subject = subject_of(header)
    assert len(subject) <= 1000


@pytest.mark.parametrize(
    ("instance", "age", "known"),
    [("7a1.6", 60, True), ("7a1.7", 60, False), ("", 60, False), ("7a1.6", 86400, False)],
)
def test_a_mail_held_at_the_recipients_has_the_ids_of_all_of_them(place, elemta, instance, age, known):
    on_hold(place, ("4f1zKq2n3z4c", "", 60))
    writer = JournalWriter(str(place / "journal.db"), print)
    writer.open()
    verdict = {"stage": "recipient", "disposition": Disposition.QUARANTINE, "rule": "hold", "reply": ""}
    verdict |= {"sender": "alice@sender.test", "queue_id": ""}
    first = {"at": NOW - 60, "recipients": ("bob@here.test",), "instance": "7a1.6", **verdict}
    other = {"at": NOW - age, "recipients": ("other@here.test",), "instance": instance, **verdict}
    writer.decided(decision(id="AAAAAAAAAA", **first))
    writer.decided(decision(id="BBBBBBBBBB", **other))
    assert writer.close() == 0

    for reference, found in (("AAAAAAAAAA", True), ("BBBBBBBBBB", known)):
        status, out, err = elemta("show", reference)
        assert (status == 0, "4f1zKq2n3z4c" in out, "is not on hold" in err) == (found, found, not found)

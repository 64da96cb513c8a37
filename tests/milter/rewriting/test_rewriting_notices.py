"""A notice in the place of an attachment; all else stays octet by octet."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mime import read_octets
from elemta_milter.rewriting import Change, replace_parts

MIXED = ((b"From", b" a@b.test"), (b"Content-Type", b" multipart/mixed; boundary=b"))


def octets(text):
    return text.replace("\n", "\r\n").encode()


def replaced(fields, body, numbers, notice="Taken out"):
    tree = read_octets(body, fields)
    change = replace_parts(tree, [(part, notice) for part in tree.root.walk() if part.number in numbers])
    return change.header(fields), change.octets()


def parsed(fields, body):
    whole = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n" + body
    return email.message_from_bytes(whole, policy=email.policy.default)


PART = "Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n"
PART += 'Content-Disposition: inline; filename="removed.txt"\n\nTaken out'
EXE = 'Content-Type: application/x; name="a.exe"\nContent-Transfer-Encoding: base64\n\nTVo=\n'


@pytest.mark.parametrize("part", [EXE, "Content-Disposition: attachment\n" + EXE])
def test_a_part_and_nothing_else(part):
    body = "pre\n--b\n\nhello\n--b\n" + part + "--b\nContent-Type: application/pdf\n\n%PDF \n\n--b--\nepilogue\n"
    fields, new = replaced(MIXED, octets(body), {"2"})

    assert new == octets(body.replace(part.removesuffix("\n"), PART))
    assert tuple(fields) == MIXED


@pytest.mark.parametrize(
    "body", ["--b\n" + EXE + "--b--\n", "--b\n" + EXE, '--b\nContent-Type: application/x; name="a.exe"\n--b--\n']
)
def test_the_end_of_a_part(body):
    fields, new = replaced(MIXED, octets(body), {"1"})
    [part] = parsed(fields, new).iter_parts()
    assert (part.get_content_type(), part.get_content().strip()) == ("text/plain", "Taken out")


def test_in_an_attached_message():
    inner = (
        "Content-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/mixed; boundary=c\n\n--c\n"
        + EXE
        + "--c--\n"
    )
    body = "--b\n\nhello\n--b\n" + inner + "--b--\n"
    _, new = replaced(MIXED, octets(body), {"2.1"})
    assert new == octets(body.replace(EXE.removesuffix("\n"), PART))
    _, new = replaced(MIXED, octets(body), {"2", "2.1"})  # the message goes as a whole
    assert new == octets(body.replace(inner.removesuffix("\n"), PART))


def test_a_field_that_is_other_stands_once():
    change = Change(memoryview(b""), fields={"X": "new", "Y": None, "Z": None})
    before = ((b"x", b" 1"), (b"A", b" 1"), (b"X", b" 2"), (b"Y", b" 1"))
    assert change.header(before) == [(b"x", b" new"), (b"A", b" 1")]


def test_a_mail_that_is_one_attachment():
    fields = (
        (b"From", b" a@b.test"), (b"Content-Type", b' application/x; name="a.exe"'), (b"content-id", b" <x>"),
        (b"Content-Disposition", b" attachment"), (b"Content-Transfer-Encoding", b" base64"), (b"X", b" 1"),
    )  # fmt: skip
    fields, new = replaced(fields, b"TVo=\r\n", {""}, "Herausgenommen: ☃")
    message = parsed(fields, new)
    assert [str(name) for name in message] == ["From", "Content-Type", "Content-Transfer-Encoding", "X", "MIME-Version"]
    assert message.get_content().strip() == "Herausgenommen: ☃"


@pytest.mark.parametrize(
    "block",
    [
        "begin 644 a.exe\n#0V%T\n`\nend\n",
        "begin-base64 644 a.exe\nTVoxMjM0\n====\n",
        "=ybegin line=128 size=3 name=a.exe\n\x6b\x6c\x6d\n=yend size=3\n",
    ],
)
def test_a_file_in_a_text(block):
    _, new = replaced((MIXED[0],), octets(f"hello\n\n{block}\nworld\n"), {"1"}, "Taken out ☃")
    assert new == octets("hello\n\nTaken out ?\n\nworld\n")


@pytest.mark.parametrize("rest", ["`\nend", "\nworld\n"])
def test_a_file_in_a_text_goes_to_the_end_of_its_last_line_or_of_the_text(rest):
    assert replaced((MIXED[0],), octets(f"begin 644 a.exe\n#0V%T\n{rest}"), {"1"})[1] == b"Taken out\r\n"


def test_blocks_in_each_other_go_together():
    body = "begin 644 a.exe\n#0V%T\nbegin 644 b.exe\n#0V%T\n`\nend\nworld\n"
    _, new = replaced((MIXED[0],), octets(body), {"1", "2"})
    assert new == octets("Taken out\nworld\n")


leaf = st.tuples(st.sampled_from(["text/plain", "image/png", "application/x"]), st.text("ab\n -=", max_size=20))
trees = st.recursive(leaf, lambda child: st.tuples(st.just("multipart/mixed"), st.lists(child, min_size=1, max_size=3)))


def written(tree, depth=0):
    kind, held = tree
    if kind != "multipart/mixed":
        return f"Content-Type: {kind}\n\n{held}"
    inner = "".join(f"--b{depth}\n{written(each, depth + 1)}\n" for each in held)
    return f"Content-Type: multipart/mixed; boundary=b{depth}\n\n{inner}--b{depth}--\n"


@given(trees, st.sets(st.integers(0, 8)))
def test_any_parts_of_any_mail(tree, which):
    fields, _, body = octets(written(tree)).partition(b"\r\n\r\n")
    name, _, value = fields.partition(b":")
    header = ((name, value),)
    read = read_octets(body, header)
    leaves = [part for part in read.root.walk() if not part.media_type.startswith("multipart/")]
    chosen = {part.number for place, part in enumerate(leaves) if place in which}
    before = [part.get_payload() for part in parsed(header, body).walk() if not part.is_multipart()]
    new_header, new = replaced(header, body, chosen)
    after = [part.get_payload().strip("\n") for part in parsed(new_header, new).walk() if not part.is_multipart()]

    wanted = [
        "Taken out" if part.number in chosen else text.strip("\n") for part, text in zip(leaves, before, strict=True)
    ]
    assert [text.strip() for text in after] == [text.strip() for text in wanted]

"""Facts of the header, decoded, as rules see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from elemta.rules.view import View
from elemta.testing import envelope, judge, message, policy

FIELDS = {
    "From": "=?utf-8?q?J=C3=B6rg?= <joerg@example.org>",
    "Reply-To": "Desk <desk@reply.example>, joerg@Example.ORG",
    "Subject": "=?utf-8?q?Your_in?= =?utf-8?q?voice?=\r\n now",
    "List-Id": 'The "<a>" list <List.Example.org>',
    "User-Agent": "Mailer/1.0",
    "Message-ID": "<1@example.org>",
}


def view(**changed):
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changed.items()}
    return View(envelope(), message(headers=[(name, value) for name, value in fields.items() if value is not None]))


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("subject", ("=?utf-8?q?Your_in?= =?utf-8?q?voice?= now",)),
        ("subject.text", ("Your invoice now",)),
        ("header_from", ("joerg@example.org",)),
        ("header_from.domain", ("example.org",)),
        ("from_name", ("Jörg",)),
        ("reply_to", ("desk@reply.example", "joerg@example.org")),
        ("reply_to.domain", ("reply.example", "example.org")),
        ("reply_to.differs", True),
        ("list_id", "list.example.org"),
        ("mailer", "Mailer/1.0"),
        ("message_id", "<1@example.org>"),
    ],
)
def test_facts(fact, value):
    assert view()[fact] == value


def test_facts_that_are_absent():
    none = View(envelope(), message(headers=[("From", "a@b.test")]))

    for fact in ("list_id", "mailer", "message_id"):
        assert none[fact] is None
    for fact in ("subject.text", "reply_to", "reply_to.domain", "from_name"):
        assert none[fact] == ()
    assert none["reply_to.differs"] is False
    assert View(envelope())["subject.text"] is None


def test_answers_that_go_to_the_authors_own_domain():
    assert view(Reply_To="other@example.org")["reply_to.differs"] is False


def test_text_is_one_line_that_can_be_printed():
    assert view(Subject="=?utf-8?q?a=0D=0ABcc:_x=00?=")["subject.text"] == ("a Bcc: x",)
    assert view(Subject="caf\xe9")["subject.text"] == ("café",)
    assert view(Subject="Your in\u200bvo\u00adice\ufeff")["subject.text"] == ("Your invoice",)


def test_the_older_field_names_the_mailer_first():
    assert view(X_Mailer="Old")["mailer"] == "Old"


@pytest.mark.parametrize(
    "when",
    [
        '{subject.text: {regex: "(?i)invoice"}, reply_to.differs: true}',
        "{reply_to: desk@reply.example, reply_to.domain: [x.test, example.org]}",
        "{from_name: jörg, list_id: list.example.org, subject.text: your invoice now}",
    ],
)
def test_a_rule_about_the_header(when):
    of = policy(f"host: mx.test.example\nrules: {{message: [{{id: tag, when: {when}, then: quarantine}}]}}\n")
    fields = list(FIELDS.items())

    assert judge(of, message(headers=fields)).verdict.rule == "tag"


@given(st.binary(max_size=100))
def test_any_octets(octets):
    of = replace(message(), headers=tuple((name.encode(), octets) for name in FIELDS))
    seen = View(envelope(), of)

    for fact in ("subject.text", "reply_to", "reply_to.differs", "from_name", "list_id", "mailer", "message_id"):
        assert seen[fact] is None or isinstance(seen[fact], (str, tuple, bool))

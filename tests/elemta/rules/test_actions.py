"""What rules ask for besides their verdict: banners, tags, notices; and templates filled in twice or as HTML."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.config.problems import ConfigErrors
from elemta.rules.templates import compile_template
from elemta.testing import envelope, judge, message, policy
from elemta.verdict import ActionKind

HEAD = "host: mx.receiver.test\nrules:\n  message:\n    - "


def action(rule, sender="a@b.test"):
    decision = judge(policy(HEAD + rule), message(envelope(sender=sender)))
    [made] = decision.verdict.actions
    return made, decision.id


def complaint(rule):
    with pytest.raises(ConfigErrors) as raised:
        policy(HEAD + rule)
    return str(raised.value)


def test_a_banner():
    made, reference = action(
        '{id: a, banner: {text: "{host} {rule} {id}", html: "<p>{sender}", position: bottom}}', "<@x"
    )
    assert (made.kind, made.name, made.rule) == (ActionKind.BANNER, "bottom", "a")
    assert made.value == f"mx.receiver.test a {reference}"
    assert made.options == (("html", "<p>&lt;@x"),)
    made, _ = action('{id: a, banner: {text: "{sender}"}}', "<@x")
    assert (made.name, made.value, made.options) == ("top", "<@x", ())


def test_attachments():
    made, reference = action('{id: a, replace_attachments: {extension: [exe, js], type: a/b, name: "*x"}}')
    assert (made.kind, made.name) == (ActionKind.REPLACE_ATTACHMENTS, "exe, js, a/b, *x")
    assert made.options == (("extension", "exe"), ("extension", "js"), ("type", "a/b"), ("name", "*x"))
    assert made.value == f'The attachment "{{name}}" was taken out by the rule a. Reference {reference}'


def test_a_tag():
    made, _ = action('{id: a, tag_subject: "[{rule}]"}')
    assert (made.kind, made.value) == (ActionKind.TAG_SUBJECT, "[a]")


@pytest.mark.parametrize("sender", ["", "a@b.test", "postmaster", "{sender.local}@b.test", '"an na"@b.test'])
def test_a_new_sender(sender):
    made, _ = action(f"{{id: a, change_sender: '{sender}'}}")
    assert made.kind == ActionKind.CHANGE_SENDER


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("{id: a, banner: {text: '{name}'}}", "unknown fact"),
        ("{id: a, tag_subject: '{nothing}'}", "unknown fact"),
        ("{id: a, replace_attachments: {extension: exe, notice: '{nmae}'}}", "unknown fact"),
        ("{id: a, replace_attachments: {}}", "say which: extension, type or name"),
        ("{id: a, add_recipient: archive at b.test}", ':4:30: rules.message[0].add_recipient: "archive at b.test"'),
        ("{id: a, add_recipient: [a@b.test, <c@d.test>]}", '"<c@d.test>" is no address; write one such as archive@'),
        ("{id: a, add_recipient: ''}", '"" is no address'),
        ("{id: a, change_sender: <>}", 'write one such as archive@example.org, or "" for the null sender'),
        ("{id: a, remove_recipient: '*@b.test'}", '"*@b.test" is a pattern, and only what'),
        ("{id: a, add_header: {'': x}}", '"" is no header field name'),
        ("{id: a, set_header: {'': x, X-A: y}}", '"" is no header field name'),
        ("{id: a, remove_header: ['']}", '"" is no header field name'),
        ("{id: a, label: [x, '']}", "label: an empty text stands here; write a word"),
        ("{id: a, tag_subject: ' '}", "tag_subject: an empty text stands here"),
        ("{id: a, remove_header: [X-A, X-Spam-*]}", '"X-Spam-*" is a pattern'),
        ("{id: a, replace_attachments: {extension: tar.gz}}", "write gz"),
        ("{id: a, replace_attachments: {extension: '*'}}", '"*" is no extension'),
        ("{id: a, replace_attachments: {type: exe}}", "is no media type"),
    ],
)
def test_what_cannot_be_meant(rule, text):
    told = complaint(rule)
    assert text in told
    assert "does nothing" not in told


BRACES = st.text("{}ab ", max_size=10)


@given(BRACES, BRACES, BRACES)
def test_what_is_filled_in_later_is_not_what_strangers_wrote(value, later, words):
    words = words.replace("{", "{{").replace("}", "}}")
    first = compile_template(f"{words}{{fact}}{{given}}{{name}}", given={"given": value}, later=("name",))
    second = compile_template(first({"fact": value}))
    assert second({"name": later}) == words.replace("{{", "{").replace("}}", "}") + value + value + later


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=50))
def test_in_html_a_fact_is_no_markup(value):
    made = compile_template("<b>{fact}</b>{given}", given={"given": value}, escape=html.escape)({"fact": value})
    assert made.count("<") == 2
    assert html.unescape(made) == f"<b>{value}</b>{value}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (False, "false"), (1, "1"), (2.50, "2.5"), (15.0, "15"), (("a", "b"), "a, b")],
)
def test_values_are_written_as_in_the_policy_file(value, text):
    assert compile_template("{fact}")({"fact": value}) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.2, "1s"),
        (59, "59s"),
        (270, "4m 30s"),
        (3600, "1h"),
        (7505, "2h 5m"),
        (86399, "23h 59m"),
        (86400, "1d"),
        (86405, "1d 5s"),
    ],
)
def test_seconds_are_written_for_people(seconds, text):
    assert compile_template("{fact}", ("fact",))({"fact": seconds}) == text


@pytest.mark.parametrize(
    ("template", "helo", "value"),
    [
        ("{helo}", ".com", "com"),
        (".{helo}", ".com", ".com"),
        ("{helo}/24", "192.0.2.0/0", "192.0.2.0/24"),
    ],
)
def test_who_writes_a_pattern_into_a_set_is_the_administrator(template, helo, value):
    rules = policy(
        "host: mx.receiver.test\nsets: {seen: {dynamic: true}}\nrules:\n  message:\n"
        f'    - {{id: a, add_to_set: {{set: seen, value: "{template}"}}}}'
    )
    [made] = judge(rules, message(envelope(helo=helo))).verdict.actions
    assert made.value == value


@pytest.mark.parametrize("helo", [".com", "192.0.2.0/0"])
def test_what_is_no_entry_of_a_set_stays_as_the_mail_says_it(helo):
    rules = policy(HEAD + '{id: a, add_header: {X-Helo: "{helo}"}}')
    [made] = judge(rules, message(envelope(helo=helo))).verdict.actions
    assert made.value == helo

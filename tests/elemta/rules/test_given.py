"""What tests inside the configuration give: values of each fact's kind, or one sentence that says what to write."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from elemta.config.load import loaded_and
from elemta.config.problems import ConfigErrors
from elemta.policy import Policy
from elemta.rules.given import given as given_value
from elemta.rules.view import MAIL_FACTS

RULES = """\
host: mx.test
checks: {spf: , rspamd: , attachments: , greylist: }
rules:
  recipient:
    - {id: wait, when: {greylist.wait: {gt: 4m}}, then: reject}
  message:
    - {id: big, when: {size: {ge: 5M}}, then: reject}
    - {id: net, when: {client.address: {cidr: 10.0.0.0/8}}, then: reject}
    - {id: ext, when: {attachments.extension: exe}, then: reject}
    - {id: score, when: {rspamd.score: {ge: 5}}, then: reject}
    - {id: subject, when: {subject: {regex: offer}}, then: reject}
    - {id: domain, when: {sender.domain: bücher.example}, then: reject}
    - {id: helo, when: {helo: {regex: '^MX.+e$'}}, then: reject}
    - {id: name, when: {client.name: {regex: ^MX}}, then: reject}
    - {id: ten, when: {header.X-Test: 1.10}, then: reject}
    - {id: field, when: {header.X-Test: "1"}, then: reject}
tests:
"""


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("{size: 5242880}", "big"),
        ("{size: 6M}", "big"),
        ("{client.address: 10.1.2.3}", "net"),
        ('{client.address: "10.1.2.3"}', "net"),
        ("{attachments.extension: [pdf, EXE]}", "ext"),
        ("{attachments.extension: exe}", "ext"),
        ("{rspamd.score: 5}", "score"),
        ("{rspamd.score: 5.10}", "score"),
        ("{header.X-Test: 1.10}", "ten"),
        ("{greylist.wait: 4m1s}", "wait"),
        ("{greylist.wait: 240.50}", "wait"),
        ("{subject: [an offer]}", "subject"),
        ("{subject: an offer}", "subject"),
        ("{sender.domain: bücher.example}", "domain"),
        ("{sender.domain: xn--bcher-kva.example}", "domain"),
        ("{helo: MX.Sub.Example.}", "helo"),
        ("{client.name: MX.Sub.Example}", "name"),
        ('{header.X-Test: "1"}', "field"),
        ("{header.x-test: 1}", "field"),
    ],
)
def test_values_are_of_the_fact_s_kind(tmp_path, given, rule):
    path = tmp_path / "elemta.yaml"
    path.write_text(f"{RULES}  - {{name: t, given: {given}, expect: {{rule: {rule}, then: reject}}}}\n")
    assert loaded_and(Policy.compile, path).run_tests() == []


@pytest.mark.parametrize("given", ["{login: anna}", "{class: submission}"])
@pytest.mark.parametrize("rule", ["class: submission", "when: {class: submission}"])
def test_the_class_is_given_or_found(tmp_path, given, rule):
    path = tmp_path / "elemta.yaml"
    test = f"{{name: t, given: {given}, expect: {{rule: own, then: reject}}}}"
    path.write_text(f"host: mx.test\nrules: {{message: [{{id: own, {rule}, then: reject}}]}}\ntests: [{test}]\n")
    assert loaded_and(Policy.compile, path).run_tests() == []


@pytest.mark.parametrize("sender", ["Anna@Bücher.example.", "anna@xn--bcher-kva.example", '"anna"@bücher.example'])
def test_an_address_is_as_a_mail_gives_it(tmp_path, sender):
    path = tmp_path / "elemta.yaml"
    rule = "{id: anna, when: {sender: anna@bücher.example}, then: reject}"
    test = f"{{name: t, given: {{sender: '{sender}'}}, expect: {{rule: anna}}}}"
    path.write_text(f"host: mx.test\nrules: {{message: [{rule}]}}\ntests: [{test}]\n")
    assert loaded_and(Policy.compile, path).run_tests() == []


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ("size: abc", 'size: "abc" is not a size; write octets'),
        ("size: [5]", "size: a list stands here; size has one value"),
        ("rspamd.score: high", 'rspamd.score: the text "high" stands here; rspamd.score is a number'),
        ("rspamd.score: true", "rspamd.score: the boolean true stands here; rspamd.score is a number"),
        ("client.address: nonsense", 'client.address: "nonsense" is no IP address; write one such as 192.0.2.1'),
        ("client.address: [10.0.0.1]", "client.address: a list stands here; client.address has one value"),
        ("sender: <>", 'sender: "<>" is no address; write nothing where there is none'),
        ("subject: {a: b}", "subject: a mapping stands here; subject is a text"),
        ("subject: [a, [b]]", "subject: a list stands here; subject is a text"),
        ("subject: [a, true]", "subject: the boolean true stands here; subject is a text; write it in quotes"),
        ("smtputf8: yes", 'smtputf8: the text "yes" stands here; write true or false'),
        ("greylist.wait: soon", 'greylist.wait: "soon" is not a duration'),
        ("spf: failed", 'spf: spf is never "failed"; did you mean "fail"?'),
        ("spf.identity: hello", 'spf.identity: spf.identity is never "hello"; did you mean "helo"?'),
        ("spf: [fail]", "spf: a list stands here; spf has one value"),
        ("class: inbond", 'class: there is no class "inbond"; did you mean "inbound"?'),
    ],
)
def test_what_no_mail_can_give(tmp_path, given, want):
    path = tmp_path / "elemta.yaml"
    path.write_text(f"{RULES}  - {{name: t, given: {{{given}}}, expect: {{then: accept}}}}\n")
    with pytest.raises(ConfigErrors) as errors:
        loaded_and(Policy.compile, path)
    column = 23 + given.index(": ") + 2
    assert str(errors.value).startswith(f"{path}:18:{column}: tests[0].given.{want}")


def test_an_address_is_an_address():
    facts = {fact.name: fact for fact in MAIL_FACTS}
    assert given_value(facts["client.address"], "192.0.2.1") == IPv4Address("192.0.2.1")
    assert given_value(facts["client.address"], None) is None
    assert given_value(facts["recipient"], "a@b.example") == ("a@b.example",)


def test_a_rule_for_few_messages_can_be_proven(tmp_path):
    path = tmp_path / "elemta.yaml"
    path.write_text(
        "host: mx.test\nchecks: {spf: }\nrules:\n  message:\n"
        + "".join(f"    - {{id: r{n}, percent: 1, when: {{subject: s{n}}}, then: reject}}\n" for n in range(20))
        + "tests:\n"
        + "".join(
            f"  - {{name: t{n}, given: {{subject: s{n}}}, expect: {{rule: r{n}, then: reject}}}}\n" for n in range(20)
        )
    )
    assert loaded_and(Policy.compile, path).run_tests() == []


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (
            "{id: r, when: {login: anna}, label: x}",
            "expected rule: r (it has no then, and decides nothing), got no rule",
        ),
        ("{id: r, mode: off, then: reject}", "expected rule: r (it is off), got no rule"),
        ("{id: r, when: {login: bert}, then: reject}", "expected rule: r, got no rule"),
    ],
)
def test_why_the_expected_rule_did_not_decide(tmp_path, rule, complaint):
    path = tmp_path / "elemta.yaml"
    test = "{name: t, given: {login: anna}, expect: {rule: r}}"
    path.write_text(f"host: mx.test\nrules: {{message: [{rule}]}}\ntests: [{test}]\n")
    [problem] = loaded_and(Policy.compile, path).run_tests()
    assert problem.message == f'test "t" failed: {complaint}'

"""Reading rules: order, finality, modes, percent, replies, actions; and rules that cannot be meant."""

import time

import pytest

from elemta.config.problems import ConfigErrors
from elemta.config.rule_model import RuleModel
from elemta.decision import MATCHED
from elemta.rules.reach import unreachable_rules
from elemta.rules.view import MAIL_FACTS
from elemta.testing import FakeResolver, envelope, judge, message, policy
from elemta.verdict import ActionKind, Disposition

HEAD = "host: mx.receiver.test\nsets: {frozen: {dynamic: true}, fixed: [a]}\nchecks: {spf: }\nrules:\n  message:\n"


def rules(*lines, stage="message"):
    text = "".join(f"    - {line}\n" for line in lines)
    return policy(HEAD.replace("  message:", f"  {stage}:") + text)


def decide(of, mail=None):
    return judge(of, mail or message(), resolver=FakeResolver())


def complaints(*lines, stage="message"):
    with pytest.raises(ConfigErrors) as raised:
        rules(*lines, stage=stage)
    return str(raised.value)


def test_no_rule_means_accept():
    decision = judge(policy("host: mx.test.example"), message())

    assert decision.verdict.disposition is Disposition.ACCEPT
    assert decision.verdict.rule == ""


def test_first_final_match_wins_and_the_rest_is_not_read():
    decision = decide(
        rules(
            "{id: a, when: {login: x}, then: reject}",
            "{id: b, when: {spf: none}, then: defer}",
            "{id: c, then: reject}",
        )
    )

    assert decision.verdict.rule == "b"
    assert list(decision.trace) == [0, MATCHED]


def test_non_final_rules_collect_on_the_way():
    decision = decide(
        rules(
            "{id: a, add_header: {X-A: '1'}}",
            "{id: b, class: inbound, label: seen, then: accept}",
            "{id: c, label: never}",
        )
    )

    assert [(action.kind, action.name, action.value, action.rule) for action in decision.verdict.actions] == [
        (ActionKind.ADD_HEADER, "X-A", "1", "a"),
        (ActionKind.LABEL, "", "seen", "b"),
    ]


def test_a_shadow_rule_is_recorded_and_changes_nothing():
    decision = decide(rules("{id: a, mode: shadow, then: reject, label: no}", "{id: b, then: quarantine}"))

    assert decision.shadow == ("a",)
    assert decision.verdict.rule == "b"
    assert decision.verdict.actions == ()


def test_a_rule_that_is_off_is_not_read():
    assert list(decide(rules("{id: a, mode: 'off', then: reject}")).trace) == []


def test_rules_in_words_are_what_the_journal_keeps():
    of = rules(
        "{id: a, when: {login: {exists: true}, spf: fail}, then: reject}", "{id: b, mode: shadow, label: '{helo}'}"
    )
    facts = ["login", "spf"]
    first = {"id": "a", "when": ["login exists", "spf is fail"], "then": "reject", "mode": "enforce", "facts": facts}
    second = {"id": "b", "when": [], "then": "", "mode": "shadow", "facts": ["helo"]}
    assert of.describe() == {"host": "mx.receiver.test", "rules": {"recipient": [], "message": [first, second]}}


def test_unless_holds_only_when_all_of_it_does():
    of = rules("{id: a, then: reject, unless: {spf: none, login: anna}}")

    assert decide(of).verdict.rule == "a"
    assert decide(of, message(envelope(login="anna"))).verdict.rule == ""


def test_class_limits_a_rule():
    of = rules("{id: a, class: submission, then: reject}")

    assert decide(of).verdict.rule == ""
    assert decide(of, message(envelope(login="anna"))).verdict.rule == "a"


@pytest.mark.parametrize("asked", ["class: Office", "when: {class: office}", "when: {class: {in: [OFFICE]}}"])
def test_a_class_may_be_written_with_capitals(asked):
    of = policy(f"host: mx.test\nclasses: {{Office: {{}}}}\nrules: {{message: [{{id: a, {asked}, then: reject}}]}}\n")

    assert decide(of).verdict.rule == "a"


def test_the_reply_is_filled_in_and_cannot_be_broken_out_of():
    of = rules('{id: a, then: reject, reply: "550 5.7.1 {sender} from {client.address} is {{bad}}: {subject} {id}"}')
    decision = decide(of, message(envelope(sender="a\r\n250 OK@x.test"), [("Subject", "x" * 999)]))

    assert decision.verdict.reply.startswith("550 5.7.1 a 250 OK@x.test from 192.0.2.1 is {bad}: xxx")
    assert decision.verdict.reply.endswith(decision.id)
    assert len(decision.verdict.reply) < 400
    assert "\r" not in decision.verdict.reply


def test_replies_have_defaults():
    assert decide(rules("{id: a, then: defer}")).verdict.reply.startswith("451 4.7.1 ")
    assert decide(rules("{id: a, then: reject}")).verdict.reply.startswith("550 5.7.1 ")
    assert decide(rules("{id: a, then: quarantine}")).verdict.reply == ""


def test_percent_is_stable_by_message_and_near_its_share():
    of = rules("{id: a, percent: 25, then: reject}")
    mails = [message(headers=[("Message-ID", f"<{number}@x.test>")]) for number in range(400)]
    first = [decide(of, mail).verdict.rule for mail in mails[:50]]
    hits = sum(decide(of, mail).verdict.rule == "a" for mail in mails)

    assert first == [decide(of, mail).verdict.rule for mail in mails[:50]]
    assert 60 < hits < 140


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{id: a, then: reject, reply: '450 4.7.1 no'}", "contradicts then: reject, which answers 5xx 5.x.x"),
        ("{id: a, then: reject, reply: '550 4.7.1 no'}", "contradicts then: reject"),
        ("{id: a, then: defer, reply: '550 5.7.1 no'}", "contradicts then: defer"),
        ("{id: a, then: reject, reply: 'go away'}", 'write the code, the enhanced code and a text: "550 5.7.1 …"'),
        ('{id: a, then: reject, reply: "550 5.7.1 no\\n"}', '…"; on one line, without `|`'),
        ("{id: a, then: accept, reply: '550 5.7.1 no'}", "then: accept sends no reply"),
        ("{id: a, then: reject, reply: '550 5.7.1 {sendr}'}", 'unknown fact "sendr"; did you mean "sender"?'),
        (
            "{id: a, then: reject, reply: '550 5.7.1 {clamav.virus} {sendr}'}",
            'unknown fact "sendr"; did you mean "sender"?',
        ),
        ("{id: a, then: reject, reply: '550 5.7.1 {sender'}", "a single {"),
        ("{id: a}", "this rule does nothing"),
        ("{id: a, class: [], then: reject}", "class: an empty list names no class; write at least one, or remove the"),
        ("{id: a, class: '', then: reject}", 'there is no class ""; there are submission, inbound'),
        ("{id: a, class: outbound, then: reject}", 'there is no class "outbound"; there are submission, inbound'),
        ("{id: a, add_header: {'X Y': z}}", '"X Y" is no header field name'),
        ("{id: a, add_to_set: {set: frozen, value: ''}}", "value: an empty text stands here; write text"),
        ("{id: a, add_to_set: {set: fixed, value: x}}", '"fixed" is no dynamic set'),
    ],
)
def test_mistake(line, complaint):
    assert complaint in complaints(line)


def test_rules_at_rcpt_to_know_only_the_envelope():
    for fact in ("subject: x", "smtputf8: true"):  # of SMTPUTF8 the policy protocol does not tell
        assert "known only when the message is complete" in complaints(
            f"{{id: a, when: {{{fact}}}, then: reject}}", stage="recipient"
        )
    assert "needs the whole message" in complaints("{id: a, replace_body: x, then: accept}", stage="recipient")


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        ("{id: a, when: {greylist: fail}, then: reject}", "when: "),
        ("{id: a, when: {any: [{spf: fail}, {greylist: fail}]}, then: reject}", "when.any[1]: "),
        ("{id: a, when: {not: {greylist: pass}}, then: reject}", "when.not: "),
        ("{id: a, unless: {any: [{greylist: pass}]}, then: reject}", "unless.any[0]: "),
        ("{id: a, when: {size: {gt: {fact: greylist.wait}}}, then: reject}", "when.size.gt: "),
        ("{id: a, when: {spf: fail}, then: reject, reply: '550 5.7.1 {greylist.wait}'}", "reply: "),
        ("{id: a, add_header: {X-Wait: '{greylist.wait}'}}", "add_header.X-Wait: "),
    ],
)
def test_what_is_judged_at_rcpt_to_only_cannot_be_asked_of_the_whole_message(rule, at):
    with pytest.raises(ConfigErrors) as raised:
        policy(f"host: mx.receiver.test\nchecks: {{spf: , greylist: }}\nrules:\n  message:\n    - {rule}\n")
    assert f'rules.message[0].{at}"greylist' in str(raised.value)
    assert "is judged at RCPT TO only; move the rule to rules.recipient" in str(raised.value)


@pytest.mark.parametrize(
    "lines",
    [
        ("{id: a, then: accept}", "{id: b, when: {spf: fail}, then: reject}"),
        ("{id: a, when: {spf: fail}, then: accept}", "{id: b, when: {login: x, spf: fail}, then: reject}"),
        ("{id: a, class: [inbound, submission], then: accept}", "{id: b, class: inbound, then: reject}"),
        ("{id: a, class: inbound, then: accept}", "{id: b, class: inbound, then: reject}"),
        (
            "{id: a, when: {spf: fail}, then: accept}",
            "{id: c, when: {login: x}, then: defer}",  # would hide it, too
            "{id: b, when: {login: x, spf: fail}, then: reject}",
        ),
        ("{id: a, when: {spf: [fail, softfail]}, then: accept}", "{id: b, when: {spf: fail}, then: reject}"),
        ("{id: a, when: {spf: fail}, then: accept}", "{id: b, when: {spf: [FAIL]}, then: reject}"),
        ("{id: a, when: {size: {ge: 5}}, then: accept}", "{id: b, when: {size: {ge: 5}, spf: fail}, then: reject}"),
        ("{id: a, unless: {spf: fail}, then: accept}", "{id: b, when: {login: x}, unless: {spf: fail}, then: reject}"),
        ("{id: a, then: accept}", "{id: b, unless: {spf: fail}, then: reject}"),
        ("{id: a, unless: {spf: fail, helo: x}, then: accept}", "{id: b, unless: {helo: x, spf: fail}, then: reject}"),
        ("{id: a, then: accept}", "{id: c, mode: 'off', then: defer}", "{id: b, then: reject}"),
        *(
            (
                f"{{id: a, when: {{client.address: {wide}}}, then: accept}}",
                f"{{id: b, when: {{client.address: {narrow}}}, then: reject}}",
            )
            for wide, narrow in (
                ("10.0.0.0/8", "10.1.2.3"),
                ("0.0.0.0/0", "10.1.2.3"),
                ("{cidr: 10.0.0.0/8}", "{cidr: [10.1.0.0/16, 10.2.0.0/16]}"),
                ("['2001:db8::/32', 192.0.2.0/24]", "['2001:DB8:1::/48', 192.0.2.1]"),
                ("192.0.2.1", "192.0.2.1/32"),
                ("192.0.2.0/24", "'::ffff:192.0.2.1'"),
            )
        ),
    ],
)
def test_a_rule_that_is_never_reached_is_a_mistake(lines):
    assert 'rule "b" is never reached: rule "a" above matches whenever it would' in complaints(*lines)


@pytest.mark.parametrize(
    ("when", "unless"),
    [
        ("{spf: fail}", "{spf: fail}"),
        ("{spf: fail, login: x}", "{spf: [fail, softfail]}"),
        ("{client.address: 10.1.0.0/16}", "{client.address: 10.0.0.0/8}"),
    ],
)
def test_a_rule_that_excepts_all_that_it_asks_for_is_a_mistake(when, unless):
    text = complaints(
        f"{{id: a, when: {when}, unless: {unless}, then: reject}}", "{id: b, when: {spf: fail}, label: x}"
    )
    assert 'rules.message[0]: rule "a" never matches: what `unless` asks holds whenever what `when` asks' in text
    assert "is never reached" not in text


@pytest.mark.parametrize(
    ("when", "unless"),
    [("{spf: [fail, softfail]}", "{spf: fail}"), ("{spf: fail}", "{spf: fail, login: x}"), ("{}", "{spf: fail}")],
)
def test_a_rule_that_excepts_some_is_none(when, unless):
    assert rules(f"{{id: a, when: {when}, unless: {unless}, then: reject}}")


@pytest.mark.parametrize(
    "lines",
    [
        ("{id: a, when: {subject: 10.0.0.0/8}, then: accept}", "{id: b, when: {subject: 10.1.2.3}, then: reject}"),
        ("{id: a, when: {login: 10.0.0.0/8}, then: accept}", "{id: b, when: {login: 10.1.0.0/16}, then: reject}"),
        ("{id: a, mode: shadow, then: accept}", "{id: b, then: reject}"),
        ("{id: a, then: accept}", "{id: b, mode: 'off', then: reject}"),
        ("{id: a, percent: 50, then: accept}", "{id: b, then: reject}"),
        ("{id: a, class: inbound, then: accept}", "{id: b, then: reject}"),
        ("{id: a, unless: {spf: fail}, then: accept}", "{id: b, then: reject}"),
        ("{id: a, unless: {spf: fail}, then: accept}", "{id: b, unless: {spf: pass}, then: reject}"),
        ("{id: a, when: {spf: fail}, then: accept}", "{id: b, when: {spf: [fail, softfail]}, then: reject}"),
        ("{id: a, when: {size: {ge: 5}}, then: accept}", "{id: b, when: {size: {ge: 6}}, then: reject}"),
        ("{id: a, when: {spf: fail}, then: accept}", "{id: b, when: {spf: pass}, then: reject}"),
        *(
            (
                f"{{id: a, when: {{client.address: {one}}}, then: accept}}",
                f"{{id: b, when: {{client.address: {other}}}, then: reject}}",
            )
            for one, other in (
                ("10.1.0.0/16", "10.0.0.0/8"),
                ("10.0.0.0/8", "[10.1.2.3, 11.1.2.3]"),
                ("{not: 10.0.0.0/8}", "10.1.2.3"),
                ("0.0.0.0/0", "'2001:db8::1'"),
            )
        ),
        ("{id: a, label: x}", "{id: b, then: reject}"),
    ],
)
def test_a_rule_that_may_be_reached_is_none(lines):
    assert rules(*lines)


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("{}", "{login: {exists: true}}"),
        ("{}", "{}"),
        ("{login: {exists: true}}", "{login: {exists: true}, sender.domain: list.example}"),
        ("{client.address: 10.0.0.0/8}", "{client.address: 10.1.0.0/16}"),
    ],
)
def test_a_class_that_is_never_chosen_is_a_mistake(above, below):
    with pytest.raises(ConfigErrors) as raised:
        policy(f"host: mx.test.example\nclasses:\n  login: {{login: x}}\n  a: {above}\n  b: {below}\n")
    said = ':5:3: classes: class "b" is never chosen: class "a" above holds whenever it would; move it up'
    assert str(raised.value).endswith(said)


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("{login: {exists: true}}", "{}"),
        ("{helo: 10.0.0.0/8}", "{helo: 10.1.2.3}"),
        ("{client.address: 10.1.0.0/16}", "{client.address: 10.0.0.0/8}"),
        ("{any: [{login: x}, {login: y}]}", "{login: {exists: true}}"),
    ],
)
def test_a_class_that_may_be_chosen_is_none(above, below):
    assert policy(f"host: mx.test.example\nclasses:\n  a: {above}\n  b: {below}\n").classes


def test_ids_are_unique():
    assert 'rule "a" stands already at place 0' in complaints(
        "{id: a, when: {spf: pass}, then: reject}", "{id: a, then: defer}"
    )


@pytest.mark.parametrize(
    ("when", "reached"),
    [
        (lambda n: {"sender.domain": f"d{n}.example", "size": {"ge": n}}, 5000),
        (lambda n: {"login": f"u{n}", "spf": ["softfail", "temperror"]}, 5000),  # a longer word that all ask for
        (lambda _: {"login": ["anna", "bert"]}, 1),
    ],
)
def test_thousands_of_rules_are_compared_fast(when, reached):
    models = [RuleModel(id=f"r{n}", when=when(n), then="reject") for n in range(5000)]
    started = time.process_time()
    assert len(unreachable_rules(models, ("rules", "message"), MAIL_FACTS)) == 5000 - reached
    assert time.process_time() - started < 5  # comparing each with each took much longer


def test_a_rule_that_is_off_need_not_do_anything():
    assert decide(rules("{id: a, mode: 'off'}", "{id: b, then: reject}")).verdict.rule == "b"

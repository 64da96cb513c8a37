"""What `when:` asks: every operator on every kind of fact, and every mistake with its place."""

import pytest

from elemta.config.problems import ConfigErrors, path_text
from elemta.facts import Envelope
from elemta.rules.view import MAIL_FACTS, View
from elemta.testing import FakeResolver, envelope, judge, message, policy

ZONE = FakeResolver(
    {
        "pass.test": [("TXT", "v=spf1 +all")],
        "soft.test": [("TXT", "v=spf1 ~all")],
        "bücher.test": [],
    }
)

HEAD = """
host: mx.receiver.test
sets:
  inside: [10.0.0.0/8, "fd00::/8", 192.0.2.77]
  partners: [Partner.Example, .under.example, bücher.example, anna@plain.example, 2001:db8::1]
  frozen: {dynamic: true}
classes: {all: {}}
checks: {spf: , attachments: }
rules:
  message:
    - id: hit
      then: reject
      when: WHEN
"""


def hit(when, of):
    rules = policy(HEAD.replace("WHEN", when))
    return judge(rules, of, resolver=ZONE).verdict.rule == "hit"


MAIL = message(
    envelope(
        "10.1.2.3",
        "Anna@sub.Under.Example",
        ("one@Local.test", "two@other.test"),
        name="host.dyn.isp.test",
        login="anna",
        size=4096,
        helo="[10.1.2.3]",
        queue_id="4ABC",
    ),
    [
        ("From", "Anna <anna@plain.example>"),
        ("Subject", "Your  Invoice\r\n 42"),
        ("X-Spam", "no"),
        ("X-Spam", "maybe"),
        ("X-Name", "Jörg"),
        ("X-List", "@all"),
    ],
)


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ("{client.address: 10.1.2.3}", True),
        ("{client.address: 10.1.2.4}", False),
        ("{client.address: 10.1.0.0/16}", True),
        ("{client.address: [192.0.2.1, 10.0.0.0/8]}", True),
        ("{client.address: {cidr: 10.0.0.0/8}}", True),
        ('{client.address: {cidr: ["fd00::/8", 192.0.2.0/24]}}', False),
        ("{client.address: 10.0.0.0/255.0.0.0}", True),
        ("{client.address: {in: [10.0.0.0/255.0.0.0, 192.0.2.1]}}", True),
        ("{client.address: {cidr: 10.2.0.0/255.255.0.0}}", False),
        ("{client.address: {in: inside}}", True),
        ("{client.address: {not: {in: inside}}}", False),
        ("{client.address: {in: [10.1.2.3]}}", True),
        ("{sender: anna@SUB.under.example}", True),
        ("{sender.local: anna}", True),
        ("{sender.domain: {in: partners}}", True),  # .under.example
        ("{header_from: {in: partners}}", True),
        ("{header_from.domain: {in: partners}}", False),
        ("{header_from.domain: {fact: sender.domain}}", False),
        ("{header_from.domain: {not: {fact: sender.domain}}}", True),
        ("{header_from.domain: {ne: {fact: sender.domain}}}", True),
        ("{header_from.domain: PLAIN.example}", True),
        ("{sender: '@relay.test:anna@sub.under.example'}", True),
        ("{recipient.domain: local.test}", True),
        ("{recipient.domain: {not: local.test}}", False),  # not: none of them is
        ("{recipient.domain: [nobody.test, other.test]}", True),
        ("{recipient.count: 2}", True),
        ("{recipient.count: {gt: 1, lt: 3}}", True),
        ("{recipient.count: {ge: 3}}", False),
        ("{size: {ge: 4K}}", True),
        ("{size: {gt: 4K}}", False),
        ("{client.name: {glob: '*.DYN.*'}}", True),
        ("{client.name: {glob: ['*.static.*', 'host.???.isp.test']}}", True),
        ("{client.name: {glob: 'dyn'}}", False),  # the whole text
        ("{client.name: {regex: 'dyn|dial'}}", True),
        ("{client.name: {regex: '^dyn'}}", False),
        ("{subject: {regex: '(?i)invoice 42'}}", True),  # unfolded, white space once
        ("{subject: your invoice 42}", True),
        ("{header.x-spam: maybe}", True),
        ("{header.X-Spam: {regex: '^no$'}}", True),
        ("{header.x-name: jÖrg}", True),  # a text has no A-labels, nor is it an address
        ("{header.x-list: [x, '@all']}", True),
        ("{header.x-list: {in: ['@all']}}", True),
        ("{header.x-none: {exists: false}}", True),
        ("{header.x-none: {not: maybe}}", True),
        ("{login: {exists: true}}", True),
        ("{login: anna, tls: {exists: true}}", False),
        ("{helo: {in: inside}}", False),  # a literal in brackets is no address
        ("{any: [{login: nobody}, {login: anna}]}", True),
        ("{any: [{login: nobody}, {login: anna, tls: TLSv1.3}]}", False),
        ("{any: [{login: nobody}, {login: anna}], size: 1}", False),  # what stands beside a group counts, too
        ("{all: [{login: anna}, {size: {ge: 1}}]}", True),
        ("{not: {login: anna}}", False),
        ("{not: {login: nobody}}", True),
        ("{not: {login: anna, size: 1}}", True),  # not all of them
        ("{client.name: {all: [{glob: '*.test'}, {not: {regex: mail}}]}}", True),
        ("{client.name: {any: [{glob: '*.com'}, {regex: isp}]}}", True),
        ("{smtputf8: false}", True),
        ("{smtputf8: {in: [false]}}", True),
        ("{smtputf8: {in: [true]}}", False),
        ("{recipient.count: {in: [2.0, 7]}}", True),
        ("{size: {in: [1K, 4K]}}", True),
        ("{spf: {in: [None, PASS]}}", True),
        ("{spf: none}", True),
        ("{spf: {not: pass}}", True),
        ("{spf: {exists: true}}", False),
        ("{class: all}", True),
        ("{}", True),
    ],
)
def test_condition(when, holds):
    assert hit(when, MAIL) is holds


def test_domains_are_compared_as_a_labels():
    of = message(envelope(sender="a@xn--bcher-kva.example"))

    assert hit("{sender.domain: {in: partners}}", of)
    assert hit("{sender.domain: bücher.example}", of)
    assert hit("{sender.domain: {glob: 'BÜCHER.ex*'}}", of)
    assert hit("{sender.domain: {glob: '*.bücher.example'}}", message(envelope(sender="a@b.xn--bcher-kva.example")))
    assert hit("{sender: {glob: '*@Bücher.example'}}", of)
    assert hit("{sender: {glob: 'jö*@*.bücher.*'}}", message(envelope(sender="jörg@b.xn--bcher-kva.example")))
    assert hit("{sender: {glob: 'jö*'}}", message(envelope(sender="jörg@bücher.example")))


@pytest.mark.parametrize(
    ("when", "helo"),
    [
        ("{helo: mx.local.test}", "MX.Local.Test."),
        ("{helo: {in: [.local.test]}}", "mx.local.test."),
        ("{helo: {glob: '*.local.test'}}", "mx.local.test."),
        ("{helo: {regex: '^WIN-[A-Z0-9]+$'}}", "WIN-0A1B."),  # its case stays
        ("{helo: {fact: sender.domain}}", "sender.test."),
        ("{helo: bücher.example}", "BÜCHER.example."),
        ("{helo: {in: partners}}", "bücher.example"),
        ("{helo: .}", "."),
    ],
)
def test_a_helo_name_is_compared_as_other_domains_are(when, helo):
    assert hit(when, message(envelope(sender="a@sender.test", helo=helo)))


def test_brackets_in_a_glob_are_one_character_of_several():
    of = message(headers=[("Subject", "[EXTERN] offer")])

    assert hit("{subject: {glob: '[[]EXTERN] *'}}", of)
    assert not hit("{subject: {glob: '[EXTERN]*'}}", of)


@pytest.mark.parametrize("asked", ["regex: '^b.d@'", "regex: '[^ -~]'", "glob: 'b?d@*'", "glob: '[ab]*@sender.test'"])
def test_octets_that_are_no_utf_8_are_characters_that_nobody_knows(asked):
    of = message(envelope(sender="b\udcfcd@sender.test", helo="\udcff", login="\udcff"))  # as both daemons read 0xFC

    assert hit(f"{{sender: {{{asked}}}}}", of)
    assert not hit("{helo: {regex: dyn}, login: {glob: '?[a-z]'}}", of)


def test_the_null_sender_is_absent():
    of = message(envelope(sender=""))

    assert hit("{sender: {exists: false}}", of)
    assert not hit("{sender.domain: {glob: '*'}}", of)


def test_the_size_of_a_message_is_not_what_the_client_says():
    small = message(envelope(size=1), body=b"x" * 5000)  # RFC 1870 section 6.1: an estimate, which may be a lie

    assert hit("{size: {gt: 4K}}", small)
    assert hit("{size: {gt: 4K}}", message(envelope(size=0), body=b"x" * 5000))
    assert not hit("{size: {gt: 4K}}", message(envelope(size=1), body=b"x" * 4000))


def test_at_rcpt_to_the_size_is_what_the_client_says():
    of = policy(HEAD.replace("  message:", "  recipient:").replace("WHEN", "{size: {gt: 4K}}"))

    assert judge(of, envelope(size=5000), resolver=ZONE).verdict.rule == "hit"
    assert judge(of, envelope(size=4000), resolver=ZONE).verdict.rule == ""


def test_what_a_mail_does_not_say_is_absent():
    of = View(Envelope(), message(Envelope(), headers=[], body=b""))

    said = {fact.name for fact in MAIL_FACTS if of[fact.name] not in (None, ())}
    assert said == {"recipient.count", "reply_to.differs", "smtputf8", "header_from.trouble"}


def test_an_address_in_place_of_a_domain_is_what_it_is():
    of = message(envelope(sender="a@[192.0.2.1]", recipients=["b@[IPv6:::1]"]))

    assert hit("{sender.domain: {glob: '[[]*'}, recipient.domain: '[ipv6:::1]'}", of)


def test_results_and_fields_of_checks():
    of = message(envelope(sender="a@soft.test"))

    assert hit("{spf: [fail, softfail], spf.domain: soft.test, spf.mechanism: ~all}", of)


@pytest.mark.parametrize(
    ("when", "complaint"),
    [
        ("{spv: pass}", 'rules.message[0].when: unknown fact "spv"; did you mean "spf"?'),
        ("{SPF: pass}", 'unknown fact "SPF"; did you mean "spf"?'),
        ("{client.ip: 10.1.2.3}", 'unknown fact "client.ip"; did you mean "client.address"?'),
        ("{from: a@b.test}", 'unknown fact "from"; did you mean "header_from"?'),
        ("{or: [{spf: pass}]}", 'unknown fact "or"; did you mean "any"?'),
        ("{dnsbl: fail}", 'comes from the check dnsbl, which is not enabled; add "dnsbl:" to checks'),
        ("{spf: passed}", 'spf is never "passed"; did you mean "pass"?'),
        ("{client.address: 10.1.2.3/8}", '"10.1.2.3/8" is no network, since it does not begin there; write 10.0.0.0/8'),
        ("{client.address: {in: insid}}", 'there is no set "insid"; did you mean "inside"?'),
        ("{client.name: {regexp: x}}", 'unknown operator "regexp"; did you mean "regex"?'),
        ("{client.name: {regex: '(?=x)'}}", "is no regular expression of RE2"),
        ("{client.name: {ge: 5}}", "client.name is a domain; ge compares numbers"),
        ("{size: {ge: big}}", '"big" is not a size'),
        ("{size: {fact: sender}}", "they cannot be compared"),
        ("{login: {exists: maybe}}", "exists takes true or false"),
        ("{smtputf8: 1}", "smtputf8 is true or false, not 1"),
        ("{any: {spf: pass}}", "takes a list of mappings"),
        ("{any: [{}]}", "takes a list of mappings"),
        ("{all: []}", "takes a list of mappings"),
        ("{any: 5}", "takes a list of mappings"),
        ("{not: {}}", "takes a mapping of conditions"),
        ("{not: pass}", "takes a mapping of conditions"),
        ("{sender.domain: '*.b.test'}", '"*.b.test" is no domain; write {in: [.b.test]} for every name below b.test'),
        ("{sender.domain: [a.test, .bücher.test]}", "write {in: [.bücher.test]} for every name below bücher.test"),
        ("{sender: '@b.test'}", '"@b.test" is no address; write {glob: "*@b.test"}, or sender.domain: b.test'),
        ("{recipient: {not: ['*@b.test']}}", 'write {glob: "*@b.test"}, or recipient.domain: b.test'),
        ("{header_from: {in: [a@b.test, '@b.test']}}", "or header_from.domain: b.test"),
        ("{sender: ''}", '"" is no address; write {exists: false} where there is none'),
        ("{sender: [a@b.test, <>]}", '"<>" is no address; write {exists: false}'),
        ("{sender: {in: [<>]}}", '"<>" is no address'),
        ("{sender.domain: ''}", '"" is no domain; write {exists: false} where there is none'),
        ("{sender.domain: '@b.test'}", '"@b.test" is no domain; write b.test'),
        ("{login: }", "login is compared with a text; found nothing; write {exists: false} where there is none"),
        ("{client.address: [10.0.0.1, true]}", '"true" is no IP address or network'),
        ("{login: {in: }}", "takes the name of a set, or a list; found nothing"),
        ("{sender.domain: {in: {fact: helo}}}", "found a mapping; write {fact: NAME} without `in`"),
        ("{login: {fact: [helo]}}", "login.fact: takes the name of a fact; found a list"),
        ("{sender: {fact: header_from.domain}}", "sender is a mail address, which no domain is equal to; compare send"),
        ("{helo: {fact: sender}}", "which no domain is equal to; compare sender.domain"),
        ("{login: {glob: '[z-a]'}}", '"[z-a]" matches nothing: in [ ], a range must end behind its beginning'),
        ("{login: true}", 'login is a text; write {exists: true}, or "true" in quotes for the word'),
        ("{sender.domain: [false]}", 'sender.domain is a text; write {exists: false}, or "false" in quotes'),
        ("{recipient.count: {ge: nan}}", 'recipient.count is a number; found "nan"'),
        ("{recipient.count: {ge: many}}", 'recipient.count is a number; found "many"'),
        ("{recipient.count: {ge: true}}", "recipient.count is a number; found true"),
        ("{recipient.count: {ge: [1]}}", "recipient.count is a number; found a list"),
        ("{login: {in: [[anna]]}}", "takes texts; found a list"),
        ("{login: {glob: }}", "takes texts; found nothing"),
        ("{login: []}", "an empty list matches nothing"),
        ("{login: {all: []}}", "takes a list, such as"),
        ("{login: {any: 5}}", "takes a list, such as"),
        *(
            (f"{{client.address: {{{operator}: []}}}}", f"{operator}: an empty list matches nothing")
            for operator in ("in", "cidr", "glob", "regex")
        ),
        ("{sender.domain: {glob: 'bü*'}}", 'is compared as A-labels; write xn--… in "bü*"'),
        ("{sender.domain: {regex: 'bücher'}}", "is compared as A-labels; write xn--… instead of letters beyond ASCII"),
        ("{spf: {in: [passed]}}", 'spf is never "passed"; did you mean "pass"?'),
        ("{spf.identity: mail_from}", 'spf.identity is never "mail_from"; did you mean "mailfrom"?'),
        ("{spf: {glob: [pas, fail]}}", 'spf is never like "pas"; it can be none, neutral, pass, fail'),
        ("{spf: {regex: ^failed}}", 'spf is never like "^failed"; it can be'),
        ("{smtputf8: {regex: 'true'}}", "smtputf8 is true or false; write smtputf8: true, or smtputf8: false"),
        ("{sender.domain: {in: [a.test, '@b.test']}}", 'in[1]: "@b.test" is no domain; write b.test'),
        ("{smtputf8: 'true'}", 'smtputf8 is true or false, not the text "true"; write true, without quotes'),
        ("{login: {exists: 'false'}}", 'not the text "false"; write false, without quotes'),
        ("{spf.domain: '@b.test'}", '"@b.test" is no domain; write b.test'),
        ("{attachments.extension: [exe, .JS]}", '[1]: attachments.extension never begins with "."; write js'),
        ("{attachments.extension: {in: [exe, .js]}}", '[1]: attachments.extension never begins with "."; write js'),
        ("{size: {in: [big]}}", '"big" is not a size'),
        ("{class: al}", 'class is never "al"; did you mean "all"?'),
        ("{class: {not: {in: [inbound]}}}", 'class is never "inbound"; it can be all, unclassified'),
        (
            "{client.address: {lt: {fact: helo}}}",
            "client.address is an IP address and helo is a domain: they cannot be",
        ),
        ("{client.address: {fact: helo}}", "they cannot be compared"),
        ("{smtputf8: {ge: {fact: smtputf8}}}", "smtputf8 is true or false; only numbers are less or greater"),
        ("{sender: {gt: {fact: helo}}}", "sender is a mail address; only numbers are less or greater"),
        ("{login: {}}", "an empty mapping asks nothing"),
        ("{login: {fact: logon}}", 'unknown fact "logon"; did you mean "login"?'),
    ],
)
def test_mistake(when, complaint):
    with pytest.raises(ConfigErrors) as raised:
        policy(HEAD.replace("WHEN", when))

    assert complaint in str(raised.value)
    assert "policy.yaml:13:" in str(raised.value)


def test_every_mistake_is_reported_at_once():
    with pytest.raises(ConfigErrors) as raised:
        policy(HEAD.replace("WHEN", "{spv: pass, logon: x, client.address: nowhere}"))

    assert len(raised.value.problems) == 3


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ("{spf: [pas, fail, softfial]}", ("[0]", "[2]")),
        ("{spf: {not: {in: [pas, fail, softfial]}}}", (".not.in[0]", ".not.in[2]")),
        ("{client.address: {cidr: [10.0.0.0/8, a, b]}}", (".cidr[1]", ".cidr[2]")),
        ("{client.address: [a, 10.0.0.0/8, {in: [b]}]}", ("[0]", "[2].in[0]")),
        ("{login: {any: [{glob: '[z-a]'}, anna, {regex: (}]}}", (".any[0].glob", ".any[2].regex")),
        ("{login: {regex: [x, (, )]}, size: big}", (".regex[1]", ".regex[2]", "size")),
    ],
)
def test_every_wrong_entry_of_a_list_is_told_where_it_stands(asked, wrong):
    with pytest.raises(ConfigErrors) as raised:
        policy(HEAD.replace("WHEN", asked))
    problems = raised.value.problems
    places = {f"{path_text(each.path)}: " for each in problems}
    assert len(problems) == len(places) == len(wrong)
    assert all(any(place.endswith(f"{end}: ") for place in places) for end in wrong)
    assert len({each.origin for each in problems}) == len(wrong)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("{not: {login: anna}}", "not (login is anna)"),
        ("{helo: {not: {glob: '*(x)'}}}", "not (helo looks like *(x))"),
        (
            "{not: {all: [{login: anna}, {any: [{helo: a}, {helo: b}]}]}}",
            "not (login is anna and (helo is a or helo is b))",
        ),
        ("{not: {not: {login: anna}}}", "not (not (login is anna))"),
    ],
)
def test_the_opposite_in_words_closes_as_many_brackets_as_it_opens(when, words):
    [rule] = policy(HEAD.replace("WHEN", when)).rules["message"].rules

    assert rule.texts == (words,)


@pytest.mark.parametrize(
    "address",
    [
        "boss@bücher.test", "Boss@XN--BCHER-KVA.test", '"boss"@bücher.test', r'"b\oss"@xn--bcher-kva.test',
        "boss@bücher.test.", "@relay.test:boss@bücher.test", '@relay.test:"boss"@xn--bcher-kva.test.',
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["sender", "recipient"])
@pytest.mark.parametrize(
    "asked",
    [
        "{in: [boss@bücher.test]}",
        "boss@bücher.test",
        "[x@x.test, boss@xn--bcher-kva.test]",
        '{glob: "boss@xn--*.test"}',
    ],
)
def test_an_address_is_itself_however_it_is_written(address, which, asked):
    sender, recipients = ("a@b.test", [address]) if which == "recipient" else (address, ["a@b.test"])
    mail = message(envelope("10.1.2.3", sender, recipients), [("From", "a@b.test")])
    assert hit(f"{{{which}: {asked}}}", mail)
    assert hit(f"{{{which}.local: boss}}", mail)


def test_an_author_is_himself_however_he_is_written():
    mail = message(envelope("10.1.2.3", "a@b.test", ["c@b.test"]), [("From", '"Boss" <"boss"@xn--bcher-kva.test>')])
    assert hit("{header_from: boss@bücher.test}", mail)


@pytest.mark.parametrize("asked", ["bücher.test", "BÜCHER.test.", "{in: [bücher.test]}", "{glob: 'bücher.*'}"])
def test_a_domain_that_a_check_found_is_itself_however_it_is_written(asked):
    mail = message(envelope("10.1.2.3", "a@bücher.test", ["c@b.test"]), [("From", "a@b.test")])
    assert hit(f"{{spf.domain: {asked}}}", mail)


@pytest.mark.parametrize("asked", ["1.10", "[1.10]", "{in: [1.10]}", "{glob: 1.10}", "{regex: ^1.10$}", "{not: 1.1}"])
def test_a_decimal_is_the_text_that_stands_there(asked):
    mail = message(envelope("10.1.2.3", "a@b.test", ["c@b.test"], size=2), [("From", "a@b.test"), ("X-Mark", "1.10")])
    assert hit(f"{{header.x-mark: {asked}, recipient.count: 1.00, size: {{gt: 1.50}}}}", mail)

"""imitation: names as people read them, and addresses in the place of names."""

import asyncio
import os

import pytest

from elemta.config.problems import ConfigErrors
from elemta.testing import judge, message, policy, run, tools
from elemta_milter.checks.imitation import Imitation
from elemta_milter.people import People, listed, words_of

PEOPLE = {
    "Jane Doe": ["Jane@example.org", "@example.net"],
    "Jörg Müller-Lüdenscheidt": ["joerg@example.org"],
    "Support": ["@example.org"],
}


def look(sender, people=PEOPLE):
    return run(Imitation, message(headers=[("From", sender)]), people=people)


@pytest.mark.parametrize(
    ("sender", "result", "kind"),
    [
        ("Jane Doe <jane@example.org>", "pass", None),
        ("JANE DOE <Jane+x@Example.ORG>", "pass", None),
        ("Jane Doe <anything@example.net>", "pass", None),
        ("Jane Doe <jane@evil.test>", "fail", "name"),
        ("Jane Doe <another@example.org>", "fail", "name"),
        ('"Doe, Jane" <jane@evil.test>', "fail", "name"),
        ("jane  doe <jane@evil.test>", "fail", "name"),
        ("Jané Dôe <jane@evil.test>", "fail", "name"),
        ('"Dôe, Jané" <jane@evil.test>', "fail", "name"),
        *((f'"D{sign}oe, Jane" <jane@evil.test>', "fail", "name") for sign in "\u200b\u00ad\u2060\ufe0f\u034f\u302e"),
        ("=?utf-8?b?0IhhbmUgRG9l?= <jane@evil.test>", "fail", "name"),
        ("J\u0430n\u0435 D\u043ee <jane@evil.test>", "fail", "name"),
        ("J\u200bane Doe <jane@evil.test>", "fail", "name"),
        ("\uff2aane \uff24oe <jane@evil.test>", "fail", "name"),
        ("Jane Q. Doe <jane@evil.test>", "fail", "name"),
        ("jane@evil.test (Jane Doe)", "fail", "name"),
        ('"Jane Doe (Managing Director)" <jane@evil.test>', "fail", "part"),
        ("Jane Doe via List <list@lists.test>", "fail", "part"),
        ("Jané Do\u200be via List <list@lists.test>", "fail", "part"),
        ("Jané Doe via List <list@lists.test>", "fail", "part"),
        ('"J ane D oe (Managing Director)" <x@evil.test>', "fail", "part"),
        ("Support <x@evil.test>", "fail", "name"),
        ("Support of the Provider <x@evil.test>", "none", None),
        ("Sup port of the Provider <x@evil.test>", "none", None),
        ("one two three four Jane Doe <jane@evil.test>", "fail", "part"),
        ("=?utf-8?q?Jane Doe?= <jane@evil.test>", "fail", "name"),
        ("=?utf-8?q?(Jane Doe)?= <jane@evil.test>", "fail", "name"),
        ("Mailer (Jane Doe) <jane@evil.test>", "fail", "part"),
        ("Jane Doe (Sales) <jane@evil.test>", "fail", "name"),
        ("Jane Doe (Sales) <jane@example.org>", "pass", None),
        ("Desk (jane@example.org) <x@evil.test>", "fail", "address"),
        ("Jorg Muller Ludenscheidt <x@evil.test>", "fail", "name"),
        ("Jane Roe <jane@evil.test>", "none", None),
        ("Jane <jane@evil.test>", "none", None),
        ("one two three four five Jane Doe <jane@evil.test>", "none", None),
        ("<jane@evil.test>", "none", None),
        ('"jane@example.org" <x@evil.test>', "fail", "address"),
        ('"Desk jane@example.org" <x@evil.test>', "fail", "address"),
        ('"jane@exam\u200bple.org" <x@evil.test>', "fail", "address"),
        ('"x@mail.evil.test" <x@evil.test>', "none", None),
        ("Other <o@x.test>, Jane Doe <jane@evil.test>", "fail", "name"),
        ("Jane Doe <jane@example.org>, Jane Doe <jane@evil.test>", "fail", "name"),
    ],
)
def test_from(sender, result, kind):
    finding = look(sender)

    assert finding.result == result
    assert finding.fields.get("kind") == kind


@pytest.mark.parametrize("second", ["Jane Doe", "Doe, Jane", "Jane R. Doe"])
def test_the_mail_of_a_namesake_is_no_imitation(tmp_path, second):
    path = tmp_path / "people.txt"
    path.write_text(f"Jane Q. Doe = jane@example.org\n{second} = @example.net\n")
    for people in ({"file": str(path)}, {"Jane Q. Doe": ["jane@example.org"], second: ["@example.net"]}):
        for address, result in {"jane@example.org": "pass", "j@example.net": "pass", "j@evil.test": "fail"}.items():
            assert look(f"Jane Doe <{address}>", people).result == result


def test_the_finding_tells_who_is_imitated():
    finding = look('"doe, jane" <jane@evil.test>')

    assert finding.fields == {"person": "Jane Doe", "kind": "name", "shown": "doe, jane", "author": "jane@evil.test"}
    assert "jane@evil.test" in finding.reason


def test_nobody_is_known_without_people():
    assert look("Jane Doe <jane@evil.test>", {}).result == "none"
    assert run(Imitation, message(headers=())).result == "none"


def test_people_in_a_file_that_changes(tmp_path):
    path = tmp_path / "people.txt"
    path.write_text("# ours\n \nJane Doe = , jane@example.org,  # she\n")
    of = message(headers=[("From", "Max Roe <m@evil.test>")])

    async def before_and_after():
        check = Imitation(Imitation.Options(people={"file": str(path)}), tools())
        await check.open()
        try:
            assert (await check.run(message(headers=[("From", "Jane Doe <j@evil.test>")]), {})).result == "fail"
            before = await check.run(of, {})
            path.write_text("Max Roe = max@example.org\n")
            for _ in range(200):
                after = await check.run(of, {})
                if after.result != before.result:
                    break
                await asyncio.sleep(0.05)
        finally:
            await check.close()
        return before.result, after.result

    assert asyncio.run(before_and_after()) == ("none", "fail")


def test_a_worker_that_begins_when_the_file_is_wrong_has_the_people_before(tmp_path, caplog):
    path = tmp_path / "people.txt"
    path.write_text("Jane Doe = jane@example.org\n")
    of = policy(f"host: mx.test\nchecks: {{imitation: {{people: {{file: {path}}}}}}}\n")
    path.write_text("Jane Doe\n")

    decision = judge(of, message(headers=[("From", "Jane Doe <j@evil.test>")]))
    assert next(each for each in decision.findings if each.check == "imitation").result == "fail"
    assert "the people of imitation stays as it was" in caplog.text


@pytest.mark.parametrize(
    "text", ["Jane Doe\n", "Jane Doe = \n", "= a@b.test\n", "Jane = nonsense\n", "Jane = a b@c.test\n"]
)
def test_a_file_that_is_wrong(tmp_path, text):
    path = tmp_path / "people.txt"
    path.write_text(f"\n{text}")

    with pytest.raises(ValueError, match=r"people\.txt:2: "):
        Imitation.Options(people={"file": str(path)})


def test_words_of_a_name():
    assert words_of("Doe, John Q.") == words_of("john DOE") == {"john", "doe"}
    assert words_of("X") == {"x"}
    assert not words_of("...")


def test_the_longest_name_counts():
    people = People(listed({"Jane Doe": ["a@b.test"], "Jane Doe Smith": ["c@d.test"]}))

    assert people.called("Jane Doe Smith Junior")[0].name == "Jane Doe Smith"


def test_a_rule():
    of = policy("""
        host: mx.test.example
        checks: {imitation: {people: {Jane Doe: [jane@example.org]}}}
        rules: {message: [{id: ceo, when: {imitation: fail, imitation.kind: name}, then: quarantine}]}
    """)

    assert judge(of, message(headers=[("From", "Jane Doe <x@evil.test>")])).verdict.rule == "ceo"


def test_people_that_are_wrong_are_told_of():
    with pytest.raises(ValueError, match='"jane" is no address'):
        Imitation.Options(people={"Jane Doe": ["jane"]})
    with pytest.raises(ValueError, match='"Jane Doe" has no address'):
        Imitation.Options(people={"Jane Doe": []})
    with pytest.raises(ValueError, match="is no name"):
        Imitation.Options(people={"...": ["a@b.test"]})


def test_a_pipe_is_no_file_of_people(tmp_path):
    os.mkfifo(tmp_path / "people")
    with pytest.raises(ConfigErrors, match="is not a file; name a file"):
        policy(f"host: mx.test\nchecks: {{imitation: {{people: {{file: {tmp_path}/people}}}}}}")

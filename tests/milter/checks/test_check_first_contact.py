"""first_contact: whom a mail makes known, and whom it does not."""

import asyncio

import pytest

from elemta.case import Case
from elemta.engine import Engine
from elemta.store.sqlite import SqliteStore
from elemta.testing import envelope, message, policy, tools

DAY = 86_400.0
JANE, MAX = "jane@ours.test", "max@theirs.test"


class Post:
    """A server that judges mail by and by, with a clock that can be set."""

    def __init__(self, path, then="accept", options="{}"):
        self.of = policy(f"""
            host: mx.test.example
            classes: {{submission: {{login: {{exists: true}}}}, inbound: {{}}}}
            checks: {{first_contact: {options}}}
            rules: {{message: [{{id: all, when: {{subject: bad}}, then: {then}}}]}}
        """)
        self.path = str(path / "state.db")
        self.now = 1_000_000.0

    def mail(self, author, *recipients, login="", subject="x", sender=None):
        """What `first_contact` finds of a mail, which is then judged."""

        async def once():
            store = SqliteStore(self.path)
            engine = Engine(self.of, tools(store=store, clock=lambda: self.now))
            await engine.open()
            try:
                of = envelope(sender=author if sender is None else sender, recipients=recipients, login=login)
                decision = await Case(engine).message(message(of, [("From", author), ("Subject", subject)]))
            finally:
                await engine.close()
                await store.close()
            return next(finding for finding in decision.findings if finding.check == "first_contact")

        return asyncio.run(once())


@pytest.fixture
def post(tmp_path):
    return Post(tmp_path)


def test_the_second_mail_is_no_first_contact(post):
    first = post.mail(MAX, JANE)
    assert (first.result, dict(first.fields)) == ("neutral", {"strangers": 1, "outgoing": False})
    post.now += 3.5 * DAY

    second = post.mail("Max <MAX+x@Theirs.TEST>", "jane+list@ours.test")
    assert (second.result, second.fields["days"]) == ("pass", 3)
    assert post.mail(JANE, MAX).result == "neutral"  # the other way round is another pair
    assert post.mail("other@theirs.test", JANE).result == "neutral"


def test_whom_we_write_to_is_known_when_he_answers(post):
    out = post.mail(f"Jane <{JANE}>", MAX, "two@theirs.test", login="jane", sender="bounce@ours.test")
    assert (out.result, out.fields["outgoing"]) == ("none", True)

    assert post.mail(MAX, JANE).result == "pass"
    assert post.mail("two@theirs.test", "bounce@ours.test").result == "pass"
    assert post.mail("three@theirs.test", JANE).result == "neutral"


def test_every_recipient_must_know_the_author(post):
    post.mail(MAX, JANE)
    both = post.mail(MAX, JANE, "joe@ours.test")

    assert (both.result, both.fields["strangers"]) == ("neutral", 1)
    assert post.mail(MAX, JANE, "joe@ours.test").result == "pass"


@pytest.mark.parametrize("then", ["reject", "defer", "discard", "quarantine"])
def test_mail_that_is_not_accepted_makes_nobody_known(tmp_path, then):
    post = Post(tmp_path, then)

    assert post.mail(MAX, JANE, subject="bad").result == "neutral"
    assert post.mail(MAX, JANE).result == "neutral"
    assert post.mail(MAX, JANE, subject="bad").result == "pass"


def test_contacts_are_forgotten(tmp_path):
    post = Post(tmp_path, options="{keep: 10d}")
    post.mail(MAX, JANE)
    post.now += 9 * DAY
    assert post.mail(MAX, JANE).result == "pass"
    post.now += 9 * DAY
    assert post.mail(MAX, JANE).fields["days"] == 18
    post.now += 11 * DAY
    assert post.mail(MAX, JANE).result == "neutral"


def test_a_class_that_it_is_not_made_for_is_not_remembered(tmp_path):
    post = Post(tmp_path, options="{classes: [inbound]}")
    post.mail(JANE, MAX, login="jane")

    assert post.mail(MAX, JANE).result == "neutral"


def test_a_from_that_can_be_read_in_two_ways_counts_for_the_envelope(post):
    post.mail("<a@x.test> <b@y.test>", JANE, sender=MAX)

    assert post.mail("a@x.test", JANE).result == "neutral"
    assert post.mail(MAX, JANE).result == "pass"
    assert post.mail("nonsense", JANE, sender="").result == "none"


def test_nobody_to_look_up(post):
    assert post.mail(MAX).result == "none"


def test_the_number_of_recipients_is_bounded(post):
    many = [f"r{number}@ours.test" for number in range(500)]

    assert post.mail(MAX, *many).fields["strangers"] == 100


def test_addresses_cannot_be_read_in_the_state_file(post, tmp_path):
    post.mail(MAX, JANE)

    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert held
    assert b"theirs" not in held

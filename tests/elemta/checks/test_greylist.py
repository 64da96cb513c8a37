"""The greylist check: who is asked to wait, who is the same sender, who the same client."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest
from pydantic import ValidationError

from elemta.check import Stage, Tools
from elemta.checks.greylist import Greylist, GreylistOptions, sender_key
from elemta.facts import Client, Envelope
from elemta.findings import Result
from elemta.store.sqlite import SqliteStore


def mail(address="198.51.100.7", sender="a@sender.test", recipient="b@receiver.test", login=""):
    client = Client(address=ip_address(address) if address else None, login=login)
    return Envelope(client, sender=sender, recipients=(recipient,) if recipient else ())


class World:
    """The check with a store on disk and a clock that stands still."""

    def __init__(self, tmp_path, **options):
        self.path, self.now = str(tmp_path / "state.db"), 0.0
        self.options = GreylistOptions(**options)

    def looks_at(self, *steps):
        """The findings for (second, envelope) pairs, in order."""

        async def look():
            store = SqliteStore(self.path)
            check = Greylist(self.options, Tools("mx.test", None, store, lambda: self.now))
            found = []
            for self.now, envelope in steps:
                found.append(await check.run(envelope, {}))
            await store.close()
            return found

        return asyncio.run(look())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def results(found):
    return " ".join(finding.result for finding in found)


def test_it_runs_for_one_recipient_before_the_message():
    assert Greylist.per_recipient
    assert Greylist.stage() is Stage.ENVELOPE


def test_the_defaults_are_postgreys():
    options = GreylistOptions()
    assert (options.delay, options.retry_window, options.keep) == (300, 2 * 86400, 35 * 86400)
    assert (options.prefix4, options.prefix6, options.proven) == (24, 64, 5)


def test_wait_then_pass_then_known(world):
    first, early, passed, known = world.looks_at((0, mail()), (60, mail()), (310, mail()), (320, mail()))
    assert results((first, early, passed, known)) == "fail fail pass pass"
    assert first.fields == {"wait": 300, "attempts": 1, "known": False, "proven": False}
    assert early.fields == {"wait": 240, "attempts": 2, "known": False, "proven": False}
    assert passed.fields == {"wait": 0, "attempts": 3, "known": False, "proven": False}
    assert known.fields == {"wait": 0, "attempts": 3, "known": True, "proven": False}
    assert "attempt 2 from 198.51.100.0/24, to wait 240 s" in early.reason
    assert all(finding.check == "greylist" and not finding.trouble for finding in (first, early, passed, known))


@pytest.mark.parametrize(
    ("envelope", "told"),
    [
        (mail(address=""), "no client address"),
        (mail(login="alice"), "authenticated"),
        (mail(recipient=""), "no recipient"),
    ],
)
def test_nobody_to_ask_to_wait(world, envelope, told):
    [finding] = world.looks_at((0, envelope))
    assert finding.result is Result.NONE
    assert told in finding.reason


@pytest.mark.parametrize(
    ("second", "same"),
    [
        (mail(), True),
        (mail(address="198.51.100.99"), True),
        (mail(address="198.51.101.7"), False),
        (mail(sender="A@SENDER.test"), True),
        (mail(sender="other@sender.test"), False),
        (mail(sender=""), False),
        (mail(recipient="B@Receiver.Test"), True),
        (mail(recipient="b+x@receiver.test"), False),
        (mail(recipient="z@receiver.test"), False),
    ],
)
def test_what_is_the_same_triplet(world, second, same):
    found = world.looks_at((0, mail()), (310, second))
    assert results(found) == ("fail pass" if same else "fail fail")


@pytest.mark.parametrize(
    ("options", "first", "second", "same"),
    [
        ({}, "2001:db8::1", "2001:db8::ffff", True),
        ({}, "2001:db8::1", "2001:db8:0:1::1", False),
        ({"prefix6": 48}, "2001:db8::1", "2001:db8:0:1::1", True),
        ({"prefix6": 128}, "2001:db8::1", "2001:db8::2", False),
        ({"prefix4": 32}, "192.0.2.1", "192.0.2.2", False),
        ({"prefix4": 16}, "192.0.2.1", "192.0.255.1", True),
    ],
)
def test_what_is_the_same_client(tmp_path, options, first, second, same):
    found = World(tmp_path, **options).looks_at((0, mail(address=first)), (310, mail(address=second)))
    assert results(found) == ("fail pass" if same else "fail fail")


@pytest.mark.parametrize(
    ("sender", "key"),
    [
        ("", "@"),
        ("postmaster", "postmaster@"),
        ("User@Example.TEST", "user@example.test"),
        ("user@Bücher.example", "user@xn--bcher-kva.example"),
        ("user+tag@a.test", "user@a.test"),
        ("+tag@a.test", "+tag@a.test"),
        ("bounce-12345@a.test", "bounce-#@a.test"),
        ("bounce-12345-user=dom.test@a.test", "bounce-#-user=dom.test@a.test"),
        ("list_42_x@a.test", "list_#_x@a.test"),
        ("user2@a.test", "user2@a.test"),  # a number that is part of a name
        ("0102018f3c5d7a9b-5e1f2a3b-000000@amazon.test", "#-#-#@amazon.test"),
        ("deadbeef@a.test", "deadbeef@a.test"),  # a word
        ("prvs=1234abcdef=user@a.test", "user@a.test"),
        ("prvs=user=1234abcdef@a.test", "user@a.test"),
        ("prvs=odd@a.test", "prvs=odd@a.test"),
        ("SRS0=HHH=TT=orig.test=u@fwd.test", "srs=orig.test=u@fwd.test"),
        ("SRS0+xyz9=AB=orig.test=u@fwd.test", "srs=orig.test=u@fwd.test"),
        ("SRS1=HHH=first.test==GGG=TT=orig.test=u@fwd.test", "srs=first.test=orig.test=u@fwd.test"),
        ("j\udcf6rg@sender.test", "j\udcf6rg@sender.test"),
        ("a@b@sender.test", "a@b@sender.test"),
        ("a@[192.0.2.10]", "a@[192.0.2.10]"),
    ],
)
def test_sender_key(sender, key):
    assert sender_key(Envelope(sender=sender)) == key


@pytest.mark.parametrize(
    "local", ["1" * 50_000, "a" * 50_000 + "!", "=" * 50_000, "srs0" + "=" * 50_000, "prvs=" * 10_000]
)
def test_long_senders_take_linear_time(local):
    assert sender_key(Envelope(sender=f"{local}@a.test")).endswith("@a.test")


def test_octets_that_are_not_utf8_are_counted(world):
    odd = mail(sender="j\udcf6rg@s\udcffnder.test", recipient="b\udcf6b@receiver.test")
    assert results(world.looks_at((0, odd), (310, odd))) == "fail pass"


def test_the_state_file_does_not_tell_who_writes_to_whom(world):
    world.looks_at((0, mail()))
    assert b"sender.test" not in Path(world.path).read_bytes()


def test_a_retry_window_that_nobody_can_meet_is_an_error():
    with pytest.raises(ValidationError, match="retry_window must be longer than delay"):
        GreylistOptions(delay="1h", retry_window="30m")


def test_to_remember_nobody_is_an_error():
    with pytest.raises(ValidationError, match="greater than 0"):
        GreylistOptions(keep="0")

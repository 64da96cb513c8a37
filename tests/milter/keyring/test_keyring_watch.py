"""The watch over keys: what the metrics show and the log says, and that it never stops a mail."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

from elemta.config.model import KeyFile, KeyRing, Seal, Settings, Sign
from elemta.observe import Metrics
from elemta.observe.metrics import prepare
from elemta.testing import FakeResolver, tools
from elemta_milter.keyring import watch as watching
from elemta_milter.keyring.making import make
from elemta_milter.keyring.publication import Publication, Seen
from elemta_milter.keyring.ring import Ring, State, write
from elemta_milter.mailauth.signing import SigningKey, load_private_key

DAY = 86400
NOW = 1_800_000_000


@pytest.fixture
def ring(tmp_path):
    """Two keys that signed for 400 and 10 days, one that waits for the DNS, one out of use for 8 days."""
    ring = Ring(tmp_path, "example.org")
    ages = {
        "old": (State.ACTIVE, 400),
        "young": (State.ACTIVE, 10),
        "next": (State.NEW, 2),
        "last": (State.RETIRING, 8),
    }
    for selector, (state, days) in ages.items():
        ring, key = make(ring, "ed25519", NOW - days * DAY, selector=selector)
        moved = key.now(state, NOW - days * DAY)
        ring = Ring(tmp_path, "example.org", (*ring.keys[:-1], moved))
    write(ring)
    return ring


def settings(keys):
    return Settings(host="mx.test", sign=(Sign(domain="Example.org", keys=keys),))


def test_a_ring_is_told_of(ring, tmp_path):
    published = {"old._domainkey.example.org": Publication(Seen.PUBLISHED)}
    counts, texts = watching.survey(settings(KeyRing(directory=str(tmp_path))), published, NOW)
    assert counts == {"example.org": watching.Count(age=400 * DAY, waiting=1, unpublished=0)}
    assert texts == [
        "old._domainkey.example.org: in use for 400 days: elemta dkim rotate example.org",
        "next._domainkey.example.org: publish it (waiting for 2 days): elemta dkim dns example.org next",
        "last._domainkey.example.org: its time has passed: elemta dkim retire example.org",
    ]


def test_a_key_that_signs_in_vain_is_told_of(ring, tmp_path):
    published = {
        "old._domainkey.example.org": Publication(Seen.MISSING, "there is no such record"),
        "young._domainkey.example.org": Publication(Seen.UNKNOWN, "no answer within 2 s"),
    }
    counts, texts = watching.survey(settings(KeyRing(directory=str(tmp_path))), published, NOW)
    assert counts["example.org"].unpublished == 1  # what nobody could be asked about is no alarm
    assert texts[0] == ("old._domainkey.example.org signs, and no other server can verify it: there is no such record")
    assert not any("young" in text for text in texts)


def test_a_key_that_signs_after_its_time_is_told_of(ring, tmp_path):
    """Nobody reloaded after an exchange, and `elemta dkim retire` says soon that its record may go."""
    published = {"last._domainkey.example.org": Publication(Seen.PUBLISHED)}
    _, texts = watching.survey(settings(KeyRing(directory=str(tmp_path))), published, NOW)
    assert "last._domainkey.example.org signs still, though it is retiring: systemctl reload elemta-milter" in texts


def test_a_key_that_seals_after_its_time_is_told_of_with_what_helps(ring, tmp_path):
    """No reload makes `seal:` name another file."""
    seal = Seal(domain="example.org", key=KeyFile(selector="last", file=str(tmp_path / "last.pem")))
    of = settings(KeyRing(directory=str(tmp_path))).model_copy(update={"seal": seal})
    published = {"last._domainkey.example.org": Publication(Seen.PUBLISHED)}
    _, texts = watching.survey(of, published, NOW)
    [told] = [text for text in texts if text.startswith("last.")]
    assert told.startswith("last._domainkey.example.org: its time has passed: `sign:` or `seal:` names its file")


def test_keys_listed_one_by_one_have_the_age_of_their_files(tmp_path):
    path = tmp_path / "r.pem"
    path.write_text("x")
    os.utime(path, (NOW - 30 * DAY, NOW - 30 * DAY))
    keys = (KeyFile(selector="r", file=str(path)), KeyFile(selector="gone", file=str(tmp_path / "gone.pem")))
    counts, texts = watching.survey(settings(keys), {}, NOW)
    assert (counts["example.org"].age, texts) == (30 * DAY, [])


def test_a_key_that_seals_in_vain_is_told_of(tmp_path):
    seal = Seal(domain="Lists.example", key=KeyFile(selector="arc", file=str(tmp_path / "arc.pem")))
    published = {"arc._domainkey.lists.example": Publication(Seen.MISSING, "there is no such record")}
    counts, texts = watching.survey(Settings(host="mx.test", seal=seal), published, NOW)
    assert counts == {"lists.example": watching.Count(unpublished=1)}
    assert texts == [
        "arc._domainkey.lists.example signs, and no other server can verify it: there is no such record",
    ]


def test_a_ring_that_cannot_be_read_is_told_of(tmp_path):
    counts, texts = watching.survey(settings(KeyRing(directory=str(tmp_path / "gone"))), {}, NOW)
    assert counts == {}
    assert "is no ring of keys" in texts[0]


def test_it_tells_the_metrics_each_time_and_the_log_once(ring, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(watching, "SOON", 0)
    monkeypatch.setattr(watching, "HOUR", 0.01)
    private = load_private_key((tmp_path / "old.pem").read_bytes())
    directory = tmp_path / "metrics"
    prepare(str(directory), "milter")
    resolver = FakeResolver({})
    shown = []

    async def live():
        metrics = Metrics(str(directory), "milter")
        key = SigningKey("example.org", "old", private)
        with_tools = tools(resolver, clock=lambda: NOW)
        task = asyncio.create_task(
            watching.watch(settings(KeyRing(directory=str(tmp_path))), [key], with_tools, metrics)
        )
        while len(resolver.asked) < 3:  # noqa: ASYNC110 - it tells nobody when it has looked
            await asyncio.sleep(0.01)
        families = (metrics.dkim_key_age, metrics.dkim_keys_waiting, metrics.dkim_keys_unpublished)
        shown.append([family.child("example.org")._value.get() for family in families])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        shown.append([family.child("example.org")._value.get() for family in families])
        metrics.close()

    with caplog.at_level(logging.WARNING, "elemta.keyring"):
        asyncio.run(asyncio.wait_for(live(), 20))
    assert shown == [[400 * DAY, 1, 1], [0, 0, 0]]
    assert len(caplog.messages) == len(set(caplog.messages)) == 4

"""from_login: every address in From against the map of sender_login."""

from __future__ import annotations

import pytest

from elemta.checks.from_login import FromLogin
from elemta.checks.sender_login import SenderLogin
from elemta.findings import Finding, Result
from elemta.testing import envelope, message, run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "senders.txt"
    path.write_text("anna anna@example.org, @shop.test\nroot *\n")
    return path


def author(file, *values, login="anna"):
    known = run(SenderLogin, envelope(sender="anna@example.org", login=login), map={"file": str(file)})
    mail = message(envelope(login=login), [("From", value) for value in values])
    return run(FromLogin, mail, {"sender_login": known})


@pytest.mark.parametrize(
    ("value", "result", "address"),
    [
        ("Anna <anna@example.org>", "pass", None),
        ("anna@EXAMPLE.org, x@shop.test", "pass", None),
        ("The Boss <boss@example.org>", "fail", "boss@example.org"),
        ("anna@example.org, boss@example.org", "fail", "boss@example.org"),
        ('"anna@example.org" <boss@example.org>', "fail", "boss@example.org"),
        ("Accounts: Anna <anna@example.org>;", "pass", None),
        ('"The Boss <boss@example.org>":;', "fail", None),
    ],
)
def test_from(file, value, result, address):
    found = author(file, value)
    assert (found.result, found.fields.get("address")) == (result, address)


def test_a_from_that_can_be_read_in_two_ways_is_nobodys(file):
    found = author(file, "anna@example.org", "boss@example.org")
    assert found.result is Result.FAIL
    assert "2 From fields" in found.reason
    assert author(file).result is Result.FAIL  # no From at all


def test_from_without_a_login_or_without_the_map():
    mail = message(envelope(login="anna"), [("From", "boss@example.org")])
    assert run(FromLogin, message(), {}).result is Result.NONE
    without = run(FromLogin, mail, {})
    assert (without.result, without.warning) == ("none", "needs the check sender_login, whose map it uses")
    seen = {"sender_login": Finding("sender_login", Result.NONE, "not made for class submission")}
    assert run(FromLogin, mail, seen).warning == ""

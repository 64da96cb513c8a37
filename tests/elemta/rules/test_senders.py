"""The map of logins: what its lines mean, and which are mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.rules.senders import Allowed, Senders, read_file

MAP = """
# who may be whom
anna        Anna@Example.org, info@example.org   # a comment
anna        anna@münchen.example
newsletter  @news.example.org
shop        @.shop.example.org,
relay       *
quoted      "plain"@example.org, odd_one@example.org
"""


@pytest.fixture
def senders(tmp_path):
    path = tmp_path / "senders.txt"
    path.write_text(MAP, encoding="utf-8")
    senders = Senders(path=path)
    senders.reread()
    return senders


@pytest.mark.parametrize(
    ("login", "local", "domain", "may"),
    [
        ("anna", "anna", "example.org", True),
        ("ANNA", "aNNA", "EXAMPLE.ORG", True),
        ("anna", "info", "example.org", True),
        ("anna", "anna", "xn--mnchen-3ya.example", True),
        ("anna", "anna", "MÜNCHEN.example", True),
        ("anna", "bert", "example.org", False),
        ("anna", "anna", "sub.example.org", False),
        ("anna", "anna", "", False),
        ("anna", "", "example.org", False),
        ("anna", "anna+list", "example.org", True),
        ("anna", "anna+list+more", "example.org", True),
        ("anna", "+anna", "example.org", False),
        ("anna", "ann+a", "example.org", False),
        ("anna", '"anna"', "example.org", True),
        ("newsletter", "anyone", "news.example.org", True),
        ("newsletter", "anyone", "x.news.example.org", False),
        ("newsletter", "anyone", "badnews.example.org", False),
        ("shop", "a", "x.shop.example.org", True),
        ("shop", "a", "y.x.shop.example.org", True),
        ("shop", "a", "shop.example.org", False),
        ("shop", "a", "badshop.example.org", False),
        ("relay", "", "", True),
        ("quoted", "plain", "example.org", True),
        ("quoted", '"odd_one"', "example.org", True),
    ],
)
def test_who_may_be_whom(senders, login, local, domain, may):
    assert senders.of(login).covers(local, domain, "+") is may


def test_without_a_delimiter_an_extension_is_another_address(senders):
    assert not senders.of("anna").covers("anna+list", "example.org")


def test_a_login_that_is_not_named(senders):
    assert senders.of("nobody") is None
    assert senders.size == 5


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("anna", 'the login "anna" has no address'),
        ("anna bert", '"bert" is no address'),
        ("anna a@b.test c@d.test", '"a@b.test c@d.test" is no address'),
        ("anna @", '"@" is no address'),
        ("anna @.", '"@." is no address'),
        ("anna @@b.test", '"@@b.test" is no address'),
        ("anna example.org", '"example.org" is no address'),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, line, complaint):
    path = tmp_path / "senders.txt"
    path.write_text(f"ok ok@ok.test\n{line}\n")
    with pytest.raises(ValueError, match=r"is no address|has no address") as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}:2: {complaint}")


def test_a_broken_version_keeps_what_was_known(senders):
    before = senders.by_login
    senders.path.write_text("anna")
    assert senders.changed()
    with pytest.raises(ValueError, match="has no address"):
        senders.reread()
    assert senders.by_login is before
    assert not senders.changed()  # the same file is not tried again
    senders.path.unlink()
    with pytest.raises(FileNotFoundError):
        senders.reread()
    assert senders.by_login is before
    assert not senders.changed()


@given(st.text(max_size=60), st.text(max_size=30))
def test_whatever_a_client_says_is_answered(local, domain):
    allowed = Allowed(frozenset(("a@b.test",)), frozenset(("c.test",)), frozenset(("d.test",)))
    assert allowed.covers(local, domain, "+") in (True, False)

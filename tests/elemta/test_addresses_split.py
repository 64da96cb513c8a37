import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.addresses import compared, is_address, mailbox, returned_to, split, written


@pytest.mark.parametrize(
    ("address", "local", "domain"),
    [
        ("user@example.com", "user", "example.com"),
        ("<user@example.com>", "user", "example.com"),
        ("User@Example.COM", "User", "Example.COM"),
        ("", "", ""),
        ("<>", "", ""),
        ("postmaster", "postmaster", ""),
        ("@example.com", "", "example.com"),
        ("user@", "user", ""),
        ("a@b@c", "a@b", "c"),
        ('"a@b"@c', '"a@b"', "c"),
        (r'"a\"@b"@c', r'"a\"@b"', "c"),
        ('"a@b', '"a', "b"),
        ('"a@b"', '"a@b"', ""),
        (r'"a\"@b"', r'"a\"@b"', ""),
        (r'"a\"b@c"', r'"a\"b@c"', ""),
        ("a:b@c", "a:b", "c"),
        (r"a\@b@c", r"a\@b", "c"),
        ("@a,@b:user@example.com", "user", "example.com"),
        ("@[IPv6:2001:db8::1],@b:user@example.com", "user", "example.com"),
        ("user@[192.0.2.1]", "user", "[192.0.2.1]"),
        ("user@[IPv6:2001:db8::1]", "user", "[IPv6:2001:db8::1]"),
        ("user@[a@b]", "user", "[a@b]"),
        ("user@[a@b", "user@[a", "b"),
        ("a]", "a]", ""),
        ("SRS0=a=b=example.org=user@example.com", "SRS0=a=b=example.org=user", "example.com"),
        ("jörg@bücher.example", "jörg", "bücher.example"),
    ],
)
def test_split(address, local, domain):
    assert split(address) == (local, domain)


@given(st.text(max_size=200))
def test_split_never_raises_and_invents_nothing(address):
    local, domain = split(address)
    assert local in address
    assert domain in address


@pytest.mark.parametrize(
    ("address", "form"),
    [
        ("Anna@Example.org", "Anna@Example.org"),
        ("anna@example.org.", "anna@example.org"),
        ('"anna.b_c+d"@example.org', "anna.b_c+d@example.org"),
        (r'"\an\na"@example.org', "anna@example.org"),
        ("@a.test,@b.test:anna@example.org", "anna@example.org"),
        ("anna@BÜCHER.example", "anna@xn--bcher-kva.example"),
        ("jörg@example.org", "jörg@example.org"),
        ('"an na"@example.org', '"an na"@example.org'),
        ('"an@na"@example.org.', '"an@na"@example.org'),
        ('"an..na."@example.org', "an..na.@example.org"),  # for Postfix one mailbox
        (r'an."n\a".b@example.org', "an.na.b@example.org"),
        (r"an\ na@example.org", '"an na"@example.org'),
        (r'"an \"\\ na"@example.org', r'"an \"\\ na"@example.org'),
        ("anna@[192.0.2.1]", "anna@[192.0.2.1]"),
        ("postmaster", "postmaster"),
        ("", ""),
    ],
)
def test_an_address_has_one_form_in_which_it_is_compared(address, form):
    assert compared(address) == form
    assert compared(form) == form


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("a@b.test", "a@b.test"),
        ("", ""),
        (" a @ b. test\t", "a@b.test"),
        ("a(c)@b.test", "a@b.test"),
        (r"(c (d) \) e)a@b.test(", "a@b.test"),
        ("Foo <a@b.test>", "a@b.test"),
        ('"Foo <x@y.test>" <a@b.test> bar', "a@b.test"),
        ("@a.test,@[IPv6:2001:db8::1]:a@b.test", "a@b.test"),
        ('"a (b) <c> \\"d"@b.test', '"a (b) <c> \\"d"@b.test'),
        (r"a\b@b.test", "ab@b.test"),
        (r"a\.b@b.test", "a.b@b.test"),
        (r"a\ b@b.test", '"a b"@b.test'),
        ('"a@b.test"', "a@b.test"),  # no quotes are left of it: the last @ counts
        (r'"a\@b.test"', "a@b.test"),
        ('"a@x.test"@b.test', '"a@x.test"@b.test'),
        ('a@"b".test', "a@b.test"),
        (r"a@b\.test", "a@b.test"),
        ('"a"."b"@b.test', "a.b@b.test"),
        ('"@x.test:a@b.test"', "a@b.test"),
        ('""@b.test', "@b.test"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
        ("jörg\xa0x@b.test", "jörg\xa0x@b.test"),
        ("postmaster", "postmaster"),
        ("(c)", ""),
        (";a@b.test", "a@b.test"),
        (",a@b.test,", "a@b.test"),
        ("@a.test:a", "a"),
        ("<>a@b.test>", "a@b.test"),
        ("x < >a@b.test", "a@b.test"),
        ("a\\", "a"),
    ],
)
def test_the_address_that_the_mta_reads(path, address):
    assert mailbox(path) == address


@given(st.text(alphabet=' ()<>@"[]\\:,.ab', max_size=60) | st.text(max_size=200))
def test_reading_never_raises(path):
    assert len(mailbox(path)) <= 2 * len(path) + 1  # what it must quote


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("anna.b+c@example.org", "anna.b+c@example.org"),
        ("a..b@example.org", "a..b@example.org"),
        ("an na@example.org", '"an na"@example.org'),
        (r'an"n\a@example.org', r'"an\"n\\a"@example.org'),
        ("a@b@example.org", '"a@b"@example.org'),
        ("anna@[IPv6:2001:db8::1]", "anna@[IPv6:2001:db8::1]"),
        ("jörg@example.org", "jörg@example.org"),
        ("@a.test:anna@example.org", "anna@example.org"),
        ("@a.test:an na@example.org", '"an na"@example.org'),
        ("@a.test:a@b@example.org", '"a@b"@example.org'),
        ("@example.org", "@example.org"),
        ("postmaster", "postmaster"),
        ("", ""),
    ],
)
def test_what_postfix_tells_a_policy_service_is_written_as_in_smtp(told, address):
    assert written(told) == address


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("a%b.test", "a@b.test"),
        ("a%x.test%b.test", "a%x.test@b.test"),
        ("b.test!a", "a@b.test"),
        ("b.test!x.test!a", "x.test!a@b.test"),
        ("b.test!a%x.test", "a%x.test@b.test"),
        ("a%b.test@x.test", "a%b.test@x.test"),
        ("a b%b.test", "a b%b.test"),  # it sends on "a b%b.test"@ its own name
        ("a..b%b.test", "a..b%b.test"),
        ("postmaster", "postmaster"),
        ("", ""),
    ],
)
def test_what_postfix_makes_of_a_sender_without_at(told, address):
    assert returned_to(told) == address


@pytest.mark.parametrize(
    ("text", "lawful"),
    [
        ("a@b.test", True),
        ('"a b"@c.test', True),
        ('"a"@"b c"@d.test', True),
        ('"a"@"@', True),
        ('"a b"@', False),
        ("a b@c.test", False),
        ("", False),
    ],
)
def test_what_an_envelope_may_hold(text, lawful):
    assert is_address(text) is lawful


def test_so_much_as_a_scanner_may_say_takes_no_longer_than_it_is():
    began = time.process_time()
    assert not is_address('":"@";"@' * 100_000 + "\0")
    assert time.process_time() - began < 2  # it takes some milliseconds

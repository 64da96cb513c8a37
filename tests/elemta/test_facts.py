"""Facts: what is made of a mail is made once, and says what it is."""

import inspect
import time
from concurrent.futures import ThreadPoolExecutor

from elemta.facts import Client, Message, Once, parse_ip


def test_what_is_made_once_is_made_when_it_is_first_asked_for():
    made = []

    class Thing:
        @Once
        def double(self):
            """Twice."""
            made.append(self)
            return 2

    thing, other = Thing(), Thing()
    assert made == []
    assert (thing.double, thing.double, other.double) == (2, 2, 2)
    assert made == [thing, other]


def test_two_threads_that_ask_at_once_make_it_once():
    made = []

    def slowly(message):
        made.append(message)
        time.sleep(0.05)
        return object()

    mail = Message()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: mail.once(slowly), range(4)))
    assert len(made) == 1
    assert len({id(each) for each in found}) == 1


def test_its_words_are_those_of_its_function():
    assert inspect.getdoc(Message.authors).startswith("The mailboxes of every From field")
    assert dict(inspect.getmembers(Client))["address_text"].name == "address_text"


def test_an_address_reads_as_people_write_it():
    for text, shown in (
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("IPv6:fe80::1%eth0", "fe80::1"),
        ("", ""),
    ):
        assert Client(parse_ip(text)).address_text == shown

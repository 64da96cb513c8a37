"""Greylisting as a pure function: sequences of attempts, after postgrey's own and the corners between them."""

from __future__ import annotations

import pytest

from elemta.store import GreyTerms
from elemta.store.greylisting import REFRESH, Network, Triplet, attempt

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
TERMS = GreyTerms(delay=5 * MINUTE, window=2 * DAY, keep=35 * DAY, proven=5)


class Memory:
    """Remembers as a store does."""

    def __init__(self, terms=TERMS):
        self.terms, self.triplets, self.networks = terms, {}, {}

    def at(self, now, triplet="t", network="n"):
        before = self.triplets.get(triplet), self.networks.get(network)
        grey, *after = attempt(*before, now, self.terms)
        self.triplets[triplet], self.networks[network] = after
        return grey


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0], "w"),
        ([0, 299.9], "ww"),
        ([0, 300], "wp"),
        ([0, 60, 310], "wwp"),  # an early retry does not start the clock again
        ([0, 60, 120, 299, 300], "wwwwp"),
        ([0, 310, 311, 34 * DAY], "wppp"),
        ([0, 310, 311 + 35 * DAY], "wpw"),  # forgotten
        ([0, 310, 30 * DAY, 60 * DAY, 90 * DAY], "wpppp"),  # every mail prolongs
        ([0, 310, 30 * DAY, 66 * DAY], "wppw"),
        ([0, 2 * DAY], "wp"),  # the last moment of the window
        ([0, 2 * DAY + 1], "ww"),  # after it all begins anew
        ([0, 2 * DAY + 1, 2 * DAY + 302], "wwp"),
        ([0, DAY, DAY], "wpp"),
        ([1000, 0, 299], "www"),  # a clock set back: nobody waits longer than the delay from now
        ([1000, 0, 300], "wwp"),
    ],
)
def test_one_triplet(times, expected):
    memory = Memory()
    assert "".join("p" if memory.at(now).passed else "w" for now in times) == expected


def test_what_it_says_of_each_attempt():
    memory = Memory()
    first, early, passed, later = (memory.at(now) for now in (0, 100, 300, 400))
    assert (first.wait, first.attempts, first.known, first.proven) == (300, 1, False, False)
    assert (early.wait, early.attempts) == (200, 2)
    assert (passed.wait, passed.attempts, passed.known) == (0, 3, False)
    assert (later.wait, later.attempts, later.known) == (0, 3, True)


def passes(memory, count, *, every=1000.0, start=0.0):
    for number in range(count):
        begin = start + number * every
        assert not memory.at(begin, f"u{number}").passed, number
        assert memory.at(begin + 310, f"u{number}").passed


def test_a_network_is_proven_by_five_passes_after_its_first():
    memory = Memory()
    passes(memory, 6)  # each of the six still waits
    stranger = memory.at(9000, "new")
    assert stranger.passed
    assert stranger.proven
    assert not stranger.known
    assert memory.triplets["new"] is None  # nothing to remember of it
    assert not memory.at(9000, "new", "elsewhere").passed


def test_a_burst_of_passes_counts_once():
    memory = Memory()
    for number in range(50):
        memory.at(0, f"u{number}")
    for number in range(50):
        assert memory.at(310 + number, f"u{number}").passed
    assert memory.networks["n"].passes == 1
    assert not memory.at(400, "new").passed


def test_a_known_triplet_does_not_count_for_its_network_again():
    memory = Memory()
    memory.at(0)
    for day in range(1, 30):
        memory.at(day * DAY)
    assert memory.networks["n"].passes == 1


def test_a_proven_network_is_forgotten_without_mail_and_kept_with_it():
    memory = Memory()
    passes(memory, 6)
    assert memory.at(30 * DAY, "a").proven
    assert memory.at(60 * DAY, "b").proven
    assert not memory.at(96 * DAY, "c").passed


def test_proven_zero_lets_nobody_off():
    memory = Memory(GreyTerms(delay=300, window=2 * DAY, keep=35 * DAY, proven=0))
    passes(memory, 20)
    assert not memory.at(30000, "new").passed


def test_a_triplet_that_waits_passes_when_its_network_becomes_proven():
    memory = Memory()
    passes(memory, 5)
    memory.at(5000, "u5")
    memory.at(5300, "waits")
    assert memory.at(5310, "u5").passed
    assert memory.at(5311, "waits").proven


def test_known_and_proven_are_written_only_when_there_is_something_to_prolong():
    known = Triplet(first=0, until=35 * DAY, attempts=2, passed=True)
    proven = Network(passes=6, counted=0, until=35 * DAY)
    soon, later = 35 * DAY / REFRESH - 1, 35 * DAY / REFRESH + 1
    assert attempt(known, None, soon, TERMS)[1] is known
    assert attempt(known, None, later, TERMS)[1].until == later + 35 * DAY
    assert attempt(None, proven, soon, TERMS)[2] is proven
    assert attempt(None, proven, later, TERMS)[2].until == later + 35 * DAY

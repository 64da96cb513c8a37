"""Which steps does the MTA tell us of, and for which does it wait?"""

import Milter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.negotiation import Act, Step, terms

ALL_ACTS, ALL_STEPS, FAKED = 0x1FF, 0x1FFFFF, 0xFF080
QUIET = Step.QUIET_CONNECT | Step.QUIET_MAIL | Step.QUIET_RCPT | Step.QUIET_HEADER
NEVER = Step.NO_DATA | Step.NO_UNKNOWN | Step.NO_END_OF_HEADER


def test_the_numbers_are_libmilters():
    assert [int(act) for act in Act] == [
        Milter.ADDHDRS, Milter.CHGBODY, Milter.ADDRCPT, Milter.DELRCPT, Milter.CHGHDRS, Milter.QUARANTINE,
        Milter.CHGFROM, Milter.SETSYMLIST,
    ]  # fmt: skip
    assert [int(step) for step in Step] == [
        Milter.P_NOBODY, Milter.P_NOEOH, Milter.P_NOUNKNOWN, Milter.P_NODATA, Milter.P_NR_HDR, Milter.P_NR_CONN,
        Milter.P_NR_MAIL, Milter.P_NR_RCPT, Milter.P_HDR_LEADSPC,
    ]  # fmt: skip


def test_with_postfix_and_no_check_of_the_body_only_the_end_is_waited_for():
    agreed = terms(ALL_ACTS, ALL_STEPS, body=False)
    assert agreed.steps == QUIET | NEVER | Step.NO_BODY | Step.LEADING_SPACE


def test_a_check_of_the_body_brings_the_body_and_its_answers():
    agreed = terms(ALL_ACTS, ALL_STEPS, body=True)
    assert agreed.steps == QUIET | NEVER | Step.LEADING_SPACE


def test_who_is_refused_at_once_is_answered_at_once():
    assert not terms(ALL_ACTS, ALL_STEPS, body=True, quiet=False).steps & QUIET


@pytest.mark.parametrize(
    ("version", "acts", "steps"),
    [(2, 0x3F, 0x7F), (3, 0x3F, 0x17F), (4, 0x3F, 0x3FF), (6, 0x1FF, 0x1FFFFF), (7, 0xFFFFFFFF, 0xFFFFFFFF)],
)
def test_nothing_is_asked_for_that_was_not_offered(version, acts, steps):
    agreed = terms(acts, steps | FAKED, body=False)
    assert not int(agreed.acts) & ~acts
    assert not int(agreed.steps) & ~(steps | FAKED)
    assert agreed.steps & Step.NO_BODY
    assert agreed.acts & (Act.ADD_HEADER | Act.CHANGE_HEADER | Act.QUARANTINE)
    assert bool(agreed.acts & Act.CHANGE_SENDER) == (version >= 6)
    assert bool(agreed.steps & Step.LEADING_SPACE) == (version >= 6)


def test_an_offer_of_nothing_is_seen_through():
    agreed = terms(0x0F, 0x3F | FAKED, body=False)  # what libmilter makes of it
    assert not agreed.acts
    assert not int(agreed.steps) & ~FAKED


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.booleans(), st.booleans())
def test_any_offer_is_kept_to(acts, steps, body, quiet):
    agreed = terms(acts, steps, body=body, quiet=quiet)
    assert not int(agreed.acts) & ~acts
    assert not int(agreed.steps) & ~steps
    assert not (body and agreed.steps & Step.NO_BODY)

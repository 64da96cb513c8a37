"""Which row of which report a mail adds to, and which mail is no matter of a report."""

from __future__ import annotations

import pytest

from elemta.verdict import Disposition
from elemta_milter.reports.counting import Row, Terms, published, row
from elemta_milter.reports.return_path import ReturnPath, new_token
from harness.reported import RECORD, TERMS, entry


def counted(terms=TERMS, **changes):
    """The row, or None."""
    one = entry(**changes)
    return row(one, terms) if published(one, terms) is not None else None


def test_a_mail_that_passes():
    assert counted() == Row(
        source="192.0.2.7", disposition="pass", dkim=True, spf=True, header_from="sender.test",
        envelope_from="sender.test", signatures=(("sender.test", "s1", "pass"),), spf_domain="sender.test",
        spf_result="pass",
    )  # fmt: skip
    policy = published(entry(), TERMS)
    assert (policy.domain, policy.record, policy.method) == ("sender.test", RECORD, "treewalk")
    assert policy.read().rua == ("mailto:agg@sender.test",)


@pytest.mark.parametrize(
    "changes",
    [
        {"record": None},
        {"disposition": Disposition.DEFER},  # it comes again
        {"login": "anna"},
        {"client": ""},
        {"recipients": ("inbox@receiver.test",)},  # the report of somebody else
        {"recipients": ("dmarc@receiver.test", "INBOX@receiver.test")},
        {"sender": "", "recipients": ("dmarc+r0123456789abcdef@receiver.test",)},  # our report came back
        {"policy_domain": "receiver.test"},
        {"policy_domain": "lists.receiver.test"},
        {"policy_domain": "test"},
    ],
)  # fmt: skip
def test_what_is_not_counted(changes):
    assert counted(**changes) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"recipients": ("bob@receiver.test", "inbox@receiver.test")},
        {"recipients": ("bob@receiver.test", "dmarc+r0123456789abcdef@receiver.test")},
        {"sender": "dmarc@receiver.test"},
        {"sender": "dmarc+r0123456789abcdef@receiver.test"},
    ],
)
def test_addresses_of_reports_hide_no_forgery(changes):
    assert counted(**changes) is not None


def test_mail_of_named_classes_only():
    only = Terms("psl", "receiver.test", frozenset(), ReturnPath("dmarc@receiver.test"), frozenset({"inbound"}))
    assert counted(only, klass="inbound") is not None
    assert counted(only, klass="internal") is None
    assert counted(only, klass="inbound", login="anna") is not None


@pytest.mark.parametrize(
    ("changes", "disposition", "reasons"),
    [
        ({"policy": "none"}, "none", ()),
        ({"policy": "quarantine"}, "pass", ()),
        ({"disposition": Disposition.REJECT}, "pass", ()),  # for a virus: no matter of the domain's owner
        ({"result": "fail", "disposition": Disposition.REJECT, "behind": ("dmarc",)}, "reject", ()),
        ({"result": "fail", "disposition": Disposition.DISCARD, "behind": ("dmarc",)}, "reject", ()),
        ({"result": "fail", "disposition": Disposition.REJECT, "behind": ("clamav",)}, "reject", ()),
        ({"result": "fail", "policy": "none", "disposition": Disposition.REJECT, "behind": ("clamav",)}, "none", ()),
        ({"result": "fail", "policy": "none"}, "none", ()),
        ({"result": "fail"}, "none", (("local_policy", ""),)),
        ({"result": "fail", "arc": True}, "none", (("trusted_forwarder", "arc=pass"),)),
        ({"result": "fail", "arc": False}, "none", (("local_policy", ""),)),
        ({"result": "fail", "labels": ("x", "mailing_list")}, "none", (("mailing_list", ""),)),
        ({"result": "fail", "labels": ("trusted_forwarder",)}, "none", (("trusted_forwarder", ""),)),
        ({"result": "fail", "disposition": Disposition.QUARANTINE, "behind": ("dmarc",)}, "quarantine",
         (("local_policy", ""),)),
        ({"result": "fail", "policy": "none", "disposition": Disposition.REJECT, "behind": ("spf", "dmarc")}, "reject",
         (("local_policy", ""),)),
        ({"result": "fail", "testing": True, "asked": "quarantine", "disposition": Disposition.QUARANTINE,
          "behind": ("dmarc",)}, "quarantine", (("policy_test_mode", ""),)),
        ({"result": "fail", "policy": "quarantine", "testing": True, "asked": "none"}, "none",
         (("policy_test_mode", ""),)),
        ({"result": "temperror"}, "none", (("other", "the DNS gave no answer"),)),
        ({"result": "temperror", "disposition": Disposition.QUARANTINE, "rule": "trouble:dmarc"}, "quarantine",
         (("other", "the DNS gave no answer"),)),
        ({"result": "fail", "policy": "none", "disposition": Disposition.REJECT, "behind": ("dmarc",),
          "rule": "trouble:clamav"}, "none", ()),  # a rule that asks for DMARC would have let it pass
        ({"result": "temperror", "disposition": Disposition.QUARANTINE, "rule": "trouble:clamav"}, "none",
         (("other", "the DNS gave no answer"),)),
    ],
)  # fmt: skip
def test_what_was_done_and_why_not_what_was_asked(changes, disposition, reasons):
    found = counted(**{"dkim": "fail" not in str(changes), "spf": "fail" not in str(changes), **changes})
    assert (found.disposition, found.reasons) == (disposition, reasons)


def test_signatures_that_say_most_come_first_and_without_a_selector_none():
    signatures = (
        ("other.test", "o", "fail"), ("list.test", "l", "pass"), ("", "", "permerror"), ("b.sender.test", "b", "pass"),
        ("sender.test", "s", "pass"), ("sender.test", "s", "pass"), ("no-selector.test", "", "fail"),
    )  # fmt: skip
    found = counted(signatures=signatures)
    assert found.signatures == (
        ("sender.test", "s", "pass"), ("list.test", "l", "pass"), ("b.sender.test", "b", "pass"),
        ("other.test", "o", "fail"),
    )  # fmt: skip


def test_no_more_than_a_hundred_signatures():
    found = counted(signatures=[(f"d{n}.test", "s", "fail") for n in range(99)] + [("sender.test", "s", "pass")] * 2)
    assert len(found.signatures) == 100
    assert found.signatures[0] == ("sender.test", "s", "pass")


def test_names_of_signatures_fill_no_report():
    """A Postfix would not take the mail, and a domain's owner would hear nothing that day."""
    long = [(".".join([f"{n}{'d' * 40}"] * 4), "s" * 60, "permerror") for n in range(16)]
    found = counted(signatures=[*long, ("sender.test", "s", "pass")])
    assert found.signatures[0] == ("sender.test", "s", "pass")
    assert 1 < len(found.signatures) < 6


def test_names_of_strangers_are_made_fit_for_xml():
    found = counted(signatures=(("evil\x00\ud800\x1b.test", "<&>", "fail"),), sender="a@ev\x01il.TEST")
    assert found.signatures == (("evil?\\ud800?.test", "<&>", "fail"),)  # no surrogate, the six letters
    assert found.envelope_from == "ev?il.test"


def test_the_null_sender_and_the_recipients_domain():
    found = counted(sender="", spf_domain="mail.sender.test")
    assert (found.envelope_from, found.spf_domain, found.envelope_to) == ("", "mail.sender.test", "")
    told = Terms("treewalk", "receiver.test", frozenset(), ReturnPath("d@receiver.test"), envelope_to=True)
    assert counted(told, recipients=("a@here.test", "b@HERE.test")).envelope_to == "here.test"
    assert counted(told, recipients=("a@here.test", "b@there.test")).envelope_to == ""


def test_a_record_that_the_journal_has_cut_loses_its_last_word():
    long = RECORD + "".join(f",mailto:a{n}@sender.test" for n in range(100))
    policy = published(entry(record=long), TERMS)
    assert len(policy.record) < 1000
    assert policy == published(entry(record=long, values={"helo": "h" * 8000}), TERMS), (
        "one report, however much each row holds"
    )
    assert set(policy.read().ruf) < {f"mailto:a{n}@sender.test" for n in range(100)} | {"mailto:fail@sender.test"}


def test_return_paths():
    path, token = ReturnPath("dmarc@receiver.test"), new_token(b"x", "report", "a@b.test")
    assert path.address(token) == f"dmarc+{token}@receiver.test"
    assert path.token(path.address(token).upper()) == token
    assert path.token("dmarc@receiver.test") == ""
    for other in ("dmarc+x@receiver.test", "bob@receiver.test", f"dmarc+{token}@else.test", f"dmarc-{token}@x", ""):
        assert path.token(other) is None
    assert new_token(b"x", "report", "a@b.test") == token != new_token(b"x", "report", "b@b.test")
    assert token != new_token(b"y", "report", "a@b.test")

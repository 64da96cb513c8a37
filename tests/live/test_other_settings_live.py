"""Postfix set otherwise than by our templates: does the milter judge as it should, and is what the docs say so?"""

from __future__ import annotations

import json
import re

import pytest

from harness.echo import EchoMilter
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

TO = "r@example.org"
FORGED = "Authentication-Results: mx1.example.org; dmarc=pass\n"
OLD = {
    "milter_protocol": "2",  # no leading space, no step without an answer, macros of the MTA's choice
    **{f"milter_{step}_macros": "" for step in ("connect", "helo", "rcpt", "data", "end_of_header", "end_of_data")},
    "milter_mail_macros": "i",
}


def mail(**order):
    return f"From: a@b.test\nX-Old:   1\n{FORGED}X-Old:2\nX-Do: {json.dumps(order)}\n\nhello\n"


def test_several_postfix_share_a_milter_on_terms_of_their_own():
    actions = [["set_header", "X-Old", "new"]]
    with (
        EchoMilter(trusted=("192.0.2.9",)) as milter,
        PrivatePostfix(milter=milter.address) as one,
        PrivatePostfix(milter=milter.address, main=OLD, hostname="mx2.example.org") as other,
        one.session(xclient={"addr": "192.0.2.8"}) as first,
        other.session(xclient={"addr": "192.0.2.9"}) as second,
    ):
        for _ in range(3):
            for session in (first, second):
                assert session.send("a@b.test", TO, mail(actions=actions)).accepted
        seen = milter.seen(6)
        for postfix, address, forged in ((one, "192.0.2.8", 0), (other, "192.0.2.9", 1)):
            for each in postfix.wait_delivered(3):
                assert re.findall(rb"(?m)^X-Old:.*", each) == [b"X-Old: new"]
                assert each.count(FORGED.encode()) == forged
            assert "milter claimed" not in postfix.log()
            mine = [each for each in seen if each["client"]["address"] == address]
            assert [each["client"]["daemon"] for each in mine] == [f"mx{forged + 1}.example.org"] * 3
            assert all(["X-Old", "   1"] in each["headers"] for each in mine)


@pytest.mark.parametrize("down", [True, False], ids=["down", "hangs"])
@pytest.mark.parametrize(
    ("action", "code", "delivered", "held"),
    [("tempfail", 4, 0, 0), ("reject", 5, 0, 0), ("shutdown", 4, 0, 0), ("quarantine", 2, 0, 1), ("accept", 2, 1, 0)],
)
def test_without_an_answer_only_accept_and_quarantine_take_mail(action, code, delivered, held, down):
    main = {"milter_default_action": action, "milter_command_timeout": "1s", "milter_content_timeout": "1s"}
    with EchoMilter() as milter, PrivatePostfix(milter=milter.address, main=main) as postfix:
        if down:
            milter.process.kill()
            milter.process.wait()
        outcome = postfix.send("a@b.test", TO, mail(sleep=2, then="reject"))
        assert (outcome.end or outcome.mail).code // 100 == code
        for each in postfix.wait_delivered(delivered):
            assert FORGED.encode() in each
        assert (len(postfix.delivered()), len(postfix.held())) == (delivered, held)


def test_a_client_that_smtpd_milter_maps_exempts_is_not_judged():
    with EchoMilter() as milter, PrivatePostfix(milter=milter.address) as postfix:
        postfix.postconf(smtpd_milter_maps="inline:{192.0.2.9=DISABLE}")
        postfix.reload()
        judged, exempt = (
            postfix.send("a@b.test", TO, mail(then="reject"), xclient={"addr": f"192.0.2.{last}"}) for last in (8, 9)
        )
        assert judged.end.code == 550
        assert exempt.accepted
        assert FORGED.encode() in postfix.wait_delivered(1)[0]


@pytest.mark.parametrize(("checks", "judged"), [("header_checks", False), ("body_checks", False), ("access", True)])
def test_what_a_table_redirects_is_judged_only_where_that_is_an_access_table(checks, judged):
    table = "regexp:{{/^(X-To: elsewhere|hello)/ REDIRECT other@example.net}}"
    to = "check_recipient_access inline:{{r@example.org=REDIRECT other@example.net}} reject_unlisted_recipient permit"
    main = {"smtpd_recipient_restrictions": to} if checks == "access" else {checks: table}
    with EchoMilter() as milter, PrivatePostfix(milter=milter.address, main=main) as postfix:
        outcome = postfix.send("a@b.test", TO, f"X-To: elsewhere\n{mail(then='reject')}")
        if judged:
            assert outcome.end.code == 550
        else:
            assert outcome.accepted
            [delivered] = postfix.wait_delivered(1)
            assert b"Delivered-To: other@example.net" in delivered
            assert FORGED.encode() in delivered

"""What Rspamd is told of our own findings."""

import json

from hypothesis import given
from hypothesis import settings as relaxed
from hypothesis import strategies as st

from elemta.findings import AuthResult, Finding, Result
from elemta_milter.mailauth.dkim import SignatureResult
from elemta_milter.scanners.rspamd_symbols import CHECKS, settings


def finding(check, result, detail=None, **fields):
    return Finding(check, Result(result), fields=fields, authres=(AuthResult(check, result),), detail=detail)


def told(*findings):
    text = settings({each.check: each for each in findings})
    if not text:
        return [], {}
    found = json.loads(text)
    assert all(each["score"] == 1.0 for each in found["symbols"].values())
    return found["symbols_disabled"], {name: each["options"] for name, each in found["symbols"].items()}


def signature(result, domain="b.test", **more):
    values = {"result": Result(result), "reason": "", "place": 0, "domain": domain, "selector": "s1"}
    return SignatureResult(**values, **more)


def test_nothing_to_tell():
    assert settings({}) == ""
    assert settings({"iprev": finding("iprev", "pass")}) == ""


def test_a_check_that_has_no_answer_is_left_to_rspamd():
    trouble = Finding("spf", Result.TEMPERROR, authres=(AuthResult("spf", "temperror"),), trouble=True)
    not_made = Finding("dkim", Result.NONE, "not made for class internal")
    assert told(trouble, not_made) == ([], {})
    assert told(trouble, finding("arc", "none")) == (["ARC_CHECK"], {"ARC_NA": []})


def test_spf():
    results = {
        "pass": "ALLOW",
        "fail": "FAIL",
        "softfail": "SOFTFAIL",
        "neutral": "NEUTRAL",
        "none": "NA",
        "permerror": "PERMFAIL",
    }
    for result, word in results.items():
        assert told(finding("spf", result, mechanism="-all")) == (["SPF_CHECK"], {f"R_SPF_{word}": ["-all"]})
    assert told(finding("spf", "pass", mechanism="ip4:192.0.2.1"))[1] == {"R_SPF_ALLOW": ["+ip4:192.0.2.1"]}
    assert told(finding("spf", "none"))[1] == {"R_SPF_NA": []}


def test_dkim_tells_each_signature():
    signatures = (
        signature("pass"),
        signature("fail", "c.test"),
        signature("permerror", "d.test"),
        signature("pass", "e.test"),
    )
    assert told(finding("dkim", "pass", signatures)) == (
        ["DKIM_CHECK"],
        {
            "R_DKIM_ALLOW": ["b.test:s=s1", "e.test:s=s1"],
            "DKIM_TRACE": ["b.test:+", "c.test:-", "d.test:~", "e.test:+"],
            "R_DKIM_REJECT": ["c.test:s=s1"],
            "R_DKIM_PERMFAIL": ["d.test:s=s1"],
        },
    )
    assert told(finding("dkim", "none")) == (["DKIM_CHECK"], {"R_DKIM_NA": []})
    assert told(finding("dkim", "none", (signature("fail", testing=True),))) == (["DKIM_CHECK"], {"R_DKIM_NA": []})


def test_dmarc():
    assert told(finding("dmarc", "pass", policy="reject", domain="b.test"))[1] == {
        "DMARC_POLICY_ALLOW": ["b.test", "reject"]
    }
    for policy, word in {"reject": "REJECT", "quarantine": "QUARANTINE", "none": "SOFTFAIL"}.items():
        found = told(finding("dmarc", "fail", policy=policy, domain="b.test"))[1]
        assert found == {f"DMARC_POLICY_{word}": ["b.test", policy]}
    assert told(finding("dmarc", "none"))[1] == {"DMARC_NA": []}
    assert told(finding("dmarc", "permerror"))[1] == {"DMARC_BAD_POLICY": []}


def test_arc():
    assert told(finding("arc", "pass", sealer="l.test", length=2))[1] == {"ARC_ALLOW": ["l.test:i=2"]}
    assert told(finding("arc", "fail"))[1] == {"ARC_REJECT": []}
    assert told(finding("arc", "neutral"))[1] == {"ARC_INVALID": []}


@relaxed(deadline=None)
@given(st.text(), st.text(), st.sampled_from(Result))
def test_a_strangers_words_end_nothing(word, other, result):
    seen = (
        finding("spf", result, mechanism=word),
        finding("dkim", result, (signature(result, word),)),
        finding("dmarc", result, domain=word, policy=other),
        finding("arc", result, sealer=word, length=1),
    )
    disabled, symbols = told(*seen)
    assert disabled == list(CHECKS.values())
    assert all(set(option).isdisjoint('"\\${}[]\r\n') for options in symbols.values() for option in options)
